"""Changes of metrics: a stream that is cut at its old end, and put together again."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from storage.base import StoreError
from storage.changes import CHANGED, GONE, THERE, Change, Keep, Record, Target
from storage.garbage import collector_paused
from storage.records import to_text
from storage.redis_store.changing import ChangingPart, staging_key
from storage.redis_store.client import Command, ResponseError
from storage.redis_store.metrics import MetricPart
from storage.redis_store.stored import Read, pack_fields, unpack_fields, weight

_READ = 2000  # events read at once
_STAGED = 1000  # events written at once
_SAMPLE = 100  # oldest events by which the size of all is estimated
_LAST = 2**64 - 1  # of both halves of an id
_KEPT = 3600  # seconds after which what was staged and never finished is gone

Id = tuple[int, int]
Event = tuple[bytes, list[bytes]]  # id and the flat fields


class MetricChanges(ChangingPart, MetricPart):
    def metric_targets(self, before: float | None = None, keep: int | None = None) -> list[Target]:
        """Without a moment the size is estimated by the oldest events. The boundary is an id: what
        has it or a later one stays, so that events which are stored meanwhile always do."""
        key = self._keys.metrics
        oldest, newest, stored = self._client.pipe([
            ("XRANGE", key, "-", "+", "COUNT", _SAMPLE),
            ("XREVRANGE", key, "+", "-", "COUNT", 1), ("XLEN", key),
        ])  # fmt: skip
        if isinstance(stored, ResponseError) or not oldest or not newest:
            return []
        first, last = _id(oldest[0][0]), _id(newest[0][0])
        boundary, count = _after(last), stored
        sizes = [weight(_record(*event)) for event in oldest]
        size, note = sum(sizes) * stored // len(sizes), f"size estimated by {len(sizes)} events"
        if before is not None:
            boundary = min(boundary, (math.ceil(max(0.0, min(before * 1000, 2.0**63))), 0))
            sizes = [weight(_record(*one)) for one in self._events(_text((0, 0)), boundary)]
            count, size, note = len(sizes), sum(sizes), ""
        elif keep is not None and keep > 0:
            count = stored - keep
            boundary = self._nth_newest(keep, last) if count > 0 else first
            size = size * max(0, count) // stored
        if count <= 0:
            return []
        names = (_text(boundary),)
        return [Target("metrics", names, f"{_text(first)} {names[0]}", size, count, note)]

    def _nth_newest(self, number: int, last: Id) -> Id:
        """Counted from a fixed event on: what is stored or trimmed meanwhile does not move it."""
        upper = _text(last)
        while True:
            some = min(number, _READ)
            found = self._client.call("XREVRANGE", self._keys.metrics, upper, "-", "COUNT", some)
            if len(found) < some:
                return _id(found[-1][0]) if found else (0, 0)
            number -= some
            if not number:
                return _id(found[-1][0])
            upper = "(" + to_text(found[-1][0])

    def _events(self, start: str, boundary: Id | None = None) -> Iterator[Event]:
        """From an id on, up to and without the boundary."""
        end = "+" if boundary is None else "(" + _text(boundary)
        if boundary == (0, 0):
            return
        while True:
            reply = self._client.pipe([
                ("XRANGE", self._keys.metrics, start, end, "COUNT", _READ)
            ])[0]  # fmt: skip
            found = [] if isinstance(reply, ResponseError) else reply
            yield from ((entry_id, fields or []) for entry_id, fields in found)
            if len(found) < _READ:
                return
            start = "(" + to_text(found[-1][0])

    def _remove_metrics(self, targets: Sequence[Target], keep: Keep) -> Change:
        if len(targets) != 1:
            raise ValueError("metrics are removed up to one boundary")
        target = targets[0]
        seen, boundary = _id(target.mark.partition(" ")[0]), _id(target.names[0])
        change, first, some = Change(), None, list[Record]()
        for event in self._events("-", boundary):
            if first is None:
                first = _id(event[0])
                if first < seen:  # older events than were seen have come back
                    return Change(skipped=[(target.names, CHANGED)])
            some.append(_record(*event))
            change.bytes += weight(some[-1])
            if len(some) == _READ:
                keep(some)
                some = []
        if first is None:
            return Change(skipped=[(target.names, GONE)])
        if some:
            keep(some)
        return self._trim(target, first, boundary, change)

    def _trim(self, target: Target, first: Id, boundary: Id, change: Change) -> Change:
        """Never DEL: the ids of later events go on from those that were there."""
        key = self._keys.metrics

        def plan(read: Read) -> Sequence[Command]:
            oldest = read([("XRANGE", key, "-", "+", "COUNT", 1)])[0]
            if isinstance(oldest, ResponseError) or (oldest and _id(oldest[0][0]) < first):
                return []
            return [("XTRIM", key, "MINID", "=", _text(boundary))]

        replies = self._client.transact([key], plan)
        if not replies:
            return Change(skipped=[(target.names, CHANGED)])
        change.done = replies[0]
        return change

    # Back again

    def _put_back_metrics(self, records: Sequence[Record]) -> Change:
        """Any number at once. A stream takes only rising ids, so a new one is staged, with what is
        there now behind what was removed, and takes its place."""
        wanted = {_id(record.stream_id or record.names[0]): record for record in records}
        change = Change()
        ids = sorted(wanted)
        if ids:
            for entry_id, _ in self._events(_text(ids[0]), _after(ids[-1])):
                there = wanted.pop(_id(entry_id), None)
                if there is not None:
                    change.skipped.append((there.names, THERE))
        if wanted:
            staging = staging_key()
            try:
                with collector_paused(len(wanted)):
                    self._stage(staging, wanted)
            except BaseException:
                with suppress(StoreError):  # else it expires
                    self._client.write([("UNLINK", staging)], deleting=True)
                raise
        change.done = len(wanted)
        return change

    def _stage(self, staging: bytes, wanted: dict[Id, Record]) -> None:
        self._refuse_groups(self._stream_facts(self._client.pipe))
        gone: list[tuple[Id, list[bytes]]] = [
            (name, _fields(record)) for name, record in sorted(wanted.items())
        ]
        present = ((_id(name), fields) for name, fields in self._events("-"))
        copied, last, first = list[Command](), (0, 0), True
        for name, fields in heapq.merge(gone, present, key=lambda event: event[0]):
            copied.append(("XADD", staging, _text(name), *fields))
            last = name
            if len(copied) == _STAGED or first:  # one by itself, so that it expires from the start
                self._client.write([*copied, ("EXPIRE", staging, _KEPT)])
                copied, first = [], False
        if copied:
            self._client.write(copied)
        self._swap(staging, last, len(wanted))

    def _swap(self, staging: bytes, last: Id, added: int) -> None:
        key = self._keys.metrics

        def plan(read: Read) -> Sequence[Command]:
            nonlocal last
            facts = self._stream_facts(read)
            self._refuse_groups(facts)
            later = read([("XRANGE", key, "(" + _text(last), "+")])[0]
            for name, fields in [] if isinstance(later, ResponseError) else later:
                reply = read([("XADD", staging, name, *fields)])[0]
                if isinstance(reply, ResponseError):
                    raise StoreError(f"the events could not be staged: {reply}")
                last = _id(name)
            return [
                _following(staging, max(last, _id(facts.get(b"last-generated-id", b"0-0"))),
                           facts, added),
                ("UNLINK", key), ("RENAME", staging, key), ("PERSIST", key),
            ]  # fmt: skip

        self._client.transact([key], plan, deleting=False)

    def _stream_facts(self, read: Read) -> dict[bytes, Any]:
        reply = read([("XINFO", "STREAM", self._keys.metrics)])[0]
        if isinstance(reply, ResponseError):
            if "no such key" in str(reply):
                return {}
            raise StoreError("what lies in the place of the metrics is no stream")
        parts = iter(reply)
        return dict(zip(parts, parts, strict=True))

    def _refuse_groups(self, facts: dict[bytes, Any]) -> None:
        if facts.get(b"groups"):
            raise StoreError("a consumer group reads the metrics, and would be lost with them")


def _following(staging: bytes, last: Id, facts: dict[bytes, Any], added: int) -> Command:
    """Ids go on from the last that there ever was, and so does (Redis 7) the number of events."""
    if b"entries-added" not in facts:
        return ("XSETID", staging, _text(last))
    return (
        "XSETID", staging, _text(last), "ENTRIESADDED", facts[b"entries-added"] + added,
        "MAXDELETEDID", facts.get(b"max-deleted-entry-id", b"0-0"),
    )  # fmt: skip


def _id(text: bytes | str) -> Id:
    milliseconds, _, sequence = to_text(text).partition("-")
    return int(milliseconds), int(sequence or 0)


def _text(name: Id) -> str:
    return f"{name[0]}-{name[1]}"


def _after(name: Id) -> Id:
    return (name[0], name[1] + 1) if name[1] < _LAST else (name[0] + 1, 0)


def _record(entry_id: bytes, fields: Sequence[bytes]) -> Record:
    name = to_text(entry_id)
    if len(fields) == 2 and fields[0] == b"data":
        return Record("metrics", (name,), fields[1], stream_id=name)
    return Record("metrics", (name,), pack_fields(fields), "hash", stream_id=name)


def _fields(record: Record) -> list[bytes]:
    return [b"data", record.raw] if record.form == "text" else unpack_fields(record.raw)
