# SPDX-License-Identifier: ZPL-2.1
"""Brings a service that lovely.remotetask 0.5 has written to today's records, in steps.

Nothing here commits: each step is a transaction of the caller's.  Until the last one the service
stays what it was, with what has been made so far in an attribute of its own beside it; who is
stopped in between goes on there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property
from itertools import islice
from typing import Any

from persistent.mapping import PersistentMapping
from ZODB.POSException import POSKeyError

from lovely.remotetask import setting
from lovely.remotetask.engine.retention import DEFAULT_RETENTION, Retention
from lovely.remotetask.engine.service import Service
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.interfaces import FINAL_STATUSES, QUEUED
from lovely.remotetask.job import Job
from lovely.remotetask.store.oldjobs import Converter, OldPlaces, places_of
from lovely.remotetask.store.predecessor import is_old

#: So many jobs are brought over in one step.
STEP_SIZE = 500

#: What only 0.5 has on a service.
_OLD_PARTS = ("_queue", "_scheduledJobs", "_scheduledQueue", "_counter")

#: Where on the service stands what has been made so far.
_MADE = "_upgraded"

#: So many jobs are told of by name.
MAX_TOLD = 20


@dataclass
class Report:
    """What an upgrade has done so far, or would do.

    :ivar jobs: status -> number of jobs that have it now.
    :ivar claimed: jobs that a thread of 0.5 had claimed and not ended.
    :ivar remarks: what could not be kept as it was, the first `MAX_TOLD`.
    :ivar remark_count: how many of those there were.
    :ivar dropped: entries of jobs that are gone.
    :ivar outdated: jobs that ended before what the default retention keeps.
    """

    jobs: dict[str, int] = field(default_factory=dict)
    claimed: int = 0
    remarks: list[str] = field(default_factory=list)
    remark_count: int = 0
    dropped: int = 0
    outdated: int = 0

    def remark(self, text: str) -> None:
        """Tell something, if there is room."""
        self.remark_count += 1
        if len(self.remarks) < MAX_TOLD:
            self.remarks.append(text)


class Upgrade:
    """The upgrade of one service.

    :param service: a service that 0.5 has written.
    :param zone: what the naive dates of 0.5 mean; None is the local time of this machine.
    :param now: seconds since the epoch.
    :param runs_claimed: whether jobs that a thread of 0.5 had claimed run again; else they are
        errors.
    """

    def __init__(self, service: Any, zone: tzinfo | None, now: float, runs_claimed: bool) -> None:
        self._service = service
        self._zone = zone
        self._now = now
        self._runs_claimed = runs_claimed

    def plan(self) -> Report:
        """Return what an upgrade would do; nothing is changed.

        Transaction: reads only.
        """
        report = Report()
        old_jobs = self._stored["jobs"]
        converter = self._converter(None)
        for number, (jobid, old) in enumerate(old_jobs.items(), 1):
            self._convert(converter, old, jobid, report)
            if number % STEP_SIZE == 0:
                self._service._p_jar.cacheGC()
        self._count_dropped(report)
        return report

    def step(self) -> Report | None:
        """Do the next step; return a report when that was the last one.

        Transaction: writes, but does not commit.
        """
        service = self._service
        made = self._stored.get(_MADE)
        if made is None:
            made = PersistentMapping(
                parts=dict(vars(Service())), first=0, line=0, report=Report().__dict__
            )
            self._stored[_MADE] = made
            service._p_changed = True
        report = Report(**made["report"])
        if made["first"] is not None:
            self._bring_jobs(made, report)
        elif made["line"] < len(self.places.line):
            self._bring_line(made)
        else:
            self._count_dropped(report)
            self._end(made, report)
            return report
        made["report"] = dict(report.__dict__)
        return None

    @cached_property
    def places(self) -> OldPlaces:
        """Where the jobs wait that 0.5 has written."""
        return places_of(self._service)

    @property
    def _stored(self) -> dict[str, Any]:
        self._service._p_activate()
        stored: dict[str, Any] = vars(self._service)
        return stored

    def _converter(self, edits: Any) -> Converter:
        connection = self._service._p_jar
        return Converter(connection, edits, self._zone, self._now, self._runs_claimed)

    def _convert(self, converter: Converter, old: Any, jobid: int, report: Report) -> Job | None:
        try:
            job, is_claimed, lost = converter.convert(old, jobid, self.places)
        except POSKeyError:
            report.remark(f"job {jobid}: its record is missing")
            return None
        report.jobs[job.status] = report.jobs.get(job.status, 0) + 1
        report.claimed += is_claimed
        for text in lost:
            report.remark(f"job {jobid}: {text}")
        if job.is_final and job.completed_at is not None:
            bounds = DEFAULT_RETENTION[job.status]
            oldest = self._now - (bounds.max_age_seconds or self._now)
            report.outdated += job.completed_at < oldest
        return job

    def _bring_jobs(self, made: Any, report: Report) -> None:
        parts = made["parts"]
        old_jobs = self._stored["jobs"]
        converter = self._converter(parts["edits"])
        some = list(islice(old_jobs.items(made["first"]), STEP_SIZE))
        for oldid, old in some:
            jobid = oldid or self._free_id(parts["jobs"], old_jobs)
            job = self._convert(converter, old, jobid, report)
            if job is None:
                continue
            if jobid != oldid:
                report.remark(f"job {oldid} is job {jobid} now: ids begin at 1")
            parts["jobs"][jobid] = job
            # What stands in the line gets its place there, in its order, behind what had been
            # claimed.
            if job.status != QUEUED or old._p_oid not in self.places.line:
                parts["queue"].file(job)
        made["first"] = some[-1][0] + 1 if len(some) == STEP_SIZE else None

    @staticmethod
    def _free_id(jobs: Any, old_jobs: Any) -> int:
        while True:
            jobid: int
            [jobid] = jobs.free_ids(1, None)
            if jobid not in old_jobs:
                return jobid

    def _bring_line(self, made: Any) -> None:
        ids = self._ids_in_line
        line = list(islice(self.places.line, made["line"], made["line"] + STEP_SIZE))
        jobs = made["parts"]["jobs"].get_many(ids[oid] for oid in line if oid in ids)
        waiting = [job for job in jobs if job is not None and job.status == QUEUED]
        if waiting:
            made["parts"]["queue"].file_ready(waiting)
        made["line"] += len(line)

    @cached_property
    def _ids_in_line(self) -> dict[bytes, int]:
        line = self.places.line
        old_jobs = self._stored["jobs"]
        return {old._p_oid: jobid for jobid, old in old_jobs.items() if old._p_oid in line}

    def _count_dropped(self, report: Report) -> None:
        places = self.places
        entries = {*places.line, *places.due, *places.unscheduled}
        there = {old._p_oid for old in self._stored["jobs"].values()}
        report.dropped = len(entries - there)

    def _end(self, made: Any, report: Report) -> None:
        """Make the service one of today."""
        service = self._service
        stored = self._stored
        for name in (*_OLD_PARTS, _MADE):
            stored.pop(name, None)
        stored.update(made["parts"])
        service._p_changed = True
        for name in setting.CHECKS.keys() & stored.keys():
            try:
                setattr(service, name, stored[name])
            except InvalidArgument as error:
                delattr(service, name)
                report.remark(f"the setting {name} is the default now: {error}")
        if report.outdated:  # they have been kept until now
            service.retention = {status: Retention() for status in FINAL_STATUSES}


def is_upgradable(service: Any) -> bool:
    """Say whether a service was written by 0.5."""
    return isinstance(service, Service) and is_old(service)
