# SPDX-License-Identifier: ZPL-2.1
"""The other queues, each in the way its own documentation starts with.

Where they have a choice they are given the durable one.  Their workers run one job at a
time, as ours does.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import closing, suppress
from typing import Any

import payload
from interleave import Contender, Unavailable, repeat
from places import HERE, POSTGRES_DSN, end, scratch_directory

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9")

AT_LEAST_ONCE = "at least once"
AT_MOST_ONCE = "at most once"

FSYNC = "fsync each commit"
REDIS = "Redis, in memory"


def imported(module: str, package: str) -> Any:
    """Import a peer.

    :raises Unavailable: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed", f"pip install {package}") from None


class Peer(Contender):
    """A queue with jobs that are sent, and a worker that runs them."""

    slot = 0
    has_worker = True
    _rate = 300.0
    _sent = 0

    def open(self) -> None:
        self.directory = scratch_directory()
        self.queue = f"benchmark-{uuid.uuid4().hex}"
        os.environ["BENCHMARK_QUEUE"] = self.queue
        payload.board().open_gate(self.slot)
        self._before = payload.board().count(self.slot)
        self.connect()
        try:
            self.start()
            self.send(1)
            payload.wait_for(self._before + 1, self.slot, seconds=30)
        except BaseException:
            self.close()
            raise
        self._sent = 1

    def connect(self) -> None:
        """Connect to the server, and make a queue."""

    def start(self) -> None:
        """Start the worker."""
        with (self.directory / "worker.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=HERE,
                stdout=log,
                stderr=log,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]]),
                    payload.SLOT_VARIABLE: str(self.slot),
                },
            )

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        raise NotImplementedError

    def send(self, count: int) -> None:
        """Add so many jobs."""
        raise NotImplementedError

    def prepare(self, seconds: float) -> None:
        payload.board().close_gate(self.slot)
        waiting = self._sent - (payload.board().count(self.slot) - self._before)
        wanted = int(self._rate * seconds * 1.6) + 20
        if waiting < wanted:
            self.send(wanted - waiting)
            self._sent += wanted - waiting
        time.sleep(0.1)  # it has taken what it takes in advance, and waits at the gate

    def work(self, seconds: float) -> float:
        rate = payload.measured(seconds, self.slot)
        self._rate = max(self._rate, rate)
        return rate

    def latency(self) -> float:
        """Send one job to the idle worker; return the seconds until it starts."""
        time.sleep(0.05)
        count = payload.board().count(self.slot)
        self.send(1)
        sent = time.monotonic()
        payload.wait_for(count + 1, self.slot, seconds=10)
        return max(0.0, payload.board().last(self.slot) - sent)

    def be_idle(self) -> None:
        """Let all jobs run."""
        payload.board().open_gate(self.slot)
        payload.wait_for(self._before + self._sent, self.slot)

    def close(self) -> None:
        payload.board().open_gate(self.slot)
        self.stop()
        self.disconnect()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self) -> None:
        """End the worker."""
        if hasattr(self, "_process"):
            end(self._process)

    def disconnect(self) -> None:
        """Leave nothing on the server."""


class Huey(Peer):
    """huey on SQLite, with its consumer and one worker thread."""

    name = "huey on SQLite: drain"
    durability = FSYNC
    guarantee = AT_MOST_ONCE
    slot = payload.FIRST_PEER
    _rate = 2500.0

    def connect(self) -> None:
        imported("huey", "huey")
        os.environ["BENCHMARK_HUEY"] = str(self.directory / "huey.db")
        self._app = importlib.import_module("peer_apps.huey_app")

    def command(self) -> list[str]:
        script = "import sys; from huey.bin.huey_consumer import consumer_main as main; main()"
        return [sys.executable, "-c", script, "peer_apps.huey_app.huey", "-w", "1", "-n", "-q"]

    def send(self, count: int) -> None:
        for _ in range(count):
            self._app.noop(1)


