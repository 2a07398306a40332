# SPDX-License-Identifier: ZPL-2.1
"""Find, and take out, what records of a service are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree, OOSet
from persistent import Persistent
from ZODB.POSException import POSKeyError

from lovely.remotetask.base.ownership import removed, wrote
from lovely.remotetask.base.shelf import Shelf
from lovely.remotetask.interfaces import FINAL_STATUSES
from lovely.remotetask.store.awaiting import take_lost_links
from lovely.remotetask.store.ended import EndedIndex
from lovely.remotetask.store.gates import Gates
from lovely.remotetask.store.index import EntryPage
from lovely.remotetask.store.level import Level
from lovely.remotetask.store.names import FEW, MANY, NameTable
from lovely.remotetask.store.notes import notes_of
from lovely.remotetask.store.problem import LeftAlone, Problem
from lovely.remotetask.store.quarantine import load_many
from lovely.remotetask.store.ready import ReadyQueue
from lovely.remotetask.store.timeindex import TimeIndex

#: The lists of a service whose entries can be done without, or told from the jobs.
_LISTS: dict[str, Callable[[], Any]] = {
    "workers": OOBTree,
    "requests": IITreeSet,
    "progress": IOBTree,
    "edits": IOBTree,
    "lines": IOBTree,
}


class _Root(NamedTuple):
    """Where the first record of an index, or of a list, is found.

    :ivar owner: the object that refers to it.
    :ivar place: where it does: its own dict, or one that stands in it.
    :ivar make: makes a new, empty one.
    """

    name: str
    owner: Any
    place: dict[Any, Any]
    key: Any
    make: Callable[[], Any]


def check_records(service: Any, repair: bool, with_jobs: bool = True) -> list[Problem]:
    """Check that the records are there of which the indexes, and the tree of jobs, consist.

    One that is missing is taken out, for each transaction that comes to it fails; in the place of
    the first one of an index comes an empty one.  What stood there is filed anew by `check_jobs`;
    jobs that stood in a part of their tree are lost.  It takes a time that grows with the number
    of parts.

    :param with_jobs: mend the tree of jobs too, and the list of paused tasks: none is afterwards.

    Transaction: caller commits, if `repair`; otherwise reads only.
    """
    for name, root in (("queue", service.queue), ("tree of jobs", service.jobs)):
        if _is_lost(root):
            return [LeftAlone(None, f"the first record of the {name} is missing")]
    renewed = _renew_roots(service, repair, with_jobs)
    if renewed and not repair:
        return renewed  # nobody can look behind them
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
    return renewed + [
        (Problem if with_jobs or name != "tree of jobs" else LeftAlone)(
            None, f"the {name} lacks {count} of its records"
        )
        for name, count in lost.items()
        if count
    ]


def _renew_roots(service: Any, repair: bool, with_pauses: bool) -> list[Problem]:
    """Put empty ones in the place of indexes and lists whose first records are missing."""
    problems = []
    for root in _roots(service):
        if not _is_without(root.place.get(root.key)):
            continue
        is_mended = with_pauses or root.key != "paused"
        text = f"the first record of the {root.name} is missing"
        problems.append((Problem if is_mended else LeftAlone)(None, text))
        if repair and is_mended:
            root.place[root.key] = root.make()
            root.owner._p_changed = True
            wrote(service, root.owner)
            if root.key in ("gates", "slots"):
                workers = [w for w in service.workers.values() if not _is_lost(w)]
                held = [jobid for worker in workers for jobid in worker.held]
                service.queue.gates.count_anew(service.queue, load_many(service.jobs, held))
    return problems


def _roots(service: Any) -> Iterator[_Root]:
    """Yield the first records of all indexes and lists; those in a level that is lost are not."""
    queue = service.queue
    for owner in (service, queue):
        owner._p_activate()
    for name, make in _LISTS.items():
        yield _Root(f"list of {name}", service, vars(service), name, make)
    yield _Root("list of paused tasks", queue, vars(queue), "paused", OOSet)
    yield _Root("list of keys of schedules", queue, vars(queue), "schedules", OOBTree)
    yield _Root("table of unique keys", queue, vars(queue), "keys", lambda: NameTable(MANY))
    yield _Root("index of jobs that expire", queue, vars(queue), "expiring", TimeIndex)
    yield from (
        _Root(f"index of jobs with priority {number}", queue, queue.levels, number, Level)
        for number in queue.levels
    )
    for level in queue.all_levels():
        if _is_lost(level):
            continue
        level._p_activate()
        yield _Root("ready queue", level, vars(level), "ready", ReadyQueue)
        yield _Root("ready queue of jobs with locks", level, vars(level), "in_order", ReadyQueue)
        yield _Root("index of parked jobs", level, vars(level), "parked", OOBTree)
        for status in level.indexes:
            make = EndedIndex if status in FINAL_STATUSES else TimeIndex
            yield _Root(f"index of {status} jobs", level, level.indexes, status, make)
    name = "index of jobs at locks and limits"
    yield _Root(name, queue, vars(queue), "gates", lambda: Gates(service.jobs))
    if queue.gates is None or _is_lost(queue.gates):
        return
    gates = queue.gates
    gates._p_activate()
    yield _Root(name, gates, vars(gates), "lots", OOBTree)
    yield _Root(name, gates, vars(gates), "slots", lambda: NameTable(FEW))
    yield from (_Root(name, gates, gates.aside, status, TimeIndex) for status in gates.aside)


#: The attributes by which an index has what it cannot be without.
_PARTS = ("pages", "size", "generations", "added", "left")


def _is_without(root: Any) -> bool:
    """Say whether an index or a list lacks its first record, or one that it cannot be without."""
    if not isinstance(root, Persistent):
        return False
    if _is_lost(root):
        return True
    parts = (*getattr(root, "lanes", ()), *(getattr(root, name, None) for name in _PARTS))
    return any(map(_is_without, parts))


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
