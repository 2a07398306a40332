# SPDX-License-Identifier: ZPL-2.1
"""Jobs that wait for others, and groups, on servers: what must collide there, and what merges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from lovely.remotetask.engine.filing import retire_jobs
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.service import TaskService
from servers import open_postgres, open_zeo
from workplace import wait_until

Side = tuple[transaction.TransactionManager, Any]


@pytest.fixture(params=["zeo", "postgres_dsn"])
def sides(request: pytest.FixtureRequest, register: Any) -> Iterator[tuple[Side, Side]]:
    """Two clients of a server: of each the transaction manager, and the root."""
    register("echo", lambda input: input)
    server = request.getfixturevalue(request.param)
    opened = open_zeo if request.param == "zeo" else open_postgres
    with closing(opened(server)) as db, closing(opened(server)) as other:
        with db.transaction() as connection:
            connection.root()["tasks"] = TaskService()
        managers = transaction.TransactionManager(), transaction.TransactionManager()
        connections = [
            each.open(manager) for each, manager in zip((db, other), managers, strict=True)
        ]
        one, two = connections
        yield (managers[0], one.root()), (managers[1], two.root())
        for connection, manager in zip(connections, managers, strict=True):
            manager.abort()
            connection.close()


def begin_both(sides: tuple[Side, Side]) -> None:
    """Begin transactions that see the same: a server tells its clients a moment later."""
    storages = [root._p_jar.db().storage for _, root in sides]
    wait_until(lambda: len({storage.lastTransaction() for storage in storages}) == 1)
    for manager, _ in sides:
        manager.begin()


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
    begin_both(sides)
    second = root["tasks"].add("echo", after=first)
    there["tasks"].cancel(first)
    earlier, later = (adding, ending) if is_first else (ending, adding)
    earlier.commit()
    with pytest.raises(ConflictError):
        later.commit()
    later.abort()
    begin_both(sides)
    if is_first:
        there["tasks"].cancel(first)
        ending.commit()
        assert there["tasks"].getStatus(second) == ERROR
    else:
        assert second not in there["tasks"].jobs


def test_marks_of_members_merge_but_for_the_last_ones(sides: tuple[Side, Side]) -> None:
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
        begin_both(sides)
        for place, jobid in ((root, first), (there, second)):
            retire_jobs(place["tasks"], [(jobid, place["tasks"].jobs[jobid])], 1e9)

    file_two(*members[:2])
    one.commit()
    two.commit()
    file_two(*members[2:])
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    two.abort()
    begin_both(sides)
    assert not there["tasks"].group(groupid).is_ended
    retire_jobs(there["tasks"], [(members[3], there["tasks"].jobs[members[3]])], 1e9)
    assert there["tasks"].group(groupid).completed == 4
    assert there["tasks"].job(groupid).awaits == ()
    there["tasks"].process()
    assert there["tasks"].getStatus(groupid) == COMPLETED
    two.commit()
