# SPDX-License-Identifier: ZPL-2.1
"""The job as an entrypoint of PgQueuer, and its worker: ``python -m ... BATCH``.

The command ``pgq run`` of PgQueuer 1.6 fails with the newest typer; it does no more than this.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg
import payload
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from psycopg.conninfo import conninfo_to_dict


async def connect() -> asyncpg.Connection:
    """Connect to the database."""
    parameters = conninfo_to_dict(os.environ["BENCHMARK_POSTGRES"])
    parameters["database"] = parameters.pop("dbname")
    return await asyncpg.connect(**parameters)


async def main(batch: int) -> None:
    """Work until this process is ended."""
    queue = PgQueuer.from_asyncpg_connection(await connect())

    @queue.entrypoint("noop")
    async def noop(job: Job) -> None:
        await payload.nap_in_loop(0)

    # The least that it allows: else all jobs would have been taken before the gate opens.
    await queue.run(batch_size=batch, max_concurrent_tasks=2 * batch)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
