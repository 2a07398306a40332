# SPDX-License-Identifier: ZPL-2.1
"""Warns when a request has added jobs, and its transaction was thrown away without an error.

So does plone.protect with what is written by a GET without its authenticator: ``add`` has returned
an id, and the job never comes to be.
"""

from __future__ import annotations

import logging
from typing import Any

import transaction

log = logging.getLogger("lovely.remotetask")

#: In the environment of a request: the calls of transactions that were aborted.
_DROPPED = "lovely.remotetask.dropped"


class _Added:
    """How many calls of a transaction have added jobs, and for which request."""

    def __init__(self, request: Any) -> None:
        self.count = 0
        self._request = request

    def aborted(self) -> None:
        """Note that the jobs are gone."""
        environ = self._request.environ
        environ[_DROPPED] = environ.get(_DROPPED, 0) + self.count


def note_added(request: Any) -> None:
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


def request_ended(event: Any) -> None:
    """Warn if a request has ended well, and its jobs are gone: for `IPubSuccess`."""
    request = event.request
    if count := request.environ.get(_DROPPED):
        log.warning(
            "%s %s has added jobs (calls: %s), but its transaction was aborted: they do not exist."
            "  In Plone, plone.protect does so when a GET writes to the database",
            request.get("REQUEST_METHOD"),
            request.get("URL"),
            count,
        )
