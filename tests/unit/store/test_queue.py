# SPDX-License-Identifier: ZPL-2.1
"""The ready queue and the indexes by time, seen from one connection."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import transaction
import ZODB

from lovely.remotetask.interfaces import COMPLETED, CRONJOB, DELAYED, QUEUED, STARTLATER
from lovely.remotetask.job import CronJob, Job
from lovely.remotetask.store import memory as memory_module
from lovely.remotetask.store import ready as line_module
from lovely.remotetask.store.level import START_SIZE
from lovely.remotetask.store.queue import JobQueue, TimeIndex
from lovely.remotetask.store.ready import (
    BULK_SIZE,
    HEAD_SEGMENTS,
    SEGMENT_SIZE,
    Memory,
    ReadyQueue,
    is_closed,
)
from lovely.remotetask.store.tree import JobTree

# -- the index by time -------------------------------------------------------------------------


@pytest.fixture
def index() -> TimeIndex:
    index = TimeIndex()
    for when, jobid in ((30.0, 1), (10.0, 2), (20.0, 3), (10.0, 4)):
        index.insert(when, jobid)
    return index


def due(index: TimeIndex, until: float, after: float = -math.inf) -> list[tuple[float, int]]:
    return list(index.between(after, until))


def test_an_index_is_in_the_order_of_time_and_id(index: TimeIndex) -> None:
    assert list(index) == [(10.0, 2), (10.0, 4), (20.0, 3), (30.0, 1)]
    assert index.first() == (10.0, 2)
    assert TimeIndex().first() is None


def test_an_index_gives_what_is_due(index: TimeIndex) -> None:
    assert due(index, 9.9) == []
    assert due(index, 10.0) == [(10.0, 2), (10.0, 4)]
    assert due(index, 25.0) == [(10.0, 2), (10.0, 4), (20.0, 3)]
    assert due(index, 25.0, after=10.0) == [(20.0, 3)]


def test_the_largest_job_id_is_due_with_the_others() -> None:
    index = TimeIndex()
    index.insert(10.0, 2**31 - 1)
    assert due(index, 10.0) == [(10.0, 2**31 - 1)]


def test_times_go_beyond_2038() -> None:
    index = TimeIndex()
    index.insert(2.0**33, 1)
    assert due(index, 2.0**33) == [(2.0**33, 1)]


def test_an_index_knows_its_size(index: TimeIndex) -> None:
    assert len(index) == 4
    index.insert(30.0, 1)
    assert len(index) == 4
    index.remove(30.0, 1)
    index.remove(30.0, 1)
    index.remove(99.0, 1)
    assert len(index) == 3
    assert (30.0, 1) not in index
    assert (20.0, 3) in index


def test_an_empty_index_is_an_index_all_the_same() -> None:
    assert TimeIndex()
    assert ReadyQueue()
    assert JobQueue()


# -- the ready queue ----------------------------------------------------------------------------


class Line:
    """A ready queue and the jobs that stand in it."""

    def __init__(self) -> None:
        self.line = ReadyQueue()
        self.jobs = JobTree()
        self.memory = Memory()

    def put(self, *jobids: int) -> None:
        for jobid in jobids:
            job = self.jobs[jobid] = Job(jobid, "echo")
            (job.place,) = self.line.put([jobid])

    def leave(self, *jobids: int) -> None:
        for jobid in jobids:
            self.line.note_left(self.jobs[jobid].place)
            self.jobs[jobid].place = None

    def pull(self) -> list[int]:
        return [job.id for job in self.line.pull(self.jobs, memory=self.memory)]

    def all_segments(self) -> list[tuple[int, Any]]:
        """All segments, closed ones too, by key."""
        return sorted(entry for lane in self.line.lanes for entry in lane)

    def segments(self) -> list[int]:
        """The lengths of the segments that are not closed."""
        return [len(segment) for _, segment in self.all_segments() if not is_closed(segment)]


@pytest.fixture
def line() -> Line:
    return Line()


def test_a_line_keeps_the_order(line: Line) -> None:
    line.put(*range(200, 0, -1))
    assert line.pull() == list(range(200, 0, -1))
    assert len(line.line) == 200


def test_a_line_is_made_of_small_segments(line: Line) -> None:
    line.put(*range(2 * SEGMENT_SIZE + 1))
    assert line.segments() == [SEGMENT_SIZE, SEGMENT_SIZE, 1]


def test_keys_of_segments_grow(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.put(*range(SEGMENT_SIZE))
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that was put back
    line.put(*range(100, 200))
    keys = [job.place for job in line.jobs.values()]
    assert keys == sorted(keys)
    assert line.pull() == [*range(SEGMENT_SIZE), *range(100, 200)]


def test_jobs_that_do_not_stand_by_their_entries_are_passed_over(line: Line) -> None:
    line.put(*range(10))
    line.leave(2, 5)
    del line.jobs[7]
    line.jobs[8].place = 1
    assert line.pull() == [0, 1, 3, 4, 6, 9]
    assert len(line.line) == 8


def test_a_line_knows_who_stands_in_it(line: Line) -> None:
    line.put(1, 2)
    key = line.jobs[1].place
    assert (key, 1) in line.line
    assert (key, 3) not in line.line
    assert (1, 1) not in line.line
    assert list(line.line) == [(key, 1), (key, 2)]


def test_a_segment_is_closed_when_all_its_jobs_are_gone_and_it_is_not_the_last(
    line: Line,
) -> None:
    line.put(*range(3 * SEGMENT_SIZE))
    for jobid in list(line.jobs):
        del line.jobs[jobid]
    assert line.pull() == []
    assert line.segments() == [SEGMENT_SIZE]


def test_a_segment_with_somebody_in_it_stays(line: Line) -> None:
    line.put(*range(2 * SEGMENT_SIZE))
    for jobid in range(1, 2 * SEGMENT_SIZE):
        del line.jobs[jobid]
    assert line.pull() == [0]
    assert line.segments() == [SEGMENT_SIZE, SEGMENT_SIZE]


def test_a_segment_where_somebody_waits_again_after_an_undo_stays(line: Line) -> None:
    line.put(*range(SEGMENT_SIZE))
    again = line.jobs[3]
    line.jobs.clear()
    assert line.pull() == []
    line.jobs[3] = again
    line.put(*range(100, 200))
    line.pull()  # what was seen before may be passed over once
    assert line.pull() == [3, *range(100, 200)]
    assert line.segments()[0] == SEGMENT_SIZE


def test_a_closed_segment_holds_nothing_and_is_never_looked_at_again(line: Line) -> None:
    line.put(*range(2 * SEGMENT_SIZE))
    _, first = line.all_segments()[0]
    for jobid in range(SEGMENT_SIZE):
        del line.jobs[jobid]
    line.pull()
    assert is_closed(first)
    assert len(first) == 0
    assert line.pull() == list(range(SEGMENT_SIZE, 2 * SEGMENT_SIZE))


def test_nothing_is_put_into_a_closed_segment_that_is_the_last_one_again(line: Line) -> None:
    line.put(*range(SEGMENT_SIZE))
    before = dict(line.line.lanes[0].generations.entries)
    generation = before[max(before)]
    (segment,) = generation.entries.values()
    line.jobs.clear()
    line.put(100)
    line.pull()
    assert is_closed(segment)
    generation.take(max(generation.entries))  # as an undo does with what has opened it
    del line.jobs[100]
    line.put(200)
    assert len(segment) == 0
    assert line.pull() == [200]


def test_nobody_stands_in_a_closed_segment(line: Line) -> None:
    line.put(1)
    key, segment = line.all_segments()[0]
    assert (key, 1) in line.line
    segment.closed = True
    assert (key, 1) not in line.line


def test_a_generation_is_taken_out_when_it_is_used_up_and_not_the_last(line: Line) -> None:
    size = line_module.GENERATION_SIZE * SEGMENT_SIZE
    line.put(*range(2 * size + 1))
    generations = line.line.lanes[0].generations.entries
    firsts = sorted(generations)
    assert [len(generations[first].entries) for first in firsts] == [64, 64, 1]
    for jobid in range(size, 2 * size):  # the second one first
        del line.jobs[jobid]
    line.pull()  # closes no more than some
    line.pull()
    assert sorted(generations) == [firsts[0], firsts[2]]
    for jobid in (*range(size), 2 * size):
        del line.jobs[jobid]
    line.pull()
    line.pull()
    assert sorted(generations) == firsts[2:]
    line.put(1)
    assert line.pull() == [1]


def test_many_jobs_get_segments_of_their_own(line: Line) -> None:
    line.put(1)
    keys = line.line.put(list(range(10, 10 + 2 * BULK_SIZE)))
    assert keys == sorted(keys)
    assert line.segments() == [1, BULK_SIZE, BULK_SIZE]
    line.put(2)
    assert line.segments() == [1, BULK_SIZE, BULK_SIZE, 1]
    assert line.line.put([3, 4]) == [line.jobs[2].place] * 2


def test_lanes_share_nothing_and_keep_the_order_of_time(line: Line) -> None:
    lane = 2**27
    for number in range(100):
        line.put((number % 3) * lane + number)
        line.jobs[max(line.jobs)].created_at = 5.0
    for number, job in enumerate(line.jobs.values()):
        job.created_at = float(number)
    assert line.pull() == list(line.jobs)
    assert len(line.segments()) == 6
    found = [job.id for job in line.line.pull(line.jobs, 0.3, line.memory)]
    assert sorted(found) == sorted(line.jobs)
    assert [lane.added.value for lane in line.line.lanes] == [34, 33, 33, *[0] * 13]
    line.leave(lane + 1)
    assert [lane.left.value for lane in line.line.lanes] == [0, 1, *[0] * 14]


def test_no_more_than_so_many_segments_are_closed_at_once(
    line: Line,
) -> None:
    line.memory = Memory(max_closed=3)
    line.put(*range(10 * SEGMENT_SIZE))
    for jobid in range(8 * SEGMENT_SIZE):
        del line.jobs[jobid]
    lengths = []
    while not line.pull():
        assert line.memory.has_more
        lengths.append(len(line.segments()))
    assert lengths == [7, 4]
    assert not line.memory.has_more
    assert len(line.segments()) == 2
    assert line.pull() == list(range(8 * SEGMENT_SIZE, 10 * SEGMENT_SIZE))


def test_a_line_that_was_pulled_to_its_end_has_no_more(line: Line) -> None:
    assert not line.memory.has_more
    line.put(*range(100))
    line.pull()
    assert not line.memory.has_more


def test_workers_beside_others_begin_among_the_first_segments_only(line: Line) -> None:
    line.put(*range((HEAD_SEGMENTS + 2) * SEGMENT_SIZE))

    def pull(start: float) -> list[int]:
        return [job.id for job in line.line.pull(line.jobs, start, line.memory)]

    third = 2 * SEGMENT_SIZE
    head = HEAD_SEGMENTS * SEGMENT_SIZE
    behind = range(head, head + 2 * SEGMENT_SIZE)
    assert pull(2 / HEAD_SEGMENTS) == [*range(third, head), *range(third), *behind]
    assert pull(0.0)[0] == third  # it stays with its choice
    line.memory.choose_anew()
    assert pull(0.0) == list(range(head + 2 * SEGMENT_SIZE))
    line.memory.choose_anew()
    assert pull(0.999)[0] == head - 1


def test_workers_beside_others_begin_at_a_place_of_their_own_in_the_last_segment(
    line: Line,
) -> None:
    line.put(*range(SEGMENT_SIZE))
    quarter = SEGMENT_SIZE // 4
    for number in range(4):
        line.memory.choose_anew()
        found = [job.id for job in line.line.pull(line.jobs, number / 4, line.memory)]
        assert found[0] == number * quarter
        assert sorted(found) == list(range(SEGMENT_SIZE))


def test_due_jobs_are_begun_at_different_places_too(service: Any) -> None:
    for _ in range(8):
        service.addCronJob("echo", delay=0)
    now = time.time() + 1
    in_order = [job.id for job in service.queue.pull(service.jobs, now)]
    turned = [job.id for job in service.queue.pull(service.jobs, now, 0.5)]
    assert turned == [*in_order[4:], *in_order[:4]]


# -- what is remembered ------------------------------------------------------------------------


@pytest.fixture
def stored_line(db: ZODB.DB) -> Any:
    """A line of 100 jobs in a database, in the thread's own transaction."""
    line = Line()
    root = db.open().root()
    root["line"] = line.line
    line.put(*range(100))
    root["jobs"] = list(line.jobs.values())
    transaction.commit()
    return line


