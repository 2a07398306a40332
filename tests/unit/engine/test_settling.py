# SPDX-License-Identifier: ZPL-2.1
"""Nothing that an exception or a retry policy does keeps a job from being settled."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import transaction
from ZODB.POSException import ConflictError

from lovely.remotetask.engine import outcome
from lovely.remotetask.engine.outcome import failure_of
from lovely.remotetask.errors import (
    InvalidArgument,
    InvalidSchedule,
    RetryLater,
    describe,
    name_of,
)
from lovely.remotetask.interfaces import COMPLETED, ERROR, QUEUED
from lovely.remotetask.job import CronJob
from lovely.remotetask.retry import DEFAULT_POLICY, RetryPolicy


class Text(str):
    """A text of a class of its own."""

    def __getitem__(self, key: Any) -> Any:
        raise SystemExit


class Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Interrupts(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class SaysNoText(Exception):
    def __str__(self) -> Any:
        return 5


class SaysText(Exception):
    def __str__(self) -> Any:
        return Text("a text")


class Nameless(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise SystemExit


class HasNoName(Exception, metaclass=Nameless):
    pass


class HidesItsClass(Exception):
    @property
    def __class__(self) -> Any:
        raise SystemExit


class HidesItsTraceback(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise SystemExit


class HasOddNotes(Exception):
    @property
    def __notes__(self) -> Any:
        raise SystemExit


class DoesNotPickle(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit


class Forgetful(RetryLater):
    def __init__(self, what: str) -> None:
        self.what = what


class Wrong(RetryLater):
    delay_seconds = "soon"  # type: ignore[assignment]


class Exploding(RetryLater):
    @property
    def delay_seconds(self) -> Any:
        raise SystemExit

    def __init__(self) -> None:
        pass


def in_a_circle() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


ERRORS: dict[str, Callable[[], BaseException]] = {
    "exits": Exits,
    "interrupts": Interrupts,
    "no text": SaysNoText,
    "a text": SaysText,
    "a lone surrogate": lambda: ValueError("\udcff"),
    "no name": HasNoName,
    "no traceback": HidesItsTraceback,
    "odd notes": HasOddNotes,
    "no class": lambda: HidesItsClass("x"),
    "a circle": in_a_circle,
    "no pickle": lambda: DoesNotPickle(lambda: None),
    "a group": lambda: ValueError([lambda: None] * 3),
    "forgetful": lambda: Forgetful("x"),
    "a wrong wait": Wrong,
    "an exploding wait": Exploding,
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("is_inline", [False, True])
def test_whatever_is_raised_the_job_is_settled(
    workshop: Any, register: Any, kind: str, is_inline: bool
) -> None:
    def fail(input: Any) -> None:
        raise ERRORS[kind]()

    register("fail", fail, retry=RetryPolicy(attempts=1))
    jobid, other = workshop.add("fail"), workshop.add("echo")
    if is_inline:
        with workshop.service() as service:
            service.process(workshop.now)
    else:
        workshop.step()
        workshop.step()
    assert workshop.get(other, "status") == COMPLETED
    expected = QUEUED if kind == "forgetful" else ERROR
    status, failures = workshop.get(jobid, "status", "failures")
    assert (status, len(failures)) == (expected, 1)
    failure = failures[0]
    assert {type(text) for text in (failure.type, failure.message, failure.traceback)} == {str}


class HidesItsClassToo(BaseException):
    @property
    def __class__(self) -> Any:
        raise SystemExit


class Unpicklable:
    def __reduce__(self) -> Any:
        raise HidesItsClassToo


@pytest.mark.parametrize("is_inline", [False, True])
def test_a_result_that_raises_such_an_error_is_the_jobs_error(
    workshop: Any, register: Any, is_inline: bool
) -> None:
    register("fail", lambda input: Unpicklable())
    jobid = workshop.add("fail")
    if is_inline:
        with workshop.service() as service:
            service.process(workshop.now)
    else:
        workshop.step()
    assert workshop.get(jobid, "status") == ERROR


def test_a_commit_that_raises_such_an_error_is_the_jobs_error(workshop: Any, register: Any) -> None:
    def fail() -> None:
        raise HidesItsClassToo

    register("fail", lambda input: transaction.get().addBeforeCommitHook(fail))
    jobid = workshop.add("fail")
    workshop.step()
    assert workshop.get(jobid, "status", "error") == (ERROR, "HidesItsClassToo: HidesItsClassToo")


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_what_an_abort_raises_hides_nothing(
    workshop: Any, register: Any, kind: type[BaseException]
) -> None:
    def leave() -> None:
        raise kind

    def fail(input: Any) -> None:
        transaction.get().addBeforeAbortHook(leave)
        transaction.get().join(Leaving())
        raise LookupError("the error")

    class Leaving:
        transaction_manager = None

        def sortKey(self) -> str:
            return "~"

        def abort(self, txn: Any) -> None:
            leave()

    register("fail", fail, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("fail")
    workshop.step()
    assert workshop.get(jobid, "status", "error") == (ERROR, "the error")


def test_an_error_is_described_whatever_it_is() -> None:
    assert describe(Exits()) == "(the message cannot be printed)"
    assert describe(HasNoName()) == "HasNoName"
    assert type(describe(SaysText())) is str
    assert name_of(HasNoName()) == "HasNoName"
    failure = failure_of(HidesItsClass("x"), 1, 2.0)
    assert (failure.type, failure.message) == ("HidesItsClass", "x")


class Odd(RetryPolicy):
    """A policy that answers, or raises, what it is told to."""

    answer: Any = None

    def wait_seconds(self, *args: Any, **keywords: Any) -> Any:
        if isinstance(Odd.answer, BaseException):
            raise Odd.answer
        return Odd.answer


NONSENSE = [
    *("soon", b"1", True, [], math.nan, math.inf, -1, 1e300, 10**400, 10**5000, 1j),
    *(ValueError("I do not know"), SystemExit(), Exits()),
]


@pytest.mark.parametrize("answer", NONSENSE, ids=lambda answer: type(answer).__name__)
@pytest.mark.parametrize("is_tasks", [False, True])
def test_a_policy_that_talks_nonsense_ends_its_job(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch, answer: Any, is_tasks: bool
) -> None:
    def fail(input: Any) -> None:
        raise LookupError("the error")

    monkeypatch.setattr(Odd, "answer", answer)
    register("fail", fail, retry=Odd() if is_tasks else None)
    jobid = workshop.add("fail", retry=None if is_tasks else Odd())
    other = workshop.add("echo")
    workshop.step()
    workshop.step()
    assert workshop.get(other, "status") == COMPLETED
    status, error = workshop.get(jobid, "status", "error")
    assert status == ERROR
    assert error.startswith("the error (when to try again cannot be told: ")


@pytest.mark.parametrize("answer", [Decimal("0.5"), Fraction(1, 2), 0.5])
def test_a_policy_may_answer_any_number(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    def fail(input: Any) -> None:
        raise LookupError

    monkeypatch.setattr(Odd, "answer", answer)
    register("fail", fail, retry=Odd())
    jobid = workshop.add("fail")
    workshop.step()
    due = workshop.get(jobid, "due")
    assert type(due) is float
    assert due == workshop.now + 0.5


def test_a_task_whose_retry_is_no_policy(workshop: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise LookupError

    register("fail", fail).retry = 3
    jobid = workshop.add("fail")
    workshop.step()
    assert workshop.get(jobid, "status") == ERROR


@pytest.mark.parametrize("seconds", [Decimal("0.5"), Fraction(1, 2), 0.5])
def test_a_delay_may_be_any_number(seconds: Any) -> None:
    error = RetryLater(seconds)
    assert type(error.delay_seconds) is float
    assert DEFAULT_POLICY.wait_seconds(1, error) == 0.5


@pytest.mark.parametrize("seconds", NONSENSE[:-3], ids=lambda seconds: type(seconds).__name__)
def test_a_delay_that_is_nonsense_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidArgument, match="delay_seconds must be"):
        RetryLater(seconds)
    with pytest.raises(InvalidSchedule, match="delay must be"):
        CronJob(1, "echo", delay=seconds)


def test_a_task_that_asks_for_nonsense_fails(workshop: Any, register: Any) -> None:
    def fail(input: Any) -> None:
        raise RetryLater(10**400)

    register("fail", fail)
    jobid = workshop.add("fail")
    for _ in range(4):
        workshop.step()
        workshop.now += 10.0
    assert workshop.get(jobid, "status") == ERROR


@pytest.mark.parametrize("name", ["first_wait_seconds", "factor", "cap_seconds"])
def test_a_policy_of_numbers_beyond_all_floats_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        RetryPolicy(**{name: 10**400})


def test_no_wait_is_longer_than_a_hundred_years() -> None:
    policy = RetryPolicy(first_wait_seconds=1e300, cap_seconds=1e300, jitter=0)
    assert policy.wait_seconds(1, ValueError()) == 100 * 365.25 * 86_400


# -- what they do to the transaction, the connection and the thread ----------------------------


class Failing:
    """A data manager whose commit fails."""

    transaction_manager = None

    def sortKey(self) -> str:
        return "a"

    def abort(self, txn: Any) -> None:
        pass

    tpc_begin = tpc_vote = tpc_finish = tpc_abort = abort

    def commit(self, txn: Any) -> None:
        raise ValueError("the commit")


def fail_in_hook() -> None:
    raise ValueError("the hook")


class Here:
    """Where a job runs, and what is to be done there."""

    connection: Callable[[], Any]
    misdeed: str
    is_busy = False

    @classmethod
    def misbehave(cls) -> None:
        if not cls.is_busy:  # else `transaction` logs the exception meanwhile
            cls.is_busy = True
            try:
                MISDEEDS[cls.misdeed](cls.connection())
            finally:
                cls.is_busy = False


def manager_of(connection: Any) -> Any:
    return connection.transaction_manager


def end(connection: Any, how: str) -> None:
    getattr(manager_of(connection), how)()


def say_what_cannot_be_stored(connection: Any) -> None:
    manager_of(connection).get().setExtendedInfo("lock", threading.Lock())


MISDEEDS: dict[str, Callable[[Any], Any]] = {
    "doom": lambda connection: end(connection, "doom"),
    "abort": lambda connection: end(connection, "abort"),
    "commit": lambda connection: end(connection, "commit"),
    "begin": lambda connection: end(connection, "begin"),
    "free": lambda c: manager_of(c).free(manager_of(c).get()),
    "hook": lambda connection: manager_of(connection).get().addBeforeCommitHook(fail_in_hook),
    "data manager": lambda connection: manager_of(connection).get().join(Failing()),
    "unstorable": lambda connection: connection.root().update(lock=threading.Lock()),
    "savepoint": lambda c: [c.root().update(lock=threading.Lock()), manager_of(c).savepoint()],
    "close": lambda connection: connection.close(),
    "extension": say_what_cannot_be_stored,
}


class Misbehaving(RetryPolicy):
    def wait_seconds(self, *args: Any, **keywords: Any) -> Any:
        Here.misbehave()
        return super().wait_seconds(*args, **keywords)


class MisbehavingText(Exception):
    def __str__(self) -> str:
        Here.misbehave()
        return "the error"


class MisbehavingKind(Exception):
    """Its class is honest at first, and at last."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked = 0

    @property
    def __class__(self) -> Any:
        self.asked += 1
        if self.asked == 2:
            Here.misbehave()
            raise ValueError("no class")
        return MisbehavingKind


