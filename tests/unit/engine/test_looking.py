# SPDX-License-Identifier: ZPL-2.1
"""How often a storage is asked for news that does not tell of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lovely.remotetask.engine.loop import between_looks


def test_after_work_it_is_asked_often() -> None:
    assert between_looks(cost=0.0, idle=0.0) == 0.005
    assert between_looks(cost=0.0, idle=1.0) == 0.05


def test_looks_take_a_small_part_of_a_core() -> None:
    assert between_looks(cost=0.0004, idle=0.0) == 0.1


def test_the_longer_nothing_comes_the_rarer_it_is_asked_down_to_once_a_second() -> None:
    assert between_looks(cost=0.0, idle=10.0) == 0.5
    assert between_looks(cost=0.0, idle=20.0) == between_looks(cost=0.0, idle=1e6) == 1.0


@given(st.floats(0, 100), st.floats(0, 1e6))
def test_it_is_asked_at_least_once_a_second(cost: float, idle: float) -> None:
    assert 0.005 <= between_looks(cost, idle) <= 1.0
