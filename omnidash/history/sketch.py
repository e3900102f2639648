"""Quantiles of processing times that can be merged: counts in buckets that grow by 4 %.

The method is DDSketch's (Masson, Rim, Lee, VLDB 2019) with fixed buckets: bucket i holds values in
(least * G**(i-1), least * G**i], and answers with a value that is off by at most (G-1)/(G+1), just
under 2 %, from any value in it. Times up to a microsecond share bucket 0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

GROWTH = 1.04
LEAST = 1e-6  # seconds
_LOG = math.log(GROWTH)
_MIDDLE = 2 / (1 + GROWTH)  # of a bucket's upper bound: equally far, as a ratio, from both bounds

Sketch = dict[int, int]
"""Bucket -> how many values are in it."""


def bucket(value: float) -> int:
    """Of a value of 0 to 1e9 seconds; below 1,000."""
    return max(0, math.ceil(math.log(value / LEAST) / _LOG)) if value > LEAST else 0


def merge(into: Sketch, other: Sketch) -> None:
    known = into.get
    for place, count in other.items():
        into[place] = known(place, 0) + count


def pack(sketch: Sketch) -> bytes:
    """n buckets as 16-bit, then n counts as 32-bit numbers, little-endian."""
    size = len(sketch)
    try:
        return struct.pack(f"<{size}H{size}I", *sketch, *sketch.values())
    except struct.error:  # more than four billion alike; their share is known well enough
        most = 2**32 - 1
        return pack({place: min(count, most) for place, count in sketch.items()})


def unpack(raw: bytes) -> Sketch:
    size = len(raw) // 6
    numbers = struct.unpack(f"<{size}H{size}I", raw)
    return dict(zip(numbers[:size], numbers[size:], strict=True))


def quantiles(
    sketch: Sketch, shares: Sequence[float], low: float, high: float
) -> list[float | None]:
    """Nearest-rank quantiles, within 2 %; `low` and `high` are the known bounds of the values.
    `shares` rise. None for each of an empty sketch."""
    total = sum(sketch.values())
    if not total:
        return [None] * len(shares)
    found: list[float | None] = []
    wanted = [max(1, math.ceil(share * total)) for share in shares]
    seen = 0
    for place in sorted(sketch):
        seen += sketch[place]
        while len(found) < len(wanted) and wanted[len(found)] <= seen:
            found.append(min(high, max(low, LEAST * GROWTH**place * _MIDDLE)))
    return found
