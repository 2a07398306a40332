# SPDX-License-Identifier: ZPL-2.1
"""Tells of failed jobs by e-mail, those of five minutes in one.

A schedule looks for them, so that a job counts whose process was killed, and a hundred failures
make one letter.
"""

from __future__ import annotations

import time
from email.message import EmailMessage
from typing import Any

from AccessControl.SecurityManagement import (
    getSecurityManager,
    noSecurityManager,
    setSecurityManager,
)
from plone.base.interfaces import IMailSchema
from plone.registry.interfaces import IRegistry
from zope.component import getUtility
from zope.component.hooks import getSite

from lovely.remotetask.hosts.plone.jobs import find_service, user_of
from lovely.remotetask.hosts.plone.settings import PREFIX, setting
from lovely.remotetask.task import task

#: The key of the schedule, and the name of its task.
TASK = "lovely.remotetask.plone.failures"

#: The record of the registry with the time up to which failures were told.
TOLD = f"{PREFIX}.failures_told"

#: A failure is told when it is so old, in seconds: its commit may come later than its time.
LAG_SECONDS = 60.0

#: A letter tells of no more failures, but of how many more there are.
MAX_TOLD = 50


def setting_changed(event: Any) -> None:
    """Begin to look for failures, or no longer: for `IRecordModifiedEvent`.

    Transaction: writes, but does not commit.
    """
    if event.record.__name__ == f"{PREFIX}.failure_mail":
        set_up(bool(event.newValue))


def set_up(is_wanted: bool) -> None:
    """Let there be the schedule, or let there be none.

    Transaction: writes, but does not commit.
    """
    service = find_service()
    if service is None:
        return
    if not is_wanted:
        service.remove_schedule(TASK)
        return
    getUtility(IRegistry)[TOLD] = time.time()
    manager = getSecurityManager()
    noSecurityManager()  # who sets it up may leave one day
    try:
        service.ensure(TASK, TASK, cron="*/5 * * * *")
    finally:
        setSecurityManager(manager)


@task(TASK)
def tell_failures(input: Any) -> int:
    """Send what has failed since the last time; return how many jobs that is."""
    recipient, registry = setting("failure_mail"), getUtility(IRegistry)
    since = registry.get(TOLD)
    if not recipient or since is None:
        return 0
    jobs = _failed(find_service(), since, time.time() - LAG_SECONDS)
    if jobs:
        registry[TOLD] = jobs[0].completed.timestamp()
        _send(recipient, jobs)
    return len(jobs)


def _failed(service: Any, since: float, until: float) -> list[Any]:
    """Return the jobs that failed in a time, the newest first."""
    found: list[Any] = []
    after = None
    while True:
        page = service.errors(after=after, limit=200)
        for job in page.jobs:
            ended = job.completed.timestamp()
            if ended <= since:
                return found
            if ended <= until:
                found.append(job)
        after = page.next
        if after is None:
            return found


def _send(recipient: str, jobs: list[Any]) -> None:
    site = getSite()
    settings = getUtility(IRegistry).forInterface(IMailSchema, prefix="plone", check=False)
    pages = f"{site.absolute_url()}/@@remotetask-job?id="
    lines = []
    for job in jobs[:MAX_TOLD]:
        lines.append(f"Job {job.id}, {job.task}, of {user_of(job) or 'nobody'}: {job.error}")
        lines.append(f"    {pages}{job.id}")
    if len(jobs) > MAX_TOLD:
        lines.append(f"and {len(jobs) - MAX_TOLD} more")
    message = EmailMessage()
    message["Subject"] = f"{len(jobs)} failed jobs in {site.title}".replace("\n", " ")
    message["From"] = settings.email_from_address or recipient
    message["To"] = recipient
    message.set_content("\n".join(lines))
    site.MailHost.send(message.as_string(), message["To"], message["From"])
