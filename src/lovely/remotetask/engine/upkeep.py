# SPDX-License-Identifier: ZPL-2.1
"""What is done for all workers of a service, by any of them, in steps.

Most steps find nothing to do.  So they go on in the transaction that `Upkeep.lease_seconds` has
begun, until one of them writes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lovely.remotetask.base.site import entered
from lovely.remotetask.engine.claim import expire_waiting
from lovely.remotetask.engine.claims import Claims
from lovely.remotetask.engine.identity import Observer, is_exclusive, local_ids
from lovely.remotetask.engine.rescue import orphans, rescue, told_dead
from lovely.remotetask.engine.retention import prune
from lovely.remotetask.engine.session import Session
from lovely.remotetask.job import job_log
from lovely.remotetask.setting import read
from lovely.remotetask.store import worker
from lovely.remotetask.store.awaiting import BEGIN, check_awaiting
from lovely.remotetask.store.check import check_jobs
from lovely.remotetask.store.lost import check_records


class Upkeep:
    """The steps, as one worker does them.  See `protocol.Upkeep`."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._observer = Observer()
        self._looked = BEGIN  # see `check_awaiting`
        self.on_missed: Callable[[], None] = lambda: None
        claims.transact.on_missed = lambda: self.on_missed()

    def lease_seconds(self, session: Session) -> float:
        """See `protocol.Upkeep`."""
        service = session.begin()
        session.check_reachable(service)
        lease: float = read(service, "lease_seconds")
        return lease

    # -- rescue -----------------------------------------------------------------------

    def free(
        self,
        session: Session,
        worker_ids: Iterable[str],
        serials: Mapping[str, bytes] | None = None,
    ) -> int:
        """Free what dead workers hold; return the number of freed jobs.

        :param serials: those of their records by which they were found dead; see `rescue`.  Who
            is found so can be freed later too, and must not keep the next sign of life waiting.
            None: they are dead in any case.

        Transaction: commits.
        """
        now = self._claims.clock()
        transact = self._claims.transact
        freed = 0
        for worker_id in worker_ids:
            serial = None if serials is None else serials[worker_id]
            change = functools.partial(rescue, worker_id=worker_id, now=now, serial=serial)
            freed += (transact if serials is None else transact.once)(session, change) or 0
        return freed

    def free_orphans(self, session: Session) -> int:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        if is_exclusive(self._claims.db.storage):
            find = orphans
        elif worker.ended:
            find = told_dead
        else:
            return 0
        found = find(session.begin())
        session.abort()
        return self.free(session, found)

    def ensure_declared(self, session: Session) -> None:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """

        def change(service: Any) -> None:
            with entered(session.site(service)):
                service.ensure_declared()

        self._claims.transact(session, change)

    def free_dead(self, session: Session, lease_seconds: float) -> int:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        dead = dict(self._dead(session.go_on(), lease_seconds))
        return self.free(session, dead, dead)

    def _dead(self, service: Any, lease_seconds: float) -> list[tuple[str, bytes]]:
        local = local_ids(service)
        others = {
            worker_id: record
            for worker_id, record in service.workers.items()
            if worker_id not in local
        }
        dead = self._observer.dead(others, lease_seconds, self._claims.monotonic())
        return dead + [(name, other._p_serial) for name, other in others.items() if other.has_ended]

    # -- mending ----------------------------------------------------------------------

    def mend(self, session: Session) -> bool:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        transact = self._claims.transact
        if not transact.has_missed:
            return False
        transact.has_missed = False
        look = functools.partial(check_records, repair=True, with_jobs=False)
        problems = transact.once(session, look) or []
        for problem in problems:
            if problem.is_mendable:
                job_log.error("%s; taken out, all jobs are checked", problem.text)
            else:
                job_log.error("%s", problem.text)
        return any(problem.is_mendable for problem in problems)

    def look_after(self, session: Session) -> bool:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        transact = self._claims.transact
        look = functools.partial(check_awaiting, now=self._claims.clock(), after=self._looked)
        problems, self._looked = look(session.go_on(), repair=False)
        for problem in problems:
            job_log.error("job %s: %s; mended", problem.jobid, problem.text)
        return bool(problems and transact.once(session, functools.partial(look, repair=True)))

    # -- what can wait ----------------------------------------------------------------

    def expire(self, session: Session, size: int) -> bool:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        change = functools.partial(expire_waiting, now=self._claims.clock(), size=size)
        return self._claims.transact.once(session, change, goes_on=True) == size

    def prune(self, session: Session, size: int) -> bool:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        change = functools.partial(prune, now=self._claims.clock(), size=size)
        return self._claims.transact.once(session, change, goes_on=True) == size

    def check(self, session: Session, first: int, size: int) -> int | None:
        """See `protocol.Upkeep`.

        Transaction: commits.
        """
        transact = self._claims.transact
        look = functools.partial(check_jobs, now=self._claims.clock(), first=first, size=size)
        found = transact.once(session, functools.partial(look, repair=False), goes_on=True)
        if found is None:
            return None
        problems, following = found
        problems = [problem for problem in problems if problem.is_mendable]
        if problems:
            for problem in problems:
                job_log.error("job %s: %s; mended", problem.jobid, problem.text)
            transact.once(session, functools.partial(look, repair=True))
        return following

    def rest(self, session: Session) -> None:
        """See `protocol.Upkeep`."""
        session.connection.cacheMinimize()
