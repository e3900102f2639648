"""Quantiles that can be merged and packed."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnidash.history.sketch import bucket, counts, one, pack, quantiles, unpack, upper

SHARES = (0.5, 0.95, 0.99)
TIME = st.one_of(st.floats(0, 1e9), st.floats(0, 1e-5), st.sampled_from([0.0, 1e-6, 1.04e-6, 1e9]))
COUNT = st.one_of(st.integers(1, 300), st.sampled_from([2**8, 2**16, 2**24, 2**32 - 1]))
COUNTS = st.dictionaries(st.integers(0, 999), COUNT, max_size=40)


def sketch_of(times: list[float]) -> int:
    return sum(map(one, times))


def buckets(sketch: int) -> dict[int, int]:
    first, found = counts(sketch)
    return {first + place: count for place, count in enumerate(found) if count}


@given(COUNTS)
def test_what_is_packed_is_unpacked(wanted: dict[int, int]) -> None:
    middle = {place: upper(place) / 1.02 for place in wanted}
    sketch = sum(one(middle[place]) * count for place, count in wanted.items())
    assert buckets(sketch) == wanted
    assert unpack(pack(sketch)) == unpack(memoryview(pack(sketch))) == sketch
    assert len(pack(sketch)) <= 3 + 4000


@given(st.lists(TIME, max_size=50))
def test_each_value_is_counted_in_its_bucket(times: list[float]) -> None:
    assert buckets(sketch_of(times)) == Counter(map(bucket, times))


@given(st.lists(st.lists(TIME, max_size=20), min_size=3, max_size=3))
def test_it_is_the_same_in_whatever_order_it_is_merged(parts: list[list[float]]) -> None:
    a, b, c = (unpack(pack(sketch_of(part))) for part in parts)
    assert (a + b) + c == (c + b) + a == sketch_of([*chain(*parts)])


@given(st.lists(TIME, min_size=1, max_size=200), st.sampled_from(SHARES))
def test_a_quantile_is_within_two_percent_of_the_nearest_rank(
    times: list[float], share: float
) -> None:
    ordered = sorted(times)
    exact = ordered[math.ceil(Fraction(str(share)) * len(ordered)) - 1]
    (found,) = quantiles(sketch_of(times), [share], ordered[0], ordered[-1])
    assert found is not None
    assert abs(found - exact) <= max(0.02 * exact, 1e-6)
    assert ordered[0] <= found <= ordered[-1]


@given(st.lists(TIME, min_size=1, max_size=50))
def test_quantiles_rise(times: list[float]) -> None:
    found = quantiles(sketch_of(times), SHARES, min(times), max(times))
    assert found == sorted(found)  # type: ignore[type-var]


@given(st.integers(0, 900), st.floats(1e-9, 1e-3))
def test_buckets_rise_with_the_values_and_fit(place: int, more: float) -> None:
    value = min(1e9, 1e-6 * 1.04**place)
    assert 0 <= bucket(value) <= bucket(min(1e9, value * (1 + more))) < 1000


def test_an_empty_sketch_has_no_quantile() -> None:
    assert quantiles(0, SHARES, 0.0, 0.0) == [None, None, None]


@pytest.mark.parametrize("value", [1e-6, 1.04e-6, 0.001, 1.0, 60.0, 1e9])
def test_one_value_is_each_of_its_quantiles(value: float) -> None:
    assert quantiles(one(value), SHARES, value, value) == [value] * 3
