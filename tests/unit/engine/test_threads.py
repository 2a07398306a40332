# SPDX-License-Identifier: ZPL-2.1
"""How many jobs a process runs at a time, where it was told so, whatever a service says."""

from __future__ import annotations

from typing import Any

import pytest

from lovely.remotetask.engine import registry
from lovely.remotetask.engine.service import with_threads
from lovely.remotetask.processor import MultiProcessor, SimpleProcessor
from lovely.remotetask.remote.worker import MultiJobWorker, SimpleJobWorker


class Own(MultiProcessor):
    """An application's."""


def own(*arguments: Any, **keywords: Any) -> Any:
    """Another one, which is no class."""


def test_settings_hold_where_nothing_else_was_said() -> None:
    arguments = {"waitTime": 5.0, "color": "red"}
    assert with_threads(own, arguments, MultiProcessor) == (own, arguments)


@pytest.mark.parametrize(
    ("factory", "arguments", "made"),
    [
        (SimpleProcessor, {"waitTime": 5.0}, (MultiProcessor, {"waitTime": 5.0, "maxThreads": 3})),
        (MultiProcessor, {"maxThreads": 8}, (MultiProcessor, {"maxThreads": 3})),
        (Own, {"color": "red"}, (Own, {"color": "red", "maxThreads": 3})),
        (own, {"color": "red"}, (MultiProcessor, {"maxThreads": 3})),
    ],
)
def test_the_number_of_threads_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, factory: Any, arguments: dict[str, Any], made: Any
) -> None:
    monkeypatch.setattr(registry, "threads", 3)
    before = dict(arguments)
    assert with_threads(factory, arguments, MultiProcessor) == made
    assert arguments == before


def test_a_limited_worker_stays_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "threads", 3)
    arguments = {"jobQuery": {"input": 1}, "waitTime": 1.0, "maxThreads": 8, "other": 1}
    assert with_threads(SimpleJobWorker, arguments, MultiJobWorker) == (
        MultiJobWorker,
        {"jobQuery": {"input": 1}, "waitTime": 1.0, "maxThreads": 3},
    )