class HueyAdd(Contender):
    """Add jobs to huey on SQLite."""

    name = "huey on SQLite: add"
    durability = FSYNC
    guarantee = AT_MOST_ONCE

    def open(self) -> None:
        huey = imported("huey", "huey")
        self._directory = scratch_directory()
        app = huey.SqliteHuey("add", filename=str(self._directory / "huey.db"), fsync=True)
        self._task = app.task()(payload.noop)

    def work(self, seconds: float) -> float:
        return repeat(self._add, seconds)

    def _add(self) -> int:
        self._task(1)
        return 1

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class PersistQueuePut(Contender):
    """Put into a queue of persist-queue on SQLite, which acknowledges what was done."""

    name = "persist-queue on SQLite: put"
    durability = FSYNC
    guarantee = AT_LEAST_ONCE

    def open(self) -> None:
        module = imported("persistqueue", "persist-queue")
        self._directory = scratch_directory()
        self._queue = module.SQLiteAckQueue(str(self._directory), auto_commit=True)

    def work(self, seconds: float) -> float:
        return repeat(self._put, seconds)

    def _put(self) -> int:
        self._queue.put(1)
        return 1

    def close(self) -> None:
        self._queue.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class PersistQueueGet(PersistQueuePut):
    """Get from it, run the job, acknowledge."""

    name = "persist-queue on SQLite: get and ack"

    def prepare(self, seconds: float) -> None:
        while self._queue.size < 3000 * seconds:
            self._queue.put(1)
        payload.board().open_gate()

    def work(self, seconds: float) -> float:
        return repeat(self._get, seconds)

    def _get(self) -> int:
        payload.noop(item := self._queue.get())
        self._queue.ack(item)
        return 1


class APScheduler(Peer):
    """APScheduler with its store in memory and one thread; adding is part of the slice."""

    name = "APScheduler in memory: add and run"
    durability = "in memory"
    guarantee = "lost with the process"

    def connect(self) -> None:
        background = imported("apscheduler.schedulers.background", "'apscheduler<4'")
        pool = imported("apscheduler.executors.pool", "'apscheduler<4'")
        self._scheduler = background.BackgroundScheduler(
            executors={"default": pool.ThreadPoolExecutor(1)},
            job_defaults={"misfire_grace_time": None},
        )

    def start(self) -> None:
        self._scheduler.start()

    def send(self, count: int) -> None:
        for _ in range(count):
            self._scheduler.add_job(payload.noop, args=[1])

    def prepare(self, seconds: float) -> None:
        payload.board().open_gate()

    def work(self, seconds: float) -> float:
        board = payload.board()
        before = board.count(0)
        begun = time.perf_counter()
        sent = 0
        while time.perf_counter() - begun < seconds:
            self.send(10)
            sent += 10
            payload.wait_for(before + sent, 0)
        return sent / (time.perf_counter() - begun)

    def be_idle(self) -> None:
        payload.board().open_gate()

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown()


class Procrastinate(Peer):
    """Procrastinate on PostgreSQL, in a database of its own."""

    name = "Procrastinate on PostgreSQL: drain"
    durability = FSYNC
    guarantee = AT_LEAST_ONCE
    slot = payload.FIRST_PEER + 1
    _rate = 200.0

    def connect(self) -> None:
        imported("procrastinate", "procrastinate")
        self._psycopg = imported("psycopg", "'psycopg[binary]'")
        self._database = self.queue.replace("-", "_")
        try:
            self._administer(f"CREATE DATABASE {self._database}")
        except self._psycopg.OperationalError:
            raise Unavailable(
                "no PostgreSQL server takes us",
                "export REMOTETASK_POSTGRES_DSN='host=... dbname=postgres user=...'",
            ) from None
        os.environ["BENCHMARK_POSTGRES"] = self._psycopg.conninfo.make_conninfo(
            POSTGRES_DSN, dbname=self._database
        )
        sys.modules.pop("peer_apps.procrastinate_app", None)
        app = importlib.import_module("peer_apps.procrastinate_app")
        self._app = app.app
        self._app.open()
        self._app.schema_manager.apply_schema()
        self._task = app.noop

    def _administer(self, statement: str) -> None:
        with closing(self._psycopg.connect(POSTGRES_DSN, autocommit=True)) as connection:
            connection.execute(statement)

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "procrastinate"),
            *("--app", "peer_apps.procrastinate_app.app", "worker", "--concurrency", "1"),
        ]

    def send(self, count: int) -> None:
        if count == 1:
            self._task.defer(value=1)
        else:
            self._task.batch_defer(*({"value": 1} for _ in range(count)))

    def disconnect(self) -> None:
        if hasattr(self, "_app"):
            self._app.close()
        with suppress(self._psycopg.Error):
            self._administer(f"DROP DATABASE IF EXISTS {self._database} WITH (FORCE)")


