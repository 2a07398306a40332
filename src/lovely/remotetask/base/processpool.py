# SPDX-License-Identifier: ZPL-2.1
"""Call plain functions in other processes: more cores than one, and a timeout that kills."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple

from lovely.remotetask.base.coroutine import is_coroutine, run_to_end
from lovely.remotetask.base.forking import unforked
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    JobCancelled,
    JobInterrupted,
    JobTimeout,
    TaskError,
    describe,
    name_of,
)

#: Seconds between two looks whether the job is to stop.
LOOK_SECONDS = 0.1

#: A signal that goes to a group of processes may reach the pool's so many seconds before this
#: one has seen that it is to stop.
SIGNAL_LEAD_SECONDS = 1.0

#: With which code a process of the pool ends by SIGTERM: by its handler, or before it has one, or
#: when it was the process that starts the others which the signal has ended.
_TERMINATED = (signal.SIGTERM, -signal.SIGTERM, 255)

#: The code of a process of the pool that has ended with 0 amid a job.  No process ends with it.
_VANISHED = 256

#: Exit functions come before those of `multiprocessing`, which ends the processes of the pool.
_EXIT_PRIORITY = 1_000

# Never a plain fork: the threads of the parent may hold any lock.
_METHODS = multiprocessing.get_all_start_methods()
_CONTEXT: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")

_exit_functions: list[Callable[[], object]] = []
_child = 0  # the id of the process that is a child and has taken care of its exit
_lock = threading.Lock()
_pools: dict[int, Any] = {}  # by how many jobs each of the processes runs, 0 is any number
_answering: weakref.WeakSet[Any] = weakref.WeakSet()  # pools whose processes have begun to work


def call(
    function: Callable[[Any], Any],
    input: Any,
    timeout_seconds: float | None,
    is_cancelled: Callable[[], bool],
    is_stopping: Callable[[], bool] = lambda: False,
    max_jobs: int = 0,
) -> Any:
    """Return ``function(input)``, called in a process of the pool.

    :param function: importable by its name, as is all that goes to and fro.
    :param timeout_seconds: the process is killed when it takes longer; None waits for ever.
    :param is_cancelled: asked now and then; when it is true the process is killed.
    :param is_stopping: asked when the process has vanished by a signal.
    :param max_jobs: the process ends after so many jobs, and another one takes its place; 0 is
        any number.
    :raises JobTimeout: it took too long.
    :raises JobCancelled: it was cancelled.
    :raises JobInterrupted: the process was stopped together with this one.
    :raises InvalidInput: the function or the input cannot be sent there.
    :raises InvalidResult: the result cannot be sent back.
    :raises TaskError: a script without its guard runs in each of the processes.
    :raises Exception: what the function raises, or one of a subclass, which tells the same, if it
        cannot be sent back; ``pebble.ProcessExpired`` when its process died.
    """
    try:
        order = pickle.dumps((function, input))
    except Exception as error:  # whatever the input's __reduce__ raises
        text = f"not fit for another process, it cannot be pickled: {describe(error)}"
        raise InvalidInput(text) from error
    pool = _the_pool(max_jobs)
    future = pool.schedule(_obey, args=[order], timeout=timeout_seconds)
    while True:
        try:
            answer = future.result(timeout=LOOK_SECONDS)
            break
        except FutureTimeout as error:
            if future.done():
                raise JobTimeout(f"the job ran longer than {timeout_seconds} s") from error
        except Exception as error:
            if _is_terminated(error) and _comes_true(is_stopping, SIGNAL_LEAD_SECONDS):
                raise JobInterrupted from error
            if isinstance(error, BrokenExecutor) and pool not in _answering:
                _check_guard()
            _tell_end(error)
            raise
        if is_cancelled():
            future.cancel()
            raise JobCancelled
    _answering.add(pool)
    try:
        result, raised = pickle.loads(answer)
    except Exception as error:  # it can be pickled there, but not loaded here
        raise InvalidResult(f"the result cannot be loaded: {describe(error)}") from error
    if raised is not None:
        raise raised.exception()
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


def _tell_end(error: Exception) -> None:
    """Let the error of a process that has ended say how."""
    code = getattr(error, "exitcode", None)
    if code is not None:
        code = 0 if code == _VANISHED else code
        error.args = (f"the process ended while it called the function, with exit code {code}",)


def _check_guard() -> None:
    """Check that the script that runs here can be imported by the processes of a pool.

    :raises TaskError: it has no guard, and so each of them does all that the script does.
    """
    # Each of the processes runs it under the other name.
    script = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
    path = getattr(script, "__file__", None)
    with suppress(OSError, TypeError, ValueError):  # it cannot be read
        if "__name__" not in Path(path).read_text(encoding="utf-8", errors="replace"):  # type: ignore[arg-type]
            raise TaskError(
                f"the processes of the pool have ended at once: each of them runs the script {path}"
                ' too, which needs an `if __name__ == "__main__":` before what it is to do once'
            )


class _Raised(NamedTuple):
    """What is told of an exception from one process to another.

    ``itself`` is None where it cannot be loaded again; ``kinds`` are its class and the bases of
    that, as far as they have a name; ``attributes`` those that can go: a retry policy may ask.
    """

    itself: bytes | None
    name: str
    text: str
    kinds: list[bytes]
    attributes: dict[str, bytes]

    @classmethod
    def of(cls, error: BaseException) -> _Raised:
        """Tell of an exception."""
        kinds = [_sent(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException)]
        held = getattr(error, "__dict__", {})
        attributes = {name: _sent(value) for name, value in held.items()}
        text = describe(error)
        itself = _sent(error)
        if itself is not None and describe(pickle.loads(itself)) != text:
            itself = None  # its class takes other arguments than it has made of them
        return cls(
            itself,
            name_of(error),
            text,
            [kind for kind in kinds if kind is not None],
            {name: sent for name, sent in attributes.items() if sent is not None},
        )

    def exception(self) -> BaseException:
        """Return the exception, or one that a retry policy judges as it."""
        if self.itself is not None:
            with suppress(Exception):  # it can be loaded there, but not here
                error: BaseException = pickle.loads(self.itself)
                return error
        for kind in self.kinds:
            with suppress(Exception):  # a class that is not known here, or has no subclasses
                return self._stand_in(pickle.loads(kind))
        return TaskError(f"{self.name}: {self.text}")

    def _stand_in(self, kind: type[BaseException]) -> BaseException:
        # Of a subclass, as the class itself may be made of anything, and say anything.
        text = self.text
        methods = {"__init__": lambda self: None, "__str__": lambda self: text}
        make: Any = type(kind)
        stand_in = make(self.name, (kind,), {**methods, "__module__": kind.__module__})
        builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
        error: BaseException = builtin.__new__(stand_in, text)
        for name, value in self.attributes.items():
            with suppress(Exception):
                error.__dict__[name] = pickle.loads(value)
        return error


def _sent(value: Any) -> bytes | None:
    """Return a value as bytes, or None if it cannot be made of them again."""
    try:
        sent = pickle.dumps(value)
        pickle.loads(sent)
    except Exception:  # whatever its code raises
        return None
    return sent


def _obey(order: bytes) -> bytes:
    """Do in the other process what was ordered: both ways go bytes that surely can go."""
    function, input = pickle.loads(order)
    try:
        with unforked():  # a child would answer too
            result = function(input)
            if is_coroutine(result):
                result = run_to_end(result)
    except BaseException as error:  # what ended the loop there would break the pool
        return pickle.dumps((None, _Raised.of(error)))
    try:
        answer = pickle.dumps((result, None))
        pickle.loads(answer)
    except Exception as error:  # of a result that cannot travel, the text does
        unfit = InvalidResult(f"the result cannot be pickled: {describe(error)}")
        answer = pickle.dumps((None, _Raised.of(unfit)))
    return answer


class _Helper(_CONTEXT.Process):
    """A process of a pool.  It says when it comes to its end: else its function has ended it.

    pebble takes no notice of a process that ends with 0, as all do that have run their jobs.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._heard, self._said = _CONTEXT.Pipe(duplex=False)

    def run(self) -> None:
        """See `multiprocessing.Process`."""
        super().run()
        self._said.send_bytes(b"done")

    @property
    def exitcode(self) -> int | None:
        """See `multiprocessing.Process`."""
        code: int | None = super().exitcode
        return _VANISHED if code == 0 and not self._heard.poll() else code


class _HelperContext(type(_CONTEXT)):  # type: ignore[misc]
    """Makes the processes of a pool."""

    Process = _Helper


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


def _the_pool(max_jobs: int) -> Any:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        _check_guard()  # else what multiprocessing raises has to do
    with _lock:
        pool = _pools.get(max_jobs)
        if pool is None or not pool.active:
            import pebble

            pool = _pools[max_jobs] = pebble.ProcessPool(
                max_workers=os.cpu_count() or 1, max_tasks=max_jobs, context=_HelperContext()
            )
            for function in _exit_functions:
                atexit.unregister(function)
                atexit.register(function)
        return pool


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
    """End the processes of all pools: nobody waits for what they do any more."""
    with _lock:
        pools = list(_pools.values())
        _pools.clear()
    for pool in pools:
        pool.stop()
    for pool in pools:
        pool.join()


def _forget_pools() -> None:
    # A forked child has no part in its parent's pools.
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(after_in_child=_forget_pools)
