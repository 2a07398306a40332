# SPDX-License-Identifier: ZPL-2.1
"""What the tests of the pages share: a site with a service, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lovely.remotetask import TaskError
from lovely.remotetask.web import make_app
from workplace import Workplace

pytest.importorskip("webob")  # for who runs these without the extra
pytest.importorskip("bs4")

from browsing import Browser, served


def anybody(request: Any, permission: str) -> bool:
    """Let everybody do everything."""
    return True


def fail(input: Any) -> Any:
    """Be a task that fails."""
    raise TaskError(f"no luck with {input}")


@pytest.fixture
def serve() -> Iterator[Callable[..., Browser]]:
    """Return a function that serves a database, and gives a browser; its keywords are the app's."""
    with ExitStack() as stack:

        def serve(db: Any, headers: dict[str, str] | None = None, **options: Any) -> Browser:
            options.setdefault("authorize", anybody)
            return Browser(stack.enter_context(served(make_app(db, **options))), headers)

        yield serve


@pytest.fixture
def place(
    empty_registry: None, file_workplace: Workplace, register: Callable[..., Any]
) -> Workplace:
    """A service in a file, with the tasks *echo*, *fail* and *hang*."""
    register("fail", fail)
    return file_workplace


@pytest.fixture
def browser(place: Workplace, serve: Callable[..., Browser]) -> Browser:
    """A browser that looks at the only service of the place."""
    return serve(place.db)


@pytest.fixture
def run_jobs(place: Workplace) -> Callable[[], None]:
    """Return a function that runs all jobs that are ready."""

    def run_jobs() -> None:
        with place.service() as service:
            service.process()

    return run_jobs
