"""What some events come to: counts by kind, and their processing times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnidash.history.sketch import Sketch, one, pack, quantiles, unpack
from storage.records import Metric

Row = tuple[int, int, int, int, int, float, float | None, float | None, bytes]

COLUMNS = ("received", "processed", "failed", "other", "timed", "seconds", "low", "high", "sketch")
SHARES = (0.50, 0.95, 0.99)


@dataclass(slots=True)
class Tally:
    """Events received, processed, failed and of other kinds; of the `timed` processing times their
    sum, bounds (seconds) and sketch."""

    received: int = 0
    processed: int = 0
    failed: int = 0
    other: int = 0
    timed: int = 0
    seconds: float = 0.0
    low: float | None = None
    high: float | None = None
    sketch: Sketch = 0

    def add(self, event: Metric) -> None:
        kind = event.event
        if kind == "task_received":
            self.received += 1
        elif kind == "task_processed":
            self.processed += 1
            if event.seconds is not None:
                self._time(event.seconds)
        elif kind == "task_failed":
            self.failed += 1
        else:
            self.other += 1

    def _time(self, seconds: float) -> None:
        self.timed += 1
        self.seconds += seconds
        self.low = seconds if self.low is None or seconds < self.low else self.low
        self.high = seconds if self.high is None or seconds > self.high else self.high
        self.sketch += one(seconds)

    def merge(self, other: Tally) -> None:
        self.received += other.received
        self.processed += other.processed
        self.failed += other.failed
        self.other += other.other
        if other.timed:
            self._merge_times(other)

    def _merge_times(self, other: Tally) -> None:
        self.timed += other.timed
        self.seconds += other.seconds
        if self.low is None or (other.low is not None and other.low < self.low):
            self.low = other.low
        if self.high is None or (other.high is not None and other.high > self.high):
            self.high = other.high
        self.sketch += other.sketch

    def copy(self) -> Tally:
        return Tally(
            self.received, self.processed, self.failed, self.other, self.timed, self.seconds,
            self.low, self.high, self.sketch,
        )  # fmt: skip

    def row(self) -> Row:
        """In the order of COLUMNS, as it is stored."""
        return (
            self.received, self.processed, self.failed, self.other, self.timed, self.seconds,
            self.low, self.high, pack(self.sketch),
        )  # fmt: skip

    @classmethod
    def of(cls, row: Sequence[Any]) -> Tally:
        """From a stored row."""
        *plain, sketch = row
        tally = cls(*plain)
        tally.sketch = unpack(sketch)
        return tally

    @property
    def ended(self) -> int:
        return self.processed + self.failed

    @property
    def success_rate(self) -> float | None:
        """Share of ended tasks that were processed; None when none has ended."""
        return self.processed / self.ended if self.ended else None

    @property
    def mean(self) -> float | None:
        return self.seconds / self.timed if self.timed else None

    def quantiles(self) -> list[float | None]:
        """p50, p95 and p99 of the processing times in seconds, within 2 %."""
        return quantiles(self.sketch, SHARES, self.low or 0.0, self.high or 0.0)
