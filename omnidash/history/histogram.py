"""Processing times as bars: the buckets of a sketch, gathered into few enough to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omnidash.history.sketch import bucket, counts, upper
from omnidash.history.tally import SHARES, Tally

_BARS = 40


@dataclass(frozen=True, slots=True)
class Bar:
    """How many times lie in (low, high], in seconds; `high` is a fixed ratio of `low`."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A quantile, and where it lies on the axis from 0 to 1."""

    share: float
    value: float
    place: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars side by side on a logarithmic axis. None of them where no time is known."""

    bars: list[Bar]
    marks: list[Mark]

    @property
    def most(self) -> int:
        return max((bar.count for bar in self.bars), default=0)

    @property
    def count(self) -> int:
        return sum(bar.count for bar in self.bars)


def histogram(tally: Tally) -> Histogram:
    """Of all processing times of a tally, in at most 40 bars that are equally wide as ratios."""
    first, found = counts(tally.sketch)
    width = math.ceil(len(found) / _BARS)
    starts = range(0, len(found), max(1, width))
    bars = [
        Bar(
            _over(first + start),
            upper(first + start + width - 1),
            sum(found[start : start + width]),
        )
        for start in starts
    ]
    marks = [
        Mark(share, value, (bucket(value) + 0.5 - first) / (width * len(bars)))
        for share, value in zip(SHARES, tally.quantiles(), strict=True)
        if value is not None
    ]
    return Histogram(bars, marks)


def _over(place: int) -> float:
    """What all times of a bucket are greater than; nothing lies below bucket 0."""
    return upper(place - 1) if place else 0.0
