# SPDX-License-Identifier: ZPL-2.1
"""The records of jobs: what is stored of them, and the steps they can take.

The verbs (`Job.start`, `Job.finish`, ...) change one record and never commit.  A job's
record is its lock: it has no conflict resolution, so that of two transactions that
change it only one commits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import (
    Collection,
    Iterable,
)
from datetime import datetime, timezone
from typing import Any, NamedTuple

from persistent import Persistent
from zope.interface import implementer

from lovely.remotetask.base.guard import check_begun
from lovely.remotetask.base.ownership import check_path, removed, wrote
from lovely.remotetask.base.site import service_of
from lovely.remotetask.base.storable import is_stored_alike
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidSchedule,
    UnknownZone,
    moment_of,
    plain,
    seconds_of,
)
from lovely.remotetask.interfaces import (
    CANCELLED,
    COMPLETED,
    CRONJOB,
    DELAYED,
    ERROR,
    FINAL_STATUSES,
    PROCESSING,
    QUEUED,
    STARTLATER,
    ICronJob,
    IJob,
)
from lovely.remotetask.record import pack, unpack
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.schedule import Schedule, make_schedule

#: For what is told about single jobs: beside the package's logger, not below it.
job_log = logging.getLogger("remotetask.job")

#: Slots that were missed in a row are counted up to this number.
MAX_MISSED = 1000

#: What a schedule raises that does not stand in the database as `CronJob.update` left it.
SCHEDULE_ERRORS = (ValueError, TypeError, ArithmeticError)

#: What lies further ahead than this many seconds, although it tells of what has happened, was
#: set by a clock that has been put back since: the job's time is counted anew.
CLOCK_TOLERANCE_SECONDS = 86_400.0


class Failure(NamedTuple):
    """One attempt that failed.

    :ivar attempt: the number of the attempt.
    :ivar time: seconds since the epoch.
    :ivar type: the name of the exception's class.
    :ivar message: its message, shortened if need be.
    :ivar traceback: its traceback as text, shortened if need be.
    """

    attempt: int
    time: float
    type: str
    message: str
    traceback: str


class Progress(NamedTuple):
    """How far a running job is, in its own words; see `TaskContext.progress`."""

    done: float
    total: float | None
    message: str


def time_at(seconds: float | None) -> datetime | None:
    """Return the time at so many seconds since the epoch, in UTC; None is None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


