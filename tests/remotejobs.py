# SPDX-License-Identifier: ZPL-2.1
"""Jobs of remote processors to test with, where all can import them: they are stored by name."""

from __future__ import annotations

import threading
from typing import Any

import transaction

from lovely.remotetask.remote.exceptions import RemoteException
from lovely.remotetask.remote.job import Job

#: What the jobs of a test have done, in order.
done: list[Any] = []

#: Jobs called *hang* wait for it; `hanging` has the inputs of those that do.
gate = threading.Event()
hanging: list[Any] = []


class Note(Job):
    """Notes its input, and returns it."""

    def __call__(self, remoteProcessor: Any) -> Any:
        done.append(self.input)
        return self.input


class Stumble(Job):
    """Writes here and there, and raises what is repeated."""

    seen: Any = None
    notes: Any = ()

    def __call__(self, remoteProcessor: Any) -> Any:
        done.append("stumble")
        self.seen = "changed by the run"
        self.notes = [*self.notes, "changed by the run"]
        self.input = "changed by the run"
        remoteProcessor.addJob("note", "added by the run")
        raise ValueError("it stumbled")


class Refuse(Job):
    """Raises what ends a job."""

    def __call__(self, remoteProcessor: Any) -> Any:
        done.append("refuse")
        raise RemoteException("it will not")


class Keep(Job):
    """Changes its own attributes, which is kept with its output."""

    count = 0

    def __call__(self, remoteProcessor: Any) -> Any:
        self.count += 1
        return {"count": self.count}


class Spread(Job):
    """Adds a job for each part of its input."""

    def __call__(self, remoteProcessor: Any) -> Any:
        return [remoteProcessor.addJob("note", part) for part in self.input]


class Tell(Job):
    """Returns what it sees of itself while it runs."""

    def __call__(self, remoteProcessor: Any) -> Any:
        times = {name: getattr(self, name) is not None for name in ("picked", "started")}
        return {"status": self.status, "runs": self.retryCounter, **times}


class Meddle(Job):
    """Does to the transaction what its input says."""

    def __call__(self, remoteProcessor: Any) -> Any:
        done.append("meddle")
        getattr(transaction, self.input)()


class Exit(Job):
    """Wants to end the process."""

    def __call__(self, remoteProcessor: Any) -> Any:
        raise SystemExit(3)


class Unfit(Job):
    """Returns what no store takes."""

    def __call__(self, remoteProcessor: Any) -> Any:
        return lambda: None


class Hang(Job):
    """Waits for the gate; with ``fails`` it raises then."""

    fails = False

    def __call__(self, remoteProcessor: Any) -> Any:
        hanging.append(self.input)
        try:
            assert gate.wait(60)
        finally:
            hanging.remove(self.input)
        done.append(self.input)
        if self.fails:
            raise ValueError("it stumbled")
        return self.input


class Lists(Job):
    """Has attributes of its own that stand in a list."""

    colours: Any = ()

    def __call__(self, remoteProcessor: Any) -> Any:
        return list(self.colours)


class Drain(Job):
    """Takes all out of its lists, in place; its first two runs raise what is repeated."""

    retryDelay = 0
    parts: Any = ()

    def __call__(self, remoteProcessor: Any) -> Any:
        done.append((list(self.input), list(self.parts)))
        self.input.clear()
        self.parts.clear()
        if len(done) < 3:
            raise ValueError("it stumbled")
        return done[-1]


class Seep(Drain):
    """Does so in a coroutine."""

    async def __call__(self, remoteProcessor: Any) -> Any:
        return super().__call__(remoteProcessor)


CLASSES = (Drain, Exit, Hang, Keep, Lists, Meddle, Note, Refuse, Seep, Spread, Stumble, Tell, Unfit)
