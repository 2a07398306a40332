# SPDX-License-Identifier: ZPL-2.1
"""What is current in a thread: a task may change it, and nobody finds it changed."""

from __future__ import annotations

import contextvars
import decimal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction
from zope.component.hooks import getSite, getSiteManager, setSite
from zope.interface.registry import Components
from zope.security import management

from lovely.remotetask.base import isolation
from lovely.remotetask.base.isolation import call_isolated
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService

#: What nobody here has imported.
LIBRARIES = (*isolation.LOCALS[2:], *isolation.BY_THREAD, *isolation.STACKS)

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="untouched")


class Site:
    """A site with a registry of its own; once it is closed its registry cannot be had."""

    is_closed = False

    def __init__(self) -> None:
        self.components = Components("site")

    def getSiteManager(self) -> Components:
        if self.is_closed:
            raise RuntimeError("the connection is closed")
        return self.components


def threads_own_module(monkeypatch: pytest.MonkeyPatch, name: str, attribute: str) -> Any:
    """Let a library be imported that is not installed; return where it keeps its state."""
    module = types.ModuleType(name)
    place: Any = {} if attribute in ("_managers", "SKINDATA") else threading.local()
    setattr(module, attribute, place)
    monkeypatch.setitem(sys.modules, name, module)
    return place


@pytest.fixture(autouse=True)
def clean_thread() -> Iterator[None]:
    yield
    setSite(None)
    management.endInteraction()


def spoil() -> None:
    setSite(Site())
    if management.queryInteraction() is not None:
        management.endInteraction()
    management.newInteraction()
    VARIABLE.set("touched")
    decimal.getcontext().prec = 3


def state() -> list[Any]:
    return [
        getSite(),
        getSiteManager(),
        management.queryInteraction(),
        VARIABLE.get(),
        decimal.getcontext().prec,
    ]


def test_a_clean_thread_stays_clean() -> None:
    before = state()
    call_isolated(spoil)
    assert state() == before


def test_what_the_caller_has_is_seen_and_given_back() -> None:
    setSite(Site())
    management.newInteraction()
    VARIABLE.set("the caller's")
    before = state()
    assert call_isolated(state) == before
    call_isolated(spoil)
    assert state() == before


@pytest.mark.parametrize("library", isolation.LOCALS[2:])
def test_what_is_imported_between_two_calls_is_given_back_too(
    monkeypatch: pytest.MonkeyPatch, library: tuple[str, str]
) -> None:
    call_isolated(state)
    for request in ("the first", "of the same library, loaded anew"):
        place = threads_own_module(monkeypatch, *library)
        place.request = request
        call_isolated(lambda place=place: place.__dict__.clear())
        assert vars(place) == {"request": request}


def test_the_thread_is_given_back_after_a_failure_too() -> None:
    def fail() -> None:
        spoil()
        raise SystemExit

    before = state()
    with pytest.raises(SystemExit):
        call_isolated(fail)
    assert state() == before


def test_a_site_whose_connection_was_closed_is_given_back_all_the_same() -> None:
    site = Site()
    setSite(site)

    def close() -> None:
        site.is_closed = True
        setSite(None)

    call_isolated(close)
    assert getSite() is site


@pytest.mark.parametrize("before", [None, "the caller's"])
@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("AccessControl.SecurityManagement", "_managers"),
        ("Products.CMFCore.Skinnable", "SKINDATA"),
    ],
)
def test_what_is_kept_by_the_id_of_the_thread_is_given_back(
    monkeypatch: pytest.MonkeyPatch, module: str, attribute: str, before: Any
) -> None:
    place = threads_own_module(monkeypatch, module, attribute)
    thread = threading.get_ident()
    if before is not None:
        place[thread] = before
    place["another thread"] = 1
    expected = dict(place)
    call_isolated(place.__setitem__, thread, "the task's")
    assert place == expected
    call_isolated(place.pop, thread, None)
    assert place == expected


def test_the_request_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    place = threads_own_module(monkeypatch, "zope.globalrequest.local", "localData")
    call_isolated(setattr, place, "request", "the task's")
    assert not hasattr(place, "request")
    place.request = "the caller's"
    call_isolated(setattr, place, "request", "the task's")
    assert place.request == "the caller's"


def test_a_stack_of_requests_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    place = threads_own_module(monkeypatch, "pyramid.threadlocal", "manager")
    stack = place.stack = ["the caller's"]
    call_isolated(place.stack.append, "the task's")
    call_isolated(place.stack.pop)
    assert place.stack is stack
    assert stack == ["the caller's"]


@pytest.mark.parametrize(("module", "attribute"), LIBRARIES)
def test_what_a_library_keeps_that_the_task_has_imported_is_taken_out(
    monkeypatch: pytest.MonkeyPatch, module: str, attribute: str
) -> None:
    found: list[Any] = []

    def spoil() -> None:
        place = threads_own_module(monkeypatch, module, attribute)
        found.append(place)
        if isinstance(place, dict):
            place[threading.get_ident()] = "the task's"
        elif attribute == "manager":
            place.stack = ["the task's"]
        else:
            place.request = "the task's"

    monkeypatch.delitem(sys.modules, module, raising=False)  # another test has imported it
    call_isolated(spoil)
    (place,) = found
    assert not (place if isinstance(place, dict) else place.__dict__.get("stack", place.__dict__))


@pytest.mark.parametrize("module", [name for name, _ in LIBRARIES])
def test_a_library_that_another_thread_is_importing_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    assert call_isolated(int, 5) == 5


# -- around jobs -------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_job_of_a_thread_finds_it_clean(
    workshop: Any, register: Callable[..., Any], fails: bool
) -> None:
    def task(input: Any) -> None:
        spoil()
        if fails:
            raise ValueError

    seen: list[Any] = []
    register("spoil", task, retry=RetryPolicy(attempts=1))
    register("look", lambda input: seen.append(state()))
    before = state()
    first = workshop.add("spoil")
    workshop.add("look")
    workshop.work()
    assert workshop.get(first, "status") == (ERROR if fails else COMPLETED)
    assert seen == [before]
    assert state() == before


def test_jobs_of_one_commit_do_not_see_each_others_site(
    workshop: Any, register: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    def task(input: Any) -> None:
        seen.append(getSite())
        spoil()

    register("spoil", task, shared_commit=True)
    for _ in range(3):
        workshop.add("spoil")
    assert workshop.run_together(workshop.reserve()) is not None
    assert seen == [None, None, None]
    assert getSite() is None


def test_what_a_task_leaves_to_the_commit_leaves_the_thread_clean(
    workshop: Any, register: Callable[..., Any]
) -> None:
    def task(input: Any) -> None:
        transaction.get().addBeforeCommitHook(spoil)
        transaction.get().addAfterCommitHook(lambda is_committed: spoil())

    register("leave", task)
    before = state()
    jobid = workshop.add("leave")
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED
    assert state() == before


@pytest.mark.parametrize("fails", [False, True])
def test_the_caller_of_an_inline_run_gets_its_thread_back(
    service: TaskService, register: Callable[..., Any], fails: bool
) -> None:
    seen: list[Any] = []

    def task(input: Any) -> None:
        seen.append(state())
        spoil()
        if fails:
            raise ValueError

    register("spoil", task, retry=RetryPolicy(attempts=1))
    service.add("spoil")
    service.add("spoil")
    setSite(Site())
    management.newInteraction()
    before = state()
    service.process()
    assert seen == [before, before]
    assert state() == before
