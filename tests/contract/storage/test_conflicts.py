# SPDX-License-Identifier: ZPL-2.1
"""Two that want the same on each storage: of what they write one comes to pass, and once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError

from doors import key_of
from lovely.remotetask.interfaces import COMPLETED, PROCESSING
from workplace import PATIENCE_SECONDS, Workplace, begin_all, catch_up

ADDED = 40  # jobs, by each who adds
TRIES = 100  # of one transaction: adders wait for nobody in between


@pytest.mark.parametrize("is_run", [False, True])
def test_of_two_that_take_the_same_job_one_gets_it(
    here: Workplace, elsewhere: Workplace, is_run: bool
) -> None:
    [jobid] = here.add("echo", 1)
    with here.connected() as (one, root), elsewhere.connected() as (two, there):
        begin_all((one, root), (two, there))
        for manager, place in ((one, root), (two, there)):
            if is_run:
                place["tasks"].process()
            else:
                assert place["tasks"].claimNextJob() == jobid
            if manager is one:
                one.commit()
        with pytest.raises(ConflictError):
            two.commit()
        two.abort()
        begin_all((one, root), (two, there))
        assert there["tasks"].getStatus(jobid) == (COMPLETED if is_run else PROCESSING)
        assert there["tasks"].claimNextJob() is None
    with here.service() as service:
        assert service.jobs[jobid].attempt == 1


def test_of_cancelling_a_job_and_taking_it_one_comes_to_pass(
    here: Workplace, elsewhere: Workplace
) -> None:
    [jobid] = here.add("echo", 1)
    with here.connected() as (one, root), elsewhere.connected() as (two, there):
        begin_all((one, root), (two, there))
        root["tasks"].cancel(jobid)
        there["tasks"].process()
        one.commit()
        with pytest.raises(ConflictError):
            two.commit()


def test_what_a_refused_transaction_has_written_comes_with_no_other_one(
    here: Workplace, elsewhere: Workplace
) -> None:
    with here.transaction() as root:
        root["read"], root["written"] = PersistentMapping(), PersistentMapping()
    with here.connected() as (one, root), elsewhere.connected() as (two, there):
        begin_all((one, root), (two, there))
        assert not there["read"]
        there._p_jar.readCurrent(there["read"])
        there["written"]["by"] = "two"
        jobid = there["tasks"].add("echo")
        root["read"]["changed"] = True
        one.commit()
        with pytest.raises(ConflictError):
            two.commit()
        two.abort()
        begin_all((one, root), (two, there))
        other = there["tasks"].add("echo")
        two.commit()
        begin_all((one, root), (two, there))
        for place in (root, there):
            assert not place["written"]
            assert other in place["tasks"].jobs
            assert other == jobid or jobid not in place["tasks"].jobs


def test_nothing_that_adders_beside_workers_add_is_lost_or_run_twice(
    here: Workplace, elsewhere: Workplace, register: Any
) -> None:
    def leave(context: Any, input: int) -> None:
        effects = context.root["effects"]
        effects[key_of(input)] = effects.get(key_of(input), 0) + 1

    register("leave", leave, context=True)
    with here.transaction() as root:
        root["effects"] = IOBTree()
    catch_up(here.db, elsewhere.db)
    for place in {id(each.db): each for each in (here, elsewhere)}.values():
        place.start()
    added: list[int] = []
    failures: list[BaseException] = []

    def add(place: Workplace, start: int) -> None:
        try:
            with place.connected() as (manager, root):
                for number in range(start, start + ADDED):
                    for attempt in manager.attempts(TRIES):
                        with attempt:
                            jobid = root["tasks"].add("leave", number)
                    added.append(jobid)
        except BaseException as error:  # the test's own thread tells of it
            failures.append(error)

    adders = [
        threading.Thread(target=add, args=(place, number * ADDED))
        for number, place in enumerate((here, elsewhere, here, elsewhere))
    ]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join(PATIENCE_SECONDS)
    if failures:
        raise failures[0]
    assert len(set(added)) == len(adders) * ADDED
    catch_up(here.db, elsewhere.db)
    assert set(here.wait_for(added)) == {COMPLETED}
    with here.transaction() as root:
        effects = Counter(root["effects"].values())
        assert {root["tasks"].jobs[jobid].attempt for jobid in added} == {1}
    assert effects == {1: len(added)}
