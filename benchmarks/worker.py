# SPDX-License-Identifier: ZPL-2.1
"""A worker process: it works on a service, and answers a few questions about itself.

Commands come on the standard input, one a line; the answers are JSON, one a line.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
from pathlib import Path
from typing import Any

import transaction
from places import register_tasks


def open_database(place: str) -> Any:
    """Open ``host:port`` or the path of a file."""
    if place.startswith("/"):
        import ZODB

        return ZODB.DB(place)
    import ZEO

    host, _, port = place.rpartition(":")
    return ZEO.DB((host, int(port)), wait_timeout=30)


def resident_bytes() -> int:
    """Return how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_seconds() -> float:
    """Return how much time of a core this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Answer until the input ends."""
    register_tasks()
    connection = open_database(sys.argv[1]).open()
    service = connection.root()["tasks"]
    while True:
        # A connection that begins no transaction remembers all that others change meanwhile,
        # so this one does now and then, as those of a server would.
        while not select.select([sys.stdin], [], [], 1.0)[0]:
            transaction.begin()
        command = sys.stdin.readline().strip()
        answer: Any = True
        if command == "start":
            service.startProcessing()
        elif command == "stop":
            service.stopProcessing(10.0)
        elif command == "memory":
            answer = resident_bytes()
        elif command == "processor":
            answer = processor_seconds()
        print(json.dumps(answer), flush=True)
        if command in ("quit", ""):
            break
    service.stopProcessing(10.0)


if __name__ == "__main__":
    main()
