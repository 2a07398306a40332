# SPDX-License-Identifier: ZPL-2.1
"""A trigger in PostgreSQL that tells of the commits which change what services wait for.

RelStorage has to be asked for what others have committed.  PostgreSQL can tell: the trigger looks
which of the objects that a commit has changed stand in a table of those that are waited for, and
sends their ids by ``NOTIFY``, with the commit.  Who waits writes that table, see `notifications`;
so the trigger serves services that are made after it.

Once for each commit it sees all objects that were changed, and none of those that are new: nobody
waits for those yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from lovely.remotetask.base.layers import layers_of
from lovely.remotetask.errors import RemoteTaskError, describe

#: The channel of the notifications, of each database by itself.
CHANNEL = "remotetask"

#: What is made in PostgreSQL: the trigger and its function have the same name.
TRIGGER = "remotetask_notify"
TABLE = "remotetask_signals"

#: Making the trigger waits so long for commits that go on, and dropping it for whoever reads.  All
#: others wait behind it.
LOCK_SECONDS = 3

#: Payloads have less than 8,000 bytes; one without ids is for all that wait.
MAX_PAYLOAD = 7_000

#: Codes of errors of PostgreSQL.
INSUFFICIENT_PRIVILEGE = "42501"
LOCK_NOT_AVAILABLE = "55P03"

# A fault of the trigger must not keep others from committing: whoever waits looks now and then.  It
# runs with the rights of its owner, so that whoever may commit needs no others.
FUNCTION = f"""
CREATE OR REPLACE FUNCTION {{schema}}.{TRIGGER}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  changed_signals text;
BEGIN
  SELECT string_agg(changed.zoid::text, ',') INTO changed_signals
  FROM changed JOIN {{schema}}.{TABLE} AS signals USING (zoid);
  IF changed_signals IS NOT NULL THEN
    IF length(changed_signals) > {MAX_PAYLOAD} THEN
      changed_signals := '';
    END IF;
    PERFORM pg_notify('{CHANNEL}', changed_signals);
  END IF;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$$"""

Result = TypeVar("Result")


def adapter_of(storage: Any) -> Any:
    """Return RelStorage's adapter to PostgreSQL, or None for any other storage."""
    for layer in layers_of(storage):
        adapter = getattr(layer, "_adapter", None)
        if getattr(getattr(adapter, "schema", None), "database_type", None) == "postgresql":
            return adapter
    return None


def watched_table(adapter: Any) -> str:
    """Return the table in which each commit changes the rows of the objects that it changes."""
    return "current_object" if adapter.keep_history else "object_state"


def install(adapter: Any) -> bool:
    """Make the trigger; say whether it was not there before.

    What is there is made anew, and the rights to it are given to whoever may write objects now.

    :raises RemoteTaskError: that takes more rights, or the table is in use.

    Transaction: one of its own, which it commits.
    """

    def change(connection: Any, cursor: Any) -> bool:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        # Of two at once, both would make the table, and one would fail.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (TRIGGER,))
        is_new = not is_installed(adapter, cursor)
        schema, table = _place(adapter, cursor)
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {schema}.{TABLE} (zoid bigint PRIMARY KEY)")
        _say_what(cursor, f"TABLE {schema}.{TABLE}", "the objects that idle workers wait for")
        cursor.execute(FUNCTION.format(schema=schema))
        _say_what(cursor, f"FUNCTION {schema}.{TRIGGER}()", "tells idle workers of new jobs")
        if _has_trigger(adapter, cursor):  # to drop it would wait for all who read
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER {TRIGGER}")
        else:
            cursor.execute(
                f"CREATE TRIGGER {TRIGGER} AFTER UPDATE ON {table} REFERENCING NEW TABLE AS changed"
                f" FOR EACH STATEMENT EXECUTE PROCEDURE {schema}.{TRIGGER}()"
            )
        for role in _writers(adapter, cursor):
            cursor.execute(f"GRANT SELECT, INSERT ON {schema}.{TABLE} TO {role}")
        return is_new

    return _changed(adapter, change)


