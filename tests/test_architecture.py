# SPDX-License-Identifier: ZPL-2.1
"""The picture of the package, held in a table: who may import whom, and who may do what.

The sources are read, not run.  An import counts wherever it stands: at the top, in a function,
under ``TYPE_CHECKING``, or by name through ``import_module``.  A package such as ``web`` is one
room: its modules may import each other.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = "lovely.remotetask"
FRONT = "__init__"

# Imports point down this table.
LAYERS: dict[str, tuple[str, ...]] = {
    "shell": (
        *("autostart", "web", "testing", "demo"),
        *("screen", "database", "upkeep", "cli"),
    ),
    "front": (FRONT,),
    "door": ("service", "remote"),
    "engine": (
        *("check", "guard", "seat", "step", "transact", "notes", "invalidation"),
        *("inline", "claimant", "execution", "keeper", "processor", "running", "later"),
    ),
    "model": (
        *("process", "task", "job", "shelf", "aside", "line", "ended", "timeindex", "queue"),
        *("worker", "site", "storable", "surroundings", "witness"),
    ),
    "pure": ("schedule", "retry", "setting"),
    "words": ("interfaces", "errors"),
}

# Inside one layer nobody imports anybody, but for these: (who, whom) -> why.
SAME_LAYER: dict[tuple[str, str], str] = {
    ("processor", "execution"): "its threads run the steps of a job",
    ("processor", "keeper"): "it runs one beside its jobs",
    ("processor", "transact"): "its threads end when a wait ends that way",
    ("processor", "invalidation"): "it is woken by what the storage tells",
    ("keeper", "execution"): "it works for the same worker",
    ("keeper", "check"): "it mends what disagrees, in transactions",
    ("check", "step"): "it takes out notes as the end of a run does",
    ("keeper", "seat"): "it opens one at each tick",
    ("keeper", "step"): "it runs the steps of the rescue in transactions",
    ("transact", "seat"): "transactions begin and end at a seat",
    ("notes", "seat"): "a note is made at another one than the job's",
    ("notes", "step"): "the bound for texts stands there",
    ("notes", "transact"): "a note is a transaction of its own",
    ("claimant", "seat"): "it reads there what is due",
    ("claimant", "step"): "it runs the steps in transactions",
    ("claimant", "transact"): "claims are repeated after conflicts",
    ("execution", "claimant"): "what runs was claimed before, by the same worker",
    ("execution", "notes"): "a running task reads and makes them",
    ("execution", "transact"): "failures are kept in a transaction of their own",
    ("processor", "seat"): "each of its threads has one",
    ("processor", "step"): "it hands claims from thread to thread",
    ("execution", "seat"): "it begins and commits there",
    ("execution", "step"): "it runs the steps in transactions",
    ("inline", "guard"): "a task must not end the caller's transaction",
    ("execution", "guard"): "a task must not end the transaction it runs in",
    ("inline", "step"): "it runs the steps in the caller's transaction",
    ("task", "process"): "it calls the functions of some tasks there",
    ("aside", "job"): "it is about their records",
    ("aside", "storable"): "a record that holds what cannot be stored waits aside",
    ("line", "aside"): "jobs that cannot be used here are passed over",
    ("queue", "aside"): "jobs that cannot be used here are passed over",
    ("seat", "invalidation"): "ids that are in use are dropped there",
    ("processor", "running"): "what it holds is given back when the process ends",
    ("later", "running"): "it starts there what is stored by then",
    ("running", "invalidation"): "a process that only adds hears of a lost server too",
    ("job", "witness"): "pages and jobs are checked where they are reached",
    ("shelf", "witness"): "what stands in them is checked where they are changed",
    ("line", "witness"): "segments are checked where they are reached",
    ("queue", "witness"): "indexes are checked where they are changed",
    ("ended", "witness"): "pages are checked where they are changed",
    ("timeindex", "witness"): "pages are checked where they are reached",
    ("line", "job"): "the record of a job says whether its entry is stale",
    ("queue", "job"): "it files jobs by their status and their time",
    ("job", "site"): "a job finds its service there",
    ("job", "shelf"): "the tree of jobs is made of them",
    ("line", "shelf"): "generations of segments stand in them",
    ("ended", "shelf"): "its pages merge in the same way",
    ("queue", "ended"): "jobs that have ended are filed there",
    ("timeindex", "shelf"): "the tree of its pages is made of them",
    ("timeindex", "ended"): "its pages are of the same kind",
    ("queue", "timeindex"): "jobs that wait for a time are filed there",
    ("queue", "line"): "the line is one of the places where jobs wait",
    ("cli", "autostart"): "`remotetask run` starts what the patterns name",
    ("cli", "screen"): "results go there",
    ("cli", "database"): "it opens what URIs name",
    ("cli", "upkeep"): "`remotetask check`, `clean` and `add` stand there",
    ("upkeep", "autostart"): "services are named by patterns there too",
    ("upkeep", "database"): "it opens what URIs name",
    ("upkeep", "screen"): "results go there",
    ("cli", "demo"): "`remotetask demo` runs it",
}

# Up the table: (who, whom) -> why.
UPWARD: dict[tuple[str, str], str] = {
    ("service", "autostart"): "the first API imports bootStrapSubscriber and the like from service",
}

ONLY_IMPORTER: dict[str, str] = {"zc.queue": "line", "croniter": "schedule"}
STORAGE = ("BTrees", "persistent", "transaction", "ZODB")
# The engine, and the rim.  What commits in the core is `seat`, called by `execution` and
# `transact`; the others only begin and end transactions in which they read.
ENDS_TRANSACTIONS = {
    "witness",  # it looks through another connection before a commit
    *("claimant", "execution", "seat", "transact", "notes", "keeper", "processor"),
    *("cli", "upkeep", "demo", "autostart", "testing", "web"),
}

Sources = dict[str, str]  # dotted name of a module inside the package -> its source


# -- reading the sources ---------------------------------------------------------------------


def read_sources(root: Path) -> Sources:
    """Read every module of the package; a package's own module is called ``NAME.__init__``."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.py"))
    }


