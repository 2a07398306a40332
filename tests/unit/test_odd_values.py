# SPDX-License-Identifier: ZPL-2.1
"""Every public call with everything that nobody should give it.

Each call works, and what it did can be committed, or it raises an error of this package, and
then it has changed nothing.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import transaction
import ZODB
from persistent import Persistent
from zope.interface import Interface
from zope.schema import Choice, Datetime, Float, Int, List, TextLine

from lovely.remotetask.engine.maintenance import Maintenance
from lovely.remotetask.engine.retention import Retention
from lovely.remotetask.errors import (
    LAST_MOMENT,
    InvalidArgument,
    InvalidInput,
    RemoteTaskError,
    RetryLater,
)
from lovely.remotetask.interfaces import COMPLETED, ERROR
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.retry import RetryPolicy
from lovely.remotetask.service import TaskService
from lovely.remotetask.setting import CHECKS
from lovely.remotetask.store.check import check_all
from lovely.remotetask.task import SimpleTask, task

DEPTH = 100_000


# -- odd values --------------------------------------------------------------------------------


def refuse(*arguments: object) -> Any:
    raise RuntimeError("odd")


class Odd:
    """It raises whatever it is asked."""

    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __iter__ = __len__ = refuse
    __int__ = __float__ = __index__ = __call__ = __lt__ = __gt__ = __le__ = __ge__ = refuse
    __contains__ = __getitem__ = __reduce__ = __format__ = __rshift__ = refuse


class NoClass:
    """It does not even say what it is."""

    __class__ = property(refuse)  # type: ignore[assignment]


class OddStr(str):
    __eq__ = __hash__ = __repr__ = __str__ = __iter__ = __len__ = __lt__ = refuse
    __contains__ = __getitem__ = encode = lower = startswith = split = refuse


class OddInt(int):
    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __int__ = __float__ = refuse
    __index__ = __lt__ = __gt__ = __le__ = __ge__ = __rshift__ = __add__ = refuse
    __sub__ = __radd__ = __rsub__ = __neg__ = bit_length = refuse


class OddFloat(float):
    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __int__ = __float__ = refuse
    __lt__ = __gt__ = __le__ = __ge__ = __add__ = __radd__ = __sub__ = __rsub__ = refuse


class OddDict(dict[Any, Any]):
    __iter__ = keys = values = items = __getitem__ = __len__ = __repr__ = refuse


class OddList(list[Any]):
    __iter__ = __len__ = __repr__ = __eq__ = refuse


class OddKind(type):
    __instancecheck__ = __subclasscheck__ = __repr__ = refuse


class OddClass(metaclass=OddKind):
    """A class that does not know its instances."""


class OddError(Exception, metaclass=OddKind):
    """An exception whose class does not know its instances."""


class Stored(Persistent):
    """A persistent object."""


def nested(make: Callable[[Any], Any], value: Any = None) -> Any:
    for _ in range(DEPTH):
        value = make(value)
    return value


def generate() -> Iterator[int]:
    yield 1


def generate_and_fail() -> Iterator[int]:
    yield 1
    raise RuntimeError("odd")


async def co() -> None:
    """A coroutine function."""


VALUES: dict[str, Any] = {
    **{repr(value): value for value in (None, True, False, 0, 1, -1, 5, 2**31, 2**63, 2**70)},
    **{"10**400": 10**400, "-10**400": -(10**400), "10**5000": 10**5000},
    **{repr(value): value for value in (0.0, -0.0, 0.5, -1.5, 1e15, 1e300, 5e-324, 1j)},
    **{repr(value): value for value in (math.nan, math.inf, -math.inf)},
    **{repr(value): value for value in map(Decimal, ("1.5", "NaN", "sNaN", "1e999999"))},
    "fraction": Fraction(1, 3),
    **{repr(value): value for value in ("", "5", "1e3", "echo", "queued", "completed", "a\nb")},
    **{repr(value): value for value in ("\ud800", "\0", "\u202e", "@daily", "* * * * *", "L")},
    "a long text": "x" * 70_000,
    "digits": "9" * 5000,
    **{repr(value): value for value in (b"", b"x", bytearray(b"x"), [], (), {}, [1], (1,))},
    **{repr(value): value for value in ({"a": 1}, {1: 2}, {None: 1}, set(), frozenset({1}))},
    "memoryview": memoryview(b"x"),
    "naive": datetime(2020, 1, 1),
    "aware": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "date": date(2020, 1, 1),
    "delta": timedelta(seconds=5),
    "waitTime inf": {"waitTime": math.inf},
    "waitTime None": {"waitTime": None},
    "waitTime text": {"waitTime": "1"},
    "waitTime huge": {"waitTime": 10**400},
    "maxThreads 0": {"maxThreads": 0},
    "maxThreads huge": {"maxThreads": 10**400},
    "no argument": {"color": "red"},
    "retention 5": {"completed": 5},
    "retention pair": {"completed": (1, 2)},
    "retention nan": {"completed": Retention(math.nan, -1)},
    "retention texts": {"completed": Retention("a", "b")},  # type: ignore[arg-type]
    "retention huge": {"completed": Retention(10**400, 10**400)},
    "retention live": {"queued": Retention()},
    "deep list": nested(lambda value: [value]),
    "deep tuple": nested(lambda value: (value,)),
    "deep dict": nested(lambda value: {"a": value}),
    "deep argument": {"waitTime": 1.0, "x": nested(lambda value: [value])},
    "Odd": Odd(),
    "NoClass": NoClass(),
    "OddStr": OddStr("echo"),
    "OddStr status": OddStr("completed"),
    "OddInt": OddInt(5),
    "OddFloat": OddFloat(5.0),
    "OddDict": OddDict(a=1),
    "OddList": OddList([1]),
    "OddClass": OddClass,
    "OddError": OddError,
    "lambda": lambda value: value,
    "partial": functools.partial(int, base=2),
    "generator function": generate,
    "coroutine function": co,
    "classes": (int, str),
    "class": int,
    "metaclass": type,
    "exception class": ValueError,
    "base exception class": KeyboardInterrupt,
    "exception": ValueError("x"),
    "nested exceptions": ((ValueError,),),
    "deep exceptions": nested(lambda value: (value,), ValueError),
    "module": sys,
    "object": object(),
    "ellipsis": ...,
    "NotImplemented": NotImplemented,
    "range": range(3),
    "slice": slice(1),
    "interface": Interface,
    "policy": RetryPolicy(),
    "lock": threading.Lock(),
    "file": sys.__stdout__,
    "Retention": Retention(),
}

#: Made anew for each call.
ONCE: dict[str, Callable[[], Any]] = {
    "generator": generate,
    "generator that fails": generate_and_fail,
    "endless": itertools.count,
    "persistent": Stored,
}


def odd_values(but: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (what it is, value)."""
    for what, value in VALUES.items():
        if what not in but:
            yield what, value
    for what, make in ONCE.items():
        if what not in but:
            yield what, make()


