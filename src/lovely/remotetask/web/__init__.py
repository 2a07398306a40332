# SPDX-License-Identifier: ZPL-2.1
"""The web service and the management pages: one WSGI application, made by `make_app`.

From top to bottom; each uses only those below it.

``server``       a web server in a thread: waitress
``app``          the application: requests, their transactions, and what goes wrong
``pages``        for people
``xmlrpc``       for programs, by XML-RPC
``api``          for programs, by JSON
``detail``       what an application tells of its jobs
``routing``      which view answers a request, and what it is told
``authorizers``  what lets in: tokens, passwords, and what hosts know
``credentials``  tokens and passwords, and their files
``security``     who may do what, and what no request may do
``overview``     how services are, and who works
``batches``      what can be told to many jobs at once
``schedules``    what can be asked of schedules, and told to them
``operations``   the same of jobs: shared with the command, without WebOb
``facts``        services, jobs and values as plain data
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lovely.remotetask.web.app import make_app

__all__ = ["make_app"]


def __getattr__(name: str) -> Any:
    # Not at once: the command uses `operations`, and may have no WebOb.
    if name == "make_app":
        from lovely.remotetask.web.app import make_app

        return make_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
