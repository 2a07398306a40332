# SPDX-License-Identifier: ZPL-2.1
"""What is noted about running jobs, beside their records: those are the locks of the runs."""

from __future__ import annotations

from typing import Any

from BTrees.IIBTree import IITreeSet

from lovely.remotetask.base.ownership import check_path


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
