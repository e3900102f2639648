"""Metrics: OmniDaemon's stream of events, newest first or onward from a cursor."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from storage.base import MetricBatch, StoreError
from storage.garbage import collector_paused
from storage.records import Metric, parse_json, read_metric, to_text
from storage.redis_store.client import Command, ResponseError
from storage.redis_store.part import RedisPart

METRICS_CAP = 100_000  # OmniDaemon's MAXLEN; the trim is approximate, so a few more may be there
_CHUNK = 5000  # events read at once

# A cursor is the id of the last event read. Where a stream is empty there is none: then it is the
# number of events the stream has ever had, so that trimmed ones can still be told.
_EMPTY = "empty/"
_ID = re.compile(r"\d+(-\d+)?")


class MetricPart(RedisPart):
    def save_metric(self, metric_data: dict[str, Any]) -> None:
        text = json.dumps({**metric_data, "saved_at": time.time()}, default=str).encode()
        self._client.write([
            ("XADD", self._keys.metrics, "MAXLEN", "~", METRICS_CAP, "*", "data", text)
        ])  # fmt: skip

    def get_metrics(self, topic: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        before = "+"
        while len(found) < limit:
            count = _CHUNK if topic else min(limit - len(found), _CHUNK)
            entries = self._client.pipe([
                ("XREVRANGE", self._keys.metrics, before, "-", "COUNT", count)
            ])[0]  # fmt: skip
            if isinstance(entries, ResponseError):
                return []
            for entry_id, fields in entries:
                event = _data(fields)[0]
                if isinstance(event, dict) and (not topic or event.get("topic") == topic):
                    event["stream_id"] = to_text(entry_id)
                    found.append(event)
            if len(entries) < count:
                break
            before = f"({to_text(entries[-1][0])}"
        return found[:limit] if limit > 0 else []

    def metrics_after(self, cursor: str | None, limit: int = 10_000) -> MetricBatch:
        """The cursor's own event is read again: as long as it is there, nothing between it and the
        next one can have been trimmed, because a stream is trimmed from its beginning."""
        with collector_paused(limit):
            return self._metrics_after(cursor, max(1, limit))

    def _metrics_after(self, cursor: str | None, limit: int) -> MetricBatch:
        if cursor is None or cursor.startswith(_EMPTY):
            return self._from_the_beginning(cursor, limit)
        if not _ID.fullmatch(cursor):
            return self._restart(limit)
        entries, stored = self._client.pipe(self._reading(cursor, limit + 2))
        if isinstance(stored, ResponseError):
            raise self._no_stream()
        if isinstance(entries, ResponseError):  # a number beyond what ids can be
            return self._restart(limit)
        found = bool(entries) and to_text(entries[0][0]) == cursor
        entries = entries[1:] if found else entries
        events = [_event(*entry) for entry in entries[:limit]]
        following = events[-1].id if events else cursor
        batch = MetricBatch(events, following, len(entries) > limit, stored)
        if not found and stored:
            older = self._client.call("XRANGE", self._keys.metrics, "-", f"({cursor}", "COUNT", 1)
            batch.gap = not older
            batch.aside = stored if older and not entries else 0
        return batch

    def _from_the_beginning(self, cursor: str | None, limit: int) -> MetricBatch:
        # XINFO first: an event that comes between must not look like one that was trimmed.
        reading = self._reading("-", limit + 1)
        facts, *replies = self._client.pipe(
            [("XINFO", "STREAM", self._keys.metrics), *reading], denied_ok=True
        )
        self._client.check(replies, reading)
        entries, stored = replies
        if isinstance(stored, ResponseError):
            raise self._no_stream()
        added = _number(_flat(facts).get(b"entries-added"))
        before = None if cursor is None else _number(cursor.removeprefix(_EMPTY))
        gap = before is not None and added - stored > before
        events = [_event(*entry) for entry in entries[:limit]]
        following = events[-1].id if events else f"{_EMPTY}{added}"
        return MetricBatch(events, following, len(entries) > limit, stored, gap)

    def _no_stream(self) -> StoreError:
        """For who would take an empty reading for an empty stream."""
        key = self._keys.metrics
        kind = to_text(self._client.call("TYPE", key))
        return StoreError(f"{to_text(key)}: expected stream, is {kind}")

    def _reading(self, start: str, count: int) -> list[Command]:
        key = self._keys.metrics
        return [("XRANGE", key, start, "+", "COUNT", count), ("XLEN", key)]

    def _restart(self, limit: int) -> MetricBatch:
        batch = self.metrics_after(None, limit)
        batch.gap = True
        return batch


def _flat(info: Any) -> dict[bytes, Any]:
    """XINFO's flat reply; empty where there is no stream or it may not be asked."""
    if not isinstance(info, list):
        return {}
    parts = iter(info)
    return dict(zip(parts, parts, strict=False))


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _data(fields: Any) -> tuple[Any, str]:
    """The parsed field `data` of an entry and what is wrong with it."""
    if not isinstance(fields, list):
        return None, "no fields"
    parts = iter(fields)
    raw = dict(zip(parts, parts, strict=False)).get(b"data")
    return (None, "the field 'data' is missing") if raw is None else parse_json(raw)


def _event(entry_id: bytes, fields: Any) -> Metric:
    name = to_text(entry_id)
    stored_at = _number(name.partition("-")[0]) / 1000
    value, problem = _data(fields)
    if problem:
        return Metric(name, "unreadable", problem=problem, stored_at=stored_at)
    return read_metric(name, value, stored_at)
