"""Results: `results.json`. OmniDaemon removes an expired one only when its id is asked for."""

from __future__ import annotations

import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from storage.base import Page, RecordNotFound, ResultQuery
from storage.json_store.agents import index_agents
from storage.json_store.layout import Objects, Unreadable, parse_exactly
from storage.json_store.store import JsonFiles
from storage.records import RAW_LIMIT, Result, read_result, to_bytes

Facets = tuple[str, str, str]


class ResultIndex:
    """What one version of the file says, at a cost of about a microsecond a record. Rows are made
    only of the results that are shown."""

    def __init__(self, document: Objects) -> None:
        self.document = document
        self.saved: dict[str, float] = {}
        self.expires: dict[str, float] = {}
        self.problems: dict[str, Result] = {}
        for key, value in document.values.items():
            if not self._note_if_plain(key, value):
                self._note(key, value)
        self.newest = sorted(self.saved, key=self.saved.__getitem__, reverse=True)
        self.soonest = sorted(self.expires, key=self.expires.__getitem__)
        self._times = [self.expires[key] for key in self.soonest]
        self.forever = [
            key for key in self.newest if key not in self.expires and key not in self.problems
        ]

    def _note_if_plain(self, key: str, value: object) -> bool:
        """The usual record, without the price of a row."""
        if type(value) is not dict or value.get("task_id") != key or "result" not in value:
            return False
        saved, expires = value.get("saved_at"), value.get("expires_at")
        if type(saved) is not float or not 1.0 < saved < 4e9:
            return False
        if expires is not None:
            if type(expires) is not float or not 1.0 < expires < 4e9:
                return False
            self.expires[key] = expires
        self.saved[key] = saved
        return True

    def _note(self, key: str, value: object) -> None:
        row = read_row(key, value, 0)
        self.saved[key] = row.saved_at if isinstance(row.saved_at, float) else 0.0
        if row.expires_at is not None:
            self.expires[key] = row.expires_at
        if row.problem:
            self.problems[key] = row

    def expired(self, now: float) -> int:
        return bisect_right(self._times, now)

    def expiring(self, now: float, within: float) -> int:
        return bisect_right(self._times, now + within) - self.expired(now)

    def histogram(self, edges: Sequence[float], now: float) -> list[int]:
        gone = self.expired(now)
        places = [max(gone, bisect_left(self._times, edge)) for edge in edges]
        return [high - low for low, high in pairwise(places)]

    def keys(self, query: ResultQuery, now: float) -> list[str]:
        """The keys of a state of life, in order."""
        if query.life == "forever":
            return [] if query.by_expiry else self.forever
        if query.life == "expired" or query.by_expiry:
            found = self._in_order(self.soonest[self._span(query, now)], query)
        else:
            found = self._live(self.expired(now), query)
        if query.life == "unreadable":
            return [key for key in found if key in self.problems]
        return found

    def _span(self, query: ResultQuery, now: float) -> slice:
        """The stretch of `soonest` that the query's state of life and times keep."""
        gone = self.expired(now)
        first, last = (0, gone) if query.life == "expired" else (gone, len(self._times))
        if query.within is not None:
            last = min(last, bisect_right(self._times, now + query.within))
        if query.expires_from is not None:
            first = max(first, bisect_left(self._times, query.expires_from))
        if query.expires_before is not None:
            last = min(last, bisect_left(self._times, query.expires_before))
        return slice(first, last)

    def _live(self, gone: int, query: ResultQuery) -> list[str]:
        if query.order == "expiring":
            # What never expires comes last of all.
            return self.soonest[gone:] + [key for key in self.newest if key not in self.expires]
        if not gone:
            return self.newest
        expired = set(self.soonest[:gone])
        return [key for key in self.newest if key not in expired]

    def _in_order(self, keys: list[str], query: ResultQuery) -> list[str]:
        if query.order == "expiring":
            return keys
        return sorted(keys, key=self.saved.__getitem__, reverse=True)


