# SPDX-License-Identifier: ZPL-2.1
"""What a worker believes of its jobs where it cannot know: between threads, after lost replies."""

from __future__ import annotations

from typing import Any

import pytest
from transaction import TransactionManager

from lovely.remotetask.engine.protocol import Stopping
from lovely.remotetask.engine.session import Session
from lovely.remotetask.interfaces import COMPLETED, PROCESSING, QUEUED
from lovely.remotetask.store.check import check_all


class LateSeat(Session):
    """A session that lets something else happen just after its transaction has begun."""

    def begin(self) -> Any:
        service = super().begin()
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return service

    meanwhile: Any = staticmethod(lambda: None)


def test_a_job_that_ends_while_a_claim_has_begun_is_filed_all_the_same(workshop: Any) -> None:
    jobid = workshop.add("echo")
    [claim] = workshop.claim()
    late = LateSeat(workshop.db, workshop.path, TransactionManager())
    late.meanwhile = lambda: workshop.run(claim)
    workshop.add("echo")
    workshop.engine.claims.claim(late, 1)
    late.close()
    workshop.work()
    with workshop.service() as service:
        assert service.getStatus(jobid) == COMPLETED
        assert check_all(service, workshop.now, repair=False) == []
        assert sum(service.countJobs().values()) == 2


def test_a_claim_whose_reply_is_lost_is_noticed_and_run(workshop: Any, lose_the_reply: Any) -> None:
    jobids = [workshop.add("echo") for _ in range(3)]
    lose_the_reply()
    claims = workshop.claim(limit=2)
    assert [claim.jobid for claim in claims] == jobids[:2]
    assert [workshop.run(claim).status for claim in claims] == [COMPLETED, COMPLETED]
    assert [workshop.get(jobid, "attempt") for jobid in jobids] == [1, 1, 0]


def test_a_run_whose_reply_is_lost_is_not_run_again(
    workshop: Any, register: Any, lose_the_reply: Any
) -> None:
    effects = []
    register("note", effects.append)
    jobid = workshop.add("note", 1)
    [claim] = workshop.claim()
    lose_the_reply()
    workshop.run(claim)
    assert workshop.get(jobid, "status", "attempt") == (COMPLETED, 1)
    assert effects == [1]


def test_giving_back_twice_gives_back_once(workshop: Any, lose_the_reply: Any) -> None:
    jobid = workshop.add("echo")
    claims = workshop.claim()
    assert workshop.get(jobid, "status") == PROCESSING
    lose_the_reply()
    workshop.engine.claims.give_back(workshop.session, claims)
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


def test_reserved_jobs_whose_claim_has_lost_its_reply_are_run(
    workshop: Any, register: Any, lose_the_reply: Any
) -> None:
    register("share", lambda input: input, shared_commit=True)
    jobids = [workshop.add("share", number) for number in range(3)]
    reserved = workshop.reserve()
    lose_the_reply()
    claims = workshop.claim_reserved(reserved)
    assert [claim.jobid for claim in claims] == jobids
    assert {workshop.run(claim).status for claim in claims} == {COMPLETED}
    workshop.claim()
    with workshop.service() as service:
        assert not service.workers


def test_a_claim_whose_reply_is_lost_is_given_back_by_a_worker_that_stops(
    workshop: Any, lose_the_reply: Any
) -> None:
    jobid = workshop.add("echo")
    workshop.while_pausing = lambda: setattr(workshop, "is_stopping", True)
    lose_the_reply()
    with pytest.raises(Stopping):
        workshop.claim()
    assert workshop.get(jobid, "status") == PROCESSING
    assert workshop.engine.claims.holds
    workshop.engine.claims.give_back(workshop.session, [])
    assert workshop.get(jobid, "status", "attempt") == (QUEUED, 0)
    with workshop.service() as service:
        assert not service.workers


def test_a_death_whose_reply_is_lost_counts_once(workshop: Any, lose_the_reply: Any) -> None:
    jobid = workshop.add("echo")
    [claim] = workshop.claim()
    lose_the_reply()
    workshop.new_engine().upkeep.free(workshop.session, [claim.owner])
    assert workshop.get(jobid, "status", "deaths") == (QUEUED, 1)
