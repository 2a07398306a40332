# SPDX-License-Identifier: ZPL-2.1
"""Objects in inputs that are not stored there, but found again where the job runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import pytest
import ZODB
from persistent import Persistent
from persistent.mapping import PersistentMapping
from zope.component import provideAdapter
from zope.interface import Interface, implementer

from lovely.remotetask.around import forget_around, register_around
from lovely.remotetask.base.reference import Reference
from lovely.remotetask.errors import InvalidInput, TaskError
from lovely.remotetask.interfaces import COMPLETED, ERROR, IReference
from lovely.remotetask.testing import assert_added, eager

library: ContextVar[Any] = ContextVar("library")


class IPage(Interface):
    """What has an address."""


@implementer(IPage)
class Page(Persistent):
    """Something that is found by its name."""

    def __init__(self, name: str) -> None:
        self.name = name


class Wrapped(NamedTuple):
    """A page as it is found."""

    page: str


@implementer(IReference)
class Address(NamedTuple):
    """Stands for a page."""

    name: str

    def resolve(self) -> Any:
        """Find it."""
        if self.name not in library.get():
            raise TaskError(f"{self.name} is gone")
        return Wrapped(self.name)


def address_of(page: Page) -> Address | None:
    if page.name == "homeless":
        raise InvalidInput("homeless has no address")
    return None if page.name == "new" else Address(page.name)


@pytest.fixture(autouse=True)
def pages(register: Any) -> Iterator[None]:
    @contextmanager
    def in_library(job: Any, context: Any) -> Iterator[None]:
        library.set(["one", "two"])
        yield

    provideAdapter(address_of, (IPage,), IReference)
    register_around("library", in_library)
    register("keep", kept.append)
    yield
    forget_around("library")
    kept.clear()


#: The inputs that the task *keep* was given.
kept: list[Any] = []
ONE, TWO = Wrapped("one"), Wrapped("two")
INPUTS: list[tuple[Any, Any]] = [
    (Page("one"), ONE),
    ({"page": Page("one"), "text": "a"}, {"page": ONE, "text": "a"}),
    ([1, (Page("one"), [Page("two")])], [1, (ONE, [TWO])]),
    ({"pages": {"first": [Page("two")]}}, {"pages": {"first": [TWO]}}),
]


@pytest.mark.parametrize(("given", "found"), INPUTS)
def test_the_task_is_given_what_is_found_within_what_is_around_it(
    workshop: Any, given: Any, found: Any
) -> None:
    jobid = workshop.add("keep", given)
    assert workshop.work() == [jobid]
    assert workshop.get(jobid, "status") == COMPLETED
    assert kept == [found]


def test_what_is_stored_is_what_stands_for_it(workshop: Any) -> None:
    jobid = workshop.add("echo", {"page": Page("one")})
    assert workshop.get(jobid, "input") == {"page": Reference(Address("one"))}
    assert repr(workshop.get(jobid, "input")["page"]) == "Address(name='one')"


def test_all_ways_to_add_jobs_take_objects(workshop: Any) -> None:
    pages = [Page("one"), Page("two")]
    with workshop.service() as service:
        service.add_many("keep", pages)
        service.add_group("keep", pages, ("keep", [pages[0]]))
        service.add("echo", on_success=("keep", (pages[1],)))
        service.addCronJob("keep", {"page": pages[0]}, delay=0)
    workshop.work()
    assert len(kept) == 7
    for found in (ONE, TWO, [ONE], (TWO,), {"page": ONE}):
        assert found in kept


def test_a_schedule_with_an_object_stays_as_it_is_if_nothing_has_changed(workshop: Any) -> None:
    with workshop.service() as service:
        jobid = service.ensure("nightly", "keep", {"page": Page("one")}, cron="0 3 * * *")
    before = workshop.last_transaction()
    with workshop.service() as service:
        assert service.ensure("nightly", "keep", {"page": Page("one")}, cron="0 3 * * *") == jobid
    assert workshop.last_transaction() == before
    with workshop.service() as service:
        service.ensure("nightly", "keep", {"page": Page("two")}, cron="0 3 * * *")
    assert workshop.get(jobid, "input") == {"page": Reference(Address("two"))}


def test_an_object_that_is_gone_fails_the_job_with_what_its_reference_says(workshop: Any) -> None:
    jobid = workshop.add("keep", [Page("three")])
    workshop.work()
    assert workshop.get(jobid, "status", "error", "errors") == (ERROR, "three is gone", 1)
    with workshop.service() as service:
        service.retry(jobid, [Page("two")])
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED
    assert kept == [[TWO]]


def test_each_attempt_looks_anew(workshop: Any, register: Any) -> None:
    def fail_once(input: Any) -> None:
        kept.append(input)
        if len(kept) == 1:
            raise ValueError("not yet")

    register("stumble", fail_once)
    jobid = workshop.add("stumble", [Page("one")])
    workshop.work()
    workshop.now += 100
    workshop.work()
    assert workshop.get(jobid, "status") == COMPLETED
    assert kept == [[ONE], [ONE]]


def test_the_input_of_another_job_can_be_given_again(workshop: Any) -> None:
    first = workshop.add("keep", [Page("one")])
    second = workshop.add("keep", workshop.get(first, "input"))
    assert workshop.get(second, "input") == [Reference(Address("one"))]
    workshop.work()
    assert kept == [[ONE], [ONE]]


def test_other_persistent_objects_are_stored_as_ever(workshop: Any) -> None:
    with workshop.service() as service:
        service.add("keep", [PersistentMapping({"a": 1}), Page("new")])
    workshop.work()
    [(mapping, page)] = kept
    assert (type(mapping), dict(mapping)) == (PersistentMapping, {"a": 1})
    assert (type(page), page.name) == (Page, "new")


def test_an_object_of_another_connection_is_no_fault_where_it_is_not_stored(
    workshop: Any, db: ZODB.DB
) -> None:
    with workshop.transaction() as root:
        root["page"] = Page("one")
    with workshop.connected() as (_, root):
        workshop.add("keep", [root["page"]])
    workshop.work()
    assert kept == [[ONE]]


def test_what_an_adapter_refuses_is_told_and_nothing_is_added(workshop: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^homeless has no address$"):
        workshop.add("keep", [Page("homeless")])
    with workshop.service() as service:
        assert not len(service.jobs)


def test_what_stands_for_an_object_has_to_be_storable(workshop: Any) -> None:
    # A function is, a lambda is not.
    provideAdapter(lambda page: Address(open), (IPage,), IReference)
    workshop.add("echo", [Page("one")])
    provideAdapter(lambda page: Address(lambda: None), (IPage,), IReference)
    with pytest.raises(InvalidInput, match="cannot be stored"):
        workshop.add("echo", [Page("one")])


@pytest.mark.parametrize("returned", [["a list"], PersistentMapping()], ids=["list", "object"])
def test_what_an_adapter_returns_has_to_be_a_reference(workshop: Any, returned: Any) -> None:
    class IOther(Interface):
        pass

    @implementer(IOther)
    class Other(Persistent):
        pass

    provideAdapter(lambda other: returned, (IOther,), IReference)
    with workshop.service() as service:
        with pytest.raises(InvalidInput, match="to have a resolve"):
            service.add("keep", [Other()])
        assert not service.jobs


def test_tests_can_ask_for_the_object_itself(workshop: Any) -> None:
    with workshop.service() as service:
        service.add("keep", {"page": Page("one")})
        assert_added(service, "keep", {"page": Page("one")})
        with pytest.raises(AssertionError):
            assert_added(service, "keep", {"page": Page("two")})
        with eager():
            service.add("keep", [Page("two")])
    assert kept == [[TWO]]
