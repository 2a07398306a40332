# SPDX-License-Identifier: ZPL-2.1
"""Rates that can be compared: short slices of all contenders, in turn, many times over.

The speed of a machine, of its disk above all, can change tenfold within an hour.  What is
measured within the same few seconds can still be compared; so each round gives each
contender one slice, and a ratio is the ratio of two medians of the same rounds.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

#: How long one slice takes, in seconds.
SLICE_SECONDS = 0.5

#: Who takes longer than this to get ready, for a slice or to end has failed.  In seconds.
PATIENCE_SECONDS = 120.0


class Unavailable(Exception):
    """A contender cannot run here.

    :ivar command: what to type to change that.
    """

    def __init__(self, reason: str, command: str) -> None:
        super().__init__(reason)
        self.command = command


@contextmanager
def at_most(seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Give a block so much time, whatever it waits for.  Only for the main thread.

    :raises TimeoutError: it has taken longer.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"nothing came of it in {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class Contender:
    """Something that does one kind of work as fast as it can.

    :cvar name: names it in the tables.
    :cvar durability: what has happened to the data when an operation has returned.
    :cvar guarantee: how often a job runs, or counts, when its process is killed.
    """

    name = ""
    durability = ""
    guarantee = ""

    def open(self) -> None:
        """Get ready.

        :raises Unavailable: something is not installed, or a server does not answer.
        """

    def prepare(self, seconds: float) -> None:
        """Make sure that there is work for a slice; the clock does not run."""

    def work(self, seconds: float) -> float:
        """Work for about so many seconds; return operations a second."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind."""


@dataclass
class Rates:
    """What the slices of one contender gave, in operations a second.

    :ivar failure: why there are no more of them; empty if it did not fail.
    """

    contender: Contender
    rates: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """The distance of the quartiles, as a part of the median."""
        if len(self.rates) < 3:
            return 0.0
        first, _, third = statistics.quantiles(self.rates, n=4)
        return (third - first) / self.median


def interleave(
    contenders: Iterable[Contender],
    rounds: int,
    seconds: float = SLICE_SECONDS,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Rates]:
    """Give each contender a slice in each of some rounds, after one to warm up.

    One that fails, or is stuck, gets no more slices, and the others go on.

    :param note: called with the name of what is measured now.
    :returns: name -> rates.
    """
    found = {contender.name: Rates(contender) for contender in contenders}
    for turn in range(rounds + 1):
        for name, measured in found.items():
            if measured.failure:
                continue
            note(f"round {turn} of {rounds}: {name}" if turn else f"warm-up: {name}")
            try:
                with at_most():
                    measured.contender.prepare(seconds)
                    rate = measured.contender.work(seconds)
            except Exception as error:  # whatever a queue, or a server, does when it fails
                measured.failure = describe(error)
            else:
                if turn:
                    measured.rates.append(rate)
    return found


def describe(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:160]


def repeat(operation: Callable[[], int], seconds: float) -> float:
    """Call an operation, which returns how much it did, for some seconds; return the rate."""
    count = 0
    begun = time.perf_counter()
    end = begun + seconds
    while (now := time.perf_counter()) < end:
        count += operation()
    return count / (now - begun)


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value below which so many percent of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
