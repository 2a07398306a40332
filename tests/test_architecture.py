# SPDX-License-Identifier: ZPL-2.1
"""The picture of the house: which folder may import which, and who may do what.

The sources are read, not run.  An import counts wherever it stands: at the top, in a function,
under ``TYPE_CHECKING``, or by name through ``import_module``.  Inside a folder the order is the one
in which the docstring of its ``__init__`` names the modules.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = "lovely.remotetask"
FRONT = "__init__"

# From the roof to the cellar: imports point down.  Those of one row do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("command",),
    ("web",),
    ("hosts",),
    ("client", "testing"),
    (FRONT,),
    ("remote", "service"),
    ("processor",),
    ("engine",),
    ("store",),
    ("job", "task", "around", "events"),
    ("context",),
    ("base",),
    ("schedule", "retry", "setting", "record"),
    ("crontab",),
    ("interfaces", "errors"),
)

# (who, whom) -> why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("client.__init__", "client.service"): "applications import RemoteService from client",
    ("web.__init__", "web.app"): "applications import make_app from web",
    ("service", "hosts.autostart"): "the first API imports bootStrapSubscriber from service",
}

ONLY_IMPORTER = {"zc.queue": "store.ready", "croniter": "crontab"}
STORAGE = ("BTrees", "persistent", "transaction", "ZODB")
PURE = ("schedule", "retry", "setting", "record", "crontab")

# What commits at all is in the engine, and in what stands around the core; `base.ownership` looks
# through another connection before a commit.
ENDS_TRANSACTIONS = ("engine", "processor", "command", "hosts", "testing", "web")
ENDS_TRANSACTIONS += ("remote.worker", "remote.testing", "remote.mongo.session", "base.ownership")

# What drives an engine knows of it, and of what it stores, no more than this.
DRIVERS = ("engine.loop", "engine.crew", "engine.ledger", "engine.maintenance")
KNOWN_TO_DRIVERS = (*DRIVERS, "engine.protocol", "errors")

# No room has more lines, but for these: room -> why.
MAX_LINES = 410
LONG: dict[str, str] = {
    "service": "each method of the API stands here, with no more than a call",
    "interfaces": "the contract book is read in one piece",
    "remote.interfaces": "so is that of the second door",
    "errors": "the tree of errors, and what tells them apart, is read in one piece",
    "job": "the paths of its two records are those of the first API, and for ever",
}

# Of other packages: what they have no public name for, and what is public in spite of its name.
PRIVATE_ELSEWHERE = {"_resources", "_mvcc_storage", "_cache", "_readCurrent"}
PRIVATE_ELSEWHERE |= {"_exit", "_asdict", "_fields", "_replace"}
PRIVATE_ELSEWHERE |= {"_getOb", "_callBeforeCommitHooks"}  # of Zope's folders; of transactions
PRIVATE_ELSEWHERE |= {"_file", "_pos", "_blob_tpc_abort"}  # of a FileStorage that aborts
PRIVATE_ELSEWHERE |= {"_jobs", "_scheduler"}  # the containers of remote processors

Sources = dict[str, str]  # dotted name of a module inside the package -> its source


# -- reading the sources ---------------------------------------------------------------------


def read_sources(root: Path) -> Sources:
    """Read every module of the package; a folder's own module is called ``NAME.__init__``."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*.py"))
    }


def room(module: str) -> str:
    """Return the name under which a module stands in the table of the floors."""
    return module.partition(".")[0]


def floor(name: str) -> int:
    """Return the number of a room's floor, from 0 at the roof."""
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def order(sources: Sources, folder: str) -> list[str]:
    """Return the modules of a folder from top to bottom, as its docstring names them."""
    docstring = ast.get_docstring(ast.parse(sources.get(f"{folder}.{FRONT}", ""))) or ""
    return re.findall(r"^``(\w+)``", docstring, re.MULTILINE)


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


def inner_imports(sources: Sources) -> set[tuple[str, str]]:
    """Return (importing module, imported module) for imports inside the package."""
    found = set()
    for module, source in sources.items():
        for name in imported_names(module, source):
            if name == "lovely" or is_inside(name, PACKAGE):
                inner = name.removeprefix(PACKAGE).lstrip(".")
                target = max((m for m in sources if is_inside(inner, m)), key=len, default="")
                first = room(inner)
                if not target:
                    target = inner if any(first in rooms for rooms in FLOORS) else FRONT
                if target != module:
                    found.add((module, target))
    return found


# -- the rules -------------------------------------------------------------------------------
# Each takes the sources and returns its complaints.


def modules_without_a_place(sources: Sources) -> list[str]:
    known = {name for rooms in FLOORS for name in rooms}
    return sorted(
        module
        for module in sources
        if room(module) not in known
        or ("." in module and not module.endswith(FRONT) and _place(sources, module) is None)
    )