class Counting:
    """Jobs that count how often one is looked for."""

    def __init__(self, jobs: JobTree) -> None:
        self._jobs = jobs
        self.looks = 0

    def get_many(self, jobids: list[int]) -> list[Job | None]:
        self.looks += len(jobids)
        return self._jobs.get_many(jobids)


def test_entries_that_were_seen_stale_are_not_looked_at_again(stored_line: Any) -> None:
    stored_line.leave(*range(60))
    transaction.commit()
    jobs = stored_line.jobs = Counting(stored_line.jobs)
    assert stored_line.pull() == list(range(60, 100))
    assert jobs.looks == 100
    jobs.looks = 0
    assert stored_line.pull() == list(range(60, 100))
    assert jobs.looks == 40


def test_what_an_abort_brings_back_is_seen_again(stored_line: Any) -> None:
    stored_line.leave(*range(60))
    assert stored_line.pull() == list(range(60, 100))
    transaction.abort()
    assert stored_line.pull() == list(range(100))


def test_the_memory_ends_after_a_while(stored_line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(memory_module.time, "monotonic", lambda: now[0])
    stored_line.memory = Memory()
    stored_line.leave(*range(SEGMENT_SIZE - 4))
    transaction.commit()
    jobs = stored_line.jobs = Counting(stored_line.jobs)
    stored_line.pull()
    now[0] += memory_module.MEMORY_SECONDS
    stored_line.memory.renew()
    jobs.looks = 0
    stored_line.pull()
    assert jobs.looks == 100


def test_segments_that_are_gone_are_forgotten(stored_line: Any) -> None:
    for start in range(1000, 5000, 100):
        stored_line.put(*range(start, start + 100))
        for jobid in list(stored_line.jobs):
            if jobid < start:
                del stored_line.jobs[jobid]
        stored_line.pull()
    assert len(stored_line.memory.stale) <= line_module.GENERATION_SIZE + HEAD_SEGMENTS


# -- all places --------------------------------------------------------------------------------


class Shop:
    """A job queue and its jobs."""

    def __init__(self) -> None:
        self.queue = JobQueue()
        self.jobs = JobTree()

    def add(self, jobid: int, due: float | None = None) -> Job:
        job = self.jobs[jobid] = Job(jobid, "echo")
        job.due = due
        self.queue.file(job)
        return job

    def pull(self, now: float, **options: Any) -> list[int]:
        return [job.id for job in self.queue.pull(self.jobs, now, **options)]

    def has_waiting(self, now: float) -> bool:
        return self.queue.has_waiting(self.jobs, now, lambda name: True)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_what_is_due_goes_before_the_line(shop: Shop) -> None:
    shop.add(1)
    shop.add(2, due=20.0)
    shop.add(3, due=10.0)
    shop.add(4, due=30.0)
    assert shop.pull(25.0, limit=4) == [3, 2, 1]
    assert len(shop.queue) == 4


def test_what_is_due_takes_no_more_than_its_half_beside_the_line(shop: Shop) -> None:
    for jobid in range(1, 7):
        shop.add(jobid)
    for jobid in range(11, 17):
        shop.add(jobid, due=float(jobid))
    assert shop.pull(25.0, limit=4)[:4] == [11, 12, 1, 2]
    assert shop.pull(25.0, limit=5)[:5] == [11, 12, 13, 1, 2]
    assert sorted(shop.pull(25.0, limit=4)) == [*range(1, 7), *range(11, 17)]


def test_who_takes_one_job_at_a_time_takes_from_due_jobs_and_line_by_turns(shop: Shop) -> None:
    shop.add(1)
    shop.add(2, due=20.0)
    assert [shop.pull(25.0, turn=turn)[0] for turn in range(6)] == [2, 1, 2, 1, 2, 1]


def test_no_kind_of_waiting_jobs_keeps_another_from_its_turn(shop: Shop) -> None:
    for jobid in range(1, 301):
        shop.add(jobid, due=1.0)
    cron = CronJob(1000, "echo", minute=(5,))
    cron.due = 24.0
    delayed = CronJob(1001, "echo", delay=5)
    delayed.due = 23.0
    parked = shop.add(1002)
    shop.queue.park(parked)
    for job in (cron, delayed):
        shop.jobs[job.id] = job
        shop.queue.file(job)
    assert {1000, 1001, 1002} < set(shop.pull(1e10, limit=8)[:4])
    assert len({shop.pull(1e10, turn=turn)[0] for turn in range(0, 8, 2)}) == 4


def test_due_jobs_that_are_left_hide_none_behind_them(shop: Shop) -> None:
    for jobid in range(1, 2 * START_SIZE + 6):
        shop.add(jobid, due=float(jobid))
    assert shop.pull(1e10) == list(range(1, 2 * START_SIZE + 6))


def test_an_integral_time_is_no_segment(shop: Shop) -> None:
    job = shop.add(1, due=20)
    assert type(job.place) is float
    assert shop.pull(20) == [1]
    shop.queue.remove(job)
    assert len(shop.queue) == 0


def test_a_job_can_be_taken_out_of_each_place(shop: Shop) -> None:
    in_line, timed, parked = shop.add(1), shop.add(2, due=20.0), shop.add(3)
    shop.queue.park(parked)
    for job in (in_line, timed, parked):
        assert shop.queue.stands_by(job)
        shop.queue.remove(job)
        assert job.place is None
        assert not shop.queue.stands_by(job)
    assert len(shop.queue) == 0
    assert shop.pull(100.0) == []
    assert len(shop.queue.parked) == 0


def test_parked_jobs_come_back_when_their_task_is_known(shop: Shop) -> None:
    for jobid in (1, 2):
        shop.queue.park(shop.add(jobid))
    later = time.time() + 1
    assert shop.pull(later, knows=lambda name: False) == []
    assert sorted(shop.pull(later, knows=lambda name: name == "echo")) == [1, 2]
    assert len(shop.queue) == 2


def test_entries_that_no_job_stands_by_are_dropped_when_they_are_due(shop: Shop) -> None:
    shop.add(1, due=10.0)
    shop.add(2, due=10.0)
    del shop.jobs[1]
    assert shop.pull(5.0) == []
    assert len(shop.queue.indexes[QUEUED]) == 2
    assert shop.pull(10.0) == [2]
    assert len(shop.queue.indexes[QUEUED]) == 1


def test_the_next_time_is_that_of_the_first_waiting_job(shop: Shop) -> None:
    assert shop.queue.next_due() is None
    shop.add(1)
    assert shop.queue.next_due() is None
    shop.add(2, due=50.0)
    shop.add(3, due=40.0)
    assert shop.queue.next_due() == 40.0
    assert shop.queue.next_due(after=39.0) == 40.0
    assert shop.queue.next_due(after=40.0) == 50.0
    assert shop.queue.next_due(after=50.0) is None
    cron = CronJob(4, "echo", delay=10)
    cron.due = 30.0
    shop.queue.file(cron)
    assert shop.queue.next_due() == 30.0


def test_jobs_that_wait_are_seen_without_a_change(shop: Shop) -> None:
    assert not shop.has_waiting(100.0)
    job = shop.add(1, due=50.0)
    assert not shop.has_waiting(49.0)
    assert shop.has_waiting(50.0)
    del shop.jobs[1]
    assert not shop.has_waiting(50.0)
    assert len(shop.queue.indexes[QUEUED]) == 1
    assert job.place == 50.0
    shop.add(2)
    assert shop.has_waiting(0.0)


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: CronJob(1, "echo", delay=5), DELAYED),
        (lambda: CronJob(1, "echo", minute=(5,)), CRONJOB),
        (lambda: Job(1, "echo"), STARTLATER),
        (lambda: Job(1, "echo"), COMPLETED),
    ],
    ids=[DELAYED, CRONJOB, STARTLATER, COMPLETED],
)
def test_jobs_are_filed_by_status(shop: Shop, make: Any, status: str) -> None:
    job = make()
    job.status = status
    shop.queue.file(job)
    assert [name for name, index in shop.queue.indexes.items() if len(index)] == [status]
    shop.queue.remove(job)
    assert not any(len(index) for index in shop.queue.indexes.values())


def test_a_job_that_ends_is_filed_by_its_end(shop: Shop) -> None:
    job = shop.add(1)
    shop.queue.remove(job)
    job.start("me", 10.0)
    job.finish(None, 20.0)
    assert not shop.queue.is_filed(job)
    shop.queue.file(job)
    assert shop.queue.is_filed(job)
    assert list(shop.queue.indexes[COMPLETED]) == [(20.0, 1)]
