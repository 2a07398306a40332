# SPDX-License-Identifier: ZPL-2.1
"""Databases that RelStorage keeps in SQL: by URI, and never made unless that was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode

from lovely.remotetask.engine.trigger import adapter_of
from lovely.remotetask.errors import InvalidArgument, RemoteTaskError

#: The scheme of a URI -> what RelStorage calls it.  PostgreSQL has two names in the world.
SCHEMES = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "oracle": "oracle",
    "sqlite": "sqlite",
}

#: What can stand behind the ``?`` of a URI of PostgreSQL, beside the options of RelStorage.
POSTGRES_OPTIONS = ["host", "port", "user", "password", "passfile", "service", "connect_timeout"]
POSTGRES_OPTIONS += ["sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding"]
POSTGRES_OPTIONS += ["keepalives_idle", "tcp_user_timeout", "target_session_attrs"]

#: What RelStorage calls the file of a database of SQLite.
LITE_FILE = "main.sqlite3"

#: What ``init --notify`` makes, for people.
THE_TRIGGER = "the trigger that wakes idle workers"

Make = Callable[[Any], Any]


class NoDatabase(RemoteTaskError):
    """Nothing is there yet; ``remotetask init`` makes it.

    :ivar what: what would be made.
    """

    def __init__(self, text: str, what: str) -> None:
        super().__init__(text)
        self.what = what


def resolve(uri: str, is_made: bool) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return what opens the storage that a URI names, and the options of the database.

    :param is_made: make the tables, if they are not there; see `checked`.
    """
    import zodburi

    try:
        from relstorage import zodburi_resolver as known
    except ImportError:
        raise InvalidArgument("databases in SQL take lovely.remotetask[relstorage]") from None
    scheme, _, rest = uri.partition("://")
    helpers = {
        "postgres": _postgres_adapter,
        "mysql": known.MySQLAdapterHelper(),
        "oracle": known.OracleAdapterHelper(),
        "sqlite": known.SqliteAdapterHelper(),
    }
    helper = helpers[SCHEMES[scheme]]

    def adapter(parsed: SplitResult, keywords: dict[str, str]) -> tuple[Make, dict[str, str]]:
        make, left = helper(parsed, keywords)
        data_dir = keywords.get("data_dir")
        # RelStorage's URIs have no such word.
        if not known.asBoolean(left.pop("create_schema", "1")):
            make = _without_making(make, is_made)
        return (make if is_made else checked(make, data_dir)), left

    factory, left = known.RelStorageURIResolver(adapter)(f"{SCHEMES[scheme]}://{rest}")
    _, options = zodburi.resolve_uri(f"memory://?{urlencode(left)}")  # those of the database
    return factory, options


def checked(make: Make, data_dir: str | None) -> Make:
    """Return what makes an adapter, but refuses a database without the tables of RelStorage.

    RelStorage would make them, and they would hold no service.  It may be another application's
    database: one that a URI does not name is the user's own.

    :param data_dir: the directory of a database of SQLite, which would be made too; or None.
    :raises InvalidArgument: by what is returned, if the tables are of the other kind of history.
    """

    def make_checked(options: Any) -> Any:
        if data_dir is not None and not Path(data_dir, LITE_FILE).is_file():
            raise NoDatabase("there is no database of SQLite", f"the directory {data_dir}")
        adapter = make(options)

        def tables(connection: Any, cursor: Any) -> list[str]:
            return list(adapter.schema.list_tables(cursor))

        names = {name.lower() for name in adapter.connmanager.open_and_call(tables)}
        if "object_state" not in names:
            raise NoDatabase("RelStorage has stored nothing in it", "the tables of RelStorage")
        _check_history("current_object" in names, bool(options.keep_history))
        return adapter

    return make_checked


def _without_making(make: Make, is_made: bool) -> Make:
    """Return what makes an adapter for roles that may use the tables, but not make or alter them.

    :raises InvalidArgument: they are to be made.
    """
    if is_made:
        raise InvalidArgument("with create_schema=0 no tables are made: leave it out for that")

    def make_without(options: Any) -> Any:
        options.create_schema = False
        return make(options)

    return make_without


def _check_history(is_kept: bool, is_wanted: bool) -> None:
    """Refuse to read tables of one kind as those of the other, before RelStorage makes new ones.

    :raises InvalidArgument: history is kept and not wanted, or wanted and not kept.
    """
    if is_kept is is_wanted:
        return
    kind = "history" if is_kept else "no history"
    raise InvalidArgument(
        f"its tables keep {kind}, so keep_history={int(is_kept)} belongs into the URI "
        f"(keep-history {str(is_kept).lower()} into a configuration file)"
    )


def _postgres_adapter(parsed: SplitResult, keywords: dict[str, str]) -> tuple[Make, dict[str, str]]:
    """Return what makes the adapter, and the keywords that are left for others.

    It does as RelStorage does, but leaves to PostgreSQL what the URI does not say: RelStorage would
    ask for the port, and for the password, "None".
    """
    given: dict[str, Any] = {
        "dbname": parsed.path[1:],
        "user": parsed.username,
        "password": parsed.password,
        "host": parsed.hostname,
        "port": parsed.port,
    }
    given = {name: unquote(str(value)) for name, value in given.items() if value}
    left = dict(keywords)
    for name in POSTGRES_OPTIONS:
        if name in left:
            given[name] = left.pop(name)
    dsn = " ".join(f"{name}={_quoted(value)}" for name, value in given.items())

    def make(options: Any) -> Any:
        from relstorage.adapters.postgresql import PostgreSQLAdapter

        return PostgreSQLAdapter(dsn=dsn, options=options)

    return make, left


def _quoted(value: str) -> str:
    escaped = re.sub(r"(['\\])", r"\\\1", value)
    return f"'{escaped}'"


def check_may_notify(uri: str) -> None:
    """Check that a URI may name a database in PostgreSQL; that of a file of configuration may.

    :raises InvalidArgument: it does not.
    """
    scheme, separator, _ = uri.partition("://")
    if SCHEMES.get(scheme) != "postgres" and scheme != "zconfig":
        kind = f"{scheme}://" if separator else "a file"
        raise InvalidArgument(f"--notify takes RelStorage on PostgreSQL; this is {kind}")


def adapter_to_notify(db: Any) -> Any:
    """Return RelStorage's adapter to PostgreSQL.

    :raises RemoteTaskError: the database is another one.
    """
    adapter = adapter_of(db.storage)
    if adapter is None:
        kind = type(db.storage).__name__
        raise RemoteTaskError(f"--notify takes RelStorage on PostgreSQL; this database is a {kind}")
    return adapter