# -- the calls ---------------------------------------------------------------------------------


class IFields(Interface):
    """Fields of some kinds."""

    number = Int(min=3, max=5, required=False)
    text = TextLine(required=False)
    floats = List(value_type=Float(), required=False)
    choice = Choice(values=("a", "b"), required=False)
    time = Datetime(min=datetime(2000, 1, 1), required=False)


@task("odd.echo")
def echo(input: Any) -> None:
    """Take anything."""


@task("odd.fields", inputSchema=IFields)
def take_fields(input: Any) -> None:
    """Take what has fields."""


class Place:
    """A service with a job in each state."""

    def __init__(self, db: ZODB.DB) -> None:
        self.db = db
        self.connection = db.open()
        root = self.connection.root()
        self.service = service = root["tasks"] = TaskService()
        self.bounded = {name: TaskService() for name in ("max_input_bytes", "max_input_depth")}
        root.update(self.bounded)
        for name, bounded in self.bounded.items():
            setattr(bounded, name, 5)
        transaction.commit()
        self.done = service.add("odd.echo")
        service.process()
        service.add("odd.echo")
        service.add("odd.echo", startLater=True)
        self.cron = service.addCronJob("odd.echo", cron="0 0 1 1 *")
        service.ensure("there", "odd.echo", cron="0 0 1 1 *")
        self.delayed = service.addCronJob("odd.echo", delay=1e6)
        self.running = service.addCronJob("odd.echo", cron="* * * * *")
        for turn in range(3):
            service.claimNextJob(time.time() + 120 + turn)
        transaction.commit()

    def job(self, name: str) -> Any:
        """Return one of the jobs."""
        return self.service.jobs[getattr(self, name)]

    @property
    def last(self) -> bytes:
        """The id of the last transaction."""
        return bytes(self.db.storage.lastTransaction())