def room(module: str) -> str:
    """Return the name under which a module stands in the table."""
    return module.partition(".")[0]


def layer(name: str) -> int:
    """Return the number of the layer of a room, from 0 at the top of the table."""
    for number, rooms in enumerate(LAYERS.values()):
        if name in rooms:
            return number
    raise LookupError(f"{name} stands in no layer of the table")


def imported_names(module: str, source: str) -> Iterator[str]:
    """Yield the absolute dotted name of everything that a module imports."""
    package = f"{PACKAGE}.{module}".split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            yield from (
                argument.value
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )


def called_name(call: ast.Call) -> str | None:
    """Return the last part of the name of what is called."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def inner_imports(sources: Sources) -> Iterator[tuple[str, str]]:
    """Yield (importing room, imported room) for imports between the rooms of the package."""
    rooms = {room(module) for module in sources} | {name for row in LAYERS.values() for name in row}
    for module, source in sources.items():
        for name in imported_names(module, source):
            if name == "lovely" or is_inside(name, PACKAGE):
                inner = room(name.removeprefix(PACKAGE).lstrip("."))
                target = inner if inner in rooms else FRONT
                if target != room(module):
                    yield room(module), target


# -- the rules -------------------------------------------------------------------------------
# Each takes the sources and returns its complaints.


def rooms_without_a_layer(sources: Sources) -> list[str]:
    known = {name for row in LAYERS.values() for name in row}
    return sorted({room(module) for module in sources} - known)


def imports_against_the_table(sources: Sources) -> list[str]:
    return sorted(
        f"{importer} imports {imported}"
        for importer, imported in set(inner_imports(sources))
        if layer(imported) <= layer(importer)
        and (importer, imported) not in SAME_LAYER
        and (importer, imported) not in UPWARD
    )


def exceptions_nobody_needs(sources: Sources) -> list[str]:
    imports = set(inner_imports(sources))
    rooms = {room(module) for module in sources}
    return sorted(
        f"{importer} does not import {imported}"
        for importer, imported in {**SAME_LAYER, **UPWARD}
        if importer in rooms and (importer, imported) not in imports
    )


def importers_of_a_reserved_package(sources: Sources) -> list[str]:
    return sorted(
        f"{module} imports {package}, which only {only_importer} may"
        for package, only_importer in ONLY_IMPORTER.items()
        for module, source in sources.items()
        if module != only_importer
        and any(is_inside(name, package) for name in imported_names(module, source))
    )


def engine_modules_that_import_the_service(sources: Sources) -> list[str]:
    return sorted(
        importer
        for importer, imported in set(inner_imports(sources))
        if importer in LAYERS["engine"] and imported == "service"
    )


def pure_modules_that_know_the_database(sources: Sources) -> list[str]:
    return sorted(
        f"{module} imports {name}"
        for module, source in sources.items()
        if room(module) in LAYERS["pure"]
        for name in imported_names(module, source)
        if any(is_inside(name, package) for package in STORAGE)
    )


def modules_that_end_transactions(sources: Sources) -> list[str]:
    return sorted(
        f"{module}, line {line}"
        for module, source in sources.items()
        if room(module) not in ENDS_TRANSACTIONS
        for line in transaction_ends(source)
    )


def transaction_ends(source: str) -> Iterator[int]:
    """Yield the lines that begin, commit or abort, also those that do it by a ``with``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="begin" | "commit" | "abort")):
                yield node.lineno
            case ast.withitem(context_expr=ast.Attribute(ast.Name("transaction"), "manager")):
                yield node.context_expr.lineno


