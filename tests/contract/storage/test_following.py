# SPDX-License-Identifier: ZPL-2.1
"""Jobs that wait for others, and groups, on each storage: what collides, and what merges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from lovely.remotetask.engine.filing import retire_jobs
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.service import TaskService
from storages import Storage
from workplace import begin_all

Side = tuple[transaction.TransactionManager, Any]


@pytest.fixture
def sides(databases: tuple[Any, Any], register: Any) -> Iterator[tuple[Side, Side]]:
    """Two clients of a storage: of each the transaction manager, and the root."""
    register("echo", lambda input: input)
    with databases[0].transaction() as connection:
        connection.root()["tasks"] = TaskService()
    managers = transaction.TransactionManager(), transaction.TransactionManager()
    one, two = (db.open(manager) for db, manager in zip(databases, managers, strict=True))
    yield (managers[0], one.root()), (managers[1], two.root())
    for connection, manager in zip((one, two), managers, strict=True):
        manager.abort()
        connection.close()


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("has_links", [False, True])
def test_who_waits_for_a_job_that_ends_at_this_moment_meets_a_conflict(
    sides: tuple[Side, Side], is_first: bool, has_links: bool
) -> None:
    (adding, root), (ending, there) = sides
    adding.begin()
    first = root["tasks"].add("echo")
    adding.commit()
    if has_links:
        root["tasks"].add("echo", after=first)
        adding.commit()
    begin_all(*sides)
    second = root["tasks"].add("echo", after=first)
    there["tasks"].cancel(first)
    earlier, later = (adding, ending) if is_first else (ending, adding)
    earlier.commit()
    with pytest.raises(ConflictError):
        later.commit()
    later.abort()
    begin_all(*sides)
    if is_first:
        there["tasks"].cancel(first)
        ending.commit()
        assert there["tasks"].getStatus(second) == ERROR
    else:
        assert second not in there["tasks"].jobs


def test_marks_of_members_merge_but_for_the_last_ones(
    sides: tuple[Side, Side], storage: Storage
) -> None:
    (one, root), (two, there) = sides
    one.begin()
    groupid = root["tasks"].add_group("echo", range(4), "echo")
    members = [member.jobid for member in root["tasks"].group(groupid)]
    for jobid in members:  # they have run, and nobody has filed them
        job = root["tasks"].jobs[jobid]
        root["tasks"].queue.remove(job)
        job.finish(None, job.created_at)
    one.commit()

    def file_two(first: int, second: int) -> None:
        begin_all(*sides)
        for place, jobid in ((root, first), (there, second)):
            retire_jobs(place["tasks"], [(jobid, place["tasks"].jobs[jobid])], 1e9)

    file_two(*members[:2])
    one.commit()
    if storage.kind.is_merged:
        two.commit()
    else:
        with pytest.raises(ConflictError):
            two.commit()
        two.abort()
        begin_all(*sides)
        retire_jobs(there["tasks"], [(members[1], there["tasks"].jobs[members[1]])], 1e9)
        two.commit()
    file_two(*members[2:])
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    two.abort()
    begin_all(*sides)
    assert not there["tasks"].group(groupid).is_ended
    retire_jobs(there["tasks"], [(members[3], there["tasks"].jobs[members[3]])], 1e9)
    assert there["tasks"].group(groupid).completed == 4
    assert there["tasks"].job(groupid).awaits == ()
    there["tasks"].process()
    assert there["tasks"].getStatus(groupid) == COMPLETED
    two.commit()
