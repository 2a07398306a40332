# SPDX-License-Identifier: ZPL-2.1
"""Coroutines are run to their ends, in an event loop of their own, and can be cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from lovely.remotetask.base import coroutine
from lovely.remotetask.base.coroutine import is_coroutine, run_to_end
from lovely.remotetask.errors import JobCancelled, JobTimeout, LoopIsRunning


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutine, "LOOK_SECONDS", 0.001)


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def wait_for_ever(seen: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise


def test_a_coroutine_is_told_from_other_results() -> None:
    made = double(1)
    assert is_coroutine(made)
    assert run_to_end(made) == 2
    for other in (double, None, 5, iter([])):
        assert not is_coroutine(other)


def test_what_it_raises_is_raised() -> None:
    async def fail() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        run_to_end(fail())


def test_it_is_cancelled_for_a_reason_which_is_raised() -> None:
    seen: list[str] = []
    reasons: Iterator[Any] = iter([None, None, JobCancelled()])
    with pytest.raises(JobCancelled):
        run_to_end(wait_for_ever(seen), lambda: next(reasons, None))
    assert seen == ["cancelled"]


def test_what_it_makes_of_being_cancelled_is_no_result() -> None:
    async def return_all_the_same() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return 5

    async def stumble() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("while cleaning up")

    with pytest.raises(JobTimeout):
        run_to_end(return_all_the_same(), JobTimeout)
    with pytest.raises(JobTimeout) as caught:
        run_to_end(stumble(), JobTimeout)
    assert isinstance(caught.value.__cause__, KeyError)


def test_one_that_does_not_end_is_cancelled_once_for_each_reason() -> None:
    cancelled: list[int] = []
    reasons: Iterator[Any] = iter([JobCancelled(), JobCancelled(), JobCancelled(), JobTimeout()])

    async def resist() -> None:
        while len(cancelled) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)

    with pytest.raises(JobTimeout):
        run_to_end(resist(), lambda: next(reasons, None))


def test_one_that_was_cancelled_from_within_has_failed() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(concurrent.futures.CancelledError):
        run_to_end(cancel_itself())


def test_what_it_leaves_behind_comes_to_its_end() -> None:
    seen: list[str] = []

    async def count() -> Any:
        try:
            yield 1
        finally:
            seen.append("generator closed")

    left: list[Any] = []

    async def leave() -> str:
        left.append(asyncio.ensure_future(wait_for_ever(seen)))
        generator = count()
        await generator.__anext__()
        left.append(generator)
        return await asyncio.to_thread(str, 5)

    assert run_to_end(leave()) == "5"
    assert seen == ["cancelled", "generator closed"]


def test_the_loop_of_the_thread_stays_what_it_was() -> None:
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        assert run_to_end(double(4)) == 8
        assert asyncio.get_event_loop_policy().get_event_loop() is mine
    finally:
        asyncio.set_event_loop(None)
        mine.close()


def test_amid_a_running_loop_nothing_is_run() -> None:
    async def amid() -> None:
        with pytest.raises(LoopIsRunning, match="use another thread"):
            run_to_end(double(1))

    asyncio.run(amid())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_process_gets_through(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    left: list[Any] = []  # asyncio itself refers to a task only weakly

    async def end() -> None:
        left.append(asyncio.ensure_future(wait_for_ever(seen)))
        await asyncio.sleep(0)
        raise kind

    with pytest.raises(kind):
        run_to_end(end())
    assert seen == ["cancelled"]
    gc.collect()
    assert not caplog.records  # asyncio tells of exceptions that nobody has retrieved