Call = Callable[[Place, Any], object]
CALLS: dict[str, Call] = {}


def calls(*names: str) -> Callable[[Callable[[str, Place, Any], object]], None]:
    """Add a call for each name, which is its first argument."""

    def add(call: Callable[[str, Place, Any], object]) -> None:
        for name in names:
            CALLS[f"{call.__name__} {name}".strip()] = functools.partial(call, name)

    return add


@calls(*("startJob", "reschedule", "cancel"), *("getStatus", "getResult", "getError"))
def job_id(name: str, place: Place, value: Any) -> None:
    getattr(place.service, name)(value)


@calls("")
def progress_of(name: str, place: Place, value: Any) -> None:
    place.service.getProgress(value)


@calls("get", "__contains__")
def jobs(name: str, place: Place, value: Any) -> None:
    getattr(place.service.jobs, name)(value)


@calls("task", "input", "startLater", "retry", "after", "on_success", "on_error")
def add(name: str, place: Place, value: Any) -> None:
    place.service.add(**{"task": "odd.echo", name: value})


@calls("")
def add_within(name: str, place: Place, value: Any) -> None:
    place.service.add("odd.echo", {"a": [value]})


@calls("max_input_bytes", "max_input_depth")
def add_bounded(name: str, place: Place, value: Any) -> None:
    place.bounded[name].add("odd.echo", value)


@calls("", "number", "text", "floats", "choice", "time")
def add_fields(name: str, place: Place, value: Any) -> None:
    place.service.add("odd.fields", {name: value} if name else value)


@calls("")
def add_key(name: str, place: Place, value: Any) -> None:
    try:
        input = {value: 1}
    except Exception:
        return
    place.service.add("odd.fields", input)


@calls("task", "inputs", "retry")
def add_many(name: str, place: Place, value: Any) -> None:
    place.service.add_many(**{"task": "odd.echo", "inputs": [1], name: value})


@calls("on_success", "on_error")
def add_followed(name: str, place: Place, value: Any) -> None:
    place.service.add("odd.echo", **{name: ("odd.echo", value)})


@calls("task", "inputs", "then", "retry")
def add_group(name: str, place: Place, value: Any) -> None:
    place.service.add_group(**{"task": "odd.echo", "inputs": [1], "then": "odd.echo", name: value})


@calls("")
def group(name: str, place: Place, value: Any) -> None:
    place.service.group(value)


FIELDS = ("minute", "hour", "dayOfMonth", "month", "dayOfWeek")


@calls("task", "input", "retry", *FIELDS, "delay", "timezone", "cron")
def add_cron(name: str, place: Place, value: Any) -> None:
    place.service.addCronJob(**{"task": "odd.echo", name: value})


@calls(*FIELDS)
def number_of(name: str, place: Place, value: Any) -> None:
    place.service.addCronJob("odd.echo", **{name: [value]})


@calls("key", "task", "input", "retry", *FIELDS, "delay", "timezone", "cron")
def ensure(name: str, place: Place, value: Any) -> None:
    place.service.ensure(**{"key": "new", "task": "odd.echo", name: value})


@calls("task", "input", "retry", *FIELDS, "delay", "timezone", "cron")
def ensure_again(name: str, place: Place, value: Any) -> None:
    place.service.ensure(**{"key": "there", "task": "odd.echo", name: value})


@calls("")
def remove_schedule(name: str, place: Place, value: Any) -> None:
    place.service.remove_schedule(value)


@calls(*FIELDS, "delay", "timezone", "cron")
def update(name: str, place: Place, value: Any) -> None:
    for kind in ("cron", "delayed", "running"):
        place.job(kind).update(**{name: value})


@calls("cron", "delayed")
def next_of(name: str, place: Place, value: Any) -> None:
    place.job(name).timeOfNextCall(value)


@calls("")
def clean(name: str, place: Place, value: Any) -> None:
    place.service.clean(value)