class FacetIndex:
    """Agent, topic and status of every result of one version."""

    def __init__(self, document: Objects) -> None:
        self.of: dict[str, Facets] = {
            key: _facets(document, key, value) for key, value in document.values.items()
        }
        columns = zip(*self.of.values(), strict=True) if self.of else ((), (), ())
        names = ("agent", "topic", "status")
        self.values = {
            name: sorted(set(column) - {""}) for name, column in zip(names, columns, strict=True)
        }


def _facets(document: Objects, key: str, value: object) -> Facets:
    envelope = value.get("result") if isinstance(value, dict) else None
    if not isinstance(envelope, dict):
        return "", "", ""
    agent, topic, status = envelope.get("agent"), envelope.get("topic"), envelope.get("status")
    if type(agent) is type(topic) is type(status) is str:
        return agent, topic, status
    row = _row_of(document, key)
    return row.agent, row.topic, row.status


class SearchIndex:
    """Finds text in the stored bytes of one version, all records in one pass."""

    def __init__(self, document: Objects) -> None:
        spans = document.spans
        if spans is None:
            texts = {key: document.text(key) for key in document.values}
            self._raw, places = b"\0".join(texts.values()), {}
            position = 0
            for key, text in texts.items():
                places[key] = range(position, position + len(text))
                position += len(text) + 1
            spans = places
        else:
            self._raw = document.raw
        self._raw = self._raw.lower()  # of bytes: ASCII letters only
        self._keys = sorted(spans, key=lambda key: spans[key].start)
        self._starts = [spans[key].start for key in self._keys]
        self._ends = [spans[key].stop for key in self._keys]

    def holding(self, text: str) -> set[str]:
        """The keys of the records that hold the text as typed or as JSON escapes it."""
        escaped = json.dumps(text)[1:-1].encode("ascii")
        found: set[str] = set()
        for needle in {to_bytes(text).lower(), escaped.lower()}:
            self._collect(needle, found)
        return found

    def _collect(self, needle: bytes, found: set[str]) -> None:
        position = self._raw.find(needle)
        at = 0
        while position >= 0:
            at = max(at, bisect_right(self._starts, position) - 1)
            start, end = self._starts[at], self._ends[at]
            if start <= position and position + len(needle) <= end:
                found.add(self._keys[at])
                position = self._raw.find(needle, end)
            else:
                position = self._raw.find(needle, position + 1)


def read_row(task_id: str, value: object, size: int) -> Result:
    if isinstance(value, Unreadable):
        return Result(task_id, size=size, problem=value.reason)
    try:
        return read_result(task_id, value, size)
    except RecursionError:
        return Result(task_id, size=size, problem="nested too deep")


def _row_of(document: Objects, key: str) -> Result:
    value = document.values[key]
    if not isinstance(value, Unreadable):
        value = document.copy_of(key)  # with its integers exact
    return read_row(key, value, document.size(key))


