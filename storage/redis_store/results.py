"""Results: OmniDaemon's own operations, and pages over the learnt index."""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from storage.base import Page, RecordNotFound, ResultQuery
from storage.garbage import collector_paused
from storage.records import RAW_LIMIT, Result, parse_json, read_result, to_bytes, to_text
from storage.redis_store.client import Command, ResponseError
from storage.redis_store.part import RedisPart
from storage.redis_store.result_reading import WHOLE, kinds, read_entries
from storage.redis_store.result_shelf import Entry, Filter, Order

_SEARCHED_AT_ONCE = 8 * 1024 * 1024  # bytes read in one round trip of a text search
_REFILLS = 4  # times that a page is filled up when rows turn out to be gone
_LISTED = 10_000  # ids that list_results asks for at once
_READ = 500  # values that are read at once


class ResultPart(RedisPart):
    # OmniDaemon's contract

    def save_result(self, task_id: str, result: Any, ttl_seconds: int | None = None) -> None:
        now, raw_id = time.time(), to_bytes(task_id)
        record = {"task_id": task_id, "result": result, "saved_at": now}
        text = json.dumps(record, default=str).encode()
        key = self._keys.result(raw_id)
        expiry: tuple[str | int, ...] = ("EX", int(ttl_seconds)) if ttl_seconds else ()
        score = time.time()
        self._client.write([
            ("SET", key, text, *expiry),
            ("ZADD", self._keys.results_index, repr(score), raw_id),
        ])  # fmt: skip
        self._index.saved(raw_id, score)

    def get_result(self, task_id: str) -> Any:
        raw = self._client.pipe([("GET", self._keys.result(to_bytes(task_id)))])[0]
        if not isinstance(raw, bytes):
            return None
        value, _ = parse_json(raw)
        return value.get("result") if isinstance(value, dict) else None

    def delete_result(self, task_id: str) -> bool:
        raw_id = to_bytes(task_id)
        deleted, _ = self._client.write([
            ("DEL", self._keys.result(raw_id)), ("ZREM", self._keys.results_index, raw_id)
        ], deleting=True)  # fmt: skip
        self._index.forget(raw_id)
        return bool(deleted)

    def list_results(self, limit: int = 100) -> list[dict[str, Any]]:
        with collector_paused(limit):
            return self._list_results(limit)

    def _list_results(self, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        start, count = 0, min(limit, _LISTED)
        while len(found) < limit:
            ids = self._client.pipe([
                ("ZREVRANGE", self._keys.results_index, start, start + count - 1)
            ])[0]  # fmt: skip
            if isinstance(ids, ResponseError) or not ids:
                break
            keys = [self._keys.result(task_id) for task_id in ids]
            batches: Iterator[list[Command]] = (
                [("MGET", *keys[at : at + _READ])] for at in range(0, len(keys), _READ)
            )
            for (values,) in self._client.stream(batches):
                for raw in values:
                    value = parse_json(raw)[0] if raw is not None else None
                    if isinstance(value, dict):
                        found.append(value)
            start, count = start + len(ids), min(2 * count, _LISTED)
        return found[:limit] if limit > 0 else []

    # Pages

    def long_results(self, length: int) -> list[str]:
        self._index.look()
        return [
            found for one in self._index.longer_than(length) if len(found := to_text(one)) > length
        ]

    def result_page(self, query: ResultQuery) -> Page[Result]:
        self._survey.step()
        self._index.look()
        if query.text:
            return self._search(query)
        for _ in range(_REFILLS):
            ids, total = self._select(query, query.offset, query.limit)
            if self._fresh(ids):
                break
        return self._page(ids, total)

    def _select(self, query: ResultQuery, offset: int, limit: int) -> tuple[list[bytes], int]:
        """One stretch of the matching ids in order, and how many match."""
        if query.life == "expired":  # Redis has removed those
            return [], 0
        index = self._index
        skew = self._expiries.skew()
        wanted = self._filter(query)
        with index.lock:
            view, entries = index.shelf.view(wanted), index.shelf.entries
            if query.by_expiry:
                items = view.expiring.items()[_span(view.expiring, query, skew)]
            else:
                items = (view.expiring if query.order == "expiring" else view.newest).items()
            if query.saved_before is not None:  # costs a look at each: no order is by this
                before = query.saved_before
                items = [item for item in items if 0.0 < entries[item[1]].saved < before]
            if query.order == "expiring":
                some = items[offset : offset + limit]
            elif query.by_expiry:
                scored = ((entries[task_id].score, task_id) for _, task_id in items)
                some = heapq.nlargest(offset + limit, scored)[offset:]
            else:
                end = max(0, len(items) - offset)
                some = items[max(0, end - limit) : end][::-1]
            return [task_id for _, task_id in some], len(items)

    def _filter(self, query: ResultQuery) -> Filter:
        registered = None
        if query.unregistered:
            self._registry.look()
            registered = self._registry.registered
        return Filter(query.agent, query.topic, query.status, query.life, query.larger, registered)

    def _fresh(self, ids: list[bytes]) -> bool:
        """Compare the rows with Redis; whether all of them are still as they were learnt."""
        commands: list[Command] = []
        for task_id in ids:
            key = self._keys.result(task_id)
            commands += (self._expiries.command(key), ("STRLEN", key))
        if self._index.verify(ids, self._client.pipe(commands)):
            return True
        self._index.learn_now(ids)
        return False

    def _page(self, ids: list[bytes], total: int) -> Page[Result]:
        index = self._index
        skew = self._expiries.skew()
        with index.lock:
            entries = [index.shelf.entries[one] for one in ids if one in index.shelf.entries]
            rows = [_row(entry, skew) for entry in entries]
            if index.complete:
                return Page(rows, total, True, total, total)
            return Page(rows, None, False, index.learnt, index.indexed)

    def _search(self, query: ResultQuery) -> Page[Result]:
        matches, searched, count, complete = self._containing(query)
        rows = matches[query.offset : query.offset + query.limit]
        if not self._fresh(rows):
            rows = [task_id for task_id in rows if task_id in self._index.shelf.entries]
        page = self._page(rows, len(matches))
        return Page(page.rows, len(matches) if complete else None, complete, searched, count)

    def _containing(self, query: ResultQuery) -> tuple[list[bytes], int, int, bool]:
        """The ids of matching results that hold the query's text; how many were searched, of how
        many, and whether that was all there is to search."""
        deadline = time.monotonic() + query.budget
        needles = _needles(query.text)
        ids, count = self._select(query, 0, max(1, len(self._index.shelf)))
        matches: list[bytes] = []
        searched, whole = 0, self._index.complete
        while searched < len(ids) and (not searched or time.monotonic() < deadline):
            some = self._some(ids, searched)
            values = self._client.pipe(
                [("GETRANGE", self._keys.result(one), 0, WHOLE - 1) for one in some]
            )
            searched += len(some)
            for task_id, value in zip(some, values, strict=True):
                if not isinstance(value, bytes):
                    continue
                if any(needle in value.lower() for needle in needles):
                    matches.append(task_id)
                elif len(value) == WHOLE:
                    whole = False  # the rest of it was not looked at
        return matches, searched, count, whole and searched == len(ids)

    def _some(self, ids: list[bytes], start: int) -> list[bytes]:
        """As many of the ids as are read at once."""
        some: list[bytes] = []
        room = _SEARCHED_AT_ONCE
        with self._index.lock:
            for task_id in ids[start : start + _READ]:
                entry = self._index.shelf.entries.get(task_id)
                room -= min(entry.size, WHOLE) if entry else 0
                some.append(task_id)
                if room <= 0:
                    break
        return some

    def result(self, task_id: str) -> Result:
        raw_id = to_bytes(task_id)
        key = self._keys.result(raw_id)
        value, size, expiry, score = self._client.pipe([
            ("GETRANGE", key, 0, WHOLE - 1), ("STRLEN", key), self._expiries.command(key),
            ("ZSCORE", self._keys.results_index, raw_id),
        ])  # fmt: skip
        if expiry == -2:
            raise RecordNotFound("there is no such result, or it has expired")
        if isinstance(value, ResponseError):
            problem = f"expected string, is {kinds(self._client, [key])[0]}"
            found = Result(task_id, problem=problem)
        elif size > WHOLE:
            found = Result(task_id, size=size, raw=value[:RAW_LIMIT], truncated=True)
        else:
            found = _whole_result(task_id, value)
        expires = self._expiries.read(expiry)
        found.expires_at = None if expires is None else expires - self._expiries.skew()
        found.indexed = isinstance(score, bytes)
        return found

    def results_by_id(self, task_ids: Iterable[str]) -> dict[str, Result]:
        names = {to_bytes(task_id): task_id for task_id in task_ids}
        ids = list(names)
        scores = self._client.pipe([("ZSCORE", self._keys.results_index, one) for one in ids])
        skew = self._expiries.skew()
        rows: dict[str, Result] = {}
        entries = read_entries(self._client, self._keys, self._expiries, ids)
        for score, (raw_id, entry) in zip(scores, entries.items(), strict=True):
            if entry is not None:
                entry.indexed = isinstance(score, bytes)
                rows[names[raw_id]] = _row(entry, skew)
        return rows

    def expiring(self, within: float) -> int | None:
        self._index.look()
        with self._index.lock:
            if not self._index.complete:
                return None
            horizon = time.time() + self._expiries.skew() + within
            return self._index.shelf.view(Filter()).expiring.up_to(horizon)

    def expiry_histogram(self, edges: Sequence[float]) -> list[int] | None:
        self._index.look()
        skew = self._expiries.skew()
        with self._index.lock:
            if not self._index.complete:
                return None
            expiring = self._index.shelf.view(Filter()).expiring
            gone = expiring.up_to(time.time() + skew)
            places = [max(gone, expiring.below(edge + skew)) for edge in edges]
        return [high - low for low, high in pairwise(places)]

    def result_facets(self) -> dict[str, list[str]]:
        self._index.look()
        with self._index.lock:
            return {name: sorted(found) for name, found in self._index.shelf.facets.items()}


def _span(expiring: Order, query: ResultQuery, skew: float) -> slice:
    """The stretch of an order by expiry that the query's times keep."""
    first = 0 if query.expires_from is None else expiring.below(query.expires_from + skew)
    end = math.inf if query.expires_before is None else query.expires_before
    last = expiring.below(end + skew)  # what never expires comes after all that do
    if query.within is not None:
        last = min(last, expiring.up_to(time.time() + skew + query.within))
    return slice(first, last)


def _row(entry: Entry, skew: float) -> Result:
    return Result(
        task_id=to_text(entry.task_id),
        agent=entry.agent,
        topic=entry.topic,
        status=entry.status,
        saved_at=entry.saved_at,
        expires_at=None if entry.expires is None else entry.expires - skew,
        size=entry.size,
        indexed=entry.indexed,
        problem=entry.problem,
        truncated=entry.truncated,
    )


def _whole_result(task_id: str, raw: bytes) -> Result:
    value, problem = parse_json(raw)
    if problem:
        found = Result(task_id, size=len(raw), problem=problem)
    else:
        found = read_result(task_id, value, len(raw))
        found.expires_at = None  # Redis keeps the expiry
        found.body, found.parsed = (value.get("result") if isinstance(value, dict) else value), True
    found.raw = raw
    return found


def _needles(text: str) -> set[bytes]:
    """What to look for: as typed, and as JSON writes it with and without escapes."""
    escaped = json.dumps(text)[1:-1].encode()
    plain = to_bytes(json.dumps(text, ensure_ascii=False)[1:-1])
    return {to_bytes(text).lower(), escaped.lower(), plain.lower()}
