# SPDX-License-Identifier: ZPL-2.1
"""How often a failed job is run again, and when.  Pure: chance is an argument."""

from __future__ import annotations

import functools
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

from lovely.remotetask.errors import (
    MAX_WAIT_SECONDS,
    InvalidArgument,
    InvalidInput,
    InvalidResult,
    JobTimeout,
    RetryLater,
    TaskError,
    TransactionMeddled,
    WriteConflicts,
    is_kind,
    list_of,
    number_of,
    shown,
    whole_of,
)

#: What no policy repeats: the task said so, or it would only do the same again.
FINAL_ERRORS: tuple[type[BaseException], ...] = (
    TaskError,
    TransactionMeddled,
    InvalidInput,
    InvalidResult,
    JobTimeout,
    WriteConflicts,
)


#: No policy names more exceptions.
MAX_KINDS = 1_000


@dataclass(frozen=True)
class RetryPolicy:
    """Say how often a failed job is run again, and how long it waits before.

    The first repeat waits ``first_wait_seconds``, each further one ``factor`` times
    as long as the one before it, never longer than ``cap_seconds``.  ``jitter`` is
    the part of a wait that is left to chance: 0.5 means anything between the half
    of it and the whole.

    The default repeats a job three times within about a second, as the first
    lovely.remotetask did for every exception other than TaskError.

    :param attempts: how often the job is run at the most, the first run included.
    :param retry_on: the exceptions that are repeated; subclasses count.
    :param give_up_on: exceptions that are final although ``retry_on`` covers them.
    :raises InvalidArgument: a number is out of range or not a number.
    """

    attempts: int = 4
    first_wait_seconds: float = 0.1
    factor: float = 2.0
    cap_seconds: float = 3600.0
    jitter: float = 0.25
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        # Of exact types, as they are stored with each job.
        put = functools.partial(object.__setattr__, self)
        attempts = whole_of(self.attempts)
        if attempts is None or attempts < 1:
            raise InvalidArgument(
                f"attempts must be an int of 1 or more, not {shown(self.attempts)}"
            )
        put("attempts", attempts)
        for name, low in (
            ("first_wait_seconds", 0),
            ("factor", 1),
            ("cap_seconds", 0),
            ("jitter", 0),
        ):
            value = getattr(self, name)
            number = number_of(value)
            if not low <= number <= sys.float_info.max:
                raise InvalidArgument(
                    f"{name} must be a number of {low} or more, not {shown(value)}"
                )
            put(name, number)
        if self.jitter > 1:
            raise InvalidArgument(f"jitter must lie between 0 and 1, not {self.jitter!r}")
        for name in ("retry_on", "give_up_on"):
            kinds = getattr(self, name)
            kinds = (
                [kinds]
                if is_kind(kinds, type)
                else list_of(kinds, name, InvalidArgument, MAX_KINDS)
            )
            for kind in kinds:
                if not (is_kind(kind, type) and issubclass(kind, BaseException)):
                    raise InvalidArgument(f"{name} takes exception classes, not {shown(kind)}")
            put(name, tuple(kinds))

    def wait_seconds(
        self,
        failures: int,
        error: BaseException,
        chance: Callable[[], float] = random.random,
    ) -> float | None:
        """Return the seconds until the next run, or None to give up.

        A ``RetryLater`` is the task's own wish and no failure: it is granted however
        often it comes.

        :param failures: how often the job has failed by now, this time included.
        :param error: what the last run raised.
        :param chance: gives a float in 0..1.
        :raises InvalidArgument: `failures` is no int.
        """
        if type(failures) is not int:
            raise InvalidArgument(f"failures must be an int, not {shown(failures)}")
        if isinstance(error, RetryLater):
            if error.delay_seconds is not None:
                return error.delay_seconds
        elif (
            failures >= self.attempts
            or isinstance(error, (*FINAL_ERRORS, *self.give_up_on))
            or not isinstance(error, self.retry_on)
        ):
            return None
        try:
            wait = self.first_wait_seconds * float(self.factor) ** max(failures - 1, 0)
        except OverflowError:  # what floats say where others say infinity
            wait = math.inf
        wait = min(wait, self.cap_seconds, MAX_WAIT_SECONDS)
        return wait * (1 - self.jitter * chance())


#: Used where neither the task nor the call of ``add`` names a policy.
DEFAULT_POLICY = RetryPolicy()

#: Seconds a job waits after the n-th death of the process that ran it; the last one for each
#: further death.
DEATH_WAITS_SECONDS = (0.0, 5.0)

#: Deaths after which a job is an error, if the service does not say otherwise.
MAX_DEATHS = 3

#: Runs in a row that met a write conflict, after which a job is an error.
MAX_COLLISIONS = 60

#: A job that was put back because of conflicts waits no longer than this, in seconds.
COLLISION_CAP_SECONDS = 2.0


def collision_wait_seconds(collisions: int, chance: Callable[[], float] = random.random) -> float:
    """Return how long a job is put back that has met so many write conflicts in a row.

    A part of it is left to chance, so that two that collided do not collide again.

    :param chance: gives a float in 0..1.
    """
    wait: float = 0.1 * 2.0 ** (min(collisions, MAX_COLLISIONS) / 6)
    return min(wait, COLLISION_CAP_SECONDS) * (1 - 0.5 * chance())
