# SPDX-License-Identifier: ZPL-2.1
"""Groups of jobs: ``add_group``."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager

from lovely.remotetask.engine.filing import retire_jobs
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    JobNotFound,
    JobUnusable,
    TaskError,
    TaskNotFound,
)
from lovely.remotetask.interfaces import CANCELLED, COMPLETED, ERROR, QUEUED
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.store.check import check_all
from lovely.remotetask.store.group import PAGE_SIZE, Group, Tally
from lovely.remotetask.task import SimpleTask
from lovely.remotetask.testing import ITaskStub, TaskServiceStub
from lovely.remotetask.web.facts import group_of


@pytest.fixture(autouse=True)
def reports(register: Any) -> list[Any]:
    """What the task *report* has seen of its group; *picky* fails with odd inputs."""
    reports: list[Any] = []

    def report(context: Any, input: Any) -> Any:
        group = context.group
        assert group.is_ended
        found = [(status, result) for _, status, result in group]
        reports.append((input, found))
        return (group.total, group.completed, group.errors, group.cancelled)

    def picky(input: Any) -> Any:
        if input % 2:
            raise TaskError("odd")
        return input * 10

    register("report", report, context=True)
    register("picky", picky)
    register("shared", lambda input: input, shared_commit=True)
    return reports


def test_a_group_has_a_priority_and_a_lock(workshop: Any) -> None:
    before = workshop.add("echo")
    options = {"priority": 5, "lock": "desk"}
    groupid, members = add_group(workshop, "picky", [0, 2, 4], ("report", "end"), **options)
    for jobid in members:
        assert workshop.get(jobid, "priority", "lock") == (5, "desk")
    assert workshop.get(groupid, "priority", "lock") == (5, None)
    claims = workshop.claim(10)  # of the members one at a time
    assert [claim.jobid for claim in claims] == [members[0], before]
    for claim in claims:
        workshop.run(claim)
    assert workshop.work() == [*members[1:], groupid]
    check(workshop)


@pytest.mark.parametrize("inputs", ["abc", b"abc", bytearray(b"abc")])
def test_one_text_is_no_collection_of_inputs(workshop: Any, inputs: Any) -> None:
    with workshop.service() as service:
        for add in (service.add_many, partial(service.add_group, then="report")):
            with pytest.raises(InvalidInput, match="a collection of inputs, not one text"):
                add("echo", inputs)
        assert not len(service.jobs)


def check(place: Any) -> None:
    with place.service() as service:
        assert check_all(service, time.time(), repair=False) == []


def add_group(workshop: Any, *arguments: Any, **options: Any) -> tuple[int, list[int]]:
    """Add a group; return its id, and those of its members."""
    with workshop.service() as service:
        groupid = service.add_group(*arguments, **options)
        return groupid, [member.jobid for member in service.group(groupid)]


def progress(workshop: Any, groupid: int) -> tuple[Any, ...]:
    with workshop.service() as service:
        group = service.group(groupid)
        return (group.completed, group.errors, group.cancelled, group.done, group.is_ended)


# -- the end ---------------------------------------------------------------------------------------


def test_what_follows_runs_once_when_all_have_ended(workshop: Any, reports: list[Any]) -> None:
    groupid, members = add_group(workshop, "echo", list("abc"), ("report", "of abc"))
    check(workshop)
    assert workshop.work() == [*members, groupid]
    assert reports == [("of abc", [(COMPLETED, letter) for letter in "abc"])]
    assert workshop.get(groupid, "output") == (3, 3, 0, 0)
    assert workshop.work() == []
    check(workshop)


def test_it_runs_whatever_its_members_come_to(workshop: Any, reports: list[Any]) -> None:
    groupid, members = add_group(workshop, "picky", range(5), "report")
    with workshop.service() as service:
        service.cancel(members[4])
    workshop.work()
    [(_, found)] = reports
    assert [status for status, _ in found] == [COMPLETED, ERROR, COMPLETED, ERROR, CANCELLED]
    assert [result for _, result in found] == [0, None, 20, None, None]
    assert workshop.get(groupid, "output") == (5, 2, 2, 1)


def test_it_waits_as_long_as_a_member_may_run_again(workshop: Any, register: Any) -> None:
    def stumble(input: Any) -> None:
        raise ValueError("not yet")

    register("stumble", stumble)
    groupid, [member] = add_group(
        workshop, "stumble", [1], "report", RetryPolicy(2, 60.0, jitter=0.0)
    )
    assert workshop.work() == [member]
    assert progress(workshop, groupid) == (0, 0, 0, 0, False)
    workshop.now += 60.0
    assert workshop.work() == [member, groupid]
    assert workshop.get(groupid, "output") == (1, 0, 1, 0)


def test_a_group_of_none_has_ended(workshop: Any, reports: list[Any]) -> None:
    groupid, members = add_group(workshop, "echo", [], "report")
    assert members == []
    assert progress(workshop, groupid) == (0, 0, 0, 0, True)
    assert workshop.work() == [groupid]
    assert reports == [(None, [])]
    check(workshop)


def test_it_tells_how_far_it_is(workshop: Any) -> None:
    groupid, _ = add_group(workshop, "echo", range(4), "report")
    assert progress(workshop, groupid) == (0, 0, 0, 0, False)
    workshop.step()
    workshop.step()
    workshop.claim(0)
    assert progress(workshop, groupid) == (2, 0, 0, 2, False)
    with workshop.service() as service:
        group = service.group(groupid)
        assert [member.status for member in group] == [COMPLETED] * 2 + [QUEUED] * 2
        assert (group.id, group.total, len(group)) == (groupid, 4, 4)
        assert repr(group) == f"<GroupState {groupid}: 2 of 4>"
        assert service.countJobs()[QUEUED] == 3


def test_members_know_their_group(workshop: Any, register: Any) -> None:
    seen = []
    register("look", lambda context, input: seen.append(context.group.id), context=True)
    groupid, members = add_group(workshop, "look", range(2), "look")
    workshop.work()
    assert seen == [groupid] * 3
    assert {workshop.get(jobid, "group") for jobid in (*members, groupid)} == {groupid}
    other = workshop.add("echo")
    assert workshop.get(other, "group") is None


def test_members_can_share_a_commit(workshop: Any, reports: list[Any]) -> None:
    _, members = add_group(workshop, "shared", range(3 * PAGE_SIZE), "report")
    for _ in range(3):
        assert workshop.run_together(workshop.reserve(PAGE_SIZE)) is not None
    workshop.work()
    [(_, found)] = reports
    assert [result for _, result in found] == list(range(3 * PAGE_SIZE))
    assert len(members) == 3 * PAGE_SIZE


def test_an_inline_call_runs_a_group(service: Any, reports: list[Any]) -> None:
    groupid = service.add_group("picky", range(3), "report")
    service.process()
    assert service.getResult(groupid) == (3, 2, 1, 0)


def test_a_stub_numbers_the_jobs_of_a_group() -> None:
    stub = TaskServiceStub()
    getGlobalSiteManager().registerUtility(SimpleTask(lambda input: input), ITaskStub, name="one")
    assert stub.add_group("one", list("ab"), ("one", "end")) == 1
    stub.process()
    assert {jobid: job.output for jobid, job in stub.jobs.items()} == {1: "end", 2: "a", 3: "b"}


def test_a_group_can_be_waited_for_and_followed(workshop: Any, reports: list[Any]) -> None:
    groupid, _ = add_group(workshop, "echo", range(2), "report")
    last = workshop.add("echo", after=groupid)
    first, inner = add_group(workshop, "echo", range(2), ("echo", "inner"))
    ran = workshop.work()
    assert ran.index(last) > ran.index(groupid)
    assert workshop.get(first, "output") == "inner"
    assert len(inner) == 2


def test_a_task_can_add_a_group(workshop: Any, register: Any, reports: list[Any]) -> None:
    def split(context: Any, input: Any) -> int:
        return context.service.add_group("echo", range(input), "report")

    register("split", split, context=True)
    workshop.add("split", 3)
    workshop.work()
    workshop.work()
    assert len(reports) == 1


# -- members that are gone or come back ---------------------------------------------------------


@pytest.mark.parametrize("is_last", [False, True])
def test_a_member_that_was_removed_by_hand_has_ended(workshop: Any, is_last: bool) -> None:
    groupid, members = add_group(workshop, "echo", range(3), "report")
    if is_last:
        workshop.step()
        workshop.step()
        workshop.claim(0)
    with workshop.service() as service:
        del service.jobs[members[2]]
    workshop.work()
    assert workshop.get(groupid, "status") == QUEUED
    assert workshop.engine.upkeep.look_after(workshop.session)
    workshop.work()
    assert workshop.get(groupid, "output") == (3, 2, 0, 1)
    assert not workshop.engine.upkeep.look_after(workshop.session)


def test_a_predecessor_that_was_removed_by_hand_is_found_soon(workshop: Any) -> None:
    first = workshop.add("echo")
    second = workshop.add("echo", after=first)
    assert not workshop.engine.upkeep.look_after(workshop.session)
    with workshop.service() as service:
        del service.jobs[first]
    workshop.engine.upkeep.lease_seconds(workshop.session)
    assert workshop.engine.upkeep.look_after(workshop.session)
    workshop.work()
    assert workshop.get(second, "status") == ERROR


def test_members_may_be_cleaned_before_the_group_has_ended(
    workshop: Any, reports: list[Any]
) -> None:
    groupid, members = add_group(workshop, "echo", range(3), "report")
    workshop.step()
    with workshop.service() as service:
        service.clean()
    workshop.step()
    workshop.claim(0)
    with workshop.service() as service:
        service.clean()
        assert list(service.jobs) == sorted([groupid, members[2]])
    check(workshop)
    workshop.work()
    assert reports == [(None, [(COMPLETED, None), (COMPLETED, None), (COMPLETED, 2)])]
    assert workshop.get(groupid, "output") == (3, 3, 0, 0)


def test_a_failed_member_that_runs_again_is_waited_for(workshop: Any, register: Any) -> None:
    groupid, members = add_group(workshop, "picky", [1, 2], "report")
    workshop.step()
    workshop.claim(0)
    assert progress(workshop, groupid)[1] == 1
    register("picky", lambda input: input)
    with workshop.service() as service:
        service.retry(members[0])
    assert progress(workshop, groupid) == (0, 0, 0, 0, False)
    assert workshop.work()[-1] == groupid
    assert workshop.get(groupid, "output") == (2, 2, 0, 0)


def test_one_that_runs_again_after_the_end_adds_nothing(
    workshop: Any, register: Any, reports: list[Any]
) -> None:
    groupid, members = add_group(workshop, "picky", [1, 2], "report")
    workshop.work()
    assert workshop.get(groupid, "output") == (2, 1, 1, 0)
    register("picky", lambda input: input)
    with workshop.service() as service:
        service.retry(members[0])
    assert progress(workshop, groupid)[-1] is True
    assert workshop.work() == [members[0]]
    assert progress(workshop, groupid) == (2, 0, 0, 2, True)
    assert len(reports) == 1
    check(workshop)


def test_what_ends_it_can_be_cancelled_and_repeated(workshop: Any, reports: list[Any]) -> None:
    groupid, members = add_group(workshop, "echo", [1, 2], "report")
    with workshop.service() as service:
        with pytest.raises(InvalidArgument):
            service.run_now(groupid)
        service.cancel(groupid)
    assert workshop.work() == members
    with workshop.service() as service:
        service.retry(groupid)
        assert service.job(groupid).awaits == ()
    assert workshop.work() == [groupid]
    again, members = add_group(workshop, "echo", [1, 2], "report")
    with workshop.service() as service:
        service.cancel(again)
        service.retry(again)
    check(workshop)
    assert workshop.work() == [*members, again]
    assert len(reports) == 2


def test_a_group_goes_with_the_job_that_ends_it(workshop: Any) -> None:
    groupid, members = add_group(workshop, "echo", [1, 2], "report")
    workshop.work()
    workshop.claim(0)
    with workshop.service() as service:
        service.remove_oldest(COMPLETED)
        with pytest.raises(JobNotFound):
            service.group(groupid)
    alone, members = add_group(workshop, "echo", [1, 2], "report")
    with workshop.service() as service:
        service.cancel(alone)
        service.clean([CANCELLED])
    assert workshop.work() == members
    assert workshop.get(members[0], "group") == alone
    check(workshop)


def test_dead_workers_do_not_keep_it_from_its_end(workshop: Any, reports: list[Any]) -> None:
    add_group(workshop, "shared", range(4), "report")
    for has_run in (True, False):
        dead = workshop.new_engine()
        claims = dead.claims.claim(workshop.session, 2, may_reserve=has_run)
        if has_run:
            assert dead.execution.run_together(workshop.session, claims)
        workshop.engine.upkeep.free(workshop.session, [dead.claims.identity.id])
    workshop.now += 60.0
    workshop.work()
    assert len(reports) == 1
    check(workshop)


# -- what is given -------------------------------------------------------------------------------


def test_what_cannot_be_a_group_is_refused(workshop: Any) -> None:
    with workshop.service() as service:
        for arguments, error in (
            (("unknown", [1], "report"), TaskNotFound),
            (("echo", [1], "unknown"), TaskNotFound),
            (("echo", [1], None), InvalidArgument),
            (("echo", [1, lambda: None], "report"), InvalidInput),
            (("echo", [1], ("report", lambda: None)), InvalidInput),
            (("echo", 5, "report"), InvalidInput),
            (("echo", [1], "report", "policy"), InvalidArgument),
        ):
            with pytest.raises(error):
                service.add_group(*arguments)
        assert not service.jobs
        jobid = service.add("echo")
        with pytest.raises(InvalidArgument, match="ends no group"):
            service.group(jobid)
        with pytest.raises(JobNotFound):
            service.group(12345)


# -- records -------------------------------------------------------------------------------------


def test_two_that_mark_the_last_two_members_end_it_once(workshop: Any) -> None:
    groupid, members = add_group(workshop, "echo", range(2), "report")
    claims = workshop.claim(2)
    for claim in claims:
        workshop.run(claim)
    with workshop.connected() as (first, root), workshop.connected() as (second, there):
        for service, jobid in ((root["tasks"], members[0]), (there["tasks"], members[1])):
            retire_jobs(service, [(jobid, service.jobs[jobid])], workshop.now)
        first.commit()
        with pytest.raises(ConflictError):
            second.commit()
    workshop.work()
    assert workshop.get(groupid, "output") == (2, 2, 0, 0)


def test_two_that_mark_members_of_one_page_do_not_collide(workshop: Any) -> None:
    groupid, members = add_group(workshop, "echo", range(3), "report")
    for claim in workshop.claim(3):
        workshop.run(claim)
    with workshop.connected() as (first, root), workshop.connected() as (second, there):
        for service, jobid in ((root["tasks"], members[0]), (there["tasks"], members[1])):
            service.group(groupid)
            service.jobs[groupid].members.mark(members.index(jobid), COMPLETED)
        first.commit()
        second.commit()
    assert progress(workshop, groupid)[0] == 2


def test_two_that_end_the_last_two_pages_collide(workshop: Any) -> None:
    groupid, _ = add_group(workshop, "echo", range(2 * PAGE_SIZE), "report")
    with workshop.service() as service:
        group = service.jobs[groupid].members
        for number in range(2 * PAGE_SIZE):
            if number not in (0, PAGE_SIZE):
                group.mark(number, COMPLETED)
    with workshop.connected() as (first, root), workshop.connected() as (second, there):
        for place, number in ((root, 0), (there, PAGE_SIZE)):
            group = place["tasks"].jobs[groupid].members
            group.mark(number, ERROR)
            assert not group.has_ended
        first.commit()
        with pytest.raises(ConflictError):
            second.commit()


@pytest.mark.parametrize(
    ("committed", "new", "merged"),
    [
        ((4, 1, 0, 0), (4, 2, 0, 0), (4, 3, 0, 0)),
        ((4, 1, 0, 0), (4, 0, 2, 4), (4, 1, 2, 4)),
        ((4, 1, 0, 0), (4, 0, 1, 0), None),  # both have marked the same
        ((4, 3, 0, 0), (4, 12, 0, 0), None),  # nothing would be left
        ((4, 3, 0, 0), (4, 8, 4, 0), None),
    ],
)
def test_marks_merge_unless_nothing_is_left(
    committed: tuple[int, ...], new: tuple[int, ...], merged: tuple[int, ...] | None
) -> None:
    tally = Tally(4)
    for one, other in ((committed, new), (new, committed)):
        if merged is None:
            with pytest.raises(ConflictError):
                tally._p_resolveConflict((4, 0, 0, 0), one, other)
        else:
            assert tally._p_resolveConflict((4, 0, 0, 0), one, other) == merged


def test_a_mark_that_is_taken_back_merges_with_nothing() -> None:
    tally = Tally(4)
    for one, other in (((4, 0, 0, 0), (4, 3, 0, 0)), ((4, 2, 1, 0), (4, 5, 0, 0))):
        with pytest.raises(ConflictError):
            tally._p_resolveConflict((4, 1, 0, 0), one, other)


def test_a_group_keeps_ids_in_runs() -> None:
    group = Group([5, 6, 7, 100, 3])
    assert group.runs == ((5, 3), (100, 1), (3, 1))
    assert list(group.ids()) == [5, 6, 7, 100, 3]
    group.mark(3, ERROR)
    assert [jobid for _, jobid in group.left()] == [5, 6, 7, 3]
    assert group.status_of(3) == ERROR
    for number in (0, 1, 2, 4):
        assert not group.has_ended
        group.mark(number, COMPLETED)
    assert group.has_ended
    assert (group.count(COMPLETED), group.count(ERROR), group.total) == (4, 1, 5)


@pytest.mark.parametrize("part", ["members", "ended", "page"])
def test_a_group_without_a_part_fails_and_keeps_no_others(workshop: Any, part: str) -> None:
    groupid, members = add_group(workshop, "echo", range(2), "report")
    other = workshop.add("echo")
    with workshop.service() as service:
        group = service.jobs[groupid].members
        lost = {"members": group, "ended": group.ended, "page": group.pages[0]}[part]._p_oid
    del workshop.db.storage.changes._data[lost]
    workshop.db.cacheMinimize()
    assert sorted(workshop.work()) == sorted([*members, other])
    assert workshop.get(groupid, "status") == QUEUED
    workshop.engine.upkeep.look_after(workshop.session)
    workshop.work()
    assert workshop.get(groupid, "status", "error") == (ERROR, "a part of its group is missing")
    with workshop.service() as service, pytest.raises(InvalidArgument, match="cannot run"):
        service.retry(groupid)
    with workshop.service() as service:
        with pytest.raises(JobUnusable, match="a part of its group is missing"):
            service.group(groupid)
        assert group_of(service, service.jobs[members[0]]) is None


@pytest.mark.parametrize("part", ["links", "lane"])
def test_links_that_are_lost_keep_nobody_waiting(workshop: Any, part: str) -> None:
    first = workshop.add("echo")
    second = workshop.add("echo", after=first)
    with workshop.service() as service:
        links = service.queue.links
        lost = (links if part == "links" else links.lane_of(first))._p_oid
    del workshop.db.storage.changes._data[lost]
    workshop.db.cacheMinimize()
    with workshop.service() as service:
        texts = [problem.text for problem in check_all(service, time.time(), repair=True)]
        assert "the list of links lacks 1 of its records" in texts
    assert workshop.work() == [first, second]


def test_the_results_of_members_are_copies(workshop: Any, register: Any) -> None:
    seen: list[Any] = []

    def empty(context: Any, input: Any) -> None:
        results = [result for _, _, result in context.group]
        seen.append([list(result) for result in results])
        for result in results:
            result.clear()
        if len(seen) < 3:
            raise ValueError("not yet")

    register("empty", empty, context=True, retry=RetryPolicy(3, 0.0, jitter=0.0))
    groupid, members = add_group(workshop, "echo", [[1], [2]], "empty")
    workshop.work()
    assert seen == [[[1], [2]]] * 3
    assert workshop.get(groupid, "status") == COMPLETED
    assert [workshop.get(jobid, "output") for jobid in members] == [[1], [2]]


def test_members_that_were_looked_at_do_not_stay_in_memory(workshop: Any) -> None:
    groupid, members = add_group(workshop, "echo", range(300), "report")
    with workshop.service() as service:
        service._p_jar.cacheMinimize()
        known = service.jobs[members[0]]
        assert known.status == QUEUED
        assert [status for _, status, _ in service.group(groupid)] == [QUEUED] * 300
        loaded = [jobid for jobid in members if service.jobs[jobid]._p_changed is not None]
        assert loaded == members[:1]


def test_filing_members_writes_no_record_that_all_share(file_workshop: Any) -> None:
    groupid, _ = add_group(file_workshop, "shared", range(4 * PAGE_SIZE), "report")
    with file_workshop.service() as service:
        shared = {service.jobs[groupid]._p_oid, service.jobs[groupid].members._p_oid}
    for _ in range(3):
        before = file_workshop.count_transactions()
        file_workshop.run_together(file_workshop.reserve(100))
        written = [{record.oid for record in txn} for txn in file_workshop.db.storage.iterator()][
            before:
        ]
        assert not shared & set().union(*written)
    assert progress(file_workshop, groupid)[0] == 200