@implementer(IJob)
class Job(Persistent):
    """One job.  See `IJob`.

    What is stored (an attribute that has its default is not), in the form of
    `lovely.remotetask.record`:

    ``id`` int; ``task`` str; ``input`` anything: set by ``add``.
    ``status`` str: one of `interfaces.STATUSES`; every verb sets it.
    ``output`` anything: set by `finish`.
    ``created_at``, ``started_at``, ``completed_at`` float seconds since the epoch.
    ``attempt`` int: how often the job was claimed; set by `start`, taken back by
    `give_back`.  ``errors`` int: attempts that ended in an error.  ``deaths`` int:
    attempts that ended with their process.  ``survived`` int: those of them that a cron job
    had behind it when it last completed a run, and any job when it was told to run again.
    ``conflicts`` int: repeated transactions.  ``collisions`` int: runs in a row that ended in a
    conflict, set by the engine when it puts the job back.
    ``owner`` str: id of the worker that has claimed the job, else None.
    ``due`` float seconds since the epoch: when a waiting job may run, None for one in the
    ready queue.  ``place`` int, float or str: where the queue has filed the waiting job; only
    `lovely.remotetask.store.queue` sets it.
    ``note`` str: for people; given to ``add``.
    ``after`` tuple of int: ids of the jobs that were to be completed first; given to ``add``.
    ``awaits`` tuple of int: those of them that were not yet, or its own id as long as its group
    has not ended; set with these, and by who tells that one has ended.  ``followers`` tuple of
    int: ids of jobs that were added with this one, and wait for it; set when these are added.
    ``membership`` tuple (id of the group, number in it): set by ``add_group``; ``members``
    `lovely.remotetask.store.group.Group`: the members of the group that has the id of this job,
    which runs when they have ended; set by ``add_group``.
    ``on_success``, ``on_error`` tuple (name of a task, input): the job that is added when this
    one is completed, or has failed for good; given to ``add``.
    ``cause`` int: id of the job that has brought this one about so; set by the engine.
    ``failures`` tuple of `Failure`; ``retry`` `RetryPolicy`: given to ``add``.
    ``carried`` dict of str -> plain data: what travels with the job, see `register_context`; set
    when it is added.
    ``log`` `JobLog`: what its runs have logged, if they have; only `lovely.remotetask.store.joblog`
    sets it.
    ``is_unwanted`` bool: the job has ended, and is to be removed instead of filed; set by
    ``clean``.  ``priority`` int; ``unique_key``, ``lock`` str;
    ``expires_at`` float seconds since the epoch: given to ``add``.
    """

    id: int = 0
    task: str = ""
    input: Any = None
    status: str = QUEUED
    output: Any = None
    started_at: float | None = None
    completed_at: float | None = None
    attempt: int = 0
    errors: int = 0
    deaths: int = 0
    survived: int = 0
    conflicts: int = 0
    collisions: int = 0
    owner: str | None = None
    due: float | None = None
    place: int | float | str | None = None
    failures: tuple[Failure, ...] = ()
    note: str | None = None
    log: Any = None
    carried: dict[str, Any] | None = None
    retry: RetryPolicy | None = None
    after: tuple[int, ...] = ()
    awaits: tuple[int, ...] = ()
    followers: tuple[int, ...] = ()
    membership: tuple[int, int] | None = None
    members: Any = None
    on_success: tuple[str, Any] | None = None
    on_error: tuple[str, Any] | None = None
    cause: int | None = None
    is_unwanted: bool = False
    priority: int = 0
    unique_key: str | None = None
    lock: str | None = None
    expires_at: float | None = None

    #: Of a job that fails on and on, this many of its last failures are kept.
    max_failures = 20

    def __init__(
        self, id: int, task: str, input: Any = None, retry: RetryPolicy | None = None
    ) -> None:
        self.id = id
        self.task = plain(task)
        if input is not None:
            self.input = input
        self.created_at = time.time()
        if retry is not None:
            self.retry = retry

    def __getstate__(self) -> tuple[Any, ...]:
        if not self.__dict__:  # a ghost that is copied
            self._p_activate()
        return pack(self.__dict__)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        attributes = unpack(state)
        self.__dict__.clear()
        self.__dict__.update(attributes)

    def written_values(self) -> Collection[Any]:
        """Return what is written with the job, all of which has to be known here."""
        return self.__dict__.values()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.task!r} {self.status}>"

    @property
    def __parent__(self) -> Any:
        """See `IJob`."""
        return service_of(self)

    @property
    def __name__(self) -> str:
        """See `IJob`."""
        return str(self.id)

    @property
    def is_cancel_requested(self) -> bool:
        """See `IJob`."""
        service = None if self.is_final else self.__parent__
        return service is not None and self.id in service.requests

    @property
    def group(self) -> int | None:
        """See `IJob`."""
        if self.members is not None:
            return self.id
        return None if self.membership is None else self.membership[0]

    @property
    def created(self) -> datetime | None:
        """See `IJob`."""
        return time_at(self.created_at)

    @property
    def started(self) -> datetime | None:
        """See `IJob`."""
        return time_at(self.started_at)

    @property
    def completed(self) -> datetime | None:
        """See `IJob`."""
        return time_at(self.completed_at)

    @property
    def scheduledFor(self) -> datetime | None:
        """See `IJob`."""
        return time_at(self.due)

    @property
    def expires(self) -> datetime | None:
        """See `IJob`."""
        return time_at(self.expires_at)

    @property
    def waits_for(self) -> str | None:
        """See `IJob`."""
        service = None if self.is_final or self.status == PROCESSING else self.__parent__
        return None if service is None else service.queue.reason_of(self)

    @property
    def error(self) -> str | None:
        """See `IJob`."""
        if self.status == COMPLETED or not self.failures:
            return None
        last = self.failures[-1]
        return last.message if last.attempt >= self.attempt else None

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to the job any more."""
        return self.status in FINAL_STATUSES

    @property
    def deaths_in_a_row(self) -> int:
        """How many processes have died with the job since it last completed a run."""
        return self.deaths - self.survived

    @property
    def is_ready(self) -> bool:
        """Whether the job waits in the ready queue, where it has not been run before."""
        return isinstance(self.place, int)

    @property
    def resting_status(self) -> str:
        """The status of the job while it waits for its next attempt."""
        return QUEUED

    def _timed_at(self) -> float:
        """Return when, by the clock of who did it, the time was set that the job waits for."""
        due = self.due or 0.0
        stamps = [self.created_at, self.started_at, *(f.time for f in self.failures[-1:])]
        return max((s for s in stamps if s is not None and s <= due), default=due)

    def is_ahead_of(self, now: float) -> bool:
        """Say whether a clock that is far ahead of `now` has set when the job is due."""
        return self.due is not None and self._timed_at() > now + CLOCK_TOLERANCE_SECONDS

    def count_anew(self, now: float) -> float:
        """Return when a job is due that waits from `now` on as long as it was to wait."""
        return now + (self.due or 0.0) - self._timed_at()

    def is_held_by(self, owner: str, attempt: int) -> bool:
        """Say whether this attempt of this worker still has the job: the fence."""
        return self.status == PROCESSING and self.owner == owner and self.attempt == attempt

    def _forget(self, *names: str) -> None:
        # An attribute that is back at its class's default costs no bytes.
        for name in names:
            if name in self.__dict__:
                delattr(self, name)

    def start(self, owner: str, now: float) -> None:
        """Claim the job: it is this worker's from now on."""
        self.status = PROCESSING
        self.owner = owner
        self.attempt += 1
        self.started_at = now
        self._forget("place", "due", "completed_at")

    def wait(self, due: float | None) -> None:
        """Let the job wait for an attempt; `due` None is the ready queue."""
        self.status = self.resting_status
        if due is None:
            self._forget("due")
        else:
            self.due = due
        self._forget("owner", "completed_at")

    def give_back(self, now: float) -> None:
        """Undo a claim that led to no attempt: the job is due at once.

        It goes by its age, so that jobs that are given back together keep their order.
        """
        self.attempt -= 1
        self.wait(min(self.created_at, now))

    def postpone(self, now: float, wait_seconds: float) -> None:
        """Put the job back for a while: nothing was kept of its run, which is no attempt."""
        self.attempt -= 1
        self.started_at = now  # tells by which clock the wait was set, see `is_ahead_of`
        self.wait(now + wait_seconds)

    def finish(self, output: Any, now: float) -> None:
        """Keep the result."""
        self.output = output
        self.status = COMPLETED
        self.completed_at = now
        self._forget("errors", "collisions", "owner")

    def renew(self, now: float) -> None:
        """Let the job, which has ended, run again at once, as often as a new one would."""
        self.wait(now)
        if self.deaths_in_a_row:
            self.survived = self.deaths
        self._forget("errors", "collisions", "expires_at")

    def fail(self, failure: Failure, now: float) -> None:
        """Keep a failure that is the end of the job."""
        self.note_failure(failure)
        self.status = ERROR
        self.completed_at = now
        self._forget("collisions", "owner")

    def note_failure(self, failure: Failure) -> None:
        """Keep a failure; of many, the last ones."""
        self.failures = (*self.failures, failure)[-self.max_failures :]

    def message_of(self, error: BaseException) -> str | None:
        """Return the message of a failure, where it is not what the exception says."""
        return None

    def take_over(self, edit: Any) -> bool:
        """Heed what was set while the job ran; say whether it waits for another time now."""
        return False

    def cancel(self, now: float) -> None:
        """Take the job back."""
        self.status = CANCELLED
        self.completed_at = now
        self._forget("owner", "due")