@calls("")
def clean_one(name: str, place: Place, value: Any) -> None:
    place.service.clean([value])


@calls("status", "limit", "before")
def remove_oldest(name: str, place: Place, value: Any) -> None:
    place.service.remove_oldest(**{"status": "completed", name: value})


@calls("hasJobsWaiting", "claimNextJob", "processNext", "process")
def now(name: str, place: Place, value: Any) -> None:
    getattr(place.service, name)(value)


@calls("")
def process_job(name: str, place: Place, value: Any) -> None:
    place.service.processNext(None, value)


@calls("")
def stop(name: str, place: Place, value: Any) -> None:
    place.service.stopProcessing(value)


@calls(*sorted(CHECKS))
def setting(name: str, place: Place, value: Any) -> None:
    setattr(place.service, name, value)


POLICY = ("attempts", "first_wait_seconds", "factor", "cap_seconds", "jitter")


@calls(*POLICY, "retry_on", "give_up_on")
def policy(name: str, place: Place, value: Any) -> None:
    place.service.add("odd.echo", retry=RetryPolicy(**{name: value}))


@calls("")
def policy_class(name: str, place: Place, value: Any) -> None:
    RetryPolicy(retry_on=(value,))


@calls("")
def policy_failures(name: str, place: Place, value: Any) -> None:
    RetryPolicy().wait_seconds(value, ValueError())


@calls("delay_seconds", "message")
def retry_later(name: str, place: Place, value: Any) -> None:
    str(RetryLater(**{name: value}))


@calls("cron", "timezone", "service")
def declaration(name: str, place: Place, value: Any) -> None:
    SimpleTask(abs, **{"cron": "@daily", name: value})


TASK = ("inputSchema", "outputSchema", "context", "retry", "timeout_seconds")


@calls(*TASK, "shared_commit", "executor")
def simple_task(name: str, place: Place, value: Any) -> None:
    SimpleTask(abs, **{name: value})


@calls("")
def simple_task_of(name: str, place: Place, value: Any) -> None:
    SimpleTask(value)


@calls("")
def decorate(name: str, place: Place, value: Any) -> None:
    task("odd.decorated")(value)


@calls("")
def decorate_bare(name: str, place: Place, value: Any) -> None:
    task(value)


@calls("")
def decorate_named(name: str, place: Place, value: Any) -> None:
    if not callable(value):  # else it is the function
        task(value)(abs)


@calls("waitTime", "maxThreads")
def processor(name: str, place: Place, value: Any) -> None:
    MultiProcessor(place.db, ["tasks"], **{name: value})


@calls("")
def processor_job(name: str, place: Place, value: Any) -> None:
    transaction.abort()
    SimpleProcessor(place.db, ["tasks"]).processNext(None if value is None else value)


# What would take all memory, or a minute, and is right.
NOT_FOR = dict.fromkeys(("add_many inputs", "add_group inputs"), ("endless",))


@pytest.fixture
def place(db: ZODB.DB) -> Iterator[Place]:
    place = Place(db)
    yield place
    transaction.abort()
    place.connection.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_works_or_is_refused_and_then_changes_nothing(place: Place, name: str) -> None:
    wrong = []
    call = CALLS[name]
    for what, value in odd_values(NOT_FOR.get(name, ())):
        transaction.abort()
        before = place.last
        try:
            call(place, value)
        except RemoteTaskError as error:
            if not str(error):
                wrong.append((what, "it says nothing"))
            if place.connection._registered_objects or place.connection._added:
                wrong.append((what, "it has changed something"))
            transaction.commit()
            if place.last != before:
                wrong.append((what, "it has stored something"))
            continue
        except Exception as error:
            wrong.append((what, f"{type(error).__name__}"))
            continue
        try:
            transaction.commit()
        except Exception as error:
            wrong.append((what, f"at the commit: {type(error).__name__}"))
    assert wrong == []
    transaction.abort()
    assert check_all(place.service, LAST_MOMENT, repair=False) == []


# -- settings that were stored before ----------------------------------------------------------


STORABLE = [
    *("None", "True", "0.0", "-1", "10**400", "nan", "inf", "-inf", "'5'", "'\\x00'", "[]", "{}"),
    *("{'a': 1}", "b'x'", "waitTime inf", "waitTime None", "maxThreads 0", "maxThreads huge"),
    *("retention 5", "retention nan", "retention texts", "retention huge", "retention live"),
    *("naive", "OddClass", "class", "exception", "fraction", "no argument"),
]


