# SPDX-License-Identifier: ZPL-2.1
"""Gates: that of a lock lets one job through at a time, that of a limited task so many.

A gate has *slots*.  The table of slots is only an index: a job has its slot as long as its record
says that it is processing, whatever the table says.  So the commit that ends a run frees the slot
without writing it, as does everything else that takes the job away from its worker.  Whoever
claims a job with a gate writes the gate's row in the table, so that of two only one commits.

A job that comes to be claimed and finds no slot waits *aside*, in a lot of its gate, where it
costs claims nothing.  Who sets it aside declares to have read the records of the jobs that have
the slots: it is still so when that is committed.  And whoever files a job that has had a slot
gives the free slot to the next one in the lot, whose *turn* it is: it is due at once, and goes
before all others at this gate.  So nobody waits at a gate where nobody is.

A job that is in quarantine where a slot becomes free is passed over.  If that leaves a slot free,
the gate is *idle*: who claims next gives the slot to the first one in the lot that can be used
there.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

from lovely.remotetask.base.ownership import check_sound, stay_current, wrote
from lovely.remotetask.interfaces import PROCESSING, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.level import TIMED_STATUSES
from lovely.remotetask.store.lots import drop_lot, put_in_lot, take_from_lot
from lovely.remotetask.store.names import FEW, NameTable
from lovely.remotetask.store.quarantine import MISSING, load, load_usable, why_unreadable
from lovely.remotetask.store.timeindex import TimeIndex

#: How the names of gates, and so of their lots, begin; see `JobQueue` for other lots.
LOCK = "\0lock "
LIMIT = "\0limit "

#: The ids of the jobs that are through, by slot.  A negative one is that of a job whose turn it
#: is, and which waits to be claimed.
Slots = list[list[int]]

#: The slots of gates, by name.
Turns = dict[str, Slots]


def is_aside(place: str) -> bool:
    """Say whether a place is the lot of a gate."""
    return place.startswith((LOCK, LIMIT))


def gates_of(job: Job, limits: Collection[str]) -> list[str]:
    """Return the names of the gates that a job has to pass."""
    gates = [] if job.lock is None else [LOCK + job.lock]
    return [*gates, LIMIT + job.task] if job.task in limits else gates


class Gates(Persistent):
    """The gates of a queue, and the jobs that wait aside.

    Stored: ``jobs`` `JobTree` of the service; ``slots`` `NameTable`: name of a gate -> the ids in
    its `Slots`, with 0 between slots; ``lots`` OOBTree of name -> `TimeIndex`, keyed by creation:
    the jobs that wait at a gate, by gate and priority; ``aside`` dict of status -> `TimeIndex`,
    keyed by creation: all of them; ``idle`` tuple of str: the names of gates with a free slot at
    which jobs wait that could not be used where it became free.
    """

    idle: tuple[str, ...] = ()

    def __init__(self, jobs: Any) -> None:
        self.jobs = jobs
        self.slots = NameTable(FEW)
        self.lots = OOBTree()
        self.aside: dict[str, Any] = {status: TimeIndex() for status in TIMED_STATUSES}

    def check_sound(self) -> None:
        """Check that the parts belong to their database.

        :raises StrayObject: one was disowned.
        """
        check_sound(self, self.jobs, self.slots, self.lots, *self.aside.values())

    # -- coming to a gate ----------------------------------------------------------------

    def enter(self, queue: Any, job: Job, in_turn: Turns | None = None) -> bool:
        """Let a job through its gates, or set it aside; say whether it is through.

        :param in_turn: the gates that jobs have passed which the same thread has claimed in this
            transaction, and runs one after the other: they share a slot, the last one.  It is
            kept up to date.
        """
        self.check_sound()
        turns: Turns = {} if in_turn is None else in_turn
        through = {}
        for gate in gates_of(job, queue.limits):
            is_shared = gate in turns
            slots = turns[gate] if is_shared else self._slots(gate, {job.id})
            if not is_shared and len(slots) >= _count(queue, gate):
                for slot in slots:
                    self._stay_current(slot[-1])
                self._set_aside(queue, job, gate)
                return False
            if self._first_before(queue, job, gate) is not None:
                self._set_aside(queue, job, gate)
                if not is_shared:
                    self._pass_on(queue, gate, {job.id})
                return False
            through[gate] = slots if is_shared else [*slots, []]
        for gate, slots in through.items():
            slots[-1].append(job.id)
            turns[gate] = slots
            self.slots.put(gate, tuple(_row_of(slots)))
        return True

    def blockers(self, queue: Any, job: Job) -> tuple[str, list[int]] | None:
        """Return the gate that keeps a job, and the ids of those that are before it; or None."""
        for gate in gates_of(job, queue.limits):
            slots = self._slots(gate, {job.id})
            if len(slots) >= _count(queue, gate):
                return gate, [abs(jobid) for slot in slots for jobid in slot]
            first = self._first_before(queue, job, gate)
            if first is not None:
                return gate, [first.id]
        return None

    def _first_before(self, queue: Any, job: Job, gate: str) -> Job | None:
        """Return the job at a gate that goes before this one, if it is not this one's turn."""
        if -job.id in self.slots.get(gate):
            return None
        first = next(self.waiting(queue, gate), None)
        return first if first is not None and _rank(first) < _rank(job) else None

    def _slots(self, gate: str, but: Collection[int] = ()) -> Slots:
        """Return the slots that jobs still have, but for some jobs."""
        slots: Slots = [[]]
        for number in self.slots.get(gate):
            if not number:
                slots.append([])
            elif abs(number) not in but and self._has_slot(number):
                slots[-1].append(number)
        return [slot for slot in slots if slot]

    def _has_slot(self, number: int) -> bool:
        jobid = abs(number)
        if number < 0:
            job = load_usable(self.jobs, jobid)
            return job is not None and isinstance(job.place, float) and not job.is_final
        job = self.jobs.get(jobid)
        if job is None:
            return False
        reason = why_unreadable(job, jobid)
        return job.status == PROCESSING if reason is None else reason != MISSING

    def _stay_current(self, number: int) -> None:
        job = self.jobs.get(abs(number))
        if job is not None:
            stay_current(job)

    # -- waiting aside ---------------------------------------------------------------------

    def _set_aside(self, queue: Any, job: Job, gate: str) -> None:
        others = [
            other for other in gates_of(job, queue.limits) if -job.id in self.slots.get(other)
        ]
        queue.remove(job)
        name = f"{gate}\0{job.priority}"
        put_in_lot(self, self.lots, name, job)
        self.aside[job.status].insert(job.created_at, job.id)
        job.place = name
        for other in others:
            self._pass_on(queue, other, {job.id})

    def take_out(self, job: Job, name: str) -> None:
        """Take a job out of the lot in which it waits."""
        self.check_sound()
        is_empty = take_from_lot(self, self.lots, name, job)
        self.aside[job.status].remove(job.created_at, job.id)
        if is_empty and not self.slots.get(name.rpartition("\0")[0]):
            drop_lot(self, self.lots, name)

    def stands_by(self, job: Job, name: str) -> bool:
        """Say whether a job that is to wait in a lot does."""
        entry = (job.created_at, job.id)
        is_aside = job.status in self.aside and entry in self.aside[job.status]
        return is_aside and name in self.lots and entry in self.lots[name]

    def waiting(self, queue: Any, gate: str) -> Iterator[Job]:
        """Yield the jobs that wait at a gate, in their order; they may be taken out under way."""
        for priority in queue.priorities:
            name = f"{gate}\0{priority}"
            lot = self.lots.get(name)
            for when, jobid in () if lot is None else lot:
                job = load_usable(self.jobs, jobid)
                if job is not None and job.place == name:
                    yield job
                elif job is not None or jobid not in self.jobs:
                    lot.remove(when, jobid)

    def waiting_behind(self, queue: Any, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs that wait at the gates of others."""
        names = (gate for job in jobs for gate in gates_of(job, queue.limits))
        for gate in dict.fromkeys(names):
            yield from self.waiting(queue, gate)

    def free_waiting(self, queue: Any) -> Iterator[Job]:
        """Yield the jobs that wait at gates of tasks that are limited no more."""
        gates = {lot.rpartition("\0")[0] for lot in self.lots.keys(LIMIT, LIMIT + "\U0010ffff")}
        for gate in gates:
            if gate.removeprefix(LIMIT) not in queue.limits:
                yield from self.waiting(queue, gate)

    def idle_waiting(self, queue: Any) -> Iterator[Job]:
        """Yield the jobs that wait at idle gates."""
        for gate in self.idle:
            yield from self.waiting(queue, gate)

    def _is_waited_at(self, queue: Any, gate: str) -> bool:
        """Say whether anybody waits at a gate, of use here or not."""
        lots = (self.lots.get(f"{gate}\0{priority}") for priority in queue.priorities)
        return any(lot is not None and lot.first() is not None for lot in lots)

    # -- leaving a gate ----------------------------------------------------------------------

    def leave(self, queue: Any, jobs: Iterable[Job]) -> None:
        """Give the slots of jobs that are processing no more, or wait elsewhere, to the next."""
        left: dict[str, set[int]] = {}
        for job in jobs:
            for gate in gates_of(job, queue.limits):
                left.setdefault(gate, set()).add(job.id)
            if job.place == job.created_at == job.due and job.status == QUEUED:
                self._set_back(queue, job)
        if left:
            self.check_sound()
        for gate, jobids in left.items():
            row = self.slots.get(gate)
            gone = {jobid for jobid in jobids if jobid in row or self._is_turn_lost(jobid, row)}
            if gone:
                self._pass_on(queue, gate, gone)

    def _is_turn_lost(self, jobid: int, row: Collection[int]) -> bool:
        """Say whether a job whose turn it was waits for something else by now."""
        if -jobid not in row:
            return False
        job = load_usable(self.jobs, jobid)
        is_due = job is not None and job.due is not None and job.due <= time.time()
        return not (is_due and self._has_slot(-jobid))

    def _set_back(self, queue: Any, job: Job) -> None:
        """Let a job that was given back wait in its order, if others wait where it has a slot."""
        for gate in gates_of(job, queue.limits):
            row = self.slots.get(gate)
            if job.id in row and (len(row) > 1 or self._is_waited_at(queue, gate)):
                self._set_aside(queue, job, gate)
                return

    def _pass_on(self, queue: Any, gate: str, but: Collection[int]) -> None:
        """Give free slots to the next jobs."""
        slots = self._slots(gate, but)
        free = max(0, _count(queue, gate) - len(slots))
        following = list(islice(self.waiting(queue, gate), free))
        for job in following:
            queue.remove(job)
            if job.due is None:  # not into the ready queue: a job enters that once
                job.due = min(job.created_at, time.time())
            queue.file_waiting(job)
            slots.append([-job.id])
        self._write(gate, slots, queue)
        self._note_idle(queue, gate, len(following) < free and self._is_waited_at(queue, gate))

    def _note_idle(self, queue: Any, gate: str, is_idle: bool) -> None:
        others = tuple(other for other in self.idle if other != gate)
        if is_idle:  # written even if it is known: somebody else may have come, whom it wakes
            self.idle = (*others, gate)
            wrote(queue, self)
        elif len(others) < len(self.idle):
            self.idle = others
            wrote(queue, self)

    def go_on_idle(self, queue: Any) -> None:
        """Give the slots of idle gates to jobs that can be used here."""
        if self.idle:
            self.check_sound()
        for gate in self.idle:
            is_free = len(self._slots(gate)) < _count(queue, gate)
            has_next = is_free and next(self.waiting(queue, gate), None) is not None
            if has_next or not self._is_waited_at(queue, gate):
                self._pass_on(queue, gate, ())

    def _write(self, gate: str, slots: Slots, queue: Any) -> None:
        row = tuple(_row_of(slots))
        if row and row != self.slots.get(gate):
            self.slots.put(gate, row)
        elif not row:
            self.slots.drop(gate)
            for priority in queue.priorities:
                name = f"{gate}\0{priority}"
                lot = self.lots.get(name)
                if lot is not None and lot.first() is None:
                    drop_lot(self, self.lots, name)

    def has_next(self, queue: Any, job: Job) -> bool:
        """Say whether there is somebody to get the slot of a job that is processing no more."""
        return any(
            self._is_waited_at(queue, gate)
            and len(self._slots(gate, {job.id})) < _count(queue, gate)
            for gate in gates_of(job, queue.limits)
        )

    # -- limits, and mending -----------------------------------------------------------------

    def count_anew(self, queue: Any, jobs: Iterable[Job | None]) -> None:
        """Give slots to jobs that run, where nobody is known to have one."""
        rows: dict[str, Slots] = {}
        for job in jobs:
            if job is not None and job.status == PROCESSING:
                for gate in gates_of(job, queue.limits):
                    rows.setdefault(gate, []).append([job.id])
        for gate, slots in rows.items():
            self.slots.put(gate, tuple(_row_of(slots)))

    def count_limit(self, queue: Any, task: str, running: Iterable[int]) -> None:
        """Begin to limit a task, some jobs of which run, or limit it otherwise.

        :param running: ids of the jobs of the task that run.
        """
        gate = LIMIT + task
        known = set(self.slots.get(gate))
        slots = [*self._slots(gate), *([jobid] for jobid in running if jobid not in known)]
        if slots:
            self.slots.put(gate, tuple(_row_of(slots)))
        self._pass_on(queue, gate, ())

    def is_stuck(self, queue: Any, job: Job) -> bool:
        """Say whether a job is the first of those that wait at a gate with a free slot.

        It is not as long as a job that has had a slot is to be filed, which gives it to the next,
        nor if who claims next does.
        """
        gate = _gate_of(job)
        if gate in self.idle or len(self._slots(gate)) >= _count(queue, gate):
            return False
        for number in self.slots.get(gate):
            holder = load(self.jobs, abs(number))
            if holder is not None and queue.has_to_be_filed(holder):
                return False
        return next(self.waiting(queue, gate), None) is job

    def go_on(self, queue: Any, job: Job) -> None:
        """Let the first of those that wait at a gate go on."""
        self._pass_on(queue, _gate_of(job), ())


def _gate_of(job: Job) -> str:
    """Return the gate at which a job waits."""
    return str(job.place).rpartition("\0")[0]


def _count(queue: Any, gate: str) -> int:
    """Return how many slots a gate has."""
    if gate.startswith(LOCK):
        return 1
    count: int = queue.limits.get(gate.removeprefix(LIMIT), 0)
    return count


def _rank(job: Job) -> tuple[int, float, int]:
    return -job.priority, job.created_at, job.id


def _row_of(slots: Slots) -> Iterator[int]:
    """Return slots as they stand in the table, with 0 between them."""
    return islice(chain.from_iterable((0, *slot) for slot in slots), 1, None)
