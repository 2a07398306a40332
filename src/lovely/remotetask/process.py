# SPDX-License-Identifier: ZPL-2.1
"""Call plain functions in other processes: more cores than one, and a timeout that kills."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from lovely.remotetask.errors import InvalidArgument, JobCancelled, JobTimeout

#: Seconds between two looks whether the job is to stop.
LOOK_SECONDS = 0.1

_lock = threading.Lock()
_pool: Any = None


def call(
    function: Callable[[Any], Any],
    input: Any,
    timeout_seconds: float | None,
    is_cancelled: Callable[[], bool],
) -> Any:
    """Return ``function(input)``, called in a process of the pool.

    :param function: importable by its name, as is all that goes to and fro.
    :param timeout_seconds: the process is killed when it takes longer; None waits for ever.
    :param is_cancelled: asked now and then; when it is true the process is killed.
    :raises JobTimeout: it took too long.
    :raises JobCancelled: it was cancelled.
    :raises Exception: what the function raises; ``pebble.ProcessExpired`` when its process died.
    """
    future = _the_pool().schedule(function, args=[input], timeout=timeout_seconds)
    while True:
        try:
            return future.result(timeout=LOOK_SECONDS)
        except FutureTimeout as error:
            if future.done():
                raise JobTimeout(f"the job ran longer than {timeout_seconds} s") from error
        if is_cancelled():
            future.cancel()
            raise JobCancelled


def check_installed() -> None:
    """Check that the library behind this is there.

    :raises InvalidArgument: it is not; the message says how to get it.
    """
    try:
        import pebble  # noqa: F401
    except ImportError:
        raise InvalidArgument(
            "executor='process' needs the package pebble: pip install 'lovely.remotetask[process]'"
        ) from None


def _the_pool() -> Any:
    global _pool
    with _lock:
        if _pool is None:
            import pebble

            # Never a plain fork: the threads of the parent may hold any lock.
            methods = multiprocessing.get_all_start_methods()
            method = "forkserver" if "forkserver" in methods else "spawn"
            _pool = pebble.ProcessPool(
                max_workers=os.cpu_count() or 1, context=multiprocessing.get_context(method)
            )
        return _pool


def _forget_pool() -> None:
    # A forked child has no part in its parent's pool.
    global _lock, _pool
    _lock = threading.Lock()
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)
