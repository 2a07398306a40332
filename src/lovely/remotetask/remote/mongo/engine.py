# SPDX-License-Identifier: ZPL-2.1
"""The engine of remote processors on MongoDB: claims, news and upkeep.

The runs are those of `lovely.remotetask.engine.execution`, as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import transaction

from lovely.remotetask.engine.claim import claim_of, give_back
from lovely.remotetask.engine.execution import Execution
from lovely.remotetask.engine.hand import Hand
from lovely.remotetask.engine.identity import Identity
from lovely.remotetask.engine.protocol import Claim
from lovely.remotetask.engine.rescue import free_job
from lovely.remotetask.engine.transactions import Transactor
from lovely.remotetask.interfaces import PROCESSING, QUEUED
from lovely.remotetask.job import time_at
from lovely.remotetask.remote.mongo.claiming import Worker, claim_next, extend, waiting
from lovely.remotetask.remote.mongo.database import JOBS
from lovely.remotetask.remote.mongo.documents import id_of
from lovely.remotetask.remote.mongo.session import Session
from lovely.remotetask.setting import read

#: No more jobs than this are freed at one look.
MAX_FREED = 100


class Claims(Hand):
    """One worker, and the claims that it has in hand.  See `protocol.Claims`.

    A claim is written in the job's document alone: who has it, and until when.  Signs of life
    extend that.

    :param query: limits the jobs.
    """

    def __init__(
        self,
        processor: Any,
        pause: Callable[[float], bool],
        query: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.db = processor.database
        name = processor.__name__ or processor.database.name
        transact = Transactor(name, pause, monotonic)
        super().__init__(Identity(self.db), transact, pause, clock, monotonic)
        self.processor = processor
        self.query = query
        self.looked = -math.inf
        self._is_unsure = False  # whether a claim may be written that nobody knows of

    # -- claims -------------------------------------------------------------------------

    def claim(self, session: Session, limit: int, may_reserve: bool = False) -> list[Claim]:
        """See `protocol.Claims`.  Each takes a round trip of its own, but for the look before."""
        with self.lock:
            self.check_stays()
            claims = self.transact(session, partial(self._claim, limit)) if limit else []
            if claims and not self.in_hand:
                self.last_sign = self.monotonic()
            for claim in claims:
                self.in_hand[claim.jobid] = claim
            self.holds = bool(self.in_hand)
            return claims

    def _claim(self, limit: int, service: Any) -> list[Claim]:
        if self._is_unsure and (claims := self._unnoticed(service)):
            return claims
        if self.pause(0):
            return []
        worker = Worker.here(self.identity.id)
        has_suspect = any(claim.is_suspect for claim in list(self.in_hand.values()))
        now = self.looked = self.clock()
        self._is_unsure = True
        records = claim_next(service, worker, self.query, now, now, limit, has_suspect)
        self._is_unsure = False
        return list(map(claim_of, records))

    def _unnoticed(self, service: Any) -> list[Claim]:
        """Return claims of this worker that it does not know of: their answers were lost."""
        mine = {"status": PROCESSING, "_claim.worker": self.identity.id}
        held: list[Any] = list(self.in_hand)
        documents = service.connection.database.find(JOBS, mine)
        self._is_unsure = False
        return [
            claim_of(service.connection.see(JOBS, document).record)
            for document in documents
            if str(document["_id"]) not in held
        ]

    def claim_reserved(self, session: Session, claims: list[Claim]) -> list[Claim]:
        """See `protocol.Claims`: nothing is reserved here."""
        return []

    def find(self, session: Session, jobid: int) -> Claim | None:
        """See `protocol.Claims`."""
        return self.in_hand.get(jobid)

    def give_back(self, session: Session, claims: list[Claim], waits: bool = True) -> None:
        """See `protocol.Claims`."""
        with self.lock:
            self._give_back(session, claims, [])

    def leave(self, session: Session, running: list[Claim]) -> None:
        """See `protocol.Claims`."""
        with self.lock:
            self.has_left = True
            self._give_back(session, list(self.in_hand.values()), running)

    def _give_back(self, session: Session, claims: list[Claim], running: list[Claim]) -> None:
        now = self.clock()

        def change(service: Any) -> None:
            for claim in claims:
                job = service.jobs.get(claim.jobid)
                if job is not None and self.has(claim):
                    give_back(service, job, claim, claim in running, now)

        self.transact(session, change)
        for claim in claims:
            self.let_go(claim)
        self.holds = bool(self.in_hand)

    def release(self, session: Session, claim: Claim) -> None:
        """See `protocol.Claims`: there is nothing to be filed."""

    def beat(self, session: Session) -> None:
        """See `protocol.Claims`: of the jobs in hand the leases begin anew."""
        with self.lock:
            keys = [id_of(jobid) for jobid in list(self.in_hand)]
            self.transact(session, partial(extend, keys=keys, worker=self.identity.id))
            self.last_sign = self.monotonic()

    # -- sessions -----------------------------------------------------------------------

    def open(self) -> Session:
        """See `protocol.Claims`."""
        return Session(self.processor)

    def open_beside(self) -> Session:
        """See `protocol.Claims`."""
        return Session(self.processor, transaction.TransactionManager())


class News:
    """Whether there may be work.  See `protocol.News`.

    The database tells nothing by itself: it is asked each ``waitTime``, and when this process
    has written something.
    """

    is_asked = False
    is_told = False

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def listen(self, session: Session, watcher: Any) -> None:
        """See `protocol.News`."""

    def hear(self, oids: list[bytes]) -> None:
        """See `protocol.News`."""

    def forget(self, watcher: Any) -> None:
        """See `protocol.News`."""

    def has_signal(self, session: Session) -> bool:
        """See `protocol.News`."""
        return False

    def has_waiting(self, session: Session) -> bool:
        """See `protocol.News`."""
        database = self._claims.db
        kinds = {"$in": list(database.known)}
        wanted = waiting(self._claims.query, self._claims.clock(), kinds)
        return bool(database.find(JOBS, wanted, limit=1, projection={"_id": 1}))

    def next_due(self, session: Session) -> float | None:
        """See `protocol.News`."""
        looked = self._claims.looked
        if looked == -math.inf:
            return None
        wanted = {"status": QUEUED, "retryTime": {"$gt": time_at(looked)}}
        found = self._claims.db.find(JOBS, wanted, "retryTime", 1, {"retryTime": 1})
        return found[0]["retryTime"].timestamp() if found else None


class Upkeep:
    """What is done for all workers.  See `protocol.Upkeep`.

    There are no indexes but those of the server, so that nothing has to be compared or mended;
    and jobs that have ended stay until they are removed.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self.on_missed: Callable[[], None] = lambda: None

    def lease_seconds(self, session: Session) -> float:
        """See `protocol.Upkeep`."""
        lease: float = read(self._claims.processor, "lease_seconds")
        return lease

    def free_orphans(self, session: Session) -> int:
        """See `protocol.Upkeep`: others may always be alive."""
        return 0

    def ensure_declared(self, session: Session) -> None:
        """See `protocol.Upkeep`."""

    def free_dead(self, session: Session, lease_seconds: float) -> int:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        over = {"status": PROCESSING, "retryTime": {"$lte": time_at(self._claims.clock())}}
        over["_type"] = {"$in": list(self._claims.db.known)}
        found = self._claims.db.find(JOBS, over, "retryTime", MAX_FREED, {"_id": 1})
        freed = 0
        for document in found:
            change = partial(self._free, key=document["_id"])
            freed += self._claims.transact.once(session, change) or 0
        return freed

    def _free(self, service: Any, key: Any) -> int:
        now = self._claims.clock()
        entry = service.connection.get(JOBS, key)
        if entry is None or entry.record.status != PROCESSING:
            return 0
        lease = entry.stored.get("retryTime")
        if lease is None or lease.timestamp() > now:
            return 0  # a sign of life has come meanwhile
        entry.conditions["retryTime"] = lease
        free_job(service, entry.record, Worker.of(entry.stored), now)
        return 1

    def mend(self, session: Session) -> bool:
        """See `protocol.Upkeep`."""
        return False

    def expire(self, session: Session, size: int) -> bool:
        """See `protocol.Upkeep`."""
        return False

    def look_after(self, session: Session) -> bool:
        """See `protocol.Upkeep`.  No job waits for others here."""
        return False

    def prune(self, session: Session, size: int) -> bool:
        """See `protocol.Upkeep`."""
        return False

    def check(self, session: Session, first: int, size: int) -> int | None:
        """See `protocol.Upkeep`."""
        return 0

    def rest(self, session: Session) -> None:
        """See `protocol.Upkeep`."""


class Engine:
    """What is done for one worker.  See `protocol.Engine`."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.execution = Execution(cast(Any, claims))
        self.news = News(claims)
        self.upkeep = Upkeep(claims)

    @property
    def is_closed(self) -> bool:
        """See `protocol.Engine`."""
        is_closed: bool = self.claims.db.is_closed
        return is_closed

    def wait_for_storage(self, error: BaseException, faults: int) -> None:
        """See `protocol.Engine`."""
        self.claims.transact.wait_for_storage(error, faults)
