"""Values are written byte for byte as OmniDaemon writes them, however it is done."""

from __future__ import annotations

import enum
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from storage.json_store.encoding import encode


class Colour(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    DARK = "dark"


def theirs(value: object) -> bytes:
    return json.dumps(value, indent=2, default=str).replace("\n", "\n  ").encode("ascii")


ODD: list[Any] = [
    None, True, -0.0, 1e15, 1e16, 1e-4, 1e-5, 5e-324, 1.5e300, float("nan"), float("-inf"), 2**63,
    2**64, -(2**63) - 1, "é", "\x7f", "\x1f", "\u2028", "\ud800", "/", '"\\', "a\nb", "1e5", [], {},
    {1: 2}, {True: 1}, {None: 1}, (1, 2), b"x", Colour.RED, Shade.DARK, date(2025, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD)))
def test_what_is_odd_is_written_as_omnidaemon_would(number: int) -> None:
    for value in (ODD[number], [ODD[number]], {"a": {"b": ODD[number]}}):
        assert encode(value) == theirs(value)


@given(
    some.recursive(
        some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
        lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    )
)
def test_any_value_is_written_as_omnidaemon_would(value: Any) -> None:
    assert encode(value) == theirs(value)