class JsonResults(JsonFiles):
    """The results' part of the store."""

    def save_result(self, task_id: str, result: Any, ttl_seconds: int | None = None) -> None:
        record = {"task_id": task_id, "result": result, "saved_at": time.time()}
        if ttl_seconds:
            record["expires_at"] = time.time() + ttl_seconds
        self._change(self._results, lambda document: (document.changed({task_id: record}), None))

    def get_result(self, task_id: str) -> Any:
        document = self._results.document()
        row = self._row(document, task_id)
        if row is None or row.expired(time.time()):
            return None
        record = document.copy_of(task_id)
        return record.get("result") if isinstance(record, dict) else None

    def delete_result(self, task_id: str) -> bool:
        def edit(document: Objects) -> tuple[Objects | None, bool]:
            if task_id not in document.values:
                return None, False
            return document.changed({}, [task_id]), True

        return self._change(self._results, edit)

    def list_results(self, limit: int = 100) -> list[dict[str, Any]]:
        document = self._results.document()
        if limit <= 0:
            return []
        index = document.derive(ResultIndex)
        keys = index.keys(ResultQuery(), time.time())
        found: list[dict[str, Any]] = []
        for key in keys:
            if isinstance(document.values[key], dict):
                found.append({"task_id": key, **document.copy_of(key)})
                if len(found) == limit:
                    break
        return found

    def clear_results(self) -> int:
        return self._change(
            self._results, lambda document: (Objects(b"{}", {}), len(document.values))
        )

    # What the pages ask

    def result_page(self, query: ResultQuery) -> Page[Result]:
        document = self._results.document()
        keys = self._matching(document, query)
        rows = [_row_of(document, key) for key in keys[query.offset : query.offset + query.limit]]
        stored = len(document.values)
        return Page(rows, len(keys), searched=stored, of=stored)

    def _matching(self, document: Objects, query: ResultQuery) -> list[str]:
        """The ids of all results that match, in order."""
        index = document.derive(ResultIndex)
        keys = index.keys(query, time.time())
        before, larger = query.saved_before, query.larger
        if before is not None:  # 0.0 is not a time but none
            keys = [key for key in keys if 0.0 < index.saved[key] < before]
        if larger is not None:
            keys = [key for key in keys if document.size(key) > larger]
        if query.unregistered:
            keys = self._unregistered(document, keys)
        return _filtered(document, keys, query)

    def _unregistered(self, document: Objects, keys: list[str]) -> list[str]:
        """Those that name an agent which is not registered for their topic."""
        by_name = self._agents.document().derive(index_agents).by_name
        names = {name for _, name in by_name}
        facets = document.derive(FacetIndex).of

        def is_gone(agent: str, topic: str) -> bool:
            registered = (topic, agent) in by_name if topic else agent in names
            return bool(agent) and not registered

        return [key for key in keys if is_gone(*facets[key][:2])]

    def result(self, task_id: str) -> Result:
        document = self._results.document()
        row = self._row(document, task_id)
        if row is None:
            raise RecordNotFound(f"there is no result {task_id!r}")
        text = document.text(task_id)
        row.raw, row.truncated = text[:RAW_LIMIT], len(text) > RAW_LIMIT
        if not row.truncated:
            record, problem = parse_exactly(text)
            row.body = record.get("result") if isinstance(record, dict) else record
            row.parsed = not problem
        return row

    def long_results(self, length: int) -> list[str]:
        return [key for key in self._results.document().values if len(key) > length]

    def results_by_id(self, task_ids: Iterable[str]) -> dict[str, Result]:
        document = self._results.document()
        rows = {task_id: self._row(document, task_id) for task_id in task_ids}
        return {task_id: row for task_id, row in rows.items() if row is not None}

    @staticmethod
    def _row(document: Objects, task_id: str) -> Result | None:
        return _row_of(document, task_id) if task_id in document.values else None

    def expiring(self, within: float) -> int | None:
        return self._results.document().derive(ResultIndex).expiring(time.time(), within)

    def expiry_histogram(self, edges: Sequence[float]) -> list[int] | None:
        return self._results.document().derive(ResultIndex).histogram(edges, time.time())

    def result_facets(self) -> dict[str, list[str]]:
        values = self._results.document().derive(FacetIndex).values
        return {name: list(found) for name, found in values.items()}


def _filtered(document: Objects, keys: list[str], query: ResultQuery) -> list[str]:
    wanted = (query.agent, query.topic, query.status)
    if any(value is not None for value in wanted):
        facets = document.derive(FacetIndex).of
        keys = [
            key
            for key in keys
            if all(
                value is None or value == found
                for value, found in zip(wanted, facets[key], strict=True)
            )
        ]
    if query.text:
        holding = document.derive(SearchIndex).holding(query.text)
        keys = [key for key in keys if key in holding]
    return keys
