# SPDX-License-Identifier: ZPL-2.1
"""A process of ours: it works on a service, adds jobs or commits, and tells about itself.

Commands come on the standard input, one a line; the answers are JSON, one a line:

``start [N]``     work on the service, with N threads, in a database that is opened now
``stop``          end that, and close the database
``add S N``       add jobs for S seconds, N in a commit; the answer counts what was met
``commit S``      make tiny commits for S seconds; the answer is their number
``memory``        bytes
``processor``     seconds of a core
``met``           how many commits there were, and how many conflicts
"""

from __future__ import annotations

import json
import resource
import select
import sys
import time
from contextlib import closing
from typing import Any

import transaction
import ZODB
from adders import add_for
from meeting import count_commits
from ours import Tiny
from places import POOL, open_relstorage, open_zeo, register_tasks

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.allowance import resident_bytes


def open_database(place: str) -> Any:
    """Open the path of a file, ``host:port``, or what `open_relstorage` takes."""
    if place.startswith("/"):
        return ZODB.DB(place, pool_size=POOL)
    if place.startswith("postgresql:"):
        return open_relstorage(place)
    return open_zeo(place)


def processor_seconds() -> float:
    """Return how much time of a core this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Work:
    """Works on the service of a place, between `start` and `stop`."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._db: Any = None

    def start(self, threads: int | None = None) -> None:
        """Open the database, and work."""
        registry.threads = threads
        self._db = open_database(self._place)
        self._service = self._db.open().root()["tasks"]
        self._service.startProcessing()

    def stop(self) -> None:
        """Stop, and close the database."""
        if self._db is not None:
            self._service.stopProcessing(10.0)
            transaction.abort()
            self._service._p_jar.close()
            self._db.close()
            self._db = None

    def add(self, seconds: float, together: int) -> dict[str, int]:
        """Add jobs for some seconds; return what was met, see `add_for`."""
        with closing(open_database(self._place)) as db:
            return dict(add_for(db, seconds, together))

    def commit(self, seconds: float) -> int:
        """Commit a number of its own for some seconds; return how often."""
        with closing(open_database(self._place)) as db:
            connection = db.open()
            tiny = Tiny()
            connection.add(tiny)
            transaction.commit()
            count, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                tiny.number += 1
                transaction.commit()
                count += 1
            connection.close()
            return count


def main() -> None:
    """Answer until the input ends."""
    register_tasks()
    met = count_commits()
    work = Work(sys.argv[1])
    while True:
        # A connection that begins no transaction remembers all that others change meanwhile, so
        # this one does now and then, as those of a server would; but for RelStorage, which tells
        # nobody, and whose transactions are counted.
        while not select.select([sys.stdin], [], [], 1.0)[0]:
            if not sys.argv[1].startswith("postgresql:"):
                transaction.begin()
        command, *words = sys.stdin.readline().split() or ["quit"]
        answer: Any = True
        if command == "start":
            work.start(*map(int, words))
        elif command == "stop":
            work.stop()
        elif command == "add":
            answer = work.add(float(words[0]), int(words[1]))
        elif command == "commit":
            answer = work.commit(float(words[0]))
        elif command == "memory":
            answer = resident_bytes()
        elif command == "processor":
            answer = processor_seconds()
        elif command == "met":
            answer = dict(met)
        print(json.dumps(answer), flush=True)
        if command == "quit":
            break
    work.stop()


if __name__ == "__main__":
    main()
