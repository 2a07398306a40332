# SPDX-License-Identifier: ZPL-2.1
"""Warns when a request has added jobs, and its transaction was thrown away without an error.

So does plone.protect with what is written by a GET, or without its authenticator: ``add`` has
returned an id, and the job never comes to be.
"""

from __future__ import annotations

import logging
from typing import Any

import transaction

log = logging.getLogger("lovely.remotetask")

#: In the environment of a request that fails, and says so by itself.
_FAILS = "lovely.remotetask.fails"


class _Added:
    """How many calls of a transaction have added jobs, and for which request."""

    def __init__(self, request: Any) -> None:
        self.count = 0
        self._request = request

    def aborted(self) -> None:
        """Warn, unless the request fails anyway."""
        request = self._request
        if request.environ.get(_FAILS):
            return
        log.warning(
            "%s %s has added jobs (calls: %s), but its transaction was aborted: they do not exist."
            "  In Plone, plone.protect does so when a GET writes, or the authenticator is missing",
            request.get("REQUEST_METHOD"),
            request.get("URL"),
            self.count,
        )


def warn_if_dropped(request: Any) -> None:
    """Note that a request adds jobs in the current transaction."""
    if request.get("PUBLISHED") is None:  # a job's own request, whose attempts may well be aborted
        return
    txn = transaction.get()
    try:
        added = txn.data(_Added)
    except KeyError:
        added = _Added(request)
        txn.set_data(_Added, added)
        txn.addAfterAbortHook(added.aborted)
    added.count += 1


def request_fails(event: Any) -> None:
    """Note that a request fails, or is to be tried again: for `IPubBeforeAbort`."""
    event.request.environ[_FAILS] = True