class ProcrastinateAdd(Procrastinate):
    """Add jobs to Procrastinate."""

    name = "Procrastinate on PostgreSQL: add"
    has_worker = False
    slot = payload.FIRST_PEER + 2

    def open(self) -> None:
        self.directory = scratch_directory()
        self.queue = f"benchmark-{uuid.uuid4().hex}"
        self.connect()

    def prepare(self, seconds: float) -> None:
        pass

    def work(self, seconds: float) -> float:
        return repeat(self._add, seconds)

    def _add(self) -> int:
        self.send(1)
        return 1


class RedisPeer(Peer):
    """A queue on Redis; its keys bear the queue's name."""

    durability = REDIS

    def connect(self) -> None:
        redis = imported("redis", "redis")
        os.environ["BENCHMARK_REDIS"] = REDIS_URL
        self.redis = redis.Redis.from_url(REDIS_URL)
        try:
            self.redis.ping()
        except redis.RedisError:
            raise Unavailable(
                f"no Redis server answers at {REDIS_URL}", "export REDIS_URL=redis://..."
            ) from None

    def disconnect(self) -> None:
        for key in self.redis.scan_iter(f"*{self.queue}*"):
            self.redis.delete(key)
        self.redis.close()


class Rq(RedisPeer):
    """RQ with its default worker, which forks for each job."""

    name = "RQ: drain"
    guarantee = AT_MOST_ONCE
    slot = payload.FIRST_PEER + 3
    _class = "rq.worker.Worker"
    _rate = 50.0

    def connect(self) -> None:
        rq = imported("rq", "rq")
        super().connect()
        self._queue = rq.Queue(self.queue, connection=self.redis)

    def command(self) -> list[str]:
        script = "import sys; from rq.cli import main; sys.exit(main())"
        options = ["--quiet", "--worker-class", self._class, "--url", REDIS_URL]
        return [sys.executable, "-c", script, "worker", *options, self.queue]

    def send(self, count: int) -> None:
        for _ in range(count):
            self._queue.enqueue(payload.noop, 1)

    def disconnect(self) -> None:
        with suppress(Exception):
            self._queue.delete(delete_jobs=True)
        super().disconnect()


class RqSimple(Rq):
    """RQ with the worker that runs jobs in its own process."""

    name = "RQ, SimpleWorker: drain"
    slot = payload.FIRST_PEER + 4
    _class = "rq.worker.SimpleWorker"
    _rate = 500.0


class Celery(RedisPeer):
    """Celery with one worker process, late acknowledgement and a result backend."""

    name = "Celery: drain"
    guarantee = AT_LEAST_ONCE
    slot = payload.FIRST_PEER + 5
    _rate = 600.0

    def connect(self) -> None:
        imported("celery", "'celery[redis]'")
        super().connect()
        sys.modules.pop("peer_apps.celery_app", None)
        self._app = importlib.import_module("peer_apps.celery_app")

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "celery", "-A", "peer_apps.celery_app", "worker"),
            *("--concurrency", "1", "--loglevel", "ERROR", "--without-gossip"),
            *("--without-mingle", "-n", f"{self.queue}@%h"),
        ]

    def send(self, count: int) -> None:
        for _ in range(count):
            self._app.noop.delay(1)

    def disconnect(self) -> None:
        self._app.app.close()
        super().disconnect()


class Dramatiq(RedisPeer):
    """Dramatiq with one process and one thread."""

    name = "Dramatiq: drain"
    guarantee = AT_LEAST_ONCE
    slot = payload.FIRST_PEER + 6
    _rate = 1000.0

    def connect(self) -> None:
        imported("dramatiq", "'dramatiq[redis]'")
        super().connect()
        sys.modules.pop("peer_apps.dramatiq_app", None)
        self._app = importlib.import_module("peer_apps.dramatiq_app")

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "dramatiq", "peer_apps.dramatiq_app"),
            *("--processes", "1", "--threads", "1"),
        ]

    def send(self, count: int) -> None:
        for _ in range(count):
            self._app.noop.send(1)


#: All of them.
PEERS: tuple[type[Contender], ...] = (
    HueyAdd,
    Huey,
    PersistQueuePut,
    PersistQueueGet,
    ProcrastinateAdd,
    Procrastinate,
    Celery,
    Dramatiq,
    Rq,
    RqSimple,
    APScheduler,
)