def _place(sources: Sources, module: str) -> int | None:
    """Return the number of a module in the order of its folder."""
    folder, _, name = module.partition(".")
    names = order(sources, folder)
    first = name.partition(".")[0]
    return names.index(first) if first in names else None


def imports_that_point_up(sources: Sources) -> list[str]:
    return sorted(
        f"{importer} imports {imported}"
        for importer, imported in inner_imports(sources)
        if not _points_down(sources, importer, imported)
        and not any(importer == who and is_inside(imported, whom) for who, whom in EXCEPTIONS)
    )


def _points_down(sources: Sources, importer: str, imported: str) -> bool:
    if room(importer) != room(imported):
        return floor(room(importer)) < floor(room(imported))
    if importer.endswith(f".{FRONT}"):  # it names what is in its folder
        return True
    above, below = _place(sources, importer), _place(sources, imported)
    return above is not None and below is not None and above <= below


def importers_of_a_reserved_package(sources: Sources) -> list[str]:
    return sorted(
        f"{module} imports {package}, which only {only_importer} may"
        for package, only_importer in ONLY_IMPORTER.items()
        for module, source in sources.items()
        if module != only_importer
        and any(is_inside(name, package) for name in imported_names(module, source))
    )


def pure_modules_that_know_the_database(sources: Sources) -> list[str]:
    return sorted(
        f"{module} imports {name}"
        for module, source in sources.items()
        if module in PURE
        for name in imported_names(module, source)
        if any(is_inside(name, package) for package in STORAGE)
    )


def drivers_that_know_an_engine(sources: Sources) -> list[str]:
    return sorted(
        f"{importer} imports {imported}"
        for importer, imported in inner_imports(sources)
        if importer in DRIVERS and imported not in KNOWN_TO_DRIVERS
    )