WHO: dict[str, tuple[type[BaseException], type[RetryPolicy]]] = {
    "policy": (LookupError, Misbehaving),
    "text": (MisbehavingText, RetryPolicy),
    "kind": (MisbehavingKind, RetryPolicy),
}


def run_here(workshop: Any, monkeypatch: pytest.MonkeyPatch, is_inline: bool, n_runs: int) -> None:
    """Run jobs, inline or as a worker does, and tell what misbehaves its connection."""
    if is_inline:
        with workshop.service() as service:
            monkeypatch.setattr(Here, "connection", lambda: service._p_jar, raising=False)
            service.process(workshop.now)
    else:
        monkeypatch.setattr(Here, "connection", lambda: workshop.session.connection, raising=False)
        for _ in range(n_runs):
            workshop.step()


@pytest.mark.parametrize("misdeed", MISDEEDS)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("is_inline", [False, True])
def test_whatever_is_done_to_the_transaction_the_job_is_settled(
    workshop: Any,
    register: Any,
    monkeypatch: pytest.MonkeyPatch,
    misdeed: str,
    who: str,
    is_inline: bool,
) -> None:
    error, policy = WHO[who]

    def fail(input: Any) -> None:
        raise error("the error")

    monkeypatch.setattr(Here, "misdeed", misdeed, raising=False)
    register("fail", fail)
    jobid = workshop.add("fail", retry=policy(attempts=1))
    other = workshop.add("echo")
    run_here(workshop, monkeypatch, is_inline, 4)
    assert workshop.get(other, "status") == COMPLETED
    assert workshop.get(jobid, "status", "attempt", "errors") == (ERROR, 1, 1)


