"""Metrics: `metrics.json`, a list that grows at its end and is trimmed at its front."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from storage.base import MetricBatch
from storage.json_store.layout import Listing, Unreadable
from storage.json_store.store import JsonFiles
from storage.records import Metric, read_metric

CAP = 10_000  # OmniDaemon's own


def _saved_at(value: object) -> object:
    return value.get("saved_at") if isinstance(value, dict) else None


def event_digest(value: object) -> str:
    """The same for the same event in any version of the file."""
    try:
        canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, TypeError):
        canonical = repr(value).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(canonical, digest_size=8).hexdigest()


def cursor_of(values: list[Any], position: int) -> str:
    """Names one event by what it is, because its place changes whenever the front is trimmed."""
    value = values[position]
    digest = event_digest(value)
    saved_at = repr(_saved_at(value))  # as text: NaN, too, equals itself
    equal = len(_equals(values, position, saved_at, digest))
    return f"{saved_at}|{digest}|{equal}"


def _equals(values: list[Any], end: int, saved_at: str, digest: str) -> list[int]:
    """Where before the end the same event stands. The clock that dates events may jump, so equal
    times need not be side by side."""
    time = _finite(saved_at)
    return [
        position
        for position in range(end)
        if (time is None or _saved_at(values[position]) == time)  # a text of each takes long
        and repr(_saved_at(values[position])) == saved_at
        and event_digest(values[position]) == digest
    ]


def _finite(saved_at: str) -> float | None:
    """The one number that is written so, if there is one."""
    try:
        number = float(saved_at)
    except ValueError:
        return None
    return number if math.isfinite(number) and repr(number) == saved_at else None


def position_after(values: list[Any], cursor: str) -> int | None:
    """Where to go on reading, or None if the cursor's event is there no longer."""
    parts = cursor.rsplit("|", 2)
    if len(parts) != 3 or not parts[2].isdecimal():
        return None
    saved_at, digest, equal = parts
    found = _equals(values, len(values), saved_at, digest)
    # Of events equal in everything the cursor's is the one counted.
    return found[min(int(equal), len(found) - 1)] + 1 if found else None


def _first_later(values: list[Any], cursor: str) -> int:
    """Where to go on reading when the cursor's event is gone: behind all that is older than it."""
    try:
        before = float(cursor.partition("|")[0])
    except ValueError:
        return 0
    if not values or not _time(values[0]) < before:
        return 0
    place = len(values)
    while _time(values[place - 1]) > before:
        place -= 1
    return place


def _time(value: object) -> float:
    saved_at = _saved_at(value)
    return saved_at if isinstance(saved_at, (int, float)) else math.inf


def event_ids(values: list[Any], first: int) -> Iterator[str]:
    """Names in order: the time of an event, and its number among those of the same time."""
    before, count = "", 0
    start = first
    while start > 0 and _saved_at(values[start - 1]) == _saved_at(values[first]):
        start -= 1
    for position in range(start, len(values)):
        saved_at = _saved_at(values[position])
        name = repr(saved_at) if isinstance(saved_at, float) else before or "0"
        count = count + 1 if name == before else 0
        before = name
        if position >= first:
            yield f"{name}-{count:04d}"


def unique_event_ids(values: list[Any]) -> Iterator[str]:
    """As `event_ids` of all, and no two alike even if the clock was set back in between."""
    seen = Counter[str]()
    for name in event_ids(values, 0):
        time = name.rpartition("-")[0]
        yield f"{time}-{seen[time]:04d}"
        seen[time] += 1


def _metric(event_id: str, value: object) -> Metric:
    if isinstance(value, Unreadable):
        return Metric(event_id, "unreadable", problem=value.reason)
    try:
        return read_metric(event_id, value)
    except RecursionError:
        return Metric(event_id, "unreadable", problem="nested too deep")


class JsonMetrics(JsonFiles):
    """The metrics' part of the store."""

    def save_metric(self, metric_data: dict[str, Any]) -> None:
        """Written through at once, unlike OmniDaemon, which keeps up to 99 in memory."""
        event = {**metric_data, "saved_at": time.time()}
        self._change(self._metrics, lambda document: (document.extended([event], CAP), None))

    def get_metrics(self, topic: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        document = self._metrics.document()
        found: list[dict[str, Any]] = []
        for position in range(len(document.values) - 1, -1, -1):
            if len(found) >= limit:
                break
            value = document.values[position]
            if isinstance(value, dict) and (not topic or value.get("topic") == topic):
                found.append(document.copy_of(position))
        return found

    def clear_metrics(self) -> int:
        return self._change(
            self._metrics, lambda document: (Listing(b"[]", []), len(document.values))
        )

    def metrics_after(self, cursor: str | None, limit: int = 10_000) -> MetricBatch:
        values = self._metrics.document().values
        position = position_after(values, cursor) if cursor else 0
        start = _first_later(values, cursor or "") if position is None else position
        end = min(len(values), start + max(1, limit))
        names = event_ids(values, start) if start < end else iter(())
        return MetricBatch(
            events=[_metric(next(names), values[place]) for place in range(start, end)],
            cursor=cursor_of(values, end - 1) if start < end else cursor or "",
            more=end < len(values),
            stored=len(values),
            # The list is trimmed from its front: with something older there, nothing was.
            gap=position is None and start == 0 and bool(values),
            aside=start if position is None and start == end else 0,
        )
