# SPDX-License-Identifier: ZPL-2.1
"""What follows when a job has ended.  Nothing here commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import check_sound, wrote
from lovely.remotetask.engine import registry
from lovely.remotetask.engine.adding import add_job, new_ids
from lovely.remotetask.engine.telling import note_failed
from lovely.remotetask.errors import (
    InvalidArgument,
    JobFailed,
    is_kind,
    list_of,
    shown,
    whole_of,
)
from lovely.remotetask.interfaces import COMPLETED, ERROR, PROCESSING
from lovely.remotetask.job import CronJob, Failure, Job, job_log
from lovely.remotetask.store.group import is_whole, mark_missed
from lovely.remotetask.store.links import hold_off, link, take_links
from lovely.remotetask.store.lots import AWAITING
from lovely.remotetask.store.quarantine import load, why_unusable
from lovely.remotetask.store.words import leave_word, take_words

#: A job waits for no more others than this: its record is written when each of them has ended.
MAX_AFTER = 100

#: What names a job that was waited for in vain.
FIRST = "which was to be completed first"

#: A task and its input, as a job keeps them for one that follows it.
FollowUp = tuple[str, Any]


class Place(NamedTuple):
    """Where a new job stands among others: after some, and before those that are to follow."""

    predecessors: list[Job]
    on_success: FollowUp | None
    on_error: FollowUp | None

    def apply(self, service: Any, job: Job) -> None:
        """Write it down in a new job, which is put where it waits after that.

        Where a predecessor has ended in vain, the new job has too.
        """
        if self.on_success is not None:
            job.on_success = self.on_success
        if self.on_error is not None:
            job.on_error = self.on_error
        if not self.predecessors:
            return
        job.after = job.awaits = tuple(before.id for before in self.predecessors)
        why = why_never(service, job)
        if why is None:
            await_others(service, job)
        else:
            _fail(service, job, why, job.created_at)  # `add_job` tells of it


_ALONE = Place([], None, None)


def place_of(
    find: Callable[[int], Job],
    check: Callable[[Any, Any], FollowUp],
    after: Any,
    on_success: Any,
    on_error: Any,
) -> Place:
    """Return what `add` was given of that.

    :param find: called with an id; returns the job, or raises what `add` does.
    :param check: called with a task and an input; returns them as they are stored, or raises.
    :raises InvalidArgument: it makes no sense.
    """
    if type(after) is tuple and not after and on_success is None and on_error is None:
        return _ALONE  # as most jobs are
    predecessors = [find(jobid) for jobid in _ids_of(after)]
    for job in predecessors:
        if isinstance(job, CronJob) and job.delay is None:
            what = f"job {job.__name__} is a cron job, which is never completed"
            raise InvalidArgument(f"{what}: nothing can wait for that")
    return Place(predecessors, follow_up_of(on_success, check), follow_up_of(on_error, check))


def _ids_of(after: Any) -> list[int]:
    one = whole_of(after)
    given = [one] if one is not None else list_of(after, "after", InvalidArgument, MAX_AFTER)
    numbers = [whole_of(jobid) for jobid in given]
    if None in numbers:
        raise InvalidArgument(f"after must be ids of jobs, not {shown(after)}")
    return list(dict.fromkeys(number for number in numbers if number is not None))


def follow_up_of(given: Any, check: Callable[[Any, Any], FollowUp]) -> FollowUp | None:
    """Return the follow-up that is given as a task, or as a task and its input, as it is stored."""
    if given is None:
        return None
    if is_kind(given, tuple):
        if len(given) != 2:
            raise InvalidArgument(f"what follows is a task, or (task, input), not {shown(given)}")
        return check(*given)
    return check(given, None)


def follow_up(service: Any, job: Job) -> None:
    """Add the job that is to follow one that has just ended, in the commit that ends it."""
    wanted = {COMPLETED: job.on_success, ERROR: job.on_error}.get(job.status)
    if wanted is None:
        return
    task, input = wanted
    [jobid] = new_ids(service, 1)
    following = Job(jobid, task, input)
    following.cause = job.id
    following.carried = job.carried
    add_job(service, following)


# -- jobs that wait for others -----------------------------------------------------------------


def why_never(service: Any, job: Job) -> str | None:
    """Return why a job that waits for others will never run, or None."""
    for jobid in job.awaits:
        if jobid == job.id:  # its group ends, whatever its members come to
            if is_whole(job.members):
                continue
            return "a part of its group is missing"
        before = load(service.jobs, jobid)
        if before is None and jobid not in service.jobs:
            return _why_failed(jobid, None)
        if before is not None and before.is_final and before.status != COMPLETED:
            return _why_failed(jobid, before)
    return None


def _why_failed(jobid: int, job: Job | None) -> str:
    if job is None:
        return f"job {jobid}, {FIRST}, was removed"
    text = f"job {job.__name__}, task {job.task}, {FIRST}, is {job.status}"
    if job.error is None:
        return text
    if job.error.count(FIRST) > 1:  # of a long chain its ends are named
        return f"{text}: {job.error.partition(': ')[2]}"
    return f"{text}: {job.error}"


def await_others(service: Any, job: Job) -> None:
    """Let a job wait for those of its predecessors that are not completed yet."""
    awaits = []
    for jobid in job.awaits:
        if jobid == job.id:
            mark_missed(service, job.members, None, repair=True)
            if not job.members.has_ended:
                awaits.append(jobid)
            continue
        before = load(service.jobs, jobid)
        if before is None:  # it cannot be read here; who can will look again
            awaits.append(jobid)
        elif before.status != COMPLETED:
            awaits.append(jobid)
            link(service.queue, before, job.id)
    job.awaits = tuple(awaits)


def is_free(service: Any, job: Job, now: float) -> bool:
    """Look once more for whom a job waits that is about to be claimed; say whether for nobody.

    The last word, whatever has brought it out of its place: otherwise it waits again, or has ended.
    """
    service.queue.remove(job)
    why = why_never(service, job)
    if why is not None:
        _fail(service, job, why, now)
        note_failed(service, job, now)
        service.queue.file(job)
        tell_others(service, job.id, job, now, is_at_once=True)
        return False
    await_others(service, job)
    if job.awaits:
        job.wait(None)
        service.queue.file(job)
    return not job.awaits


def tell_others(
    service: Any, jobid: int, job: Job | None, now: float, is_at_once: bool = False
) -> None:
    """Tell those that wait for a job that it has ended: they may run, or have failed too.

    It belongs to the commit by which the job is filed.

    :param job: None: it is gone.
    :param is_at_once: it may have ended in the current transaction; see `hold_off`.
    """
    if job is not None:
        if is_at_once:
            hold_off(service.queue, job)
        if job.membership is not None:
            _count_in_group(service, job, now)
        if service.queue.links is None and not job.followers:
            return
    ended = [(jobid, job)]
    for number, before in ended:  # those that fail in turn are put behind them
        is_completed = before is not None and before.status == COMPLETED
        for follower in _waiting_for(service, number, before, is_completed):
            if is_completed:
                _tell_end(service, follower, number, now)
            else:
                service.queue.remove(follower)
                _fail(service, follower, _why_failed(number, before), now)
                note_failed(service, follower, now)
                hold_off(service.queue, follower)
                ended.append((follower.id, follower))
    service.queue.file_ended([fallen for _, fallen in ended[1:] if fallen is not None])


def _waiting_for(service: Any, jobid: int, job: Job | None, is_completed: bool) -> Iterator[Job]:
    """Yield those that wait for a job; word is left for such as cannot be written here."""
    for number in take_links(service.queue, jobid, job):
        follower = load(service.jobs, number)
        if follower is None:
            is_usable = False
            is_waiting = number in service.jobs  # nobody can say more here
        else:
            is_usable = why_unusable(follower, number) is None
            is_waiting = _is_waiting_for(follower, jobid)
        if is_waiting and not is_usable:
            leave_word(service.queue, number, jobid, is_completed)
        elif is_waiting and follower is not None:
            yield follower


def tell_late(service: Any, now: float) -> None:
    """Tell jobs what could not be told them where it happened, if they can be written here."""
    for ended, is_completed, job in take_words(service.queue, service.jobs):
        if is_completed and _is_waiting_for(job, ended):
            _tell_end(service, job, ended, now)
        elif not is_completed and job.place == AWAITING:
            service.queue.release(job, now)  # who claims it has the last word


def _is_waiting_for(job: Job, jobid: int) -> bool:
    # It may have been cancelled, or removed, and its id be that of another one by now.
    return jobid in job.awaits and not job.is_final and job.status != PROCESSING


def _tell_end(service: Any, job: Job, jobid: int, now: float) -> None:
    """Let a job wait for another one no more; if that was the last one, it may run."""
    wrote(service, job)
    job.awaits = tuple(other for other in job.awaits if other != jobid)
    if not job.awaits:
        service.queue.release(job, now)
        registry.wake_after_commit(service)


def _fail(service: Any, job: Job, why: str, now: float) -> None:
    job.fail(Failure(job.attempt, now, JobFailed.__name__, why, ""), now)
    follow_up(service, job)
    job_log.error("job %s: %s", job.__name__, why)


# -- groups ------------------------------------------------------------------------------------


def _count_in_group(service: Any, job: Job, now: float) -> None:
    """Write down that a member of a group has ended; after the last one, what ends it may run."""
    group, last = _group_of(service, job)
    if job.membership is None:
        return
    if group is None:
        lastid = job.membership[0]
        if lastid in service.jobs and load(service.jobs, lastid) is None:
            leave_word(service.queue, lastid, job.id, False)
        return
    try:
        group.mark(job.membership[1], job.status)
        has_ended = group.has_ended
    except POSKeyError:  # other jobs have to go on; a check finds it
        return
    if not has_ended or not _is_waiting_for(last, last.id):
        return
    if why_unusable(last, last.id):
        leave_word(service.queue, last.id, last.id, True)
    else:
        _tell_end(service, last, last.id, now)


def _group_of(service: Any, job: Job) -> tuple[Any, Any]:
    """Return the group of a member, and the job that ends it; None if that was removed."""
    last = None if job.membership is None else load(service.jobs, job.membership[0])
    if last is None or last.members is None:
        return None, None
    check_sound(last, last.members)
    return last.members, last


def reopen(service: Any, job: Job) -> None:
    """Let a group wait for a member that runs again, unless the group has ended."""
    group, _ = _group_of(service, job)
    if group is None or job.membership is None or not is_whole(group):
        return
    if not group.has_ended:
        group.mark(job.membership[1], None)
