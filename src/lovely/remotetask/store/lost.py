# SPDX-License-Identifier: ZPL-2.1
"""Find, and take out, what records of a service are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistent import Persistent
from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import removed, wrote
from lovely.remotetask.base.shelf import Shelf
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.store.awaiting import take_lost_links
from lovely.remotetask.store.index import EntryPage
from lovely.remotetask.store.notes import notes_of
from lovely.remotetask.store.problem import LeftAlone, Problem


def check_records(service: Any, repair: bool, with_jobs: bool = True) -> list[Problem]:
    """Check that the records are there of which the indexes, and the tree of jobs, consist.

    One that is missing is taken out, for each transaction that comes to it fails.  What stood in
    a part of an index is filed anew by `check_jobs`; jobs that stood in a part of their tree are
    lost.  It takes a time that grows with the number of parts.

    :param with_jobs: mend the tree of jobs too.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    queue = service.queue
    lost = {
        "tree of jobs": sum(
            _take_lost(lane, Shelf, repair and with_jobs) for lane in service.jobs.lanes
        ),
        "ready queue": sum(
            _take_lost_segments(lane, repair)
            for level in queue.all_levels()
            for ready in level.queues
            for lane in ready.lanes
        ),
        "index of parked jobs": sum(
            _take_lost_lots(lots, repair) for lots in (level.parked for level in queue.all_levels())
        ),
        "list of keys of schedules": _take_lost_values(
            queue.schedules, lambda jobid: False, repair
        ),
        "list of workers": _take_lost_values(service.workers, _is_lost, repair),
    }
    for status, index in queue.all_indexes():
        take = _take_lost_pages if status in FINAL_STATUSES else _take_lost_times
        name = f"index of {status} jobs"
        lost[name] = lost.get(name, 0) + take(index, repair)
    if queue.gates is not None:
        lost["index of jobs at locks and limits"] = (
            _take_lost_lots(queue.gates.lots, repair)
            + sum(_take_lost_times(index, repair) for index in queue.gates.aside.values())
            + _take_lost(queue.gates.slots.pages, Persistent, repair)
        )
    if queue.keys is not None:
        lost["table of unique keys"] = _take_lost(queue.keys.pages, Persistent, repair)
    lost["list of links"] = take_lost_links(queue, _is_lost, repair)
    if queue.expiring is not None:
        lost["index of jobs that expire"] = _take_lost_times(queue.expiring, repair)
    if queue.words is not None:
        lost["list of what jobs could not be told"] = _take_lost_times(queue.words, repair)
    for name, notes in notes_of(service).items():
        lost[f"list of {name}"] = _take_lost_values(notes, lambda note: False, repair)
    return [
        (Problem if with_jobs or name != "tree of jobs" else LeftAlone)(
            None, f"the {name} lacks {count} of its records"
        )
        for name, count in lost.items()
        if count
    ]


def _is_lost(part: Any) -> bool:
    try:
        part._p_activate()
    except POSKeyError:
        return True
    return False


def _take_lost(shelf: Any, kind: type, repair: bool) -> int:
    """Take the lost parts of a kind out of a shelf, and out of the shelves in it."""
    lost = 0
    for key, part in list(shelf.entries.items()):
        if not isinstance(part, kind):
            continue
        if _is_lost(part):
            lost += 1
            if repair:
                shelf.take(key)
                wrote(shelf, shelf)
        elif isinstance(part, Shelf):
            lost += _take_lost(part, kind, repair)
    return lost


def _take_lost_segments(lane: Any, repair: bool) -> int:
    shelf = lane.generations
    lost = _take_lost(shelf, Persistent, repair)
    if lost and repair:
        for first, generation in list(shelf.entries.items()):
            if not generation.entries:  # nobody could put anything into it
                generation.close()
                shelf.take(first)
                wrote(shelf, shelf)
                removed(shelf, generation)
    return lost


def _take_lost_times(index: Any, repair: bool) -> int:
    return _take_lost(index.pages, Persistent, repair)


def _take_lost_lots(parked: Any, repair: bool) -> int:
    def is_lost(lot: Any) -> bool:
        return _is_lost(lot) or _is_lost(lot.pages) or _is_lost(lot.size)

    lost = _take_lost_values(parked, is_lost, repair)
    if lost and not repair:
        return lost
    return lost + sum(_take_lost_times(lot, repair) for lot in parked.values())


def _take_lost_pages(index: Any, repair: bool) -> int:
    lost = 0
    for lane in index.lanes:
        lost += _take_lost_values(lane, _is_lost, repair)
        if repair and 0 not in lane:  # what is older than the other pages needs one
            lane[0] = EntryPage()
    return lost


def _take_lost_values(tree: Any, is_lost: Callable[[Any], bool], repair: bool) -> int:
    """Take the lost values out of a BTree, and all of them if a part of the tree itself is lost."""
    try:
        keys = list(tree)
        lost = [key for key in keys if hasattr(tree, "values") and is_lost(tree[key])]
        if repair:
            for key in lost:
                del tree[key]
        return len(lost)
    except POSKeyError:
        if repair:
            tree.clear()
        return 1
