# SPDX-License-Identifier: ZPL-2.1
"""Waking up by what PostgreSQL tells of the commits of other processes.

Where its `trigger` is installed, a process has one connection and one thread for each database in
which services work.  It writes down what they wait for, listens, and wakes them.  Until that is
known to work, and whenever it does not, ``is_told`` says no, and they ask the storage instead.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
import uuid
import weakref
from contextlib import closing, suppress
from typing import Any

from ZODB.utils import p64, u64

from lovely.remotetask.engine import trigger
from lovely.remotetask.engine.session import is_closed
from lovely.remotetask.engine.wakeup import Watcher, Watchers
from lovely.remotetask.errors import describe

log = logging.getLogger("lovely.remotetask")

#: RelStorage's drivers whose connections can be waited on.
DRIVERS = ("psycopg2", "psycopg2cffi")

#: Who cannot listen tries again after so many seconds: when the connection was lost, the longer the
#: more often in a row; where there is no trigger; and where it is of no use.
LOST_SECONDS = 0.5
MAX_LOST_SECONDS = 30.0
NO_TRIGGER_SECONDS = 60.0
USELESS_SECONDS = 600.0

#: A notification of one's own has to arrive within so many seconds.
TEST_SECONDS = 5.0

#: So often who listens looks whether the trigger still works.
CHECK_SECONDS = 30.0

#: After a notification so long nobody listens: many commits a second are heard of together.
REST_SECONDS = 0.005

#: What one's own notification begins with.
TEST = "test "


class NotTold(Exception):
    """PostgreSQL does not tell, and why.

    :param seconds: after which to try again.
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class Notifications(Watchers):
    """Listens to a database in PostgreSQL, in a thread that ends when nobody waits any more.

    :param adapter: RelStorage's.
    """

    def __init__(self, db: Any, adapter: Any) -> None:
        super().__init__()
        self._db = weakref.ref(db)
        self._name = db.database_name
        self._adapter = adapter
        self._thread: threading.Thread | None = None
        self._bell: socket.socket | None = None  # rings in the thread when it listens
        self._rung = threading.Event()
        self._has_to_check = True
        self._told_until = 0.0  # by the monotonic clock; 0 where it does not tell
        self._said: str | None = None  # the last line of the log

    @property
    def is_told(self) -> bool:  # type: ignore[override]
        """Whether notifications arrive, as far as is known; not for long if nobody looks."""
        return time.monotonic() < self._told_until

    def watch(self, watcher: Watcher) -> None:
        """See `Watchers`."""
        super().watch(watcher)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"remotetask-notifications.{self._name}", daemon=True
                )
                self._thread.start()
        self.doubt()

    def forget(self, watcher: Watcher) -> None:
        """See `Watchers`."""
        super().forget(watcher)
        self._ring()

    def doubt(self) -> None:
        """See `Watchers`."""
        self._has_to_check = True
        self._ring()

    def _ring(self) -> None:
        self._rung.set()
        bell = self._bell
        if bell is not None:
            with suppress(OSError):  # it rings already, or the thread has just ended
                bell.send(b".")

    # -- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        faults = 0
        while self._is_needed():
            try:
                self._listen()
                continue
            except NotTold as error:
                reason, seconds = str(error), error.seconds
            except Exception as error:  # of any driver, and of sockets
                reason = " ".join(describe(error).split())
                if trigger.is_refused(error):
                    seconds = USELESS_SECONDS
                else:
                    seconds = min(MAX_LOST_SECONDS, LOST_SECONDS * 2 ** min(faults, 10))
                    reason = reason if self._told_until else ""  # it may never have told anything
                    faults = 0 if self._told_until else faults + 1
            self._be_told_no_more(reason)
            self._pause(seconds)

    def _is_needed(self) -> bool:
        db = self._db()
        with self._lock:
            if self._thread is not threading.current_thread():
                return False  # it was not, a moment ago
            if self.watchers and db is not None and not is_closed(db):
                return True
            self._thread = None  # whoever comes now starts another one
            self._told_until = 0.0
            return False

    def _be_told_no_more(self, reason: str) -> None:
        was_told, self._told_until = self._told_until, 0.0
        if reason:
            self._say(
                logging.WARNING,
                f"the database {self._name} tells nothing of new jobs, it is asked: {reason[:200]}",
            )
        if was_told:
            self.tell_all()  # they sleep in vain

    def _say(self, level: int, line: str) -> None:
        if line != self._said:
            self._said = line
            log.log(level, "%s", line)

    def _pause(self, seconds: float) -> None:
        """Wait until some time is over, or nobody waits any more."""
        end = time.monotonic() + seconds
        while self.watchers and (remaining := end - time.monotonic()) > 0:
            self._rung.wait(remaining)
            self._rung.clear()

    def _listen(self) -> None:
        """Listen until nobody waits any more.

        :raises NotTold: there is nothing to be heard.
        """
        opened, cursor = self._adapter.connmanager.open(application_name="RS: Listen")
        bell, ear = socket.socketpair()
        with (
            closing(opened) as connection,
            closing(cursor),
            closing(bell),
            closing(ear),
            selectors.DefaultSelector() as selector,
        ):
            connection.autocommit = True
            if not trigger.is_installed(self._adapter, cursor):
                raise NotTold("the trigger is gone" if self._told_until else "", NO_TRIGGER_SECONDS)
            bell.setblocking(False)
            ear.setblocking(False)
            selector.register(ear, selectors.EVENT_READ)
            selector.register(connection, selectors.EVENT_READ)
            self._bell = bell
            try:
                line = Line(connection, selector, ear)
                cursor.execute(f"LISTEN {trigger.CHANNEL}")
                self._test(line, cursor)
                self._hear(line, cursor)
            finally:
                if self._bell is bell:  # and not that of another thread by now
                    self._bell = None

    def _test(self, line: Line, cursor: Any) -> None:
        """See whether a notification arrives that another connection has sent.

        PgBouncer gives a connection of the server to another client after each transaction, and
        what arrives there in between is dropped.
        """
        text = f"{TEST}{uuid.uuid4().hex}"
        self._adapter.connmanager.open_and_call(lambda _, other: trigger.notify(other, text))
        end = time.monotonic() + TEST_SECONDS
        while self._is_needed() and text not in line.heard():
            if (remaining := end - time.monotonic()) <= 0:
                cursor.execute("UNLISTEN *")
                raise NotTold(
                    "notifications do not arrive (PgBouncer in transaction mode drops them)",
                    USELESS_SECONDS,
                )
            line.wait(remaining)

    def _hear(self, line: Line, cursor: Any) -> None:
        is_new = True
        checked = 0.0
        while self._is_needed():
            if self._has_to_check or time.monotonic() >= checked + CHECK_SECONDS:
                checked = time.monotonic()
                is_new |= self._check(cursor)
                self._told_until = time.monotonic() + 2 * CHECK_SECONDS
                if is_new:  # of what was committed before nobody was told
                    is_new = False
                    self.tell_all()
                self._say(logging.INFO, f"the database {self._name} tells of new jobs")
            if payloads := line.heard():
                for payload in payloads:
                    self._tell(payload)
                self._pause(REST_SECONDS)
            line.wait(checked + CHECK_SECONDS - time.monotonic())

    def _check(self, cursor: Any) -> bool:
        """See to it that the trigger knows what is waited for; say whether it has not known.

        :raises NotTold: there is no trigger any more.
        """
        self._has_to_check = False
        oids = {u64(oid) for watcher in self.all() for oid in watcher.signals if oid}
        if not trigger.is_installed(self._adapter, cursor):
            raise NotTold("the trigger is gone", NO_TRIGGER_SECONDS)
        if trigger.knows(cursor, oids):
            return False
        trigger.add(cursor, oids)
        return True

    def _tell(self, payload: str) -> None:
        if payload.startswith(TEST):
            return
        try:
            changed = [p64(int(number)) for number in payload.split(",")]
        except ValueError:  # there were too many
            self.tell_all()
        else:
            self.tell(changed, [])


class Line:
    """A connection that listens, and a bell that rings beside it."""

    def __init__(self, connection: Any, selector: selectors.BaseSelector, ear: socket.socket):
        self._connection = connection
        self._selector = selector
        self._ear = ear

    def wait(self, seconds: float) -> None:
        """Wait until there is something to be heard, or the bell has rung."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            if key.fileobj is self._ear:
                self._ear.recv(4096)

    def heard(self) -> list[str]:
        """Return the payloads of the notifications that have arrived."""
        self._connection.poll()
        payloads = [notification.payload for notification in self._connection.notifies]
        del self._connection.notifies[:]
        return payloads


_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[Any, Notifications] = weakref.WeakKeyDictionary()

if hasattr(os, "register_at_fork"):  # a platform without has no fork either
    os.register_at_fork(after_in_child=_known.clear)


def notifications_of(db: Any) -> Notifications | None:
    """Return who listens to a database.

    :returns: None where that is not RelStorage on PostgreSQL, with one of `DRIVERS`.
    """
    adapter = trigger.adapter_of(db.storage)
    if adapter is None or adapter.driver.__name__ not in DRIVERS:
        return None
    with _lock:
        found = _known.get(db)
        if found is None:
            found = _known[db] = Notifications(db, adapter)
        return found
