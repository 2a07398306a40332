# SPDX-License-Identifier: ZPL-2.1
"""Containers into which two transactions put, and out of which they take, at once."""

from __future__ import annotations

from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError

from lovely.remotetask.base.shelf import Shelf, merged
from lovely.remotetask.job import Job
from lovely.remotetask.store.tree import JobTree


@pytest.mark.parametrize(
    ("committed", "new", "expected"),
    [
        ({1, 2, 3}, {1, 2, 4}, {1, 2, 3, 4}),
        ({2}, {1}, set()),
        ({2}, {1, 2, 3}, {2, 3}),
        (set(), {1, 2, 3}, {3}),
        ({1}, {2, 3}, {3}),
    ],
)
def test_what_both_have_changed_is_merged(committed: Any, new: Any, expected: Any) -> None:
    assert merged({1, 2}, committed, new) == expected
    assert merged({1, 2}, new, committed) == expected


@pytest.mark.parametrize(("committed", "new"), [({2}, {2}), ({1, 2, 3}, {1, 2, 3}), (set(), {1})])
def test_what_both_have_put_in_or_taken_out_is_not(committed: Any, new: Any) -> None:
    with pytest.raises(ConflictError):
        merged({1, 2}, committed, new)


class Pair:
    """A shelf in two connections."""

    def __init__(self, db: Any) -> None:
        import transaction

        self.managers = [transaction.TransactionManager() for _ in range(2)]
        self.roots = [db.open(manager).root() for manager in self.managers]
        self.roots[0]["shelf"] = shelf = Shelf()
        shelf.put(1, PersistentMapping())
        self.managers[0].commit()
        self.managers[1].begin()
        self.shelves = [root["shelf"] for root in self.roots]

    def close(self) -> None:
        for manager in self.managers:
            manager.abort()


@pytest.fixture
def pair(db: Any) -> Any:
    pair = Pair(db)
    yield pair
    pair.close()


def test_putting_in_and_taking_out_the_first_and_only_one_do_not_collide(pair: Pair) -> None:
    one, two = pair.shelves
    one.take(1)
    two.put(2, PersistentMapping(name="second"))
    for manager in pair.managers:
        manager.commit()
    pair.managers[0].begin()
    assert list(one.entries) == list(two.entries) == [2]
    assert one.entries[2]["name"] == "second"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nothing_is_put_into_a_shelf_that_is_closed(pair: Pair, order: tuple[int, int]) -> None:
    pair.shelves[0].close()
    pair.shelves[1].put(2, PersistentMapping())
    pair.managers[order[0]].commit()
    with pytest.raises(ConflictError):
        pair.managers[order[1]].commit()


# -- the tree of jobs --------------------------------------------------------------------------

IDS = [1, 15, 16, 17, 1023, 1024, 70_000, 2**22, 2**27 - 1, 2**27, 2**30 + 5, 2**31 - 1]


@pytest.fixture
def tree() -> JobTree:
    tree = JobTree()
    for jobid in reversed(IDS):
        tree[jobid] = Job(jobid, "echo")
        tree[jobid].created_at = 0.0
    return tree


def test_a_tree_is_in_the_order_of_the_ids(tree: JobTree) -> None:
    assert list(tree) == list(tree.keys()) == IDS
    assert [job.id for job in tree.values()] == IDS
    assert len(tree) == len(IDS)
    for jobid in (0, 1, 2, 16, 18, 71_000, 2**27 - 1, 2**29, 2**31 - 1):
        assert list(tree.ids_from(jobid)) == [found for found in IDS if found >= jobid]


@pytest.mark.parametrize("jobid", [2, 18, -1, 2**31, 2**40, "x", None, 1.5])
def test_what_is_not_in_a_tree_is_not_found(tree: JobTree, jobid: Any) -> None:
    assert jobid not in tree
    assert tree.get(jobid) is None
    with pytest.raises(KeyError):
        tree[jobid]


def test_many_jobs_can_be_looked_up_at_once(tree: JobTree) -> None:
    jobids = [*tree, *(jobid - 1 for jobid in tree), *reversed(list(tree))]
    assert tree.get_many(jobids) == [tree.get(jobid) for jobid in jobids]
    assert None in tree.get_many(jobids)


def test_of_a_tree_that_is_emptied_nothing_is_left(tree: JobTree) -> None:
    for jobid in IDS:
        del tree[jobid]
        assert jobid not in tree
    assert not tree
    assert not any(lane.entries for lane in tree.lanes)


def test_the_page_where_somebody_may_be_adding_stays(tree: JobTree) -> None:
    for jobid in range(5000, 5020):
        tree[jobid] = Job(jobid, "echo")
    for jobid in range(5000, 5020):
        del tree[jobid]
    assert sum(not page.entries for page in tree._pages()) == 1  # of two
    assert list(tree) == IDS


def replace(shelf: Shelf) -> PersistentMapping:
    """Take something out, and put another thing in under the same key."""
    successor = PersistentMapping()
    shelf.take(1)
    shelf.put(1, successor)
    return successor


@pytest.mark.parametrize("first", [0, 1])
def test_what_was_replaced_stays_so_whoever_commits_first(pair: Any, first: int) -> None:
    replace(pair.shelves[0])["is"] = "the successor"
    pair.shelves[1].put(2, PersistentMapping())
    for number in (first, 1 - first):
        pair.managers[number].commit()
    pair.managers[1].begin()
    assert set(pair.shelves[1].entries) == {1, 2}
    assert dict(pair.shelves[1].entries[1]) == {"is": "the successor"}


def test_of_two_who_replace_the_same_one_commits(pair: Any) -> None:
    for shelf in pair.shelves:
        replace(shelf)
    pair.managers[0].commit()
    with pytest.raises(ConflictError):
        pair.managers[1].commit()
