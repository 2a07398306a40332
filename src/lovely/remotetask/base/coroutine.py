# SPDX-License-Identifier: ZPL-2.1
"""Run a coroutine to its end in the current thread, in an event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any

from lovely.remotetask.base.forking import unforked
from lovely.remotetask.errors import LoopIsRunning

#: Seconds between two looks whether a coroutine is to end.
LOOK_SECONDS = 0.1


def is_coroutine(value: Any) -> bool:
    """Say whether a value is what a function returns that is an ``async def``."""
    return type(value) is CoroutineType


def run_to_end(
    coroutine: Coroutine[Any, Any, Any],
    why_stop: Callable[[], BaseException | None] = lambda: None,
) -> Any:
    """Return what a coroutine returns.

    :param why_stop: asked now and then while it waits; an exception cancels it, and is raised once
        it has ended, whatever it has made of that.
    :raises LoopIsRunning: this thread runs an event loop already; nothing of it was run.
    :raises concurrent.futures.CancelledError: it was cancelled, but not by this.
    :raises BaseException: what it raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        coroutine.close()
        raise LoopIsRunning
    # Not `asyncio.run`: it leaves the thread without the loop that the caller may have set.
    loop = asyncio.new_event_loop()
    try:
        with unforked():  # a child would end, for its parent, what was left behind
            return loop.run_until_complete(_attended(coroutine, why_stop))
    finally:
        try:
            _cancel_rest(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


async def _attended(
    coroutine: Coroutine[Any, Any, Any], why_stop: Callable[[], BaseException | None]
) -> Any:
    task = asyncio.ensure_future(_in_one_process(coroutine))
    reason: BaseException | None = None
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            found = why_stop()
            if found is not None and type(found) is not type(reason):
                reason = found
                task.cancel()
    finally:
        # What ends a process has stopped the loop itself: nobody else takes it from the task, and
        # asyncio would log, at any later moment, that it was never retrieved.
        if task.done() and not task.cancelled():
            task.exception()
    if reason is not None:
        raise reason from (None if task.cancelled() else task.exception())
    if task.cancelled():
        raise concurrent.futures.CancelledError("the coroutine was cancelled from within")
    return task.result()


async def _in_one_process(coroutine: Coroutine[Any, Any, Any]) -> Any:
    # Before the loop goes on: a child has its selector in common with its parent.
    with unforked():
        return await coroutine


def _cancel_rest(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that the coroutine has left behind, and wait for their ends."""
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
