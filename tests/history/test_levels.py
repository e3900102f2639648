"""Ranges of time: whole, made up of what is kept, and never of more points than a screen shows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnidash.history.levels import (
    DAY,
    HOUR,
    KEEP,
    LEVELS,
    POINTS,
    SLACK,
    STEPS,
    Span,
    cover,
    last,
    level_of,
    span,
    written,
)
from omnidash.queries import RANGES

NOW = st.floats(1.7e9, 2.0e9)
AGO = st.one_of(st.floats(0, 3 * HOUR), st.floats(0, 40 * DAY), st.floats(0, 3000 * DAY))
OLDEST = KEEP[DAY]


def test_each_level_is_made_up_of_the_next_finer_and_each_step_of_a_level() -> None:
    assert list(LEVELS) == sorted(LEVELS)
    assert all(coarse % fine == 0 for fine, coarse in pairwise(LEVELS))
    assert all(KEEP[fine] < KEEP[coarse] for fine, coarse in pairwise(LEVELS))
    assert [level_of(step) for step in STEPS] == [
        10, 60, 60, 60, 900, 900, 900, 10_800, DAY, DAY,
    ]  # fmt: skip


@given(NOW, AGO, AGO, st.booleans())
def test_a_range_is_whole_and_of_rows_that_are_kept(
    now: float, one: float, other: float, compared: bool
) -> None:
    start, end = now - max(one, other), now - min(one, other)
    found = span(start, end, now, compared=compared)
    assert found.start % found.step == found.end % found.step == 0
    assert found.start < found.end
    assert len(found.times) <= POINTS + 2
    if start >= now - OLDEST:
        assert found.start <= start < found.start + found.step
        assert found.end - found.step <= end <= found.end or found.end - found.start == found.step
    assert written(level_of(found.step), found.start, now)
    if compared and found.before().start >= now - OLDEST:
        assert written(level_of(found.step), found.before().start, now)


@given(NOW, st.sampled_from(list(RANGES.values())), st.booleans())
def test_a_range_that_ends_now_ends_with_the_running_interval(
    now: float, seconds: float, compared: bool
) -> None:
    found = last(seconds, now, compared=compared)
    assert found.end - found.step <= now < found.end
    assert 0 <= found.seconds - seconds < found.step
    assert found.start % found.step == 0
    assert written(level_of(found.step), found.start, now)
    if compared:
        assert written(level_of(found.step), found.before().start, now)
    assert found.before().end == found.start
    assert found.before().seconds == found.seconds


@pytest.mark.parametrize("end", [-1e11, 0.0, 1e9])
def test_a_range_before_everything_that_is_kept_is_one_step(end: float) -> None:
    assert len(span(-1e11, end, 1.8e9).times) == 1


@given(NOW, st.sampled_from(STEPS), st.integers(0, 10**6), st.integers(1, 700))
def test_a_cover_is_whole_disjoint_and_aligned(
    now: float, step: int, first: int, count: int
) -> None:
    whole = Span(first * step, (first + count) * step, step)
    parts = list(cover(whole))
    at = whole.start
    for level, start, end in parts:
        assert start == at < end
        assert level in LEVELS
        assert level >= level_of(step)
        assert start % level == end % level == 0
        at = end
    assert at == whole.end
    assert len(parts) <= 2 * len(LEVELS) - 1


@given(NOW, AGO, AGO)
def test_a_cover_asks_only_for_rows_that_are_kept(now: float, one: float, other: float) -> None:
    found = span(now - max(one, other), now - min(one, other), now)
    for level, start, _ in cover(found):
        assert start >= now - KEEP[level] * SLACK
