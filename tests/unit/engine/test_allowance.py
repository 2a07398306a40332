# SPDX-License-Identifier: ZPL-2.1
"""How much a process may do: so many jobs, so much memory."""

from __future__ import annotations

import os
import subprocess

import pytest

from lovely.remotetask.engine.allowance import LOOK_SECONDS, Allowance, resident_bytes


class Process:
    """A process whose memory and clock are what a test says."""

    def __init__(self, max_jobs: int | None = None, max_bytes: int | None = None) -> None:
        self.size = 0
        self.now = 0.0
        self.whys: list[str] = []
        self.allowance = Allowance(
            max_jobs, max_bytes, self.whys.append, lambda: self.size, lambda: self.now
        )


def test_no_more_jobs_begin_than_may() -> None:
    process = Process(max_jobs=3)
    assert [process.allowance.begin(1) for _ in range(3)] == [True] * 3
    assert process.whys == []
    assert not process.allowance.begin(1)
    assert process.whys == ["has run 3 jobs"]


def test_when_the_last_job_has_ended_that_is_told_once() -> None:
    process = Process(max_jobs=2)
    for _ in range(2):
        assert process.allowance.begin(1)
        process.allowance.end()
    process.allowance.end()
    assert process.whys == ["has run 2 jobs"]
    assert not process.allowance.begin(1)


def test_jobs_that_share_a_commit_begin_together() -> None:
    process = Process(max_jobs=3)
    assert process.allowance.begin(2)
    assert process.allowance.begin(50)
    assert process.allowance.jobs == 52
    process.allowance.end()
    assert process.whys == ["has run 52 jobs"]


def test_memory_is_looked_at_when_a_job_has_ended() -> None:
    process = Process(max_bytes=100 << 20)
    process.size = 101 << 20
    process.allowance.look()
    assert process.allowance.begin(1)
    assert process.whys == []
    process.allowance.end()
    assert process.whys == ["has grown to 101 MB"]
    assert not process.allowance.begin(1)


def test_looks_that_follow_fast_upon_each_other_are_made_up_for() -> None:
    process = Process(max_bytes=100 << 20)
    process.allowance.end()
    process.size = 200 << 20
    process.allowance.end()
    assert process.whys == []
    process.allowance.look()
    assert process.whys == ["has grown to 200 MB"]


def test_it_is_looked_again_after_a_while() -> None:
    process = Process(max_bytes=100 << 20)
    process.allowance.end()
    process.size = 200 << 20
    process.now += LOOK_SECONDS
    process.allowance.end()
    assert process.whys == ["has grown to 200 MB"]


def test_without_bounds_all_may_begin() -> None:
    process = Process()
    process.size = 1 << 50
    assert all(process.allowance.begin(10) for _ in range(100))
    process.allowance.end()
    process.allowance.look()
    assert process.whys == []


@pytest.mark.skipif(os.name != "posix", reason="there is no ps to compare with")
def test_the_memory_is_that_of_this_process() -> None:
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True)
    assert 0.5 < resident_bytes() / (int(told.stdout) * 1024) < 2
