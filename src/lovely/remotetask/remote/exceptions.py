# SPDX-License-Identifier: ZPL-2.1
"""What jobs raise."""

from __future__ import annotations

from lovely.remotetask.errors import TaskError

__all__ = ["RemoteException"]


class RemoteException(TaskError):
    """The job ends as an error, and is not repeated."""
