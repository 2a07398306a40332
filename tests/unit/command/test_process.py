# SPDX-License-Identifier: ZPL-2.1
"""Where one process of a supervisor follows another: when, and what is said of it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from lovely.remotetask.command import process
from lovely.remotetask.command.channel import MAX_PENDING, Channel
from lovely.remotetask.command.parent import BY_SIGNAL, DRAINED, STARTED, USED_UP, find_parent
from lovely.remotetask.command.process import EARLY_SECONDS, MAX_EARLY, Place
from lovely.remotetask.errors import InvalidArgument
from lovely.remotetask.store import worker


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(process, "time", clock)
    return clock


def end(place: Place, clock: Clock, code: int, lived: float, **known: Any) -> str:
    """Let a process that has lived for so many seconds end with a code."""
    facts = {"leaving": None, "is_storage_away": False, "born": clock.now - lived, **known}
    channel = SimpleNamespace(close=lambda: None)
    place.process = SimpleNamespace(channel=channel, **facts)  # type: ignore[assignment]
    return place.end(code)


def test_one_that_dies_late_is_followed_at_once(clock: Clock) -> None:
    place = Place(1)
    assert end(place, clock, -9, lived=EARLY_SECONDS + 1) == "was ended by SIGKILL"
    assert (place.due, place.early) == (clock.now, 0)


def test_after_early_deaths_each_next_one_waits_longer(clock: Clock) -> None:
    place = Place(1)
    waits = []
    for _ in range(MAX_EARLY):
        assert end(place, clock, 3, lived=1) == "has ended with exit code 3"
        waits.append(round(place.due - clock.now, 1))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8]
    assert place.early == MAX_EARLY
    assert "has died at once 8 times: has ended with exit code 3" in place.problems()[0]
    end(place, clock, -11, lived=EARLY_SECONDS + 1)
    assert place.early == 0


def test_a_storage_that_is_away_is_no_death(clock: Clock) -> None:
    place = Place(1)
    for _ in range(2 * MAX_EARLY):
        end(place, clock, 1, lived=1, is_storage_away=True)
    assert place.early == 0
    assert place.due == clock.now + process.STORAGE_WAIT


@pytest.mark.parametrize(
    ("kind", "wait", "is_done"),
    [(USED_UP, 0.0, False), (BY_SIGNAL, process.SIGNAL_WAIT, False), (DRAINED, 0.0, True)],
)
def test_one_that_has_ended_in_order_has_not_died(
    clock: Clock, kind: str, wait: float, is_done: bool
) -> None:
    place = Place(1)
    assert end(place, clock, 0, lived=1, leaving=(kind, "has had enough")) == "has had enough"
    assert (place.early, place.due, place.is_done) == (0, clock.now + wait, is_done)


def test_one_that_dies_while_it_ends_has_died(clock: Clock) -> None:
    place = Place(1)
    assert end(place, clock, -9, lived=1, leaving=(DRAINED, "has had enough")).endswith("SIGKILL")
    assert (place.early, place.is_done) == (1, False)


@pytest.mark.parametrize("is_its_own", [True, False])
def test_only_the_supervisor_s_own_child_has_a_token(
    monkeypatch: pytest.MonkeyPatch, is_its_own: bool
) -> None:
    supervisor = os.getppid() + (0 if is_its_own else 1)
    monkeypatch.setenv(STARTED, f"{supervisor} word 2 was ended by SIGKILL")
    monkeypatch.setattr(worker, "origin", None)
    one, other = process.socket.socketpair()
    with other:
        given: Any = SimpleNamespace(child=3, channel=one.detach())
        [channel] = find_parent(given).handles()
        channel.close()
    told = (supervisor, 3, 2, "was ended by SIGKILL", "word" if is_its_own else "")
    assert worker.origin == told


@pytest.mark.parametrize("told", ["", "7", "7 word 2", "x word 2 why", "7 word x why"])
def test_what_no_supervisor_tells_is_refused(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(STARTED, told)
    one, other = process.socket.socketpair()
    with one, other:
        given: Any = SimpleNamespace(child=3, channel=one.fileno())
        with pytest.raises(InvalidArgument, match="are for the processes of a supervisor"):
            find_parent(given)


def test_messages_come_as_they_were_sent() -> None:
    one, other = map(Channel, process.socket.socketpair())
    one.send({"beat": ["ä\n"], "jobs": 1})
    one.send({"ready": True})
    assert other.receive() == [{"beat": ["ä\n"], "jobs": 1}, {"ready": True}]
    assert other.receive() == []
    one.close()
    assert other.receive() == []
    assert not other.is_open
    other.send({"stop": True})  # to nobody
    other.close()


def test_who_does_not_read_keeps_nobody_waiting() -> None:
    one, other = map(Channel, process.socket.socketpair())
    text = "x" * 1000
    for _ in range(5 * MAX_PENDING // 1000 + 1000):
        one.send({"text": text})
    got = other.receive()
    assert got
    assert all(message == {"text": text} for message in got)
    while more := (one.send({"last": True}), other.receive())[1]:
        assert {"text": text} in more or {"last": True} in more
        got += more
        if {"last": True} in more:
            break
    assert got[-1] == {"last": True}
    one.close()
    other.close()
