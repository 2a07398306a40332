# SPDX-License-Identifier: ZPL-2.1
"""Which tasks are paused.

A set of names that claims read, and that only who pauses and resumes writes.  Its change wakes
workers, as that of an index does.
"""

from __future__ import annotations

from typing import Any

from BTrees.OOBTree import OOSet

from lovely.remotetask.base.ownership import check_sound, wrote

#: What stands among the names for all tasks: none is called so.
ALL = "\0"


def paused_tasks(queue: Any) -> list[str | None]:
    """Return the names of the tasks that are paused; None stands for all tasks."""
    return [None if name == ALL else name for name in queue.paused]


def pause(queue: Any, task: str | None) -> None:
    """Let no job of a task be claimed; None is of any task."""
    if "paused" not in vars(queue):  # it was stored without
        queue.paused = OOSet()
    check_sound(queue, queue.paused)
    if queue.paused.insert(ALL if task is None else task):
        wrote(queue, queue.paused)


def resume(queue: Any, task: str | None) -> None:
    """Let jobs of a task be claimed again; None takes back each pause."""
    check_sound(queue, queue.paused)
    for name in list(queue.paused) if task is None else [task]:
        if name in queue.paused:
            queue.paused.remove(name)
            wrote(queue, queue.paused)
