# SPDX-License-Identifier: ZPL-2.1
"""Call plain functions in other processes: more cores than one, and a timeout that kills."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    JobCancelled,
    JobTimeout,
    TaskError,
    describe,
)

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
    :raises InvalidInput: the function or the input cannot be sent there.
    :raises InvalidResult: the result cannot be sent back.
    :raises Exception: what the function raises; ``pebble.ProcessExpired`` when its process
        died, but for ``os._exit(0)``, which only the timeout ends.
    """
    try:
        order = pickle.dumps((function, input))
    except Exception as error:  # whatever the input's __reduce__ raises
        raise InvalidInput(f"not fit for another process: {error}") from error
    future = _the_pool().schedule(_obey, args=[order], timeout=timeout_seconds)
    while True:
        try:
            answer = future.result(timeout=LOOK_SECONDS)
            break
        except FutureTimeout as error:
            if future.done():
                raise JobTimeout(f"the job ran longer than {timeout_seconds} s") from error
        if is_cancelled():
            future.cancel()
            raise JobCancelled
    try:
        result, raised = pickle.loads(answer)
    except Exception as error:  # it can be pickled there, but not loaded here
        raise InvalidResult(f"the result cannot be loaded: {error}") from error
    if raised is not None:
        raise raised
    return result


def _obey(order: bytes) -> bytes:
    """Do in the other process what was ordered: both ways go bytes that surely can go."""
    function, input = pickle.loads(order)
    try:
        result, raised = function(input), None
    except BaseException as error:  # what ended the loop there would break the pool
        result, raised = None, error
    try:
        answer = pickle.dumps((result, raised))
        pickle.loads(answer)
    except Exception as error:  # of a result or an exception that cannot travel, the text does
        text = describe(error) if raised is None else f"{type(raised).__name__}: {describe(raised)}"
        kind = InvalidResult if raised is None else TaskError
        answer = pickle.dumps((None, kind(text)))
    return answer


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
        if _pool is None or not _pool.active:
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
