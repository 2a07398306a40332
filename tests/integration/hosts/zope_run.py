# SPDX-License-Identifier: ZPL-2.1
"""For the tests in a real Zope: a view that runs Python."""

from __future__ import annotations

import json

from Products.Five.browser import BrowserView


class RunView(BrowserView):
    """Runs Python, as the user of the request."""

    def __call__(self) -> str:
        """Return what the code has put into ``result``, as JSON."""
        names = {"app": self.context.getPhysicalRoot(), "request": self.request}
        exec(self.request.form["code"], names)
        self.request.response.setHeader("Content-Type", "application/json")
        return json.dumps(names.get("result"), default=str)
