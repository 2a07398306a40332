# SPDX-License-Identifier: ZPL-2.1
"""The processors that run in this process: started, found, woken and stopped by service."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Any

from lovely.remotetask.errors import ServiceNotStored
from lovely.remotetask.invalidation import guard_ids
from lovely.remotetask.site import path_to


class _Started:
    """A processor and the thread it was started in."""

    def __init__(self, processor: Any, thread: threading.Thread) -> None:
        self.processor = processor
        self._thread = thread

    @property
    def thread(self) -> threading.Thread:
        """The thread that runs the loop; another one when the first hangs in a job."""
        return getattr(self.processor, "loop_thread", None) or self._thread


_lock = threading.Lock()
_started: weakref.WeakKeyDictionary[Any, dict[bytes, _Started]] = weakref.WeakKeyDictionary()
_stopped: list[_Started] = []
_closing: weakref.WeakSet[Any] = weakref.WeakSet()  # databases with `_stop_before_close`

#: Seconds that closing a database waits for running jobs.
CLOSE_SECONDS = 5.0


def _forget_threads() -> None:
    # A forked child has none of its parent's threads.
    global _lock
    _lock = threading.Lock()
    _started.clear()
    _stopped.clear()


os.register_at_fork(after_in_child=_forget_threads)


def start(service: Any) -> bool:
    """Start the thread of a service; say whether it did not run already.

    :raises ServiceNotStored: the service was not committed yet.
    """
    jar = service._p_jar
    if jar is None or (service._p_serial == b"\0" * 8 and service._p_changed is not None):
        raise ServiceNotStored
    db = jar.db()
    with _lock:
        services = _started.setdefault(db, {})
        if _is_alive(services.get(service._p_oid)):
            return False
        path = path_to(service)
        processor = service.processorFactory(db, path, **service.processorArguments)
        thread = threading.Thread(
            target=processor, name="remotetasks." + ".".join(path), daemon=True
        )
        services[service._p_oid] = _Started(processor, thread)
        _stop_before_close(db)
        thread.start()
        return True


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
            ending = list(_started.pop(db, {}).values())
            ending.extend(other for other in _stopped if getattr(other.processor, "db", None) is db)
        _end(ending, CLOSE_SECONDS)
        close()

    db.close = stop_and_close


def _is_alive(started: _Started | None) -> bool:
    return started is not None and started.thread.is_alive() and started.processor.running


def find(service: Any) -> Any:
    """Return the processor that works on a service in this process, or None."""
    jar = service._p_jar
    if jar is None:
        return None
    with _lock:
        started = _started.get(jar.db(), {}).get(service._p_oid)
    return started.processor if started is not None and _is_alive(started) else None


def stop(service: Any, timeout_seconds: float | None = None) -> None:
    """Stop the thread of a service, and wait for it if a time is given."""
    jar = service._p_jar
    if jar is None:
        return
    with _lock:
        started = _started.get(jar.db(), {}).pop(service._p_oid, None)
        if started is None:
            return
        _stopped[:] = [other for other in _stopped if other.thread.is_alive()]
        _stopped.append(started)
    started.processor.stop()
    if timeout_seconds is not None and started.thread is not threading.current_thread():
        started.thread.join(timeout_seconds)


def stop_all(timeout_seconds: float) -> bool:
    """Stop all threads of this process, and say whether they ended in time."""
    with _lock:
        ending = [started for services in _started.values() for started in services.values()]
        ending.extend(_stopped)
        _started.clear()
    return _end(ending, timeout_seconds)


def _end(ending: list[_Started], timeout_seconds: float) -> bool:
    for started in ending:
        started.processor.stop()
    end = time.monotonic() + timeout_seconds
    threads = [
        thread
        for started in ending
        for thread in (started.thread, getattr(started.processor, "keeper_thread", None))
        if thread is not None and thread is not threading.current_thread()
    ]
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    with _lock:
        others = [started for started in _stopped if started not in ending]
        _stopped[:] = [s for s in (*others, *ending) if s.thread.is_alive()]
    return not any(thread.is_alive() for thread in threads)


#: Seconds that the end of the interpreter waits for running jobs.
EXIT_SECONDS = 5.0

atexit.register(stop_all, EXIT_SECONDS)


def wake_after_commit(service: Any) -> None:
    """Wake the processor of a service when the current transaction is committed."""
    jar = service._p_jar
    if jar is None:
        return
    txn = jar.transaction_manager.get()
    try:
        services = txn.data(_started)
    except KeyError:
        services = set()
        txn.set_data(_started, services)
        txn.addAfterCommitHook(_wake, (services,))
        guard_ids(jar.db())  # also where jobs are only added, ids are dropped in time
    services.add((jar.db(), service._p_oid))


def _wake(is_committed: bool, services: set[tuple[Any, bytes]]) -> None:
    if not is_committed:
        return
    for db, oid in services:
        started = _started.get(db, {}).get(oid)
        if started is not None and hasattr(started.processor, "wake"):
            started.processor.wake()
