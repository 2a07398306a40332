# SPDX-License-Identifier: ZPL-2.1
"""What the lots are called in which jobs are parked, and who may take jobs out of them."""

from __future__ import annotations

from collections.abc import Callable

from lovely.remotetask.interfaces import CRONJOB, DELAYED, QUEUED
from lovely.remotetask.schedule import is_zone_known

#: Jobs whose time zone is not known are parked under its name, behind what no task is called.
_ZONE = "\0time zone "

#: Jobs that keep another status than `QUEUED` while they wait for their task are parked under its
#: name behind that, so that they can be counted.
_TASK = {status: f"\0{status} task " for status in (DELAYED, CRONJOB)}

#: Jobs that wait for others are parked here, whoever they wait for.  This lot stays when it is
#: empty, so that those who add such jobs do not collide.
AWAITING = "\0jobs that wait for others"


def lot_of_task(status: str, task: str) -> str:
    """Return the lot of jobs that wait for their task."""
    return _TASK.get(status, "") + task


def lot_of_zone(timezone: str | None) -> str:
    """Return the lot of jobs that wait for a machine which knows their time zone."""
    return f"{_ZONE}{timezone}"


def is_lot_of(lot: str, status: str) -> bool:
    """Say whether the jobs that are parked in a lot have a status."""
    if lot.startswith(_ZONE):
        return status == CRONJOB
    if status == QUEUED:
        return not lot.startswith("\0") or lot == AWAITING
    return lot.startswith(_TASK.get(status, _ZONE))


def is_open(lot: str, can_run: Callable[[str], bool]) -> bool:
    """Say whether the jobs that are parked in a lot can run here, and now.

    :param can_run: says whether jobs of a task can.
    """
    if lot.startswith(_ZONE):
        return is_zone_known(lot.removeprefix(_ZONE))
    if lot == AWAITING:
        return False
    for prefix in _TASK.values():
        lot = lot.removeprefix(prefix)
    return can_run(lot)
