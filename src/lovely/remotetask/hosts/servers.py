# SPDX-License-Identifier: ZPL-2.1
"""Whether this process is a server.

Consoles, scripts and tests open the same databases and make the same applications, and must leave
the jobs alone.  What kind of process this is, nobody says; so servers are known by how they start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lovely.remotetask.engine.registry import is_switched_off
from lovely.remotetask.hosts.autostart import SWITCH

#: Programs that serve one application in one process, as it was made there.
_SERVING = {"pserve", "runwsgi", "waitress-serve", "uvicorn", "hypercorn"}

#: Programs that serve by one of their verbs.
_SERVING_BY = {"flask": {"run"}, "fastapi": {"run", "dev"}}

#: Programs that may fork after the application has been made.
_FORKING = {"gunicorn"}

#: Modules that only servers have which run Python inside of themselves.
_EMBEDDING = ("uwsgi", "mod_wsgi")


def _program() -> str:
    path = Path(sys.argv[0] if sys.argv else "")
    if path.parts[-3:] == ("Zope2", "Startup", "serve.py"):  # as buildout starts it
        return "runwsgi"
    name = path.parent.name if path.name == "__main__.py" else path.name  # as `python -m` has it
    return name.removesuffix(".exe").removesuffix("-script.py")


def forks() -> bool:
    """Say whether this is a server that may fork before it serves: no thread may run there yet."""
    return _program() in _FORKING or any(name in sys.modules for name in _EMBEDDING)


def is_server() -> bool:
    """Say whether this process is a server that is known, and no console, script or test."""
    name = _program()
    return name in _SERVING or forks() or bool(_SERVING_BY.get(name, set()).intersection(sys.argv))


def starts_here() -> bool:
    """Say whether services are to be started in this process: in servers, unless told otherwise."""
    if is_switched_off(SWITCH):
        return False
    return is_server() or os.environ.get(SWITCH, "").lower() in ("1", "on", "yes", "true")
