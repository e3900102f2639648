"""Capacity: how full the parts of a store are, how that changes, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from omnidash.forecast import WINDOW, Forecast, Sample, forecast, pace, ring, trend
from omnidash.history import gauges
from omnidash.history.levels import DAY, HOUR, MINUTE, Span
from omnidash.models import Source
from storage.base import Counts, Fact

_STEP = 5 * MINUTE  # of the drawings: three hours are 36 points


@dataclass(frozen=True, slots=True)
class Fill:
    """A part of a store. `limit` None: there is none; `values` are those of the last three hours.
    `is_ring`: at the limit the oldest goes, and nothing fails."""

    name: str
    unit: Literal["count", "bytes"]
    value: float
    limit: float | None
    forecast: Forecast
    values: list[float | None]
    is_ring: bool = False

    @property
    def share(self) -> str | None:
        """For a <meter>, which takes no more than 1."""
        return f"{min(1.0, self.value / self.limit):.4f}" if self.limit else None

    @property
    def is_soon_full(self) -> bool:
        """Whether it is full within a day, as things go."""
        return self.forecast.full_in is not None and self.forecast.full_in <= DAY


def fills(source: Source, counts: Counts, facts: Iterable[Fact], now: float) -> list[Fill]:
    """Of all parts that can be told now; what is unknown is left out."""
    known = gauges.figures(source, counts, facts)
    minute = int(now // MINUTE) * MINUTE
    past = gauges.samples(source, known, Span(minute - int(WINDOW), minute, MINUTE))
    looks = {name: [*past[name], (now, value)] for name, value in known.items()}
    found = [_events(looks, known, now)] if gauges.METRICS in known else []
    if gauges.ORPHANS in known:
        found.append(_plain("Orphaned index entries", "count", looks[gauges.ORPHANS], None, now))
    if gauges.MEMORY in known:
        limit = known.get(gauges.MEMORY_LIMIT)
        found.append(_plain("Memory", "bytes", looks[gauges.MEMORY], limit, now))
    if gauges.FREE in known and gauges.DISK in known:
        size = known[gauges.DISK]
        used = [(at, size - free) for at, free in looks[gauges.FREE]]
        found.append(_plain("Disk", "bytes", used, size, now))
    sizes = [name for name in known if name.endswith(gauges.FILE_SIZE)]
    found += [
        _plain(name.removesuffix(gauges.FILE_SIZE), "bytes", looks[name], None, now)
        for name in sizes
    ]
    return found


def _plain(
    name: str,
    unit: Literal["count", "bytes"],
    samples: Sequence[Sample],
    limit: float | None,
    now: float,
) -> Fill:
    value = samples[-1][1]
    said = forecast(value, limit, trend(samples))
    return Fill(name, unit, value, limit, said, _drawn(samples, now))


def _events(looks: dict[str, list[Sample]], known: dict[str, float], now: float) -> Fill:
    """The stream of metric events. How it fills is known from the number of all that were read, and
    not from what they tell: unreadable ones take room too, and clocks may be wrong."""
    stored, cap = known[gauges.METRICS], known.get(gauges.METRICS_CAP)
    read = looks[gauges.READ]
    found = trend(read)
    lately = [sample for sample in read if sample[0] >= now - HOUR]
    said = forecast(stored, None, found) if cap is None else ring(stored, cap, pace(lately), found)
    values = _drawn(looks[gauges.METRICS], now)
    return Fill("Metric events", "count", stored, cap, said, values, is_ring=True)


def _drawn(samples: Sequence[Sample], now: float) -> list[float | None]:
    end = (int(now // _STEP) + 1) * _STEP
    return gauges.in_steps(samples, Span(end - int(WINDOW), end, _STEP))