def modules_that_sleep(sources: Sources) -> list[str]:
    return sorted(
        f"{module}, line {line}" for module, source in sources.items() for line in sleeps(source)
    )


def sleeps(source: str) -> Iterator[int]:
    """Yield the lines that name ``time.sleep``, whatever the module has been called."""
    tree = ast.parse(source)
    names_of_time = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "time"
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr="sleep") if name in names_of_time:
                yield node.lineno
            case ast.ImportFrom(module="time", names=names) if "sleep" in (n.name for n in names):
                yield node.lineno


# -- the package keeps the rules -------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Sources:
    sources = read_sources(Path(__file__).parent.parent / "src" / "lovely" / "remotetask")
    assert "errors" in sources
    return sources


def test_every_module_stands_in_a_layer(package: Sources) -> None:
    assert rooms_without_a_layer(package) == []


def test_imports_point_down_the_table(package: Sources) -> None:
    assert imports_against_the_table(package) == []


def test_every_exception_in_the_table_is_needed(package: Sources) -> None:
    assert exceptions_nobody_needs(package) == []


def test_only_line_imports_zc_queue_and_only_schedule_imports_croniter(package: Sources) -> None:
    assert importers_of_a_reserved_package(package) == []


def test_the_engine_never_imports_the_service(package: Sources) -> None:
    assert engine_modules_that_import_the_service(package) == []


def test_the_pure_modules_know_no_database(package: Sources) -> None:
    assert pure_modules_that_know_the_database(package) == []


def test_transactions_begin_and_end_in_the_execution_and_in_the_shells(package: Sources) -> None:
    assert modules_that_end_transactions(package) == []


def test_no_module_sleeps(package: Sources) -> None:
    assert modules_that_sleep(package) == []


