# SPDX-License-Identifier: ZPL-2.1
"""Applications of zope.security, such as those of BlueBream and grok: a principal for each job.

A job runs in an interaction of its own, with the principal who has added it.  ``configure.zcml``
sets this up when the database is opened; `set_up` does it elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from zope.component import queryUtility
from zope.interface import implementer
from zope.security.interfaces import IParticipation
from zope.security.management import endInteraction, newInteraction, queryInteraction

from lovely.remotetask.around import register_around, register_context
from lovely.remotetask.hosts.users import UserGone, named_user

#: What this module registers around jobs, and what travels with them, is called so.
NAME = "lovely.remotetask.principal"

_come: ContextVar[str | None] = ContextVar("principal", default=None)


@implementer(IParticipation)
class Participation:
    """What takes part in the interaction of a job; its principal can be set by the task."""

    interaction = None

    def __init__(self, principal: Any) -> None:
        self.principal = principal

    def setPrincipal(self, principal: Any) -> None:
        """Let another one take part, as tasks of 0.5 do."""
        self.principal = principal


def capture() -> str | None:
    """Return the id of the principal as whom a job runs that is added now; None is nobody."""
    named = named_user()
    if named is not None:
        return named
    if _authentication() is None:  # nobody could find the principal again
        return None
    interaction = queryInteraction()
    for participation in () if interaction is None else interaction.participations:
        principal = participation.principal
        if principal is not None and not _is_nobody(principal):
            return str(principal.id)
    return None


def _is_nobody(principal: Any) -> bool:
    try:
        from zope.authentication.interfaces import IUnauthenticatedPrincipal
    except ImportError:
        return False
    return bool(IUnauthenticatedPrincipal.providedBy(principal))


def _restore(principal_id: str) -> None:
    _come.set(principal_id)  # the context of the job's run, which is a copy


@contextmanager
def with_principal(job: Any, context: Any) -> Iterator[None]:
    """Give a job an interaction with its principal; nobody, if it was added by nobody.

    :raises UserGone: the principal is not there any more.
    """
    principal = None if (principal_id := _come.get()) is None else _principal(principal_id)
    if queryInteraction() is not None:  # of who runs the job inline; it is given back to them
        endInteraction()
    newInteraction(Participation(principal))
    try:
        yield
    finally:
        endInteraction()


def _authentication() -> Any:
    """Return what knows principals, or None."""
    try:
        from zope.authentication.interfaces import IAuthentication
    except ImportError:
        return None
    return queryUtility(IAuthentication)


def _principal(principal_id: str) -> Any:
    authentication = _authentication()
    try:
        if authentication is not None:
            return authentication.getPrincipal(principal_id)
    except LookupError:
        pass
    raise UserGone.of(principal_id)


def set_up() -> None:
    """Let jobs in this process run as who has added them; called again it changes nothing.

    Transaction: none.
    """
    register_around(NAME, with_principal)
    register_context(NAME, capture, _restore)


def database_opened(event: Any) -> None:
    """Set up jobs before the first of them can run: for `IDatabaseOpenedWithRoot`.

    Transaction: none.
    """
    set_up()
