# SPDX-License-Identifier: ZPL-2.1
"""Lots, in which jobs are set aside until something changes: by name, in the order of creation."""

from __future__ import annotations

from typing import Any

from lovely.remotetask.base.ownership import check_path, check_sound, removed, wrote
from lovely.remotetask.interfaces import CRONJOB, DELAYED, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.timeindex import TimeIndex

#: Jobs whose time zone is not known are parked under its name, behind what no task is called.
_ZONE = "\0time zone "

#: Jobs that keep another status than `QUEUED` while they wait for their task are parked under its
#: name behind that, so that they can be counted.
_TASK = {status: f"\0{status} task " for status in (DELAYED, CRONJOB)}

#: Jobs that wait for others are set aside here, whoever they wait for.  This lot stays when it is
#: empty, so that those who add such jobs do not collide.
AWAITING = "\0jobs that wait for others"


def lot_of_task(job: Job) -> str:
    """Return the lot for a job whose task is not registered, or paused."""
    return _TASK.get(job.status, "") + job.task


def lot_of_zone(name: str) -> str:
    """Return the lot for the jobs of a time zone that is not known."""
    return _ZONE + name


def zone_of(lot: str) -> str | None:
    """Return the name of the time zone that a lot is for, or None."""
    return lot.removeprefix(_ZONE) if lot.startswith(_ZONE) else None


def task_of(lot: str) -> str:
    """Return the name of the task that a lot is for."""
    for prefix in _TASK.values():
        lot = lot.removeprefix(prefix)
    return lot


def is_lot_of(lot: str, status: str) -> bool:
    """Say whether the jobs that are parked in a lot have a status."""
    if lot.startswith(_ZONE):
        return status == CRONJOB
    if status == QUEUED:
        return not lot.startswith("\0") or lot == AWAITING
    return lot.startswith(_TASK.get(status, _ZONE))


def put_in_lot(owner: Any, lots: Any, name: str, job: Job) -> None:
    """Put a job into a lot, which is made if it is not there.

    :param owner: the object that the BTree of the lots belongs to.
    """
    check_sound(owner, lots)
    check_path(lots, name)
    lot = lots.get(name)
    if lot is None:
        lot = lots[name] = TimeIndex()
        wrote(owner, lot)
    lot.insert(job.created_at, job.id)


def take_from_lot(owner: Any, lots: Any, name: str, job: Job) -> bool:
    """Take a job out of a lot, if it is in it; say whether the lot is to be dropped now."""
    lot = lots.get(name)
    if lot is None:
        return False
    check_sound(owner, lots, lot)
    lot.remove(job.created_at, job.id)
    return name != AWAITING and lot.first() is None


def drop_lot(owner: Any, lots: Any, name: str) -> None:
    """Drop an empty lot; who puts something in at the same moment collides."""
    lot = lots[name]
    lot.close()
    check_path(lots, name)
    del lots[name]
    removed(owner, lot)