def modules_that_end_transactions(sources: Sources) -> list[str]:
    return sorted(
        f"{module}, line {line}"
        for module, source in sources.items()
        if not any(is_inside(module, place) for place in ENDS_TRANSACTIONS)
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


def modules_that_are_too_long(sources: Sources) -> list[str]:
    return sorted(
        f"{module} has {lines} lines"
        for module, source in sources.items()
        if (lines := len(source.splitlines())) > MAX_LINES and module not in LONG
    )


def private_names_of_other_modules(sources: Sources) -> list[str]:
    return sorted(
        f"{module}, line {line}: {name}"
        for module, source in sources.items()
        for line, name in foreign_private_names(source)
    )


def foreign_private_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the attributes with one underscore that are read here, and set or defined elsewhere."""
    own: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) if (
                name.startswith("_")
                and not name.startswith(("__", "_p_", "_v_"))
                and name not in own | PRIVATE_ELSEWHERE
            ):
                yield node.lineno, name


# -- the package keeps the rules -------------------------------------------------------------

RULES: list[Callable[[Sources], list[str]]] = [
    modules_without_a_place,
    imports_that_point_up,
    importers_of_a_reserved_package,
    pure_modules_that_know_the_database,
    drivers_that_know_an_engine,
    modules_that_end_transactions,
    modules_that_sleep,
    private_names_of_other_modules,
    modules_that_are_too_long,
]


@pytest.fixture(scope="module")
def package() -> Sources:
    sources = read_sources(Path(__file__).parent.parent / "src" / "lovely" / "remotetask")
    assert "errors" in sources
    return sources


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rules(
    package: Sources, rule: Callable[[Sources], list[str]]
) -> None:
    assert rule(package) == []


def test_every_exception_is_needed(package: Sources) -> None:
    imports = inner_imports(package)
    assert [pair for pair in EXCEPTIONS if pair not in imports] == []


def test_every_long_module_is_long(package: Sources) -> None:
    assert [m for m in LONG if len(package[m].splitlines()) <= MAX_LINES] == []


def test_folders_name_no_modules_that_are_not_there(package: Sources) -> None:
    folders = {room(module) for module in package if "." in module}
    rooms = {".".join(module.split(".")[:2]) for module in package if "." in module}
    named = {f"{folder}.{name}" for folder in folders for name in order(package, folder)}
    assert named - rooms == set()


# -- each rule can fail ----------------------------------------------------------------------

FOLDERS: Sources = {
    "engine.__init__": '"""Text.\n\n``execution``  above.\n``session``  below.\n"""',
    "web.__init__": '"""Text.\n\n``pages``  above.\n``operations``  below.\n"""',
}


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (modules_without_a_place, "helper", ""),
        (modules_without_a_place, "helpers.text", ""),
        (modules_without_a_place, "engine.helper", ""),
        (imports_that_point_up, "job", "import lovely.remotetask.service"),
        (imports_that_point_up, "job", "import lovely.remotetask.web.wsgi as wsgi"),
        (imports_that_point_up, "job", "from lovely.remotetask import service"),
        (imports_that_point_up, "job", "from lovely.remotetask.service import TaskService"),
        (imports_that_point_up, "job", "from . import service"),
        (imports_that_point_up, "job", "from .service import TaskService"),
        (imports_that_point_up, "job", "from lovely import remotetask"),
        (imports_that_point_up, "job", "from lovely.remotetask import TaskService"),
        (imports_that_point_up, "job", "from .store.queue import JobQueue"),
        (imports_that_point_up, "job", "from . import task"),
        (imports_that_point_up, "remote.worker", "from ..web import wsgi"),
        (imports_that_point_up, "remote.__init__", "from ..web import wsgi"),
        (imports_that_point_up, FRONT, "from lovely.remotetask.command import main"),
        (imports_that_point_up, "engine.execution", "from ..processor import SimpleProcessor"),
        (imports_that_point_up, "engine.execution", "from ..service import TaskService"),
        (imports_that_point_up, "engine.session", "from .execution import Engine"),
        (imports_that_point_up, "web.operations", "from . import pages"),
        (imports_that_point_up, "web.operations", "from lovely.remotetask.web import anything"),
        (imports_that_point_up, "retry", "def wait():\n    from . import job"),
        (imports_that_point_up, "retry", "if TYPE_CHECKING:\n    from . import job"),
        (imports_that_point_up, "retry", "import_module('lovely.remotetask.job')"),
        (importers_of_a_reserved_package, "job", "import zc.queue"),
        (importers_of_a_reserved_package, "job", "from zc import queue"),
        (importers_of_a_reserved_package, "web.ready", "from zc.queue import BucketQueue"),
        (importers_of_a_reserved_package, "job", "from croniter import croniter"),
        (pure_modules_that_know_the_database, "schedule", "from persistent import Persistent"),
        (pure_modules_that_know_the_database, "retry", "import ZODB.POSException"),
        (drivers_that_know_an_engine, "engine.loop", "from .session import Session"),
        (drivers_that_know_an_engine, "engine.ledger", "from ..job import Job"),
        (modules_that_end_transactions, "service", "transaction.commit()"),
        (modules_that_end_transactions, "job", "self._p_jar.transaction_manager.abort()"),
        (modules_that_end_transactions, "remote.job", "transaction.get().begin()"),
        (modules_that_end_transactions, "store.queue", "with transaction.manager as tm:\n    pass"),
        (modules_that_sleep, "processor", "import time\ntime.sleep(1)"),
        (modules_that_sleep, "processor", "import time as clock\nclock.sleep(1)"),
        (modules_that_sleep, "web.wsgi", "from time import monotonic, sleep"),
        (private_names_of_other_modules, "job", "def f(queue): return queue._last"),
        (modules_that_are_too_long, "web.pages", "x = 1\n" * 500),
    ],
)
def test_a_rule_sees_what_breaks_it(
    rule: Callable[[Sources], list[str]], module: str, source: str
) -> None:
    assert rule({**FOLDERS, module: source}) != []


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (modules_without_a_place, "web.pages", ""),
        (modules_without_a_place, "web.pages.jobs", ""),
        (imports_that_point_up, "service", "from .job import Job\nfrom .engine import execution"),
        (imports_that_point_up, "service", "from lovely.remotetask.hosts import autostart"),
        (imports_that_point_up, "processor", "from .engine.execution import Engine"),
        (imports_that_point_up, "engine.execution", "from .session import Session"),
        (imports_that_point_up, "command.main", "from lovely.remotetask import TaskService"),
        (imports_that_point_up, FRONT, "from lovely.remotetask.service import TaskService"),
        (imports_that_point_up, "web.pages", "from .operations import cancel"),
        (imports_that_point_up, "job", "from queue import Queue\nimport service"),
        (importers_of_a_reserved_package, "store.ready", "from zc.queue import BucketQueue"),
        (importers_of_a_reserved_package, "job", "import queue\nimport zc.queues"),
        (pure_modules_that_know_the_database, "job", "from persistent import Persistent"),
        (drivers_that_know_an_engine, "engine.execution", "from .session import Session"),
        (modules_that_end_transactions, "engine.execution", "transaction.commit()"),
        (modules_that_end_transactions, "web.wsgi", "transaction.commit()"),
        (modules_that_end_transactions, "job", "def commit(self): self.committed = True"),
        (modules_that_sleep, "processor", "import time\nself.event.wait(time.monotonic())"),
        (private_names_of_other_modules, "job", "self._last = 1\nprint(other._last, other._p_oid)"),
    ],
)
def test_a_rule_leaves_alone_what_keeps_it(
    rule: Callable[[Sources], list[str]], module: str, source: str
) -> None:
    assert rule({**FOLDERS, module: source}) == []
