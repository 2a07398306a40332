# SPDX-License-Identifier: ZPL-2.1
"""Workers in PostgreSQL, woken by what it tells of the commits of others."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lovely.remotetask.engine import notifications, registry, trigger
from lovely.remotetask.engine.notifications import Notifications, notifications_of
from lovely.remotetask.errors import RemoteTaskError
from lovely.remotetask.interfaces import COMPLETED
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from servers import administer_postgres, find_pgbouncer, open_postgres, pgbouncer
from workplace import Workplace

#: Nobody looks for jobs by himself in the time of a test.
NEVER_SECONDS = 600.0


@pytest.fixture(params=[False, True], ids=["history free", "history kept"])
def keep_history(request: pytest.FixtureRequest) -> bool:
    """Both schemas of RelStorage."""
    return bool(request.param)


@pytest.fixture
def here(postgres_dsn: str, keep_history: bool, make_workplace: Any) -> Iterator[Workplace]:
    """The process that works on the jobs, in a database with the trigger."""
    with closing(open_postgres(postgres_dsn, keep_history=keep_history)) as db:
        trigger.install(trigger.adapter_of(db.storage))
        yield make_workplace(db)
        assert registry.stop_all(20.0)


@pytest.fixture
def elsewhere(here: Workplace, postgres_dsn: str, keep_history: bool) -> Iterator[Workplace]:
    """Another process, whose commits the first one knows from the server alone."""
    with closing(open_postgres(postgres_dsn, keep_history=keep_history)) as db:
        workplace = object.__new__(Workplace)
        workplace.db = db
        yield workplace


@pytest.fixture
def start(here: Workplace, until: Any) -> Callable[..., Notifications]:
    """Return what starts the service here, and returns who listens."""

    def start(waitTime: float = NEVER_SECONDS) -> Notifications:
        here.start(waitTime=waitTime)
        found = notifications_of(here.db)
        assert found is not None
        until(lambda: found.is_told, "the first notification")
        return found

    return start


@pytest.fixture
def sql(postgres_dsn: str) -> Callable[[str], None]:
    """Return what runs a statement in the database."""
    return lambda statement: administer_postgres(postgres_dsn, statement)


@pytest.mark.parametrize("kind", [SimpleProcessor, MultiProcessor])
def test_jobs_of_other_processes_are_started_at_once(
    here: Workplace, elsewhere: Workplace, start: Any, kind: Any
) -> None:
    with here.service() as service:
        service.processorFactory = kind
    start()
    for number in range(5):
        jobids = elsewhere.add("echo", number)
        assert elsewhere.wait_for(jobids) == [COMPLETED]


@pytest.mark.parametrize(
    "options", [{"priority": 5}, {"lock": "desk"}, {"priority": 5, "lock": "desk"}]
)
def test_jobs_that_wait_in_places_that_are_new_are_started_at_once(
    elsewhere: Workplace, start: Any, options: dict[str, Any]
) -> None:
    start()
    for number in range(3):
        assert elsewhere.wait_for(elsewhere.add("echo", number, **options)) == [COMPLETED]


def test_one_connection_listens_for_all_services_and_those_made_later(
    here: Workplace, elsewhere: Workplace, start: Any, postgres_dsn: str
) -> None:
    start()
    elsewhere.new_service("later", processorArguments={"waitTime": NEVER_SECONDS})
    here.start("later")
    for name in ("tasks", "later"):
        for number in range(3):
            jobids = elsewhere.add("echo", number, name=name)
            assert elsewhere.wait_for(jobids, name) == [COMPLETED]
    assert listeners(postgres_dsn) == 1


def test_who_listens_stops_with_the_last_service(
    here: Workplace, start: Any, until: Any, postgres_dsn: str
) -> None:
    found = start()
    assert listeners(postgres_dsn) == 1
    here.stop()
    until(lambda: listeners(postgres_dsn) == 0, "its connection to be closed")
    assert not found.is_told
    for _ in range(10):
        start()
        here.stop()
    start()
    until(lambda: listeners(postgres_dsn) == 1, "one connection to be left")


def test_commits_that_are_none_of_its_business_are_not_told(
    elsewhere: Workplace, start: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = start()
    payloads: list[str] = []
    monkeypatch.setattr(found, "_tell", payloads.append)
    with elsewhere.transaction() as root:
        root["notes"] = "mine"
    with elsewhere.service() as service:
        service.lease_seconds = 30.0
    jobids = elsewhere.add("echo", 1)
    until(lambda: payloads, "a notification")
    with elsewhere.service() as service:
        signals = {int.from_bytes(signal._p_oid, "big") for signal in service.queue.signals}
        assert service.getStatus(jobids[0]) == "queued"
    assert all(set(map(int, payload.split(","))) <= signals for payload in payloads)
    found.tell_all()
    assert elsewhere.wait_for(jobids) == [COMPLETED]


def test_a_connection_that_the_server_ends_is_opened_again_and_no_job_is_left(
    elsewhere: Workplace, start: Any, sql: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lovely.remotetask")
    found = start()
    for number in range(4):
        sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'RS: Listen'"
        )
        assert elsewhere.wait_for(elsewhere.add("echo", number)) == [COMPLETED]
        until(lambda: found.is_told, "it to listen again")
    told = [record.getMessage() for record in caplog.records if "new jobs" in record.getMessage()]
    lost, again = told[1:3]
    assert lost.startswith("the database unnamed tells nothing of new jobs, it is asked: ")
    assert again == "the database unnamed tells of new jobs"


@pytest.mark.parametrize("way", ["switched off", "without its table", "without its function"])
def test_a_trigger_that_is_gone_costs_no_commit_and_no_job(
    here: Workplace,
    elsewhere: Workplace,
    start: Any,
    sql: Any,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    monkeypatch.setattr(notifications, "NO_TRIGGER_SECONDS", 0.1)
    found = start(waitTime=0.2)
    table = trigger.watched_table(trigger.adapter_of(here.db.storage))
    match way:
        case "switched off":
            sql(f"ALTER TABLE {table} DISABLE TRIGGER {trigger.TRIGGER}")
        case "without its table":
            sql(f"DROP TABLE {trigger.TABLE}")
        case _:
            text = "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS"
            sql(f"{text.format(trigger.TRIGGER)} 'BEGIN RETURN NULL; END'")
    assert elsewhere.wait_for(elsewhere.add("echo", 1)) == [COMPLETED]
    if way != "without its function":
        until(lambda: not found.is_told, "it to find out")
    trigger.install(trigger.adapter_of(here.db.storage))
    until(lambda: found.is_told, "it to listen again")
    assert elsewhere.wait_for(elsewhere.add("echo", 2)) == [COMPLETED]


def test_it_is_made_again_while_others_have_the_database_open(
    here: Workplace, elsewhere: Workplace, start: Any
) -> None:
    start()
    with elsewhere.connected() as (_, root):
        assert root["tasks"]
        assert not trigger.install(trigger.adapter_of(elsewhere.db.storage))


def test_it_is_switched_off_while_others_read_and_dropped_afterwards(
    here: Workplace, elsewhere: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger, "LOCK_SECONDS", 1)
    adapter = trigger.adapter_of(here.db.storage)
    with elsewhere.connected() as (_, root):
        assert root["tasks"]
        with pytest.raises(RemoteTaskError, match=r"switched off, but still there: .* is in use"):
            trigger.remove(adapter)
    installed = adapter.connmanager.open_and_call(
        lambda connection, cursor: trigger.is_installed(adapter, cursor)
    )
    assert not installed
    assert trigger.has_trigger(adapter)
    elsewhere.db.close()
    assert trigger.remove(adapter)
    assert not trigger.has_trigger(adapter)
    assert not trigger.remove(adapter)


def test_a_packed_database_tells_as_before(elsewhere: Workplace, start: Any) -> None:
    start()
    assert elsewhere.wait_for(elsewhere.add("echo", 1)) == [COMPLETED]
    elsewhere.db.pack()
    assert elsewhere.wait_for(elsewhere.add("echo", 2)) == [COMPLETED]


def test_an_emptied_database_tells_of_what_is_made_in_it_then(
    postgres_dsn: str, keep_history: bool, make_workplace: Any, until: Any
) -> None:
    with closing(open_postgres(postgres_dsn, keep_history=keep_history)) as db:
        trigger.install(trigger.adapter_of(db.storage))
        make_workplace(db).start(waitTime=NEVER_SECONDS)
        found = notifications_of(db)
        assert found is not None
        until(lambda: found.is_told, "the first notification")
        assert registry.stop_all(20.0)
    with closing(open_postgres(postgres_dsn, keep_history=keep_history)) as db:
        db.storage.zap_all()
    with (
        closing(open_postgres(postgres_dsn, keep_history=keep_history)) as db,
        closing(open_postgres(postgres_dsn, keep_history=keep_history)) as other,
    ):
        for _ in range(3):  # other objects have these ids now
            make_workplace(db)
        assert_told(db, other, until)


def assert_told(db: Any, other: Any, until: Any) -> None:
    """Check that what comes by one database wakes a worker of another one."""
    place, elsewhere = object.__new__(Workplace), object.__new__(Workplace)
    place.db, elsewhere.db = db, other
    place.start(waitTime=NEVER_SECONDS)
    until(lambda: notifications_of(db).is_told)  # type: ignore[union-attr]
    assert elsewhere.wait_for(elsewhere.add("echo", 1)) == [COMPLETED]
    assert registry.stop_all(20.0)


def test_a_dump_tells_when_it_is_restored(
    here: Workplace,
    postgres_dsn: str,
    postgres_server: str,
    keep_history: bool,
    make_workplace: Any,
    until: Any,
    need: Any,
) -> None:
    need(shutil.which("pg_dump"), "pg_dump is not installed", "apt-get install postgresql-client")
    from psycopg2.extensions import make_dsn

    copy = "remotetask_test_copy_of_a_dump"
    administer_postgres(postgres_server, f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")
    administer_postgres(postgres_server, f"CREATE DATABASE {copy}")
    dsn = make_dsn(postgres_server, dbname=copy)
    try:
        dump = subprocess.run(["pg_dump", "-d", postgres_dsn], check=True, capture_output=True)
        command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn]
        subprocess.run(command, input=dump.stdout, check=True, capture_output=True)
        with (
            closing(open_postgres(dsn, keep_history=keep_history)) as db,
            closing(open_postgres(dsn, keep_history=keep_history)) as other,
        ):
            assert_told(db, other, until)
    finally:
        administer_postgres(postgres_server, f"DROP DATABASE {copy} WITH (FORCE)")


def test_whoever_may_not_write_down_what_it_waits_for_asks(
    here: Workplace,
    postgres_dsn: str,
    keep_history: bool,
    sql: Any,
    until: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from psycopg2.extensions import make_dsn

    role = "remotetask_test_worker"
    sql(f"DROP ROLE IF EXISTS {role}")
    sql(f"CREATE ROLE {role} LOGIN")
    try:
        sql(f"GRANT ALL ON SCHEMA public TO {role}")
        sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        sql(f"REVOKE ALL ON {trigger.TABLE} FROM {role}")
        dsn = make_dsn(postgres_dsn, user=role)
        with closing(open_postgres(dsn, keep_history=keep_history)) as db:
            worker = object.__new__(Workplace)
            worker.db = db
            worker.start(waitTime=0.2)
            until(lambda: f"permission denied for table {trigger.TABLE}" in caplog.text)
            assert here.wait_for(here.add("echo", 1)) == [COMPLETED]
            adapter = trigger.adapter_of(db.storage)
            with pytest.raises(RemoteTaskError, match="the rights of the owner of the table"):
                trigger.install(adapter)
            with pytest.raises(RemoteTaskError, match="the rights of the owner of the table"):
                trigger.remove(adapter)
            worker.stop()
            trigger.install(trigger.adapter_of(here.db.storage))  # whoever writes may do that too
            worker.start(waitTime=NEVER_SECONDS)
            found = notifications_of(db)
            until(lambda: found.is_told, "it to listen")  # type: ignore[union-attr]
            assert here.wait_for(here.add("echo", 2)) == [COMPLETED]
            assert registry.stop_all(20.0)
    finally:
        sql(f"DROP OWNED BY {role}")
        sql(f"DROP ROLE {role}")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_what_pgbouncer_drops_is_found_out(
    here: Workplace,
    elsewhere: Workplace,
    postgres_dsn: str,
    tmp_path: Path,
    need: Any,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    from relstorage.adapters.postgresql import PostgreSQLAdapter

    need(find_pgbouncer(), "PgBouncer is not installed", "apt-get install pgbouncer")
    caplog.set_level(logging.INFO, "lovely.remotetask")
    monkeypatch.setattr(notifications, "TEST_SECONDS", 1.0)
    direct = trigger.adapter_of(here.db.storage)
    with pgbouncer(tmp_path, postgres_dsn, mode) as dsn:
        # Not the whole storage: RelStorage prepares statements, and has temporary tables.
        through = PostgreSQLAdapter(dsn=dsn, options=direct.options)
        monkeypatch.setattr(trigger, "adapter_of", lambda storage: through)
        here.start(waitTime=0.2 if mode == "transaction" else NEVER_SECONDS)
        if mode == "transaction":
            until(lambda: "notifications do not arrive (PgBouncer" in caplog.text)
        else:
            until(lambda: "the database unnamed tells of new jobs" in caplog.text)
        for number in range(3):
            assert elsewhere.wait_for(elsewhere.add("echo", number)) == [COMPLETED]
        assert registry.stop_all(20.0)


def listeners(dsn: str) -> int:
    """Return how many connections listen to a database."""
    import psycopg2

    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'RS: Listen'"
        )
        number: int = cursor.fetchone()[0]
        return number
