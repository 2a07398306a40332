# SPDX-License-Identifier: ZPL-2.1
"""Word that is left for jobs that wait for others, and cannot be written where those have ended.

Who waits for a job is told by whoever files it, in that commit, and the link is gone then.  If the
one that waits is in quarantine there, word is left instead: who claims next, and can write the
record, tells it.  By then the job that has ended may be gone; so the word says what it came to.

An entry has the id of the job that was completed, or minus that of one that has ended otherwise, in
the place of a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lovely.remotetask.base.ownership import check_sound
from lovely.remotetask.job import Job
from lovely.remotetask.store.quarantine import load_usable
from lovely.remotetask.store.timeindex import TimeIndex


def leave_word(queue: Any, jobid: int, ended: int, is_completed: bool) -> None:
    """Leave word for a job that another one, for which it waits, has ended.

    :param ended: the id of that other one.
    :param is_completed: otherwise who claims the job looks what to make of it.
    """
    if queue.words is None:
        queue.words = TimeIndex()
    check_sound(queue, queue.words)
    queue.words.insert(float(ended if is_completed else -ended), jobid)


def take_words(queue: Any, jobs: Any) -> Iterator[tuple[int, bool, Job]]:
    """Take out what word there is for jobs that can be written here, or are gone.

    :returns: for each of the jobs the id of the one that has ended, whether that is completed, and
        the job that waits.
    """
    for number, jobid in list(_entries(queue)):
        job = load_usable(jobs, jobid)
        if job is not None or jobid not in jobs:
            queue.words.remove(number, jobid)
        if job is not None:
            yield int(abs(number)), number > 0, job


def free_by_word(queue: Any, jobs: Any) -> Iterator[Job]:
    """Yield the jobs that wait for nobody else when they are told what word there is."""
    for number, jobid in _entries(queue):
        job = load_usable(jobs, jobid)
        if job is not None and {int(abs(number))}.issuperset(job.awaits):
            yield job


def has_word(queue: Any, jobid: int) -> bool:
    """Say whether there is word for a job."""
    return any(jobid == other for _, other in _entries(queue))


def _entries(queue: Any) -> Iterator[tuple[float, int]]:
    if queue.words is not None:
        check_sound(queue, queue.words)
        yield from queue.words
