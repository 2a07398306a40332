# SPDX-License-Identifier: ZPL-2.1
"""The processors that run in this process: started, found, woken and stopped by service."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lovely.remotetask.base import processpool
from lovely.remotetask.engine.wakeup import guard
from lovely.remotetask.errors import ServiceNotStored


class _Started:
    """A processor and the thread it was started in.

    :ivar begun: when it was, in seconds since the epoch.
    """

    def __init__(self, processor: Any, thread: threading.Thread) -> None:
        self.processor = processor
        self._thread = thread
        self.begun = time.time()

    @property
    def thread(self) -> threading.Thread:
        """The thread that runs the loop; another one when the first hangs in a job."""
        return getattr(self.processor, "loop_thread", None) or self._thread

    @property
    def maintenance_thread(self) -> threading.Thread | None:
        """The thread beside the loop, if the processor has one."""
        return getattr(self.processor, "maintenance_thread", None)


_lock = threading.RLock()  # a processor is made under it, which comes here again
#: By database, and then by service and role.
_started: weakref.WeakKeyDictionary[Any, dict[tuple[bytes, str], _Started]] = (
    weakref.WeakKeyDictionary()
)
_stopped: list[_Started] = []
_attended: weakref.WeakSet[Any] = weakref.WeakSet()  # all processors that there are
_closing: weakref.WeakSet[Any] = weakref.WeakSet()  # databases with `_stop_before_close`

#: How many jobs each service that is started runs at a time, whatever its settings say; None
#: leaves it to them.  It is for who runs the process, as ``remotetask run --threads`` does.
threads: int | None = None

#: What the threads that are started ask before they run jobs, see `Allowance`; None lets them.
#: It is for who runs the process too.
allowance: Any = None

#: Seconds that closing a database waits for running jobs.
CLOSE_SECONDS = 5.0

#: Seconds that the end of the process waits for running jobs.
EXIT_SECONDS = 5.0

#: Seconds that giving back what still runs may take after that: the storage may not work.
LEAVE_SECONDS = 2.0

#: Seconds between two looks whether threads that are waited for were replaced by others.
LOOK_SECONDS = 0.05

#: A signal within this many seconds of the first one is the same again: ``timeout`` sends two.
SAME_SIGNAL_SECONDS = 0.3

#: What ends a process in an orderly way: a service manager, and a terminal that is closed.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

#: Set to 0, off, no or false, and these signals end the process on the spot, where nobody else
#: has a handler for them.
SIGTERM_SWITCH = "REMOTETASK_SIGTERM"

_terminated: float | None = None  # when the first of them came, by the monotonic clock
_forking = threading.local()  # the signal mask of a thread that forks


def _forget_threads() -> None:
    # A forked child has none of its parent's threads.
    global _lock, _terminated
    _lock = threading.RLock()
    _started.clear()
    _stopped.clear()
    _attended.clear()
    _terminated = None
    for number in _handled():
        signal.signal(number, signal.SIG_DFL)
    _take_signals()


def _hold_signals() -> None:
    # Python drops what reaches a child that still has its parent's handler: let it wait.
    if handled := _handled():
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)


def _take_signals() -> None:
    mask = vars(_forking).pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(
        before=_hold_signals, after_in_parent=_take_signals, after_in_child=_forget_threads
    )


def _handled() -> list[int]:
    return [number for number in ENDING if signal.getsignal(number) is _terminate]


def start(service: Any, role: str = "", before: Callable[[], None] = lambda: None) -> bool:
    """Start a thread of a service; say whether it did not run already.

    :param role: what it is to do, where a service has several.
    :param before: called when nothing can go wrong any more, before the thread begins.
    :raises ServiceNotStored: the service was not committed yet.
    :raises InvalidArgument: no processor can be made by its settings.
    """
    if service.place is None:
        raise ServiceNotStored
    db, key = service.place
    with _lock:
        services = _started.setdefault(db, {})
        if _is_alive(services.get((key, role))):
            return False
        processor, name = service.make_processor(role)
        if allowance is not None and hasattr(processor, "loop"):  # a scheduler runs no jobs
            processor.loop.crew.runner.allowance = allowance
        thread = threading.Thread(target=processor, name=name, daemon=True)
        services[key, role] = _Started(processor, thread)
        _attend_ends(db)
        before()
        thread.start()
        return True


def attend(processor: Any) -> None:
    """Let a processor, whoever runs it, give back what it holds when the process ends.

    Or when the database is closed.
    """
    with _lock:
        _attended.add(processor)
        _attend_ends(processor.db)


def _attend_ends(db: Any) -> None:
    _stop_before_close(db)
    take_endings()
    processpool.attend_exit()


def _stop_before_close(db: Any) -> None:
    """Let the closing of a database stop the processors that work in it first.

    ZODB has no hook for that, and a storage that is closed between the two phases of a
    commit leaves the committing thread waiting for ever.
    """
    if db in _closing:
        return
    _closing.add(db)
    close = db.close

    def stop_and_close() -> None:
        with _lock:
            _stopped.extend(_started.pop(db, {}).values())
            ending = [s for s in _all_stopping() if getattr(s.processor, "db", None) is db]
        _end(ending, CLOSE_SECONDS)
        _give_back(ending)
        close()

    db.close = stop_and_close


def _is_alive(started: _Started | None) -> bool:
    return started is not None and started.thread.is_alive() and started.processor.running


def _find(service: Any, role: str) -> _Started | None:
    if service.place is None:
        return None
    db, key = service.place
    with _lock:
        started = _started.get(db, {}).get((key, role))
    return started if _is_alive(started) else None


def find(service: Any, role: str = "") -> Any:
    """Return the processor that works on a service in this process, or None."""
    started = _find(service, role)
    return None if started is None else started.processor


def begun(service: Any, role: str = "") -> float | None:
    """Return when that was started, in seconds since the epoch; None if there is none."""
    started = _find(service, role)
    return None if started is None else started.begun


def stop(service: Any, timeout_seconds: float | None = None, role: str = "") -> bool:
    """Stop a thread of a service, and wait for it if a time is given; say whether there was one."""
    if service.place is None:
        return False
    db, key = service.place
    with _lock:
        started = _started.get(db, {}).pop((key, role), None)
        if started is None:
            return False
        _stopped[:] = [other for other in _stopped if other.thread.is_alive()]
        _stopped.append(started)
    started.processor.stop()
    if timeout_seconds is not None and started.thread is not threading.current_thread():
        started.thread.join(min(timeout_seconds, threading.TIMEOUT_MAX))
    return True


def all_started() -> list[Any]:
    """Return the processors that were started in this process, and that nobody has stopped."""
    return [each.processor for each in _all_started()]


def are_alive() -> bool:
    """Say whether all threads that were started and that nobody has stopped are alive."""
    return all(each.thread.is_alive() for each in _all_started() if each.processor.running)


def _all_started() -> list[_Started]:
    with _lock:
        return [each for services in _started.values() for each in services.values()]


def hurry() -> None:
    """Let all processors look at once what is to be done beside jobs; those that stop too."""
    with _lock:
        processors = list(_attended)
    for processor in processors:
        if hasattr(processor, "loop"):  # others claim no jobs
            processor.loop.maintenance.hurry()


def stop_all(timeout_seconds: float) -> bool:
    """Stop all threads of this process, and say whether they ended in time."""
    return _end(_stopping(), timeout_seconds)


def leave(timeout_seconds: float) -> bool:
    """Stop all threads for the end of the process, and say whether they ended in time.

    The jobs that still run then are given back, and are no attempts.
    """
    ending = _stopping()
    has_ended = _end(ending, timeout_seconds)
    _give_back(ending)
    if not has_ended:
        processpool.end()
    return has_ended


def _stopping() -> list[_Started]:
    """Return all that is started or stops, which stops from here on."""
    with _lock:
        _stopped.extend(started for services in _started.values() for started in services.values())
        _started.clear()
        return _all_stopping()


def _all_stopping() -> list[_Started]:
    # Processors that others run have no thread to wait for, but where they have a loop.
    this = threading.current_thread()
    return [*_stopped, *(_Started(processor, this) for processor in _attended)]


def _end(ending: list[_Started], timeout_seconds: float) -> bool:
    for started in ending:
        started.processor.stop()
    has_ended = _wait(
        lambda: [t for s in ending for t in (s.thread, s.maintenance_thread)], timeout_seconds
    )
    with _lock:
        _stopped[:] = [started for started in _stopped if started.thread.is_alive()]
    return has_ended


def _give_back(ending: list[_Started]) -> None:
    left = [started for started in ending if hasattr(started.processor, "leave")]
    for started in left:
        started.processor.leave()
    _wait(lambda: [started.maintenance_thread for started in left], LEAVE_SECONDS)
    with _lock:  # a thread that still runs has nothing more to do: nobody waits for it again
        _stopped[:] = [started for started in _stopped if started not in left]


def _wait(threads: Callable[[], list[threading.Thread | None]], timeout_seconds: float) -> bool:
    """Wait until threads have ended, and say whether they have; asked again and again for them."""
    end = time.monotonic() + timeout_seconds
    while True:
        alive = [thread for thread in threads() if thread is not None and thread.is_alive()]
        alive = [thread for thread in alive if thread is not threading.current_thread()]
        remaining = end - time.monotonic()
        if not alive or remaining <= 0:
            return not alive
        alive[0].join(min(remaining, LOOK_SECONDS))


def _leave_at_exit() -> None:
    leave(EXIT_SECONDS)


processpool.call_at_exit(_leave_at_exit)


def is_switched_off(switch: str) -> bool:
    """Say whether an environment variable says no."""
    return os.environ.get(switch, "").lower() in ("0", "off", "no", "false")


def take_endings() -> None:
    """Let signals give back the running jobs first, where they would end the process at once.

    It is called with the first processor; a server whose first one may start in another thread
    calls it before, in the main thread.
    """
    if threading.current_thread() is not threading.main_thread() or is_switched_off(SIGTERM_SWITCH):
        return  # other threads cannot set handlers
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            with suppress(ValueError):  # an interpreter beside the main one cannot either
                signal.signal(number, _terminate)


def _terminate(number: int, frame: object) -> None:
    # This comes amid anything that the main thread does, with any lock in its hand: so
    # nothing is done here that needs one.
    global _terminated
    now = time.monotonic()
    if _terminated is None:
        _terminated = now
        with suppress(RuntimeError):  # the interpreter ends already, with what `leave` does
            _thread.start_new_thread(_leave_and_die, (number,))
    elif now - _terminated > SAME_SIGNAL_SECONDS:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _leave_and_die(number: int) -> None:
    global _terminated
    try:
        leave(EXIT_SECONDS)
    finally:
        _terminated = float("-inf")
        os.kill(os.getpid(), number)  # once more, for the exit status


def wake_after_commit(service: Any) -> None:
    """Wake the processor of a service when the current transaction is committed."""
    jar = service._p_jar
    if jar is None:
        return
    txn = jar.transaction_manager.get()
    # The hook itself says that it is there: it goes when a job that has failed is taken back.
    for hook, arguments, _ in txn.getAfterCommitHooks():
        if hook is _wake:
            services = arguments[0]
            break
    else:
        services = set()
        txn.addAfterCommitHook(_wake, (services,))
        guard(jar.db())  # also where jobs are only added, to a service that was just made
    services.add((jar.db(), service._p_oid))


def _wake(is_committed: bool, services: set[tuple[Any, bytes]]) -> None:
    if not is_committed:
        return
    for place in services:
        wake(*place)


def wake(db: Any, key: bytes) -> None:
    """Wake the processors of a service, of all roles."""
    for (other, _), started in list(_started.get(db, {}).items()):
        if other == key and hasattr(started.processor, "wake"):
            started.processor.wake()
