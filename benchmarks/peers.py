# SPDX-License-Identifier: ZPL-2.1
"""The other queues, each in the way its own documentation starts with.

Where they have a choice they are given the durable one.  Their workers run one job at a
time, as ours does, unless the name says otherwise.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
from contextlib import suppress

import payload
from interleave import Contender, Unavailable, repeat
from peer import AT_LEAST_ONCE, AT_MOST_ONCE, DRY, FSYNC, TRIES, Peer, imported
from places import scratch_directory
from postgres_peers import Procrastinate, ProcrastinateAdd

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9")

REDIS = "Redis, in memory"


class Huey(Peer):
    """huey on SQLite, with its consumer and one worker thread."""

    name = "huey on SQLite: drain"
    durability = FSYNC
    guarantee = AT_MOST_ONCE
    slot = payload.FIRST_PEER
    threads = 1
    _rate = 2500.0

    def connect(self) -> None:
        imported("huey", "huey")
        os.environ["BENCHMARK_HUEY"] = str(self.directory / "huey.db")
        self._app = importlib.import_module("peer_apps.huey_app")

    def command(self) -> list[str]:
        script = "import sys; from huey.bin.huey_consumer import consumer_main as main; main()"
        options = ["-w", str(self.threads), "-n", "-q"]
        return [sys.executable, "-c", script, "peer_apps.huey_app.huey", *options]

    def send(self, count: int) -> None:
        for _ in range(count):
            self._app.noop(1)


class HueyThreads(Huey):
    """huey with several worker threads, and jobs of several lengths."""

    def __init__(self, threads: int, slot: int) -> None:
        self.name = f"huey, {threads}"
        self.threads = self.at_once = threads
        self.slot = slot

    def connect(self) -> None:
        sys.modules.pop("peer_apps.huey_app", None)  # each has a file of its own
        super().connect()

    def send_naps(self, count: int, seconds: float) -> None:
        """Add so many jobs that take so long."""
        for _ in range(count):
            self._app.nap(seconds)

    def purge(self) -> None:
        """Take away what waits."""
        self._app.huey.flush()


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
    _rate = 3000.0

    def prepare(self, seconds: float) -> None:
        while self._queue.size < 1.6 * self._rate * seconds:
            self._queue.put(1)
        payload.board().open_gate()

    def work(self, seconds: float) -> float:
        for _ in range(TRIES):
            rate = repeat(self._get, seconds)
            self._rate = max(self._rate, rate)
            if self._queue.size:
                return rate
            self._rate *= 2
            self.prepare(seconds)
        raise TimeoutError(DRY)

    def _get(self) -> int:
        if not self._queue.size:  # to get one would take for ever
            return 0
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