@pytest.mark.parametrize("what", STORABLE)
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_setting_that_was_stored_before_harms_nobody(workshop: Any, name: str, what: str) -> None:
    with workshop.service() as service:
        done = service.add("echo")
        service.process()
        vars(service)[name] = VALUES[what]
        service._p_changed = True
        if name in ("processorFactory", "processorArguments"):
            service.__dict__.pop("taskInterface", None)
    with workshop.service() as service:
        if name != "taskInterface":
            waiting = service.add("echo", 1)
    lease = Maintenance(workshop.engine, bool, print, print).tick(workshop.session)
    assert 0.1 <= lease < math.inf
    if name != "taskInterface":
        assert workshop.work() == [waiting]
    with workshop.service() as service:
        assert done in service.jobs or name == "retention"
        try:
            service.startProcessing()
        except InvalidArgument:
            assert name in ("processorFactory", "processorArguments")
        finally:
            service.stopProcessing(10)


# -- what tasks do -----------------------------------------------------------------------------


def chained(count: int) -> Exception:
    error = ValueError("first")
    for number in range(count):
        later = ValueError(number)
        later.__cause__ = error
        error = later
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    "deep": lambda: ValueError(VALUES["deep list"]),
    "odd": lambda: ValueError(Odd()),
    "odd text": lambda: ValueError(OddStr("x")),
    "surrogate": lambda: ValueError("\ud800"),
    "odd class": lambda: OddError("x"),
    "chain": lambda: chained(DEPTH),
}


@pytest.mark.parametrize("is_inline", [False, True])
@pytest.mark.parametrize("what", RAISED)
def test_whatever_a_task_raises_ends_its_job(
    workshop: Any, register: Any, what: str, is_inline: bool
) -> None:
    def fail(input: Any) -> None:
        raise RAISED[what]()

    register("fail", fail, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("fail")
    if is_inline:
        with workshop.service() as service:
            service.process()
    else:
        workshop.work()
    assert workshop.get(jobid, "status") == ERROR


def test_whatever_a_task_returns_ends_its_job(workshop: Any, register: Any) -> None:
    returned = dict(odd_values())
    register("give", returned.get)
    jobids = {what: workshop.add("give", what) for what in returned}
    workshop.work()
    for what, jobid in jobids.items():
        assert workshop.get(jobid, "status") in (COMPLETED, ERROR), what
    with workshop.service() as service:
        assert check_all(service, workshop.now, repair=False) == []


@pytest.mark.parametrize("name", ["done", "total", "message"])
def test_whatever_is_told_of_progress_can_be_kept(workshop: Any, register: Any, name: str) -> None:
    def tell(context: Any, input: Any) -> list[str]:
        refused = []
        for what, value in odd_values():
            workshop.now += 1
            try:
                context.progress(**{"done": 1, "total": 2, "message": "", name: value})
            except InvalidArgument:
                refused.append(what)
        return refused

    register("tell", tell, context=True)
    jobid = workshop.add("tell")
    workshop.work()
    status, refused = workshop.get(jobid, "status", "output")
    assert status == COMPLETED
    assert ("Odd" in refused, "5" in refused) == (name != "message", False)


# -- nesting -----------------------------------------------------------------------------------


def nested_dict(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def further_down(levels: int, call: Callable[[], Any]) -> Any:
    """Call where the stack is fuller."""
    return further_down(levels - 1, call) if levels else call()


def test_what_just_can_be_added_can_be_stored_and_run_where_the_stack_is_fuller(
    workshop: Any,
) -> None:
    added: list[int] = []

    def add(depth: int) -> bool:
        with workshop.service() as service:
            try:
                jobid = service.add("echo", nested_dict(depth))
            except InvalidInput:
                return False
            further_down(12, service._p_jar.transaction_manager.savepoint)
        added.append(jobid)
        return True

    fits, too_deep = 10, DEPTH
    while too_deep - fits > 1:
        depth = (fits + too_deep) // 2
        fits, too_deep = (depth, too_deep) if add(depth) else (fits, depth)
    assert further_down(12, workshop.work) == added
