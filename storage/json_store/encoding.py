"""Values as OmniDaemon writes them into its files."""

from __future__ import annotations

import json
from typing import cast

import orjson

_PLAIN = frozenset({str, int, bool, type(None)})


def encode(value: object) -> bytes:
    """A value as OmniDaemon writes it one level deep."""
    text = _encoded_fast(value)
    if text is None:
        text = json.dumps(value, indent=2, default=str).encode("ascii")
    return text.replace(b"\n", b"\n  ")


def _encoded_fast(value: object) -> bytes | None:
    """The same bytes three times faster; None where they might not be the same."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2) if _is_plain(value) else b"\x7f"
    except (TypeError, RecursionError):  # long integers, lone surrogates
        return None
    return text if text.isascii() and b"\x7f" not in text else None


def _is_plain(value: object) -> bool:
    """Whether it is JSON that Python writes without an exponent, or NaN."""
    kind = type(value)
    if kind is float:
        return value == 0 or 1e-4 <= abs(cast(float, value)) < 1e16
    if kind is dict:
        values = cast(dict[object, object], value)
        return all(type(key) is str for key in values) and all(map(_is_plain, values.values()))
    if kind is list:
        return all(map(_is_plain, cast(list[object], value)))
    return kind in _PLAIN
