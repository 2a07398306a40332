# SPDX-License-Identifier: ZPL-2.1
"""Jobs and a processor to test with."""

from __future__ import annotations

import logging
import threading
from typing import Any

import transaction
from zope.component import getGlobalSiteManager
from zope.interface import Interface, implementer

from lovely.remotetask.errors import describe
from lovely.remotetask.remote.exceptions import RemoteException
from lovely.remotetask.remote.interfaces import IJob, IJobErrorMessage
from lovely.remotetask.remote.job import Job
from lovely.remotetask.remote.processor import RemoteProcessor

log = logging.getLogger("lovely.remotetask.remote")

#: How often a `TransactionAbortJob` has run.
testCounter = 0


class EchoJob(Job):
    """Returns its input."""

    def __call__(self, remoteProcessor: Any) -> Any:
        """See `IJob`."""
        return self.input


class ErrorJob(Job):
    """Raises what is not repeated."""

    def __call__(self, remoteProcessor: Any) -> Any:
        """See `IJob`."""
        raise RemoteException("An error occurred.")


class FatalErrorJob(Job):
    """Raises what is repeated."""

    def __call__(self, remoteProcessor: Any) -> Any:
        """See `IJob`."""
        raise ValueError("An error occurred.")


class SleepJob(Job):
    """Sleeps, and logs a number: its input is (seconds, number)."""

    def __call__(self, remoteProcessor: Any) -> Any:
        """See `IJob`."""
        seconds, number = self.input
        threading.Event().wait(seconds)
        log.info("Job: %s", number)


class TransactionAbortJob(Job):
    """Aborts the transaction it runs in, which no job may."""

    def __call__(self, remoteProcessor: Any) -> Any:
        """See `IJob`."""
        global testCounter
        testCounter += 1
        log.info("Job: %s", self.input)
        transaction.abort()


class TestProcessor(RemoteProcessor):
    """A processor whose workers do not wait."""

    __test__ = False  # pytest takes it for tests

    jobWorkerArguments = {"waitTime": 0.0}  # noqa: RUF012 (never changed in place)


@implementer(IJobErrorMessage)
class JobErrorMessage:
    """The message of a failure: the text of the exception."""

    def __init__(self, job: Any, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        return describe(self._error)


def setUpJobErrorMessageAdapter() -> None:
    """Register `JobErrorMessage` in the global registry."""
    getGlobalSiteManager().registerAdapter(
        JobErrorMessage, (IJob, Interface), IJobErrorMessage, event=False
    )