class Locked(RetryPolicy):
    def wait_seconds(self, *args: Any, **keywords: Any) -> Any:
        object.__setattr__(self, "lock", threading.Lock())
        return super().wait_seconds(*args, **keywords)


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("is_inline", [False, True])
def test_a_policy_may_keep_what_cannot_be_stored_in_itself(
    workshop: Any, register: Any, attempts: int, is_inline: bool
) -> None:
    def fail(input: Any) -> None:
        raise LookupError("the error")

    register("fail", fail)
    jobid = workshop.add("fail", retry=Locked(attempts=attempts, first_wait_seconds=0.0))
    other = workshop.add("echo")
    if is_inline:
        with workshop.service() as service:
            service.process(workshop.now)
            service.process(workshop.now)
    else:
        for _ in range(4):
            workshop.step()
    assert workshop.get(other, "status") == COMPLETED
    assert workshop.get(jobid, "status", "attempt", "error") == (ERROR, attempts, "the error")


def test_a_policy_is_asked_with_the_exception_itself_and_once(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = LookupError("the error")
    asked = []

    def fail(input: Any) -> None:
        raise raised

    def wait_seconds(policy: Any, failures: int, error: BaseException) -> float:
        asked.append((failures, error))
        return 7.0

    monkeypatch.setattr(Odd, "wait_seconds", wait_seconds)
    register("fail", fail)
    jobid = workshop.add("fail", retry=Odd())
    workshop.step()
    assert asked == [(1, raised)]
    assert asked[0][1] is raised
    assert workshop.get(jobid, "status", "due") == (QUEUED, workshop.now + 7.0)


@pytest.mark.parametrize("part", ["follow_up", "add_lines"])
def test_what_cannot_be_written_with_a_failure_ends_the_job(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fail(input: Any) -> None:
        raise LookupError("the error")

    def refuse(*args: Any) -> None:
        raise TypeError("cannot be pickled")

    register("fail", fail)
    jobid, other = workshop.add("fail"), workshop.add("echo")
    with monkeypatch.context() as patched:
        patched.setattr(outcome, part, refuse)
        workshop.step()
    workshop.step()
    assert workshop.get(other, "status") == COMPLETED
    assert workshop.get(jobid, "status", "error") == (
        ERROR,
        "the error (what follows cannot be kept: cannot be pickled)",
    )


@pytest.mark.parametrize("is_inline", [False, True])
def test_what_a_class_pretends_to_be_makes_no_conflict(
    workshop: Any, register: Any, is_inline: bool
) -> None:
    class Pretends(Exception):
        @property
        def __class__(self) -> Any:
            return ConflictError

    def fail(input: Any) -> None:
        raise Pretends("the error")

    register("fail", fail, retry=RetryPolicy(attempts=1))
    jobid = workshop.add("fail")
    if is_inline:
        with workshop.service() as service:
            service.process(workshop.now)
    else:
        workshop.step()
    assert workshop.get(jobid, "status", "conflicts", "error") == (ERROR, 0, "the error")


class Raising:
    """A synchronizer of the manager, which is called in all transactions of a thread."""

    def newTransaction(self, txn: Any) -> None:
        raise ValueError("the synchronizer")

    beforeCompletion = afterCompletion = newTransaction


@pytest.mark.parametrize("who", ["task", "policy", "text"])
@pytest.mark.parametrize("is_inline", [False, True])
def test_no_synchronizer_outlives_who_has_registered_it(
    workshop: Any, register: Any, monkeypatch: pytest.MonkeyPatch, who: str, is_inline: bool
) -> None:
    raising = Raising()
    error, policy = WHO.get(who, (LookupError, RetryPolicy))

    def fail(input: Any) -> None:
        if who == "task":
            Here.misbehave()
        raise error("the error")

    monkeypatch.setitem(MISDEEDS, "synch", lambda c: manager_of(c).registerSynch(raising))
    monkeypatch.setattr(Here, "misdeed", "synch", raising=False)
    register("fail", fail)
    jobid, other = workshop.add("fail", retry=policy(attempts=1)), workshop.add("echo")
    run_here(workshop, monkeypatch, is_inline, 2)
    assert workshop.get(other, "status") == COMPLETED
    assert workshop.get(jobid, "status") == ERROR


def test_a_connection_outlives_that_its_synchronizers_are_cleared(
    workshop: Any, register: Any
) -> None:
    manager = workshop.session.manager
    register("clear", lambda input: manager.clearSynchs())
    jobid = workshop.add("clear")
    workshop.step()
    assert workshop.get(jobid, "status") == COMPLETED
    assert manager.registeredSynchs()
    other = workshop.add("echo")
    workshop.step()
    assert workshop.get(other, "status") == COMPLETED
