# SPDX-License-Identifier: ZPL-2.1
"""What is noted about running jobs, beside their records: those are the locks of the runs."""

from __future__ import annotations

from typing import Any

from BTrees.IIBTree import IITreeSet

from lovely.remotetask.base.ownership import check_path
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.job import Job
from lovely.remotetask.store.quarantine import MISSING, why_unusable


def notes_of(service: Any) -> dict[str, Any]:
    """Return what holds the notes about running jobs, by name."""
    return {name: getattr(service, name) for name in ("requests", "progress", "edits", "lines")}


def take_note(notes: Any, jobid: int) -> Any:
    """Take the note about a job out, and return it (or True); None if there is none."""
    if jobid not in notes:
        return None
    check_path(notes, jobid)
    if isinstance(notes, IITreeSet):
        notes.remove(jobid)
        return True
    return notes.pop(jobid)


def why_edit_waits(service: Any, job: Job) -> str | None:
    """Return why what a job is to be after its run has to wait for who can write it, or None.

    A job that was cancelled, or has failed for good, is to be nothing any more.
    """
    edit = service.edits.get(job.id)
    if not isinstance(edit, Job) or job.id in service.requests:
        return None
    if job.is_final and job.status != COMPLETED:
        return None
    reason = why_unusable(edit, job.id)
    return None if reason in (None, MISSING) else f"what it is to be from now on: {reason}"
