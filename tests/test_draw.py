"""Small drawings inside a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from django.template import Context, Template
from hypothesis import given
from hypothesis import strategies as st

from omnidash.templatetags.draw import sparkline

VALUES = st.lists(st.one_of(st.none(), st.floats(-1e300, 1e300)), max_size=50)


def points(values: list[float | None]) -> list[list[tuple[float, float]]]:
    """Of each line that is drawn."""
    lines = re.findall(r'points="([^"]*)"', sparkline(values))
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]
        for line in lines
    ]


def test_a_series_is_drawn_from_zero_to_its_greatest_value() -> None:
    assert points([0, 5, 10]) == [[(0, 22), (50, 12), (100, 2)]]


def test_what_is_unknown_is_a_gap_and_a_lone_value_a_dot() -> None:
    assert points([1, 1, None, 1, float("nan")]) == [[(0, 2), (25, 2)], [(75, 2), (75, 2)]]


def test_nothing_but_zeros_is_a_line_at_the_bottom() -> None:
    assert points([0, 0]) == [[(0, 22), (100, 22)]]


@pytest.mark.parametrize("values", [[], [None], [float("inf"), None]])
def test_nothing_known_draws_nothing(values: list[float | None]) -> None:
    assert (
        Template("{% load draw %}{% sparkline values %}").render(Context({"values": values})) == ""
    )


@given(VALUES)
def test_every_drawing_is_well_formed_and_stays_in_its_box(values: list[float | None]) -> None:
    drawn = sparkline(values)
    if drawn:
        assert ElementTree.fromstring(drawn).get("aria-hidden") == "true"
    assert all(0 <= x <= 100 and 0 <= y <= 24 for line in points(values) for x, y in line)
    assert sum(len({*line}) for line in points(values)) <= len(values)
