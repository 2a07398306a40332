# SPDX-License-Identifier: ZPL-2.1
"""The transactions by which a failed run is settled: one asks what is to follow, one writes it.

An exception and a retry policy are somebody's code.  What that does to the transaction in which it
is asked, or to its connection, is gone by the time that anything is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lovely.remotetask.base.loglines import LogLines
from lovely.remotetask.base.site import entered
from lovely.remotetask.engine.fence import Fenced, held_job
from lovely.remotetask.engine.outcome import Verdict, judge, postpone, settle, settle_plainly
from lovely.remotetask.engine.protocol import Claim, Stopping
from lovely.remotetask.engine.session import SessionBase
from lovely.remotetask.engine.transactions import Transactor
from lovely.remotetask.errors import ServiceGone, WriteConflicts, describe, is_kind
from lovely.remotetask.job import Job, job_log

Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Settling:
    """Writes down what becomes of the failed runs of one worker."""

    def __init__(self, transact: Transactor, clock: Callable[[], float]) -> None:
        self._transact = transact
        self._clock = clock

    def keep(
        self,
        session: SessionBase,
        claim: Claim,
        error: BaseException,
        lines: LogLines | None,
        told: str,
    ) -> tuple[Verdict, str]:
        """Ask what is to follow a failure, and keep it; return that, and the job's status.

        :param lines: what the run has logged.
        :param told: the traceback of the error.
        :raises Fenced: the job is no longer held.
        """
        verdicts: list[Verdict] = []

        def ask(service: Any, job: Job) -> Verdict:
            with entered(session.site(service)):
                # No task has a say in what its jobs meet beside it.
                task = None if is_kind(error, WriteConflicts) else service.find_task(job.task)
                verdicts.append(judge(job, task, error, self._clock(), told))
            return verdicts[-1]

        def keep(service: Any, job: Job, verdict: Verdict) -> tuple[Verdict, str]:
            with entered(session.site(service)):
                settle(service, job, verdict, self._clock(), lines)
            return verdict, job.status

        try:
            return self._ask_and_keep(session, claim, ask, keep)
        except (Fenced, ServiceGone, Stopping):
            raise
        except Exception as fault:
            if session.is_closed or not verdicts:
                raise
            # The storage works, so it is what was to be written: the job ends without that.
            self._transact.log(fault)
            return self._keep_plainly(session, claim, verdicts[-1], fault)

    def _keep_plainly(
        self, session: SessionBase, claim: Claim, verdict: Verdict, fault: Exception
    ) -> tuple[Verdict, str]:
        def ask(service: Any, job: Job) -> Verdict:
            return verdict.as_end(fault)

        def keep(service: Any, job: Job, end: Verdict) -> tuple[Verdict, str]:
            settle_plainly(service, job, end, self._clock())
            return end, job.status

        return self._ask_and_keep(session, claim, ask, keep)

    def put_back(
        self, session: SessionBase, claim: Claim, conflicts: int, error: BaseException
    ) -> tuple[str, WriteConflicts | None]:
        """Put back a job that has met write conflicts, if it has met anything else lately.

        :param conflicts: how many runs of this attempt have met one.
        :param error: the last one.
        :returns: its status, and its error if it is not put back.
        :raises Fenced: the job is no longer held.
        """

        def ask(service: Any, job: Job) -> tuple[WriteConflicts, str]:
            return WriteConflicts.after(job.collisions + conflicts, error), describe(error)

        def keep(
            service: Any, job: Job, said: tuple[WriteConflicts, str]
        ) -> tuple[str, WriteConflicts | None, str]:
            is_put_back = postpone(service, job, conflicts, self._clock())
            return job.status, None if is_put_back else said[0], said[1]

        status, end, text = self._ask_and_keep(session, claim, ask, keep)
        if end is None:
            job_log.info(
                "job %s: task %s, attempt %s met %s write conflicts, the last: %s",
                claim.name,
                claim.task,
                claim.attempt,
                conflicts,
                text,
            )
        return status, end

    def _ask_and_keep(
        self,
        session: SessionBase,
        claim: Claim,
        ask: Callable[[Any, Job], Answer],
        keep: Callable[[Any, Job, Answer], Result],
    ) -> Result:
        """Ask once, in a transaction that is aborted, and keep the answer in another one.

        :param ask: called with the service and the job.
        :param keep: called with these and the answer.
        :returns: what `keep` does.
        """
        answers: list[Answer] = []

        def change(service: Any) -> Result:
            if not answers:
                answers.append(session.ask(ask, service, held_job(service, claim)))
                service = session.begin()
            return keep(service, held_job(service, claim), answers[0])

        return self._transact(session, change)
