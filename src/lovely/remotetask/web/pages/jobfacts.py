# SPDX-License-Identifier: ZPL-2.1
"""What most jobs do not have: what they wait for, whom they follow, keys, locks, groups."""

from __future__ import annotations

from typing import Any, NamedTuple

from lovely.remotetask.job import CronJob
from lovely.remotetask.store.quarantine import load
from lovely.remotetask.web.facts import group_of, transaction_text
from lovely.remotetask.web.pages import wording
from lovely.remotetask.web.routing import Context

#: So many other jobs are named in a row.
MAX_NAMED = 10


class Row(NamedTuple):
    """What is said of a job under a name.

    :ivar jobs: others that it is about: address, id, and what is said of each.
    :ivar moment: a time, as `wording.moment_of` tells it.
    """

    name: str
    text: str = ""
    jobs: tuple[tuple[str, str, str], ...] = ()
    moment: dict[str, str] | None = None


def rows(context: Context, job: Any, now: float) -> list[Row]:
    """Return what is said of a job; what it does not have is left out."""
    told = [
        Row("Waits for", job.waits_for or ""),
        Row("After", *_named(context, job.after)),
        Row("Group", *_group(context, job)),
        Row("Added by", *_named(context, () if job.cause is None else (job.cause,))),
        Row("If completed", _follow_up(job.on_success)),
        Row("If it fails", _follow_up(job.on_error)),
        Row("Priority", str(job.priority or "")),
        Row("Lock", job.lock or ""),
        Row("Unique key", job.unique_key or ""),
        Row("Schedule key", (isinstance(job, CronJob) and job.key) or ""),
        Row("Expires", moment=None if job.is_final else wording.moment_of(job.expires, now)),
        Row("Transaction", transaction_text(job) or ""),
    ]
    return [row for row in told if row.text or row.jobs or row.moment]


def _follow_up(given: Any) -> str:
    return f"adds a job of {given[0]}" if given else ""


def _named(context: Context, jobids: Any) -> tuple[str, tuple[tuple[str, str, str], ...]]:
    """Return other jobs with their statuses, and how many more there are."""
    others = []
    for jobid in jobids[:MAX_NAMED]:
        other = load(context.service.jobs, jobid)
        status = "gone" if other is None else other.status
        others.append((context.url(f"/jobs/{jobid}"), str(jobid), status))
    left = len(jobids) - len(others)
    return (f"and {wording.count(left, 'other')}" if left else ""), tuple(others)


def _group(context: Context, job: Any) -> tuple[str, tuple[tuple[str, str, str], ...]]:
    """Return how far the group of a job is, and the job that ends it."""
    group = group_of(context.service, job)
    if group is None:
        return "", ()
    text = f"{group.done:,} of {wording.count(group.total, 'job')} ended"
    if group.errors:
        text += f", {wording.count(group.errors, 'error')}"
    if group.id == job.id:
        return f"{text}; this job ends it", ()
    return text, ((context.url(f"/jobs/{group.id}"), str(group.id), "ends it"),)
