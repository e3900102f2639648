"""Forecasts: right where there is a trend, and silent where there is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from omnidash.forecast import Trend, forecast, ring, trend

START = 1_800_000_000.0
COUNTS = st.integers(12, 200)
RATES = st.floats(1e-3, 1e4)
VALUES = st.floats(0, 1e12)


def samples(values: list[float], every: float = 60.0) -> list[tuple[float, float]]:
    return [(START + place * every, value) for place, value in enumerate(values)]


def line(count: int, first: float, rate: float) -> list[tuple[float, float]]:
    return samples([first + rate * 60.0 * place for place in range(count)])


@given(COUNTS, VALUES, RATES)
def test_the_trend_of_a_line_is_its_slope(count: int, first: float, rate: float) -> None:
    assume(rate * 60 * count > 1e-6 * first)  # more than floating point loses
    for slope in (rate, -rate):
        found = trend(line(count, first, slope)).rate
        assert found is not None
        assert math.isclose(found, slope, rel_tol=1e-3)


@given(COUNTS, VALUES, RATES, st.floats(1.0, 1e6))
def test_a_line_is_full_when_it_meets_its_limit(
    count: int, first: float, rate: float, left: float
) -> None:
    assume(rate * 60 * count > 1e-6 * first and rate * left > 1e-6 * first)
    found = line(count, first, rate)
    said = forecast(found[-1][1], found[-1][1] + rate * left, trend(found))
    assert said.full_in is not None
    assert math.isclose(said.full_in, left, rel_tol=0.01)
    assert said.words.startswith("full in about ")


@given(COUNTS, st.floats(1, 1e9), st.data())
def test_some_scatter_moves_a_trend_but_little(
    count: int, rise: float, data: st.DataObject
) -> None:
    scatter = st.lists(st.floats(-0.05, 0.05), min_size=count, max_size=count)
    values = [
        rise * place / (count - 1) + rise * off
        for place, off in enumerate(data.draw(scatter, label="scatter"))
    ]
    found = trend(samples(values)).rate
    assert found is None or math.isclose(found, rise / (60 * (count - 1)), rel_tol=0.35)


@given(st.lists(VALUES, min_size=10, max_size=60), st.sampled_from([2.0, 0.5, 1024.0]))
def test_the_unit_of_the_values_makes_no_difference(values: list[float], unit: float) -> None:
    plain = trend(samples(values))
    scaled = trend(samples([value * unit for value in values]))
    assert (plain.why, plain.rate is None) == (scaled.why, scaled.rate is None)
    if plain.rate is not None and scaled.rate is not None:
        assert math.isclose(plain.rate * unit, scaled.rate, rel_tol=1e-9)


@given(st.lists(VALUES, max_size=60), VALUES, st.one_of(st.none(), VALUES), VALUES)
def test_whatever_was_sampled_something_true_is_said(
    values: list[float], value: float, limit: float | None, cap: float
) -> None:
    found = trend(samples(values))
    for said in (forecast(value, limit, found), ring(value, cap, found.rate, found)):
        assert said.words
        assert said.full_in is None or 0 <= said.full_in <= 366 * 86400
        assert (said.full_in is not None) == (said.words.startswith("full in about")) or (
            said.words == "full"
        )


@given(COUNTS, VALUES)
def test_what_never_changes_is_steady(count: int, value: float) -> None:
    assert trend(samples([value] * count)) == Trend(0.0)


def test_a_figure_that_varies_a_little_is_steady() -> None:
    assert trend(samples([100.0 + place % 2 for place in range(60)])) == Trend(0.0)


@pytest.mark.parametrize(
    "values",
    [
        [float(place % 30) for place in range(180)],
        [10.0] * 90 + [20.0] * 90,
        [float(place) for place in range(90)] + [90.0 - place for place in range(90)],
        [0.0] * 120 + [float(place) for place in range(60)],
        [(place * 7919) % 100 / 1.0 for place in range(180)],
    ],
    ids=["saw", "step", "turn", "just begun", "noise"],
)
def test_what_changes_its_mind_is_not_forecast(values: list[float]) -> None:
    assert trend(samples(values)) == Trend(None, "the trend is not steady")


def test_what_was_emptied_and_grows_on_as_before_has_a_trend() -> None:
    values = [float(place) for place in (*range(160), *range(20))]
    assert trend(samples(values)).rate == pytest.approx(1 / 60, rel=0.01)


def test_a_few_odd_samples_move_nothing() -> None:
    values = [float(place) for place in range(180)]
    values[3] = values[90] = 5000.0
    assert trend(samples(values)).rate == pytest.approx(1 / 60, rel=0.01)


@pytest.mark.parametrize(("count", "minutes"), [(0, 0), (1, 0), (9, 8), (10, 9), (4, 3)], ids=str)
def test_too_few_samples_are_said_to_be_too_few(count: int, minutes: int) -> None:
    assert trend(line(count, 0, 1)).why == f"not enough samples yet ({minutes} min)"


def test_many_samples_of_a_short_time_are_too_few() -> None:
    assert "not enough" in trend(samples([float(place) for place in range(100)], every=1.0)).why


@pytest.mark.parametrize(
    ("value", "limit", "rate", "words"),
    [
        (10, 130, 0.01, "full in about 3 h 20 min at the present rate"),
        (10, 130, 0.0, "steady"),
        (10, 130, -0.01, "shrinking"),
        (10, None, 0.01, "growing"),
        (130, 130, -0.01, "full"),
        (10, 130, None, "unknown: why"),
        (10, 130, 1e-9, "full in more than a year at the present rate"),
    ],
)
def test_forecasts_are_said_in_words(
    value: float, limit: float | None, rate: float | None, words: str
) -> None:
    assert forecast(value, limit, Trend(rate, "why")).words == words


@pytest.mark.parametrize(
    ("stored", "rate", "words"),
    [
        (1200, 0.1, "holds the last 3 h 20 min at the present rate"),
        (1190, 0.1, "holds the last 3 h 20 min at the present rate"),
        (1200, 0.0, "full, but hardly anything comes in at present"),
        (1200, None, "full, the oldest are dropped; the present rate is unknown"),
        (0, 0.1, "full in about 2 h at the present rate"),
    ],
)
def test_a_full_stream_says_how_far_back_it_reaches(
    stored: float, rate: float | None, words: str
) -> None:
    assert ring(stored, 1200, rate, Trend(1 / 6)).words == words
