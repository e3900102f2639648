"""Gauges: how full a store is, sampled once a minute and remembered for a month.

A gauge of counts has the name of the count; one of a fact that the store tells of itself is called
"group/name" as the fact is, so nothing here knows which backend it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omnidash.history.levels import MINUTE, Span
from omnidash.models import Gauge, Source
from storage.base import Counts, Fact

LEVELS = (MINUTE, 15 * MINUTE)

METRICS, METRICS_CAP = "metrics", "metrics_cap"
READ = "metrics_read"
"""All events that were read so far, also those that are in no figure. It only grows."""
RESULTS, ORPHANS, EXPIRED = "results", "orphans", "expired"
MEMORY, MEMORY_LIMIT = "memory/used", "memory/limit"
FREE, DISK = "directory/free space", "directory/size of the file system"
FILE_SIZE = "/size"
"""How the names of gauges end that are sizes of files."""
_BEYOND = 2.0**63  # no count and no size in bytes; nor is what is no number
_FACTS = {MEMORY, MEMORY_LIMIT, FREE, DISK}

Sample = tuple[float, float]
"""Unix seconds and value."""


def figures(source: Source, counts: Counts, facts: Iterable[Fact]) -> dict[str, float]:
    """What is worth remembering of them, by gauge; what is unknown is left out."""
    found = {
        READ: source.events, METRICS: counts.metrics, METRICS_CAP: counts.metrics_cap,
    }  # fmt: skip
    if counts.complete:  # until then they grow by being learnt
        found |= {RESULTS: counts.results, ORPHANS: counts.orphans, EXPIRED: counts.expired}
    known = {name: float(count) for name, count in found.items() if count is not None}
    return known | {
        name: float(fact.value)
        for name, fact in ((f"{fact.group}/{fact.name}", fact) for fact in facts)
        if (name in _FACTS or name.endswith(FILE_SIZE))
        and isinstance(fact.value, int | float)
        and 0 <= fact.value < _BEYOND
    }


def note(source: Source, values: dict[str, float], now: float) -> None:
    """Remember the values as those of the present intervals."""
    rows = [
        Gauge(source=source, name=name, level=level, start=int(now // level) * level, value=value)
        for name, value in values.items()
        for level in LEVELS
    ]
    Gauge.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["source", "name", "level", "start"],
        update_fields=["value"],
    )


def samples(source: Source, names: Iterable[str], span: Span) -> dict[str, list[Sample]]:
    """What was remembered of each gauge in the span, oldest first, as fine as its steps are."""
    level = max((level for level in LEVELS if span.step % level == 0), default=MINUTE)
    found: dict[str, list[Sample]] = {name: [] for name in names}
    query = Gauge.objects.filter(
        source=source, name__in=list(found), level=level,
        start__gte=span.start, start__lt=span.end,
    ).order_by("start")  # fmt: skip
    for name, at, value in query.values_list("name", "start", "value"):
        found[name].append((at, value))
    return found


def series(source: Source, name: str, span: Span) -> list[float | None]:
    """The last value of each step of the span; None where there is none."""
    return in_steps(samples(source, [name], span)[name], span)


def in_steps(found: Sequence[Sample], span: Span) -> list[float | None]:
    """Samples as the last value of each step of the span."""
    values: list[float | None] = [None] * len(span.times)
    for at, value in found:
        if span.start <= at < span.end:
            values[int(at - span.start) // span.step] = value
    return values
