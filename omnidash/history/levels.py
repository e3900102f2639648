"""Intervals: which there are, how long each is kept, and how a range of time is made up of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

MINUTE, HOUR, DAY = 60, 3600, 86_400

# Seconds of an interval -> seconds that it is kept. The intervals of three hours are there so that
# a month is drawn and summed from a few hundred rows instead of thousands.
KEEP = {10: 2 * HOUR, MINUTE: 2 * DAY, 15 * MINUTE: 30 * DAY, 3 * HOUR: 31 * DAY, DAY: 730 * DAY}
LEVELS = tuple(KEEP)
SLACK = 1.1  # rows live this much longer, so that a range which just begins in time is whole

STEPS = (10, 60, 120, 300, 900, 1800, HOUR, 3 * HOUR, DAY, 7 * DAY)
POINTS = 240  # that a chart has at most: more is finer than a screen shows, and slower


def kept(level: int, at: float, now: float) -> bool:
    """Whether rows of this level still cover the moment."""
    return at >= now - KEEP[level]


def written(level: int, at: float, now: float) -> bool:
    """Whether rows of this level are still kept for the moment."""
    return at >= now - KEEP[level] * SLACK


def level_of(step: int) -> int:
    """The coarsest level that a step is made up of."""
    return max(level for level in LEVELS if step % level == 0)


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time in whole steps: [start, end) in Unix seconds."""

    start: int
    end: int
    step: int

    @property
    def times(self) -> range:
        return range(self.start, self.end, self.step)

    @property
    def seconds(self) -> int:
        return self.end - self.start

    def before(self) -> Span:
        """The span of the same length that ends where this one starts."""
        return Span(self.start - self.seconds, self.start, self.step)


def span(
    start: float, end: float, now: float, points: int = POINTS, compared: bool = False
) -> Span:
    """The range in the finest steps that make few enough points and are still kept, if `compared`
    for the range before it too. What is older than all that is kept is left out."""
    oldest = now - KEEP[LEVELS[-1]]
    start, end = max(start, oldest), max(end, oldest)
    first = start - (end - start) if compared else start
    step = next(
        (
            step
            for step in STEPS
            if (end - start) / step <= points and kept(level_of(step), first, now)
        ),
        STEPS[-1],
    )
    first = math.floor(start / step) * step
    return Span(first, max(first + step, math.ceil(end / step) * step), step)


def last(
    seconds: float,
    now: float,
    points: int = POINTS,
    compared: bool = False,
    until: float | None = None,
) -> Span:
    """The span of so many seconds that ends with the running interval, or with the one that ran at
    the moment `until`."""
    until = now if until is None else until
    found = span(until - seconds, until, now, points, compared)
    end = (math.floor(until / found.step) + 1) * found.step
    return Span(end - math.ceil(seconds / found.step) * found.step, end, found.step)


def coarser(whole: Span, points: int) -> Span:
    """The span in steps that make at most so many points; its first and last may reach further."""
    if whole.seconds <= points * whole.step:
        return whole
    step = next((step for step in STEPS if whole.seconds <= points * step), STEPS[-1])
    first = whole.start // step * step
    return Span(first, math.ceil(whole.end / step) * step, step)


def cover(whole: Span) -> Iterator[tuple[int, int, int]]:
    """(level, start, end) of whole intervals, as coarse as they come, that make up the span."""
    usable = [level for level in reversed(LEVELS) if level >= level_of(whole.step)]
    return _cover(whole.start, whole.end, usable)


def _cover(start: int, end: int, levels: list[int]) -> Iterator[tuple[int, int, int]]:
    if start >= end or not levels:
        return
    level, *finer = levels
    first, last = math.ceil(start / level) * level, end // level * level
    if first < last:
        yield from _cover(start, first, finer)
        yield level, first, last
        yield from _cover(last, end, finer)
    else:
        yield from _cover(start, end, finer)