# -- each rule can fail ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (rooms_without_a_layer, "helper", ""),
        (rooms_without_a_layer, "helpers.text", ""),
        (imports_against_the_table, "job", "import lovely.remotetask.service"),
        (imports_against_the_table, "job", "import lovely.remotetask.web.wsgi as wsgi"),
        (imports_against_the_table, "job", "from lovely.remotetask import service"),
        (imports_against_the_table, "job", "from lovely.remotetask.service import TaskService"),
        (imports_against_the_table, "job", "from . import service"),
        (imports_against_the_table, "job", "from .service import TaskService"),
        (imports_against_the_table, "job", "from lovely import remotetask"),
        (imports_against_the_table, "job", "from lovely.remotetask import TaskService"),
        (imports_against_the_table, "job", "from .queue import JobQueue"),
        (imports_against_the_table, "remote.worker", "from ..web import wsgi"),
        (imports_against_the_table, "remote.__init__", "from ..web import wsgi"),
        (imports_against_the_table, FRONT, "from lovely.remotetask import cli"),
        (imports_against_the_table, "execution", "from .processor import SimpleProcessor"),
        (imports_against_the_table, "retry", "def wait():\n    from . import job"),
        (imports_against_the_table, "retry", "if TYPE_CHECKING:\n    from . import job"),
        (imports_against_the_table, "retry", "import_module('lovely.remotetask.job')"),
        (exceptions_nobody_needs, "processor", "from . import job"),
        (importers_of_a_reserved_package, "job", "import zc.queue"),
        (importers_of_a_reserved_package, "job", "from zc import queue"),
        (importers_of_a_reserved_package, "web.line", "from zc.queue import BucketQueue"),
        (importers_of_a_reserved_package, "job", "from croniter import croniter"),
        (engine_modules_that_import_the_service, "execution", "from .service import TaskService"),
        (engine_modules_that_import_the_service, "processor", "from . import service"),
        (pure_modules_that_know_the_database, "schedule", "from persistent import Persistent"),
        (pure_modules_that_know_the_database, "retry", "import ZODB.POSException"),
        (modules_that_end_transactions, "service", "transaction.commit()"),
        (modules_that_end_transactions, "job", "self._p_jar.transaction_manager.abort()"),
        (modules_that_end_transactions, "remote.worker", "transaction.get().begin()"),
        (modules_that_end_transactions, "queue", "with transaction.manager as tm:\n    pass"),
        (modules_that_sleep, "processor", "import time\ntime.sleep(1)"),
        (modules_that_sleep, "processor", "import time as clock\nclock.sleep(1)"),
        (modules_that_sleep, "web.wsgi", "from time import monotonic, sleep"),
    ],
)
def test_a_rule_sees_what_breaks_it(
    rule: Callable[[Sources], list[str]], module: str, source: str
) -> None:
    assert rule({module: source}) != []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (rooms_without_a_layer, "web.wsgi", ""),
        (imports_against_the_table, "service", "from .job import Job\nfrom . import execution"),
        (imports_against_the_table, "service", "from lovely.remotetask import autostart"),
        (imports_against_the_table, "processor", "from .execution import claim"),
        (imports_against_the_table, "cli", "from lovely.remotetask import TaskService"),
        (imports_against_the_table, FRONT, "from lovely.remotetask.service import TaskService"),
        (imports_against_the_table, "web.wsgi", "from .operations import cancel"),
        (imports_against_the_table, "remote.__init__", "from .worker import Worker"),
        (imports_against_the_table, "job", "from queue import Queue\nimport service"),
        (
            exceptions_nobody_needs,
            "processor",
            "from . import execution, invalidation, keeper, running, seat, step, transact",
        ),
        (importers_of_a_reserved_package, "line", "from zc.queue import BucketQueue"),
        (importers_of_a_reserved_package, "job", "import queue\nimport zc.queues"),
        (engine_modules_that_import_the_service, "execution", "from .interfaces import ITask"),
        (pure_modules_that_know_the_database, "job", "from persistent import Persistent"),
        (modules_that_end_transactions, "execution", "transaction.commit()"),
        (modules_that_end_transactions, "web.wsgi", "transaction.commit()"),
        (modules_that_end_transactions, "job", "def commit(self): self.committed = True"),
        (modules_that_sleep, "processor", "import time\nself.event.wait(time.monotonic())"),
    ],
)
def test_a_rule_leaves_alone_what_keeps_it(
    rule: Callable[[Sources], list[str]], module: str, source: str
) -> None:
    assert rule({module: source}) == []
