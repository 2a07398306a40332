# SPDX-License-Identifier: ZPL-2.1
"""Jobs are undone while workers are at work, on each storage that can undo."""

from __future__ import annotations

import time
from typing import Any

import pytest
from persistent.mapping import PersistentMapping

from lovely.remotetask.errors import CannotUndo
from lovely.remotetask.interfaces import CANCELLED, COMPLETED
from lovely.remotetask.store.check import check_all
from storages import KINDS, over
from workplace import Workplace

JOBS = 12

UNDONE = [name for name, kind in KINDS.items() if kind.is_undone]


@pytest.fixture
def workplace(here: Workplace, register: Any) -> Workplace:
    def write(context: Any, name: str) -> str:
        context.root[name] = (*context.root.get(name, ()), context.attempt)
        return name

    def write_apart(context: Any, name: str) -> str:
        found = context.root["shelves"][name]
        found["runs"] = (*found.get("runs", ()), context.attempt)
        return name

    register("write", write, context=True)
    register("write apart", write_apart, context=True)
    return here


def check_books(workplace: Any) -> None:
    with workplace.service() as service:
        assert check_all(service, time.time(), repair=False) == []
        assert not service.requests


@over(*UNDONE)
def test_jobs_are_undone_while_others_run_and_none_runs_again(workplace: Any) -> None:
    names = [f"job {number}" for number in range(JOBS)]
    with workplace.transaction() as root:
        root["shelves"] = PersistentMapping({name: PersistentMapping() for name in names})
    workplace.start(waitTime=0.05)
    jobids = workplace.add("write apart", *names)
    workplace.wait_for(jobids)
    for jobid in jobids[::2]:
        others = workplace.add("echo", 1, 2, 3)
        with workplace.service() as service:
            service.undo(jobid, "Ada")
        workplace.wait_for(others)
    assert workplace.statuses(jobids) == [CANCELLED, COMPLETED] * (JOBS // 2)
    with workplace.transaction() as root:
        runs = [root["shelves"][name].get("runs") for name in names]
    assert runs == [None, (1,)] * (JOBS // 2)
    check_books(workplace)
    with workplace.service() as service:
        for jobid in jobids[::2]:
            service.retry(jobid)
    assert workplace.wait_for(jobids) == [COMPLETED] * JOBS
    with workplace.transaction() as root:
        assert [root["shelves"][name]["runs"] for name in names] == [(2,), (1,)] * (JOBS // 2)
    workplace.stop()
    check_books(workplace)


@over(*UNDONE)
def test_what_was_changed_since_and_what_was_packed_is_refused(workplace: Any) -> None:
    workplace.start(waitTime=0.05)
    jobids = workplace.add("write", "one")
    workplace.wait_for(jobids)
    jobids += workplace.add("write", "two")
    workplace.wait_for(jobids)
    with workplace.service() as service, pytest.raises(CannotUndo, match="was changed since"):
        service.undo(jobids[0])
    workplace.stop()
    workplace.db.pack()
    with workplace.service() as service, pytest.raises(CannotUndo, match="was packed away"):
        service.undo(jobids[1])
    assert workplace.statuses(jobids) == [COMPLETED] * 2
    with workplace.transaction() as root:
        assert (root["one"], root["two"]) == ((1,), (1,))
    check_books(workplace)


@over(*(name for name in KINDS if name not in UNDONE))
def test_what_a_storage_cannot_undo_is_refused_with_the_reason(workplace: Any) -> None:
    [jobid] = workplace.add("write", "one")
    workplace.start(waitTime=0.05)
    workplace.wait_for([jobid])
    workplace.stop()
    before = workplace.last_transaction()
    with workplace.service() as service, pytest.raises(CannotUndo, match="keeps no history"):
        service.undo(jobid)
    assert workplace.statuses([jobid]) == [COMPLETED]
    assert workplace.last_transaction() == before
    check_books(workplace)