def remove(adapter: Any) -> bool:
    """Drop the trigger, and all that was made with it; say whether something was there.

    It is switched off first, which waits for nobody who reads.

    :raises RemoteTaskError: that takes more rights, or the table is in use.

    Transaction: two of its own, which it commits.
    """

    def switch_off(connection: Any, cursor: Any) -> bool:
        if _has_trigger(adapter, cursor):
            _, table = _place(adapter, cursor)
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {TRIGGER}")
        return has_parts(cursor)

    def drop(connection: Any, cursor: Any) -> None:
        schema, table = _place(adapter, cursor)
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        cursor.execute(f"DROP TRIGGER IF EXISTS {TRIGGER} ON {table}")
        cursor.execute(f"DROP FUNCTION IF EXISTS {schema}.{TRIGGER}()")
        cursor.execute(f"DROP TABLE IF EXISTS {schema}.{TABLE}")

    if not _changed(adapter, switch_off):
        return False
    _changed(adapter, drop, "the trigger is switched off, but still there: ")
    return True


def has_trigger(adapter: Any) -> bool:
    """Say whether something of it is there.

    Transaction: one of its own, which reads only.
    """
    found: bool = adapter.connmanager.open_and_call(lambda connection, cursor: has_parts(cursor))
    return found


def has_parts(cursor: Any) -> bool:
    """Say whether the trigger, or what belongs to it, is there."""
    cursor.execute(
        "SELECT to_regclass(%s) IS NOT NULL OR to_regproc(%s) IS NOT NULL", (TABLE, TRIGGER)
    )
    return bool(cursor.fetchone()[0])


def is_installed(adapter: Any, cursor: Any) -> bool:
    """Say whether the trigger works."""
    return _has_trigger(adapter, cursor, "AND tgenabled IN ('O', 'A')") and has_parts(cursor)


def knows(cursor: Any, oids: Collection[int]) -> bool:
    """Say whether the trigger tells of the changes of all these objects."""
    cursor.execute(f"SELECT count(*) FROM {TABLE} WHERE zoid = ANY(%s)", (list(oids),))
    return bool(cursor.fetchone()[0] == len(oids))


def add(cursor: Any, oids: Collection[int]) -> None:
    """Let the trigger tell of the changes of these objects.

    Whoever commits has RelStorage's lock for it while the trigger looks, so that all who come
    after this one are told of, and all before can be seen.

    Transaction: one of its own, if the connection commits by itself.
    """
    cursor.execute(
        "SELECT pg_advisory_xact_lock(-1);"
        f" INSERT INTO {TABLE} SELECT unnest(%s::bigint[]) ON CONFLICT DO NOTHING",
        (list(oids),),
    )


def notify(cursor: Any, payload: str) -> None:
    """Send a notification."""
    cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


def is_refused(error: BaseException) -> bool:
    """Say whether PostgreSQL has refused something for want of rights."""
    return getattr(error, "pgcode", None) == INSUFFICIENT_PRIVILEGE


def _has_trigger(adapter: Any, cursor: Any, condition: str = "") -> bool:
    cursor.execute(
        "SELECT count(*) FROM pg_trigger"
        f" WHERE tgname = %s AND tgrelid = to_regclass(%s) {condition}",
        (TRIGGER, watched_table(adapter)),
    )
    return bool(cursor.fetchone()[0])


def _place(adapter: Any, cursor: Any) -> tuple[str, str]:
    """Return the schema of RelStorage's tables, and the one to watch, as they stand in SQL."""
    cursor.execute(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(%s)",
        (watched_table(adapter),),
    )
    schema: str = cursor.fetchone()[0]
    return schema, f"{schema}.{watched_table(adapter)}"


def _writers(adapter: Any, cursor: Any) -> list[str]:
    """Return the roles that were given the right to write objects, as they stand in SQL."""
    cursor.execute(
        "SELECT DISTINCT given.grantee::regrole::text"
        " FROM pg_class, aclexplode(relacl) AS given WHERE pg_class.oid = to_regclass(%s)"
        " AND given.privilege_type = 'INSERT' AND given.grantee NOT IN (0, relowner)",
        (watched_table(adapter),),
    )
    return [row[0] for row in cursor.fetchall()]


def _say_what(cursor: Any, thing: str, text: str) -> None:
    cursor.execute(f"COMMENT ON {thing} IS 'lovely.remotetask: {text}'")


def _changed(adapter: Any, change: Callable[[Any, Any], Result], state: str = "") -> Result:
    try:
        result: Result = adapter.connmanager.open_and_call(change)
    except adapter.driver.driver_module.DatabaseError as error:
        table = watched_table(adapter)
        text = "PostgreSQL refuses it"
        if is_refused(error):
            text = f"this takes the rights of the owner of the table {table}"
        elif getattr(error, "pgcode", None) == LOCK_NOT_AVAILABLE:
            text = f"the table {table} is in use: stop the processes that use it, or try again"
        message = " ".join(describe(error).split())
        raise RemoteTaskError(f"{state}{text} ({message})") from error
    return result
