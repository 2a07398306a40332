# SPDX-License-Identifier: ZPL-2.1
"""Call plain functions in other processes: more cores than one, and a timeout that kills."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from multiprocessing.util import Finalize
from typing import Any

from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    JobCancelled,
    JobInterrupted,
    JobTimeout,
    TaskError,
    describe,
)

#: Seconds between two looks whether the job is to stop.
LOOK_SECONDS = 0.1

#: A signal that goes to a group of processes may reach the pool's so many seconds before this
#: one has seen that it is to stop.
ECHO_SECONDS = 1.0

#: With which code a process of the pool ends by SIGTERM: by its handler, or before it has one, or
#: when it was the process that starts the others which the signal has ended.
_TERMINATED = (signal.SIGTERM, -signal.SIGTERM, 255)

#: Exit functions come before those of `multiprocessing`, which ends the processes of the pool.
_EXIT_PRIORITY = 1_000

_exit_functions: list[Callable[[], object]] = []
_child = 0  # the id of the process that is a child and has taken care of its exit
_lock = threading.Lock()
_pool: Any = None


def call(
    function: Callable[[Any], Any],
    input: Any,
    timeout_seconds: float | None,
    is_cancelled: Callable[[], bool],
    is_stopping: Callable[[], bool] = lambda: False,
) -> Any:
    """Return ``function(input)``, called in a process of the pool.

    :param function: importable by its name, as is all that goes to and fro.
    :param timeout_seconds: the process is killed when it takes longer; None waits for ever.
    :param is_cancelled: asked now and then; when it is true the process is killed.
    :param is_stopping: asked when the process has vanished by a signal.
    :raises JobTimeout: it took too long.
    :raises JobCancelled: it was cancelled.
    :raises JobInterrupted: the process was stopped together with this one.
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
        except Exception as error:
            if _is_terminated(error) and _comes_true(is_stopping, ECHO_SECONDS):
                raise JobInterrupted from error
            raise
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


def _is_terminated(error: Exception) -> bool:
    """Say whether a process of the pool, or the pool with all of them, was ended by SIGTERM."""
    code = getattr(error, "exitcode", None)  # of a pebble.ProcessExpired
    return code in _TERMINATED or isinstance(error, BrokenExecutor)


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    never = threading.Event()
    while not condition():
        if never.wait(LOOK_SECONDS) or time.monotonic() > end:
            return False
    return True


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
            for function in _exit_functions:
                atexit.unregister(function)
                atexit.register(function)
        return _pool


def call_at_exit(function: Callable[[], object]) -> None:
    """Register an exit function that is called while the pool still works.

    The last one that was registered is called first, and what ends the pool is registered when
    the libraries behind it are imported.
    """
    _exit_functions.append(function)
    atexit.register(function)


def attend_exit() -> None:
    """Let the exit functions be called in a child of `multiprocessing` too.

    It ends by ``os._exit``, and has exit functions of its own.
    """
    global _child
    if multiprocessing.parent_process() is None or _child == os.getpid():
        return
    _child = os.getpid()
    for function in _exit_functions:
        Finalize(None, function, exitpriority=_EXIT_PRIORITY)


def end() -> None:
    """End the processes of the pool: nobody waits for what they do any more."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.stop()
        pool.join()


def _forget_pool() -> None:
    # A forked child has no part in its parent's pool.
    global _lock, _pool
    _lock = threading.Lock()
    _pool = None


if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(after_in_child=_forget_pool)
