# SPDX-License-Identifier: ZPL-2.1
"""A storage is packed while jobs are added and run."""

from __future__ import annotations

import time
from typing import Any

from BTrees.OOBTree import OOBTree

from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.store.check import check_all
from workplace import Workplace, catch_up

ADDED = 20  # jobs, before it is packed, and while it is
TRIES = 25


def test_what_is_packed_beside_workers_keeps_all_that_is_needed(
    here: Workplace, elsewhere: Workplace, register: Any
) -> None:
    def leave(context: Any, input: int) -> int:
        context.root["effects"][input] = context.jobid
        return input

    register("leave", leave, context=True)
    with here.transaction() as root:
        root["effects"] = OOBTree()
    catch_up(here.db, elsewhere.db)
    here.start()
    jobids = elsewhere.add("leave", *range(ADDED))
    elsewhere.wait_for(jobids)
    with elsewhere.connected() as (manager, root):
        for attempt in manager.attempts(TRIES):  # the worker files meanwhile what it has run
            with attempt:
                root["tasks"].clean()  # what there is to be packed away
    jobids += elsewhere.add("leave", *range(ADDED, 2 * ADDED))
    elsewhere.db.pack()
    assert set(elsewhere.wait_for(jobids[ADDED:])) == {COMPLETED}
    here.stop()
    with here.transaction() as root:
        assert dict(root["effects"]) == dict(enumerate(jobids))
        results = [root["tasks"].getResult(jobid) for jobid in jobids[ADDED:]]
        assert results == list(range(ADDED, 2 * ADDED))
        assert check_all(root["tasks"], time.time(), repair=False) == []
