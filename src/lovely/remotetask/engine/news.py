# SPDX-License-Identifier: ZPL-2.1
"""Whether there may be work, and when there will be."""

from __future__ import annotations

import math
from typing import Any

from lovely.remotetask.engine.identity import is_exclusive
from lovely.remotetask.engine.notifications import notifications_of
from lovely.remotetask.engine.session import Session
from lovely.remotetask.engine.wakeup import Watcher, Watchers, listener_of

#: What a commit of others has changed is fetched before it is asked for, if it is so little.
PREFETCH_SIZE = 32


class News:
    """What one worker has heard of a service.  See `protocol.News`.

    :ivar looked: the time up to which the last claim has looked.
    """

    def __init__(self, db: Any) -> None:
        is_alone = is_exclusive(db.storage)
        self._listener: Watchers | None = None if is_alone else listener_of(db)
        self.is_asked = not is_alone and self._listener is None
        if self.is_asked:
            self._listener = notifications_of(db)
        self._oids: list[bytes] = []  # of the objects that came with the last signal
        self.looked = -math.inf
        self._watcher: Watcher | None = None
        self._serials: tuple[bytes, ...] = ()  # of the queue, when it told its signals
        self._signals: list[Any] = []
        self._seen: list[bytes] = []

    @property
    def is_told(self) -> bool:
        """See `protocol.News`."""
        return self._listener is not None and self._listener.is_told

    def listen(self, session: Session, watcher: Watcher) -> None:
        """See `protocol.News`."""
        if self._listener is not None:
            self._watcher = watcher
            self._hear_of(session.begin().queue)
            session.abort()

    def _hear_of(self, queue: Any) -> None:
        if self._listener is not None and self._watcher is not None:
            self._watcher.signals = frozenset(signal._p_oid for signal in queue.signals)
            self._serials = queue.serials
            self._listener.watch(self._watcher)

    def forget(self, watcher: Watcher) -> None:
        """See `protocol.News`."""
        if self._listener is not None:
            self._listener.forget(watcher)

    def hear(self, oids: list[bytes]) -> None:
        """See `protocol.News`."""
        self._oids = oids

    def fetch(self, session: Session) -> None:
        """Fetch what came with the last signal: the job, its page, its place in the queue.

        Asked for one after the other they would take a round trip each.
        """
        oids, self._oids = self._oids, []
        if 0 < len(oids) <= PREFETCH_SIZE:
            session.connection.prefetch(oids)

    def note(self, service: Any) -> None:
        """Note what a claim has seen."""
        queue = service.queue
        if self._watcher is not None and queue.serials != self._serials:
            self._hear_of(queue)  # jobs may wait elsewhere too by now
        if self.is_asked:
            self._signals = queue.signals
            self._seen = _serials(self._signals)

    def has_signal(self, session: Session) -> bool:
        """See `protocol.News`.

        An object that no invalidation has reached since is compared at no cost.
        """
        session.renew()
        has_signal = _serials(self._signals) != self._seen
        if has_signal and self.is_told and self._listener is not None:
            self._listener.doubt()
        return has_signal

    def has_waiting(self, session: Session) -> bool:
        """See `protocol.News`."""
        return bool(session.begin().hasJobsWaiting())

    def next_due(self, session: Session) -> float | None:
        """See `protocol.News`.

        Jobs that were due at the last claim, and were left, wait for something else.
        """
        service = session.begin()
        session.check_reachable(service)
        due: float | None = service.queue.next_due(after=self.looked)
        return due


def _serials(signals: list[Any]) -> list[bytes]:
    # Not their values: of what is taken out and put in again none tells.
    for signal in signals:
        signal._p_activate()  # a ghost has no serial
    return [signal._p_serial for signal in signals]