def keep_edit(edits: Any, job: Job, edit: Any) -> None:
    """Keep what `Job.take_over` heeds when the run of a job has ended.

    Not in the job's record: that would collide with the end of the run.  Nor may the run have
    ended by then, as nobody would look for the edit.
    """
    check_path(edits, job.id)
    check_begun(job)
    if job._p_jar is not None:
        job._p_jar.readCurrent(job)
        if isinstance(edit, Persistent):
            wrote(job, edit)
        before = edits.get(job.id) if isinstance(edits, Persistent) else None  # in another store
        if isinstance(before, Persistent):
            removed(job, before)
    edits[job.id] = edit


class Edit(NamedTuple):
    """A schedule or a delay, as `CronJob.update` has checked it."""

    minute: tuple[int, ...]
    hour: tuple[int, ...]
    dayOfMonth: tuple[int, ...]
    month: tuple[int, ...]
    dayOfWeek: tuple[int, ...]
    timezone: str | None
    cron: str | None
    delay: float | None


#: What else `CronJob.become` takes over.
_GIVEN = ("task", "input", "retry", "is_declared")


@implementer(ICronJob)
class CronJob(Job):
    """A job that waits for a time.  See `ICronJob`.

    What is stored beyond a `Job`:

    ``minute``, ``hour``, ``dayOfMonth``, ``month``, ``dayOfWeek`` tuples of int;
    ``delay`` float seconds or None; ``cron`` str or None; ``timezone`` str or None: set
    by `update`.
    ``edits`` IOBTree, that of the service: where `update` puts what it is given while the job
    runs; set by ``addCronJob``.
    ``slot`` float seconds since the epoch: up to here all slots are served or missed; set
    when the schedule is counted anew, and when the job starts and ends.
    ``missed`` int: slots that passed without a run of their own.
    ``key`` str: that of the schedule; ``is_declared`` bool: `task` has declared it; both set by
    ``ensure`` and ``ensure_declared``.
    """

    minute: tuple[int, ...] = ()
    hour: tuple[int, ...] = ()
    dayOfMonth: tuple[int, ...] = ()
    month: tuple[int, ...] = ()
    dayOfWeek: tuple[int, ...] = ()
    delay: float | None = None
    cron: str | None = None
    timezone: str | None = None
    edits: Any = None
    slot: float | None = None
    missed: int = 0
    key: str | None = None
    is_declared: bool = False

    def __init__(
        self,
        id: int,
        task: str,
        input: Any = None,
        minute: Iterable[int] = (),
        hour: Iterable[int] = (),
        dayOfMonth: Iterable[int] = (),
        month: Iterable[int] = (),
        dayOfWeek: Iterable[int] = (),
        delay: float | None = None,
        timezone: str | None = None,
        cron: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(id, task, input, retry)
        self.update(minute, hour, dayOfMonth, month, dayOfWeek, delay, timezone, cron)
        self.status = self.resting_status

    @property
    def resting_status(self) -> str:
        """See `Job`."""
        return CRONJOB if self.delay is None else DELAYED

    def update(
        self,
        minute: Iterable[int] = (),
        hour: Iterable[int] = (),
        dayOfMonth: Iterable[int] = (),
        month: Iterable[int] = (),
        dayOfWeek: Iterable[int] = (),
        delay: float | None = None,
        timezone: str | None = None,
        cron: str | None = None,
    ) -> None:
        """See `ICronJob`."""
        schedule = make_schedule(minute, hour, dayOfMonth, month, dayOfWeek, cron, timezone)
        if delay is not None:
            try:
                delay = seconds_of(delay, "delay")
            except InvalidArgument as error:
                raise InvalidSchedule(str(error)) from None
            if schedule != make_schedule():
                raise InvalidSchedule("a job has a delay or a schedule, not both")
        edit = Edit(
            schedule.minute,
            schedule.hour,
            schedule.dayOfMonth,
            schedule.month,
            schedule.dayOfWeek,
            schedule.timezone,
            schedule.cron,
            delay,
        )
        if not self.is_set_later:
            self._apply(edit)
            return
        change: Edit | CronJob = edit
        if isinstance(pending := self.pending, CronJob):
            given = pending.task, pending.input
            change = CronJob(self.id, *given, retry=pending.retry, **edit._asdict())
            change.is_declared = pending.is_declared
        keep_edit(self.edits, self, change)

    def _apply(self, edit: Any) -> None:
        for name in Edit._fields:
            setattr(self, name, getattr(edit, name))

    @property
    def pending(self) -> Edit | CronJob | None:
        """What it is to be after the run: a schedule, or a job like it; None: what it is.

        So it is until the run was filed too.
        """
        return None if self.edits is None or self.is_final else self.edits.get(self.id)

    @property
    def is_set_later(self) -> bool:
        """Whether what is set is kept apart: the job runs, or what was set meanwhile still is."""
        runs = self.status == PROCESSING and self.edits is not None
        return runs or self.pending is not None

    def is_like(self, other: CronJob) -> bool:
        """Say whether `become` would change nothing; input is compared as it is stored."""
        after = self.pending or self
        given = after if isinstance(after, CronJob) else self
        return (
            all(getattr(after, name) == getattr(other, name) for name in Edit._fields)
            and (given.task, given.retry, given.is_declared)
            == (other.task, other.retry, other.is_declared)
            and is_stored_alike(given.input, other.input)
        )

    def become(self, other: CronJob) -> None:
        """Be what another job is that was never stored: its task, its input, its schedule.

        While the job runs that is kept apart, and takes effect when the run has ended.
        """
        if self.is_set_later:
            keep_edit(self.edits, self, other)
        else:
            self.take_over(other)

    def take_over(self, edit: Edit | CronJob) -> bool:
        """Heed what was set while the job ran; say whether it waits for a time.

        A job with a delay that has run its once is over, but not one that has a schedule now.
        """
        goes_on = self.status == COMPLETED and edit.delay is None
        if self.is_final and not goes_on:
            return False
        self._forget("is_unwanted")
        self._apply(edit)
        if isinstance(edit, CronJob):
            for name in _GIVEN:
                setattr(self, name, getattr(edit, name))
        return True

    @property
    def schedule(self) -> Schedule:
        """The schedule that is stored in the fields."""
        return make_schedule(
            self.minute,
            self.hour,
            self.dayOfMonth,
            self.month,
            self.dayOfWeek,
            self.cron,
            self.timezone,
        )

    def timeOfNextCall(self, now: float | None = None) -> float:
        """See `ICronJob`."""
        now = time.time() if now is None else moment_of(now, "now")
        return self.schedule.next_time(now) if self.delay is None else now + self.delay

    def count_from(self, now: float) -> float:
        """Count the schedule anew from `now`; return when the job is due."""
        due = self.timeOfNextCall(now)
        self.slot = now
        return due

    def give_back(self, now: float) -> None:
        """See `Job`."""
        self.attempt -= 1
        self.wait(min(self.started_at or now, now))  # of both clocks the one that is not ahead

    def finish(self, output: Any, now: float) -> None:
        """See `Job`.  A schedule goes on: the job waits for its next time."""
        super().finish(output, now)
        if self.deaths_in_a_row:
            self.survived = self.deaths
        self.go_on(now)

    def fail(self, failure: Failure, now: float) -> None:
        """See `Job`.  A schedule goes on: a failed run is not its end."""
        super().fail(failure, now)
        self._forget("errors")
        self.go_on(now)

    def renew(self, now: float) -> None:
        """See `Job`.  Slots that have passed meanwhile are not missed."""
        self.count_from(now)
        super().renew(now)

    def rest(self) -> None:
        """Let the schedule rest until somebody lets it `wait` again."""
        self.status = STARTLATER
        self._forget("due")

    def go_on(self, now: float) -> None:
        """Wait for the first slot that is later than `now` and than the last slot."""
        if self.delay is not None:
            return
        slot = max(now, self.slot or now)
        try:
            passed = self.schedule.count_between(self.slot or slot, slot, MAX_MISSED)
            due = self.schedule.next_time(slot)
        except UnknownZone:
            self.wait(None)  # the next slot is counted where the zone is known
            return
        except SCHEDULE_ERRORS as error:
            # Broken in the database: the end of this job, and of no other.
            super().fail(Failure(self.attempt, now, type(error).__name__, str(error), ""), now)
            return
        if passed:
            self.missed += passed
        self.slot = slot
        self.wait(due)

    def is_ahead_of(self, now: float) -> bool:
        """See `Job`.  Where it waits for its next slot, the last one tells."""
        if self._has_slot_ahead_of(now):
            return True
        return super().is_ahead_of(now) and self.due != self.timeOfNextCall(self.slot or now)

    def count_anew(self, now: float) -> float:
        """See `Job`."""
        return self.count_from(now) if self._has_slot_ahead_of(now) else super().count_anew(now)

    def _has_slot_ahead_of(self, now: float) -> bool:
        return self.slot is not None and self.slot > now + CLOCK_TOLERANCE_SECONDS

    def start(self, owner: str, now: float) -> None:
        """See `Job`.  The run serves the last of the slots up to `now`; the rest are missed."""
        if self.delay is None:
            slot = now if self.slot is None or self._has_slot_ahead_of(now) else self.slot
            passed = self.schedule.count_between(slot, now, MAX_MISSED + 1)
            if passed > 1:
                self.missed += passed - 1
            self.slot = max(now, slot)
        super().start(owner, now)
