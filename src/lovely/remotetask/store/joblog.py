# SPDX-License-Identifier: ZPL-2.1
"""What the runs of a job have logged.

It is written with what becomes of a run: in an object of its own, which only who asks for it
loads.  Of a run that goes on it is noted beside, as the job's record is the lock of the run.
"""

from __future__ import annotations

from typing import Any, TypeVar

from BTrees.IOBTree import IOBTree
from persistent import Persistent

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.loglines import Line, LogLine, LogLines, last_lines
from lovely.remotetask.base.ownership import check_path, wrote
from lovely.remotetask.interfaces import PROCESSING
from lovely.remotetask.job import Job, job_log
from lovely.remotetask.store.notes import take_note
from lovely.remotetask.store.quarantine import is_known


class JobLog(Persistent):
    """The lines of one job.

    Stored: ``lines`` tuple of (time in seconds since the epoch, name of the level, attempt, text):
    the last ones.  ``left_out`` int: how many stood before them.
    """

    lines: tuple[Line, ...] = ()
    left_out: int = 0


#: What is said of a job whose log is no more.
LOST = "the record of its log is missing, or cannot be read"

Lines = TypeVar("Lines", bound=LogLines)


def find_log(job: Job) -> JobLog | None:
    """Return where the lines of a job stand; None if there are none, or they cannot be read."""
    log = job.log
    return log if isinstance(log, JobLog) and is_known(log) else None


def new_lines(service: Any, name: str, attempt: int, kind: type[Lines]) -> Lines | None:
    """Return what is to keep the lines of a run; None if none are kept.

    :param name: that of the job.
    """
    level = getattr(service, "log_level", None)  # there may be no log in another store
    return None if level is None else kind(level, name, attempt)


def add_lines(service: Any, job: Job, lines: LogLines | None) -> None:
    """Write the lines of a run that has ended down, with the job."""
    if lines is not None and lines.count:
        _extend(service, job, *lines.kept())


def _extend(service: Any, job: Job, lines: tuple[Line, ...], count: int) -> None:
    log = find_log(job)
    if log is None:
        if job.log is not None:  # the job has to go on
            job_log.error("job %s: %s; it has a new one", job.__name__, LOST)
        log = job.log = JobLog()
    before = log.lines
    log.lines = last_lines([*before, *lines])
    left_out = log.left_out + len(before) + count - len(log.lines)
    if left_out:
        log.left_out = left_out
    wrote(service, log)


def kept_lines(job: Job) -> tuple[tuple[Line, ...], int] | None:
    """Return what a job has logged, as it is stored: lines and how many were left out."""
    log = find_log(job)
    return None if log is None else (log.lines, log.left_out)


def drop_log(service: Any, job: Job) -> None:
    """Let a job be without the log that it has."""
    wrote(service, job)
    del job.log


def restore_lines(service: Any, job: Job, kept: tuple[tuple[Line, ...], int] | None) -> None:
    """Keep the log of a job, lines and how many were left out, although it was undone."""
    if kept is not None:
        log = job.log = JobLog()
        log.lines, log.left_out = kept
        wrote(service, job, log)


def note_lines(service: Any, job: Job, lines: tuple[Line, ...], count: int) -> None:
    """Note what a run has logged up to now."""
    if "lines" not in vars(service):  # it was stored without
        service.lines = IOBTree()
    check_path(service.lines, job.id)
    check_begun(job)
    # If the run has ended meanwhile, nobody would look for the note.
    job._p_jar.readCurrent(job)
    service.lines[job.id] = (lines, count)


def take_lines(service: Any, jobid: int, job: Job | None) -> None:
    """Take the note about a run that has ended; what was not written down is, with the job."""
    note = take_note(service.lines, jobid)
    if note is None or job is None:
        return
    lines, count = _unwritten(job, note)
    if lines:
        wrote(service, job)
        _extend(service, job, lines, count)


def log_of(service: Any, job: Job) -> list[LogLine]:
    """Return what a job has logged; of a running one, up to a moment ago.

    Where lines were left out, the first one says how many.
    """
    lines, left_out = kept_lines(job) or ((), 0)
    note = service.lines.get(job.id) if job.status == PROCESSING else None
    if note is not None:
        newer, count = _unwritten(job, note)
        left_out += len(lines) + count
        lines = last_lines([*lines, *newer])
        left_out -= len(lines)
    told = [LogLine(*line) for line in lines]
    if told and left_out:
        first = told[0]
        text = f"({left_out} earlier lines are left out)"
        told.insert(0, LogLine(first.time, "INFO", first.attempt, text))
    return told


def _unwritten(job: Job, note: tuple[tuple[Line, ...], int]) -> tuple[tuple[Line, ...], int]:
    """Return the lines of a note that are not written down with the job, and their number."""
    lines, count = note
    written, _ = kept_lines(job) or ((), 0)
    if not written:
        return lines, count
    newer = tuple(line for line in lines if line[0] > written[-1][0])
    return newer, count if len(newer) == len(lines) else len(newer)
