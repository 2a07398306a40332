# SPDX-License-Identifier: ZPL-2.1
"""Which jobs wait for which others to be completed.

Who is waited for is written down where the one who ends it will look:

- A job that was added in the same transaction has it in its own record, which costs nothing.
- The record of any other job is the lock of its runs.  So that nobody collides with a run, it is
  written down beside it, in `Links`.

Nothing must be written down for a job that is about to end unseen.  Who writes it down declares to
have read the job's record: if that has ended, it is they who meet the conflict.  A job's run and
what is told of its end are two commits, so the second one sees all that was written down before
the first.  Where both are one commit (a job that is cancelled while it waits, say), who ends the
job declares to have read what the other one writes; see `hold_off`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from persistent import Persistent
from ZODB.utils import z64

from lovely.remotetask.base.ownership import check_sound, stay_current, wrote
from lovely.remotetask.job import Job

#: Into so many parts the links are divided, by ids: those in a row of so many are in the same one.
LINK_LANES = 64
LINK_RUN = 16


class LinkLane(Persistent):
    """Some of the links.

    Stored: ``entries`` dict of id of a job -> tuple of ids of those that wait for it.  Two who
    change one lane collide: what one has read must not be changed by the other unseen.
    """

    def __init__(self) -> None:
        self.entries: dict[int, tuple[int, ...]] = {}

    def put(self, jobid: int, waiting: tuple[int, ...]) -> None:
        """Set who waits for a job."""
        self.entries[jobid] = waiting
        self._p_changed = True

    def take(self, jobid: int) -> None:
        """Forget who waits for a job."""
        del self.entries[jobid]
        self._p_changed = True


class Links(Persistent):
    """The links to jobs that were there before.  Stored: ``lanes`` tuple of `LinkLane`."""

    def __init__(self) -> None:
        self.lanes = tuple(LinkLane() for _ in range(LINK_LANES))

    def lane_of(self, jobid: int) -> LinkLane:
        """Return the lane of a job that is waited for."""
        lane = self.lanes[jobid // LINK_RUN % LINK_LANES]
        check_sound(self, lane)
        return lane


def link(queue: Any, before: Job, jobid: int) -> None:
    """Write down that a job waits for another one, which has not ended."""
    if is_new(before):
        if jobid not in before.followers:
            before.followers = (*before.followers, jobid)
        return
    if queue.links is None:
        queue.links = Links()
        wrote(queue, queue, queue.links)
    check_sound(queue, queue.links)
    lane = queue.links.lane_of(before.id)
    waiting = lane.entries.get(before.id, ())
    if jobid not in waiting:
        lane.put(before.id, (*waiting, jobid))
        wrote(queue, lane)
    stay_current(before)


def is_new(job: Job) -> bool:
    """Say whether a job was added in the current transaction, so that nobody else knows it."""
    if job._p_jar is not None:
        job._p_activate()
    return bool(job._p_serial == z64)


def is_linked(queue: Any, before: Job, jobid: int) -> bool:
    """Say whether it is written down that a job waits for another one."""
    return jobid in before.followers or jobid in _noted(queue, before.id)


def _noted(queue: Any, jobid: int) -> tuple[int, ...]:
    if queue.links is None:
        return ()
    check_sound(queue, queue.links)
    found: tuple[int, ...] = queue.links.lane_of(jobid).entries.get(jobid, ())
    return found


def take_links(queue: Any, jobid: int, job: Job | None) -> Iterable[int]:
    """Return the ids of those that wait for a job which has ended, and forget them.

    What its own record says stays there: who looks by it sees that nobody waits any more.

    :param job: None: it is gone.
    """
    noted = _noted(queue, jobid)
    if noted:
        lane = queue.links.lane_of(jobid)
        lane.take(jobid)
        wrote(queue, lane)
    return noted if job is None else dict.fromkeys((*job.followers, *noted))


def hold_off(queue: Any, job: Job) -> None:
    """Let nobody begin to wait for a job unseen that ends in the current transaction."""
    if queue._p_jar is None or is_new(job):
        return
    read = queue if queue.links is None else queue.links.lane_of(job.id)
    if read._p_jar is not None:  # else it is new, and so is what leads to it
        read._p_activate()
        stay_current(read)
