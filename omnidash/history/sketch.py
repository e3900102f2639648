"""Quantiles of processing times that can be merged: counts in buckets that grow by 4 %.

The method is DDSketch's (Masson, Rim, Lee, VLDB 2019) with fixed buckets: bucket i holds values in
(least * G**(i-1), least * G**i], and answers with a value that is off by at most (G-1)/(G+1), just
under 2 %, from any value in it. Times up to a microsecond share bucket 0.

A sketch is one integer, in which each bucket has 32 bits for its count, so that merging two is
adding them: a month of a page is thousands of sketches, and Python adds integers fast.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

GROWTH = 1.04
LEAST = 1e-6  # seconds
_LOG = math.log(GROWTH)
_MIDDLE = 2 / (1 + GROWTH)  # of a bucket's upper bound: equally far, as a ratio, from both bounds
_BITS = 32
_HEAD = struct.Struct("<HB")

Sketch = int


def bucket(value: float) -> int:
    """Of a value of 0 to 1e9 seconds; below 1,000."""
    return max(0, math.ceil(math.log(value / LEAST) / _LOG)) if value > LEAST else 0


def upper(place: int) -> float:
    """The greatest value of a bucket, in seconds."""
    return LEAST * GROWTH**place


def one(value: float) -> Sketch:
    """The sketch of a single value."""
    return 1 << _BITS * bucket(value)


def counts(sketch: Sketch) -> tuple[int, list[int]]:
    """The first bucket that is not empty, and the counts from it on."""
    if not sketch:
        return 0, []
    first = _first(sketch)
    raw = _bytes(sketch, first)
    return first, list(struct.unpack(f"<{len(raw) // 4}I", raw))


def _first(sketch: Sketch) -> int:
    return ((sketch & -sketch).bit_length() - 1) // _BITS


def _bytes(sketch: Sketch, first: int) -> bytes:
    size = -(-sketch.bit_length() // _BITS) - first
    return (sketch >> _BITS * first).to_bytes(4 * size, "little")


def pack(sketch: Sketch) -> bytes:
    """The first bucket (16 bits), how many bytes a count has (8 bits), then the lowest bytes of all
    counts, the next higher ones, and so on: few counts need more than one."""
    if not sketch:
        return b""
    first = _first(sketch)
    raw = _bytes(sketch, first)
    planes = [raw[place::4] for place in range(4)]
    while not any(planes[-1]):
        planes.pop()
    return _HEAD.pack(first, len(planes)) + b"".join(planes)


def unpack(raw: bytes | memoryview) -> Sketch:
    if not raw:
        return 0
    first, planes = _HEAD.unpack_from(raw)
    size = (len(raw) - _HEAD.size) // planes
    spread = bytearray(4 * size)
    for place in range(planes):
        start = _HEAD.size + place * size
        spread[place::4] = raw[start : start + size]
    return int.from_bytes(spread, "little") << _BITS * first


def quantiles(
    sketch: Sketch, shares: Sequence[float], low: float, high: float
) -> list[float | None]:
    """Nearest-rank quantiles, within 2 %; `low` and `high` are the known bounds of the values.
    None for each of an empty sketch."""
    first, found = counts(sketch)
    if not found:
        return [None] * len(shares)
    seen = list(accumulate(found))
    places = (bisect_left(seen, max(1, math.ceil(share * seen[-1]))) for share in shares)
    return [min(high, max(low, upper(first + place) * _MIDDLE)) for place in places]
