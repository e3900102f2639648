"""All that one prefix holds, read while others go on working: in portions, and without a write."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

from storage.changes import Kind, Record
from storage.records import to_text
from storage.redis_store.agent_reading import AgentReading
from storage.redis_store.client import Client, Command, ResponseError, is_wrong_type
from storage.redis_store.config import neighbours_by_mark
from storage.redis_store.events import Id, event_record, id_of, id_text
from storage.redis_store.keys import Keys, is_under, may_be_anothers
from storage.redis_store.ownership import names_itself
from storage.redis_store.result_reading import Expiries
from storage.redis_store.scan import walk
from storage.redis_store.stored import PORTION
from storage.redis_store.whole_values import Found, WholeValues, at_once
from storage.snapshots import Section, Snapshot

_ENTRIES = 500  # names of the index, or records of a batch
_EVENTS = 1000  # at most in one answer …
_FIRST = 100  # … and in the first one, by which their size is known

Consistency = Literal["point-in-time", "fuzzy"]
KINDS = tuple(kind for kind in get_args(Kind) if kind != "file")


class RedisSnapshot(Snapshot):
    """The record of what lies in the place of the set of topics, of the index of results or of the
    stream and is none has no names. Agents and topics are as of one moment if there are at most a
    few thousand keys and none of the wrong type; but hashes and topics that no set names are those
    that a walk met, and so always fuzzy as results and configuration are. What was stored while a
    walk went on may be missing."""

    def __init__(self, client: Client, keys: Keys, expiries: Expiries) -> None:
        self._client, self._keys, self._expiries = client, keys, expiries
        self._sections: dict[Kind, Section] = {}
        self._config_names: list[bytes] = []
        self._began = 0.0

    def sections(self) -> list[Section]:
        return list(self._sections.values())

    def __iter__(self) -> Iterator[Sequence[Record]]:
        for part in (self._agents(), self._results(), self._metrics(), self._config()):
            for batch in part:
                if batch:
                    yield batch

    def _ended(self, began: float, consistency: Consistency, *kinds: Kind) -> None:
        for kind in kinds:
            self._sections[kind] = Section(kind, consistency, began, time.time())

    def _agents(self) -> Iterator[Sequence[Record]]:
        began = time.time()
        reading = AgentReading(self._client, self._keys, self._expiries)
        for batch in reading.records():
            if self.total is None:
                self.total = reading.count + self._count()
            yield batch
        self._ended(began, reading.consistency, "agent", "member")
        self._ended(began, "fuzzy", "hash")
        self._ended(began, reading.consistency, "topic")

    def _count(self) -> int:
        counts = self._client.pipe([
            ("ZCARD", self._keys.results_index), ("XLEN", self._keys.metrics)
        ])  # fmt: skip
        return sum(count for count in counts if isinstance(count, int))

    # Results

    def _results(self) -> Iterator[Sequence[Record]]:
        """Those that a walk meets, then those that the index names besides."""
        began, head = time.time(), self._keys.result_head
        self._began = began
        values = WholeValues(self._client, self._expiries, head)
        seen: set[bytes] = set()
        walked = _new(self._walked(), seen)
        for found in values.read(walked, self._scores_of):
            yield self._result_records(found)
        entries: list[Record] = []
        for found in values.read(_new(self._indexed(), seen), self._scores_of):
            yield self._result_records(found, entries)
        self._ended(began, "fuzzy", "result")
        for start in range(0, len(entries), _ENTRIES):
            yield entries[start : start + _ENTRIES]
        yield self._odd("entry", self._keys.results_index, ("ZCARD", self._keys.results_index))
        self._ended(began, "fuzzy", "entry")

    def _walked(self) -> Iterator[bytes]:
        """Ids of results; the names of configuration are kept for later."""
        result, config = self._keys.result_head, self._keys.config_head
        for keys in walk(self._client, self._keys.head):
            self._config_names += (key[len(config) :] for key in keys if key.startswith(config))
            yield from (key[len(result) :] for key in keys if key.startswith(result))

    @cached_property
    def _scores_together(self) -> bool:
        """Many in one command came with Redis 6.2, and an unknown one would spoil a transaction."""
        reply = self._client.pipe([("ZMSCORE", self._keys.results_index, b"")])[0]
        return not isinstance(reply, ResponseError)

    def _scores_of(self, ids: Sequence[bytes]) -> list[Command]:
        if self._scores_together:
            return [("ZMSCORE", self._keys.results_index, *ids)]
        return [("ZSCORE", self._keys.results_index, one) for one in ids]

    def _indexed(self) -> Iterator[bytes]:
        cursor: bytes | int = 0
        while cursor != b"0":
            reply = self._client.pipe([
                ("ZSCAN", self._keys.results_index, cursor, "COUNT", _ENTRIES)
            ])[0]  # fmt: skip
            if isinstance(reply, ResponseError):
                return
            cursor, pairs = reply
            yield from pairs[::2]

    def _result_records(self, found: Found, entries: list[Record] | None = None) -> list[Record]:
        ids, values, scores = found
        records: list[Record] = []
        if self._scores_together:
            scores = scores[0]
        for one, value, reply in zip(ids, values, scores, strict=True):
            score = repr(float(reply)) if isinstance(reply, bytes) else None
            name = (to_text(one),)
            if value is not None:
                raw, form, expires = value
                if score is not None or not may_be_anothers(one) or names_itself(one, raw):
                    records.append(Record("result", name, raw, form, expires, score))
            elif score is not None and entries is not None:
                entries.append(Record("entry", name, form="none", score=score))
        return records

    # Metrics

    def _metrics(self) -> Iterator[Sequence[Record]]:
        """Up to the last event that there is at the beginning."""
        began, key = time.time(), self._keys.metrics
        (stored, newest), together = at_once(self._client.pipe, [
            ("XLEN", key), ("XREVRANGE", key, "+", "-", "COUNT", 1)
        ])  # fmt: skip
        count = 0
        if isinstance(newest, list) and newest:
            for batch in self._events(id_of(newest[0][0])):
                count += len(batch)
                yield batch
        yield self._odd("metrics", key, ("XLEN", key))
        whole = together and count == stored
        self._ended(began, "point-in-time" if whole else "fuzzy", "metrics")

    def _events(self, last: Id) -> Iterator[list[Record]]:
        start, count = "-", _FIRST
        while True:
            found = self._client.pipe([
                ("XRANGE", self._keys.metrics, start, id_text(last), "COUNT", count)
            ])[0]  # fmt: skip
            if not isinstance(found, list) or not found:
                return
            batch = [event_record(name, fields or []) for name, fields in found]
            yield batch
            start = "(" + to_text(found[-1][0])
            size = sum(len(record.raw) for record in batch) // len(batch) + 1
            count = max(1, min(_EVENTS, PORTION // size))

    # Configuration

    def _config(self) -> Iterator[Sequence[Record]]:
        """All names first: only among all of them are another OmniDaemon's marks seen."""
        head = self._keys.config_head
        names = sorted(set(self._config_names))
        neighbours = neighbours_by_mark(self._client, self._keys, names)
        ours = (name for name in names if not is_under(name, neighbours))
        for found, values, _ in WholeValues(self._client, self._expiries, head).read(ours):
            yield [
                Record("config", (to_text(name),), *value)
                for name, value in zip(found, values, strict=True) if value is not None
            ]  # fmt: skip
        self._ended(self._began, "fuzzy", "config")

    def _odd(self, kind: Kind, key: bytes, ask: Command) -> list[Record]:
        """What lies in the place of an index and is none."""
        reply, expiry = self._client.pipe([ask, self._expiries.command(key)])
        dump: Any = self._client.pipe([("DUMP", key)])[0] if is_wrong_type(reply) else None
        if not isinstance(dump, bytes):
            return []
        return [Record(kind, (), dump, "dump", self._expiries.read_ms(expiry))]


def _new(names: Iterable[bytes], seen: set[bytes]) -> Iterator[bytes]:
    """Each once; all that were met are in `seen` then."""
    for name in names:
        if name not in seen:
            seen.add(name)
            yield name
