"""What becomes of a figure, in words: from samples to a trend, from a trend to a sentence.

The trend is the median of the slopes between all pairs of samples (Theil and Sen), which a few odd
samples do not move. It is only believed if both halves of the samples tell the same as the whole
and the samples lie close to it: a wrong forecast is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from omnidash.text import duration

WINDOW = 3 * 3600.0  # seconds of samples that make up the present
_FEWEST, _SHORTEST = 10, 600.0  # samples, and seconds between first and last, that are enough
_POINTS = 40  # of the samples that are looked at: all pairs of them are 780
_ALIKE = 2.0  # factor by which a half may differ from the whole
_CLEAR = 3.0  # times that a change must exceed the scatter of the samples to be one
_STILL = 0.02  # share of its greatest value that a steady figure may vary by
_YEAR = 365 * 86_400.0
_AT_CAP = 0.99  # a stream whose cap is about right is full from here

Sample = tuple[float, float]
"""Unix seconds and value."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The change in a second; None if there is none to speak of, and then why."""

    rate: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """`full_in` seconds, if that can be said and is less than a year."""

    words: str
    full_in: float | None = None


def trend(samples: Sequence[Sample]) -> Trend:
    """Of finite samples, oldest first, no two of one time."""
    passed = samples[-1][0] - samples[0][0] if samples else 0.0
    if len(samples) < _FEWEST or passed < _SHORTEST:
        return Trend(None, f"not enough samples yet ({int(passed // 60)} min)")
    points = _thinned(samples)
    middle = len(points) // 2
    slope = _slope(points)
    halves = _slope(points[:middle]), _slope(points[middle:])
    if abs(slope) * passed > _CLEAR * _scatter(points, slope) and _alike(slope, *halves):
        return Trend(slope)
    values = [value for _, value in points]
    if max(values) - min(values) <= _STILL * max(map(abs, values)):
        return Trend(0.0)
    return Trend(None, "the trend is not steady")


def pace(samples: Sequence[Sample]) -> float | None:
    """Of a counter: how much it grew in a second, on the average; None if that is not known."""
    passed = samples[-1][0] - samples[0][0] if samples else 0.0
    grown = samples[-1][1] - samples[0][1] if samples else 0.0
    return grown / passed if passed >= _SHORTEST and grown >= 0 else None


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """So many of them, as evenly as they come, the first and the last among them."""
    last = len(samples) - 1
    if last < _POINTS:
        return samples
    return [samples[place * last // (_POINTS - 1)] for place in range(_POINTS)]


def _slope(points: Sequence[Sample]) -> float:
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))


def _scatter(points: Sequence[Sample], slope: float) -> float:
    """How far from the line the samples lie: the median of the distances."""
    heights = [value - slope * (at - points[0][0]) for at, value in points]
    line = median(heights)
    return median(abs(height - line) for height in heights)


def _alike(slope: float, *halves: float) -> bool:
    return all(
        half * slope > 0 and abs(slope) / _ALIKE <= abs(half) <= abs(slope) * _ALIKE
        for half in halves
    )


def forecast(value: float, limit: float | None, found: Trend) -> Forecast:
    """Of a figure that must not reach its limit; None if it has none."""
    if limit is not None and value >= limit:
        return Forecast("full", 0.0)
    if found.rate is None:
        return Forecast(f"unknown: {found.why}")
    if found.rate <= 0:
        return Forecast("shrinking" if found.rate < 0 else "steady")
    if limit is None:
        return Forecast("growing")
    left = (limit - value) / found.rate
    if left > _YEAR:
        return Forecast("full in more than a year at the present rate")
    return Forecast(f"full in about {duration(left)} at the present rate", left)


def ring(stored: float, cap: float, rate: float | None, found: Trend) -> Forecast:
    """Of a stream that drops its oldest at the cap. `rate`: what comes in a second at present; None
    is unknown."""
    if stored < _AT_CAP * cap:
        return forecast(stored, cap, found)
    if rate is None:
        return Forecast("full, the oldest are dropped; the present rate is unknown")
    if rate <= 0 or cap / rate > _YEAR:
        return Forecast("full, but hardly anything comes in at present")
    return Forecast(f"holds the last {duration(cap / rate)} at the present rate")
