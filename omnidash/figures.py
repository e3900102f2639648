"""Figures of events: counts, rates, processing times. Knows no store and no page."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from storage.records import Metric

_COUNTED = {"task_received": "received", "task_processed": "processed", "task_failed": "failed"}


def percentile(ordered: list[float], share: float) -> float | None:
    """Nearest-rank percentile of sorted values (the smallest value with at least `share` of all at
    or below it); None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(slots=True)
class Tally:
    """Counts and processing times (seconds) of some events."""

    events: int = 0
    received: int = 0
    processed: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)
    in_order: bool = True
    last_seen: float | None = None

    def add(self, event: Metric) -> None:
        self.events += 1
        name = _COUNTED.get(event.event)
        if name:
            setattr(self, name, getattr(self, name) + 1)
        if event.event == "task_processed" and event.seconds is not None:
            self.seconds.append(event.seconds)
            self.in_order = False
        if isinstance(event.timestamp, float):
            self.last_seen = max(self.last_seen or 0.0, event.timestamp)

    def remove(self, event: Metric) -> None:
        self.events -= 1
        name = _COUNTED.get(event.event)
        if name:
            setattr(self, name, getattr(self, name) - 1)
        if event.event == "task_processed" and event.seconds is not None:
            del self.seconds[bisect_left(self.ordered(), event.seconds)]

    def ordered(self) -> list[float]:
        if not self.in_order:
            self.seconds.sort()  # nearly sorted already, which Python's sort makes use of
            self.in_order = True
        return self.seconds

    @property
    def empty(self) -> bool:
        return not self.events

    @property
    def ended(self) -> int:
        return self.processed + self.failed

    @property
    def success_rate(self) -> float | None:
        """Share of ended tasks that were processed; None when none has ended."""
        return self.processed / self.ended if self.ended else None


@dataclass(frozen=True, slots=True)
class Figures:
    """A tally as shown. Times in seconds; None is "no value", not zero."""

    topic: str
    agent: str
    received: int
    processed: int
    failed: int
    success_rate: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    last_seen: float | None
    per_minute: float | None = None

    @classmethod
    def of(cls, tally: Tally, topic: str = "", agent: str = "") -> Figures:
        times = tally.ordered()
        return cls(
            topic=topic,
            agent=agent,
            received=tally.received,
            processed=tally.processed,
            failed=tally.failed,
            success_rate=tally.success_rate,
            mean=math.fsum(times) / len(times) if times else None,
            p50=percentile(times, 0.50),
            p95=percentile(times, 0.95),
            p99=percentile(times, 0.99),
            max=times[-1] if times else None,
            last_seen=tally.last_seen,
        )


@dataclass(slots=True)
class ErrorGroup:
    """Failures with the same type and text, with the newest of them as the example."""

    error_type: str
    error: str
    count: int = 0
    first_seen: float | None = None
    newest: Metric | None = None

    def add(self, event: Metric) -> None:
        self.count += 1
        self.newest = event
        if self.first_seen is None and isinstance(event.timestamp, float):
            self.first_seen = event.timestamp

    def merge(self, other: ErrorGroup) -> None:
        self.count += other.count
        if other.first_seen is not None:
            self.first_seen = min(self.first_seen or other.first_seen, other.first_seen)
        if self.newest is None or _time(other.newest) > _time(self.newest):
            self.newest = other.newest


def _time(event: Metric | None) -> float:
    return event.timestamp if event and isinstance(event.timestamp, float) else 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """Events per minute, None where unknown: `starts` are the minutes in Unix seconds."""

    starts: list[int]
    received: list[int | None]
    processed: list[int | None]
    failed: list[int | None]
    success_rate: list[float | None]
    p95: list[float | None]

    @property
    def rows(self) -> list[dict[str, int | None]]:
        """The counts as rows, newest first, of the minutes in which something happened."""
        columns = zip(self.starts, self.received, self.processed, self.failed, strict=True)
        names = ("start", "received", "processed", "failed")
        rows = [dict(zip(names, row, strict=True)) for row in columns if any(row[1:])]
        return rows[::-1]


def summed(tallies: Iterable[Tally]) -> Tally:
    total = Tally(in_order=False)
    for tally in tallies:
        total.events += tally.events
        total.received += tally.received
        total.processed += tally.processed
        total.failed += tally.failed
        total.seconds.extend(tally.seconds)
        if tally.last_seen is not None:
            total.last_seen = max(total.last_seen or 0.0, tally.last_seen)
    return total
