"""Changes of metrics: a stream that is cut at its old end, and put together again."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress

from storage.base import StoreError
from storage.changes import CHANGED, GONE, THERE, Change, Keep, Record, Target
from storage.garbage import collector_paused
from storage.records import to_text
from storage.redis_store.changing import ChangingPart, staging_key
from storage.redis_store.client import Command, ResponseError
from storage.redis_store.events import (
    Event,
    Id,
    continuing,
    event_fields,
    event_record,
    following_id,
    id_of,
    id_text,
    read_events,
    stream_facts,
)
from storage.redis_store.metrics import MetricPart
from storage.redis_store.stored import Read, weight

_READ = 2000  # events read at once
_STAGED = 1000  # events written at once
_SAMPLE = 100  # oldest events by which the size of all is estimated
_KEPT = 3600  # seconds after which what was staged and never finished is gone


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
        first, last = id_of(oldest[0][0]), id_of(newest[0][0])
        boundary, count = following_id(last), stored
        sizes = [weight(event_record(*event)) for event in oldest]
        size, note = sum(sizes) * stored // len(sizes), f"size estimated by {len(sizes)} events"
        if before is not None:
            boundary = min(boundary, (math.ceil(max(0.0, min(before * 1000, 2.0**63))), 0))
            sizes = [weight(event_record(*one)) for one in self._events(id_text((0, 0)), boundary)]
            count, size, note = len(sizes), sum(sizes), ""
        elif keep is not None and keep > 0:
            count = stored - keep
            boundary = self._nth_newest(keep, last) if count > 0 else first
            size = size * max(0, count) // stored
        if count <= 0:
            return []
        names = (id_text(boundary),)
        return [Target("metrics", names, f"{id_text(first)} {names[0]}", size, count, note)]

    def _nth_newest(self, number: int, last: Id) -> Id:
        """Counted from a fixed event on: what is stored or trimmed meanwhile does not move it."""
        upper = id_text(last)
        while True:
            some = min(number, _READ)
            found = self._client.call("XREVRANGE", self._keys.metrics, upper, "-", "COUNT", some)
            if len(found) < some:
                return id_of(found[-1][0]) if found else (0, 0)
            number -= some
            if not number:
                return id_of(found[-1][0])
            upper = "(" + to_text(found[-1][0])

    def _events(self, start: str, boundary: Id | None = None) -> Iterator[Event]:
        """From an id on, up to and without the boundary."""
        end = "+" if boundary is None else "(" + id_text(boundary)
        if boundary == (0, 0):
            return
        yield from read_events(self._client, self._keys.metrics, start, end)

    def _remove_metrics(self, targets: Sequence[Target], keep: Keep) -> Change:
        if len(targets) != 1:
            raise ValueError("metrics are removed up to one boundary")
        target = targets[0]
        seen, boundary = id_of(target.mark.partition(" ")[0]), id_of(target.names[0])
        change, first, some = Change(), None, list[Record]()
        for event in self._events("-", boundary):
            if first is None:
                first = id_of(event[0])
                if first < seen:  # older events than were seen have come back
                    return Change(skipped=[(target.names, CHANGED)])
            some.append(event_record(*event))
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
            if isinstance(oldest, ResponseError) or (oldest and id_of(oldest[0][0]) < first):
                return []
            return [("XTRIM", key, "MINID", "=", id_text(boundary))]

        replies = self._client.transact([key], plan)
        if not replies:
            return Change(skipped=[(target.names, CHANGED)])
        change.done = replies[0]
        return change

    # Back again

    def _put_back_metrics(self, records: Sequence[Record]) -> Change:
        """Any number at once. A stream takes only rising ids, so a new one is staged, with what is
        there now behind what was removed, and takes its place."""
        wanted = {id_of(record.stream_id or record.names[0]): record for record in records}
        change = Change()
        ids = sorted(wanted)
        if ids:
            for entry_id, _ in self._events(id_text(ids[0]), following_id(ids[-1])):
                there = wanted.pop(id_of(entry_id), None)
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
        stream_facts(self._client.pipe, self._keys.metrics)
        gone: list[tuple[Id, list[bytes]]] = [
            (name, event_fields(record)) for name, record in sorted(wanted.items())
        ]
        present = ((id_of(name), fields) for name, fields in self._events("-"))
        copied, last, first = list[Command](), (0, 0), True
        for name, fields in heapq.merge(gone, present, key=lambda event: event[0]):
            copied.append(("XADD", staging, id_text(name), *fields))
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
            facts = stream_facts(read, key)
            later = read([("XRANGE", key, "(" + id_text(last), "+")])[0]
            for name, fields in [] if isinstance(later, ResponseError) else later:
                reply = read([("XADD", staging, name, *fields)])[0]
                if isinstance(reply, ResponseError):
                    raise StoreError(f"the events could not be staged: {reply}")
                last = id_of(name)
            return [
                continuing(staging, max(last, id_of(facts.get(b"last-generated-id", b"0-0"))),
                           facts, added),
                ("UNLINK", key), ("RENAME", staging, key), ("PERSIST", key),
            ]  # fmt: skip

        self._client.transact([key], plan, deleting=False)
