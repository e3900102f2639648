"""The one transaction by which a store becomes what was staged."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from storage.base import StoreChanged, StoreError
from storage.changes import Kind, Names
from storage.records import to_bytes, to_text
from storage.redis_store import agent_reading
from storage.redis_store.client import Client, Command
from storage.redis_store.events import (
    Event,
    Id,
    continuing,
    id_of,
    id_text,
    read_events,
    stream_facts,
)
from storage.redis_store.keys import Keys, config_may_be_anothers
from storage.redis_store.lease import Lease
from storage.redis_store.portions import chunks, many
from storage.redis_store.scratch import INDEX, KEPT, STREAM, TOPICS, Scratch

_EVENTS = 1000  # written at once
_FRESH = KEPT / 1000 / 3  # seconds for which what was staged has enough life left
_AHEAD = 300_000  # milliseconds that the last id may be ahead of the server's clock

Pair = tuple[bytes, bytes]


class Restoration:
    """Built while all that it concerns is watched: an error inside of a transaction undoes nothing,
    so that there must be none."""

    def __init__(
        self, client: Client, lease: Lease, keys: Keys, scratch: Scratch,
        names: agent_reading.Names,
    ) -> None:  # fmt: skip
        self._client, self._lease, self._keys, self._scratch = client, lease, keys, scratch
        self._names = names
        self._gone: dict[Kind, set[tuple[bytes, ...]]] = {}
        self._after: dict[bytes, frozenset[bytes]] = {}

    def commands(self, deleted: Iterable[tuple[Kind, Names]], keep_events: bool) -> list[Command]:
        """Deletions first, then what takes its place, then the indexes of it all."""
        for kind, names in deleted:
            self._gone.setdefault(kind, set()).add(tuple(map(to_bytes, names)))
        indexes = [*self._members(), *self._listing(), *self._scores()]
        stream = self._stream(keep_events)
        self._verify()
        gone = sorted(self._doomed())
        return [
            *many(("UNLINK",), gone),
            *self._renames(),
            *stream,
            *indexes,
            *many(("UNLINK",), self._scratch.index_keys()),
        ]

    def _lost(self, kind: Kind) -> set[tuple[bytes, ...]]:
        return self._gone.get(kind, set())

    # Values

    def _doomed(self) -> Iterator[bytes]:
        """Keys to be deleted. An agent's record stays where another one shares it."""
        pairs = self._lost("agent") | self._lost("hash")
        shared: set[bytes] = set()
        if any(b":" in part for pair in pairs for part in pair):
            shared = {self._keys.agent(*pair) for pair in self._with_record()}
        found = {self._keys.agent(*pair) for pair in pairs} - shared
        found |= {self._keys.result(*names) for names in self._lost("result")}
        found |= {
            self._keys.config(*names) for names in self._lost("config")
            if not config_may_be_anothers(*names)
        }  # fmt: skip
        found |= {self._keys.topic(*names) for names in self._lost("topic") if self._odd(names)}
        indexes: dict[Kind, bytes] = {
            "topic": self._keys.topics, "entry": self._keys.results_index,
            "metrics": self._keys.metrics,
        }  # fmt: skip
        found |= {key for kind, key in indexes.items() if () in self._lost(kind)}
        head = len(self._keys.head)
        return (key for key in found if key[head:] not in self._scratch.values)

    def _with_record(self) -> Iterator[Pair]:
        """Agents that there will be, but for those of whom only the name was put."""
        for topic, names in (self._names.names | self._after).items():
            put = self._scratch.members.get(topic, {})
            yield from ((topic, name) for name in names if put.get(name, True))

    def _odd(self, names: Sequence[bytes]) -> bool:
        return bool(names) and names[0] in self._names.odd

    def _renames(self) -> Iterator[Command]:
        """A key keeps the expiry that it was staged with until it is given its own."""
        for rest, expires in self._scratch.values.items():
            if rest != STREAM:
                yield from self._rename(rest, expires)

    def _rename(self, rest: bytes, expires: int | None, staged: bytes = b"") -> list[Command]:
        key = self._keys.head + rest
        lasting: Command = ("PERSIST", key) if expires is None else ("PEXPIREAT", key, expires)
        return [("RENAME", self._scratch.keys.head + (staged or rest), key), lasting]

    def _verify(self) -> None:
        """All that was staged is there, also where Redis may evict it, and for another while."""
        keys = [self._scratch.keys.head + rest for rest in self._scratch.values]
        aged = time.monotonic() - self._scratch.began > _FRESH
        for some in chunks(keys):
            found = self._lease.read(
                [("PEXPIRE", key, KEPT) for key in some] if aged else [("EXISTS", *some)]
            )
            if sum(found) != len(some):
                raise StoreError("what was staged is not there any more; nothing was changed")

    # Agents and topics

    def _members(self) -> Iterator[Command]:
        scratch, lost = self._scratch, dict[bytes, set[bytes]]()
        for topic, name in chain(self._lost("agent"), self._lost("member")):
            lost.setdefault(topic, set()).add(name)
        concerned = {*scratch.members, *lost, *scratch.topics}
        concerned |= {names[0] for names in self._lost("topic") if names}
        self._watch(concerned)
        for topic in sorted(concerned):
            if topic in scratch.odd_topics:
                continue
            before = self._names.names.get(topic, frozenset())
            put = scratch.members.get(topic, {})
            if topic in self._names.odd and put and (topic,) not in self._lost("topic"):
                raise StoreError(f"the agents of {to_text(topic)!a} have a key of another type")
            gone = lost.get(topic, set()).intersection(before).difference(put)
            self._after[topic] = before.difference(gone).union(put)
            key = self._keys.topic(topic)
            yield from many(("SREM", key), sorted(gone))
            yield from many(("SADD", key), sorted(put))

    def _watch(self, topics: set[bytes]) -> None:
        """Also those that were not there in the beginning, and are to be."""
        new = sorted(topics.difference(self._names.names, self._names.odd))
        for some in chunks([self._keys.topic(topic) for topic in new]):
            _, *there = self._lease.read([("WATCH", *some), *(("EXISTS", key) for key in some)])
            if any(there):
                raise StoreChanged("agents of a new topic came meanwhile; nothing was changed")

    def _listing(self) -> Iterator[Command]:
        if TOPICS in self._scratch.values:
            return
        put, listed = self._scratch.topics, self._names.listed
        topics = {*self._after, *put}
        wanted = {topic for topic in topics if self._is_listed(topic)}
        if None in self._names.odd and () not in self._lost("topic"):
            if wanted:
                raise StoreError("what lies in the place of the set of topics is none")
            return
        yield from many(("SREM", self._keys.topics), sorted((topics - wanted) & listed))
        yield from many(("SADD", self._keys.topics), sorted(wanted - listed))

    def _is_listed(self, topic: bytes) -> bool:
        """As was put; else as it was, and if it is new or its own record was deleted by whether it
        has agents then."""
        before, after = self._names.names.get(topic), self._after.get(topic)
        if topic in self._scratch.topics:
            return self._scratch.topics[topic]
        if (topic,) in self._lost("topic") or bool(before) != bool(after):
            return bool(after)
        return topic in self._names.listed

    # Results

    def _scores(self) -> Iterator[Command]:
        put, index = self._scratch.scores, self._keys.results_index
        if INDEX in self._scratch.values:
            return
        wanted = [one for one, score in put.items() if score is not None]
        lost = {names[0] for names in self._lost("result") | self._lost("entry") if names}
        lost |= {one for one, score in put.items() if score is None}
        lost.difference_update(wanted)
        kind = self._lease.read([("TYPE", index)])[0]
        if kind not in (b"zset", b"none") and () not in self._lost("entry"):
            if wanted:
                raise StoreError("what lies in the place of the index of results is none")
            return
        yield from many(("ZREM", index), sorted(lost))
        yield from many(("ZADD", index), self._scratch.places())

    # Metrics

    def _stream(self, keep_events: bool) -> list[Command]:
        scratch, lost = self._scratch, self._lost("metrics")
        if STREAM in scratch.values and not scratch.events:  # a DUMP of something else
            return self._rename(STREAM, scratch.values[STREAM])
        if keep_events and not scratch.events and not lost - {()}:
            return []
        tolerant = () in lost or not keep_events
        facts = stream_facts(self._lease.read, self._keys.metrics, tolerant)
        if not keep_events or not facts.get(b"length"):  # there is nothing to merge them with
            if not scratch.events:
                return [("UNLINK", self._keys.metrics)]
            self._continue(scratch.keys.metrics, facts, scratch.events)
            return self._rename(STREAM, None)
        merged = b"merged"
        count = self._merge(scratch.keys.head + merged, {id_of(one[0]) for one in lost if one})
        if not count:
            return [("UNLINK", self._keys.metrics)]
        self._continue(scratch.keys.head + merged, facts, scratch.events)
        return [*self._rename(STREAM, None, merged), ("UNLINK", scratch.keys.metrics)]

    def _continue(self, staged: bytes, facts: dict[bytes, Any], added: int) -> None:
        """Ids go on from the last that there ever was, unless that lies in the future."""
        newest, now = self._lease.read([
            ("XREVRANGE", staged, "+", "-", "COUNT", 1), ("TIME",)
        ])  # fmt: skip
        last, former = id_of(newest[0][0]), id_of(facts.get(b"last-generated-id", b"0-0"))
        if facts and (former <= last or former[0] <= int(now[0]) * 1000 + _AHEAD):
            self._client.write([continuing(staged, max(last, former), facts, added)])

    def _merge(self, target: bytes, lost: set[Id]) -> int:
        """Events of the store and those that were put, by their ids, into a stream of their own;
        how many. What was put takes the place of what has its id."""
        put, present = (
            _by_id(read_events(self._client, key))
            for key in (self._scratch.keys.metrics, self._keys.metrics)
        )
        kept = ((name, fields) for name, fields in present if name not in lost)
        last, count = (0, 0), 0
        commands: list[Command] = []
        for name, fields in heapq.merge(put, kept, key=lambda event: event[0]):
            if name == last:
                continue
            commands.append(("XADD", target, id_text(name), *fields))
            last, count = name, count + 1
            if len(commands) == _EVENTS:
                self._client.write([*commands, ("PEXPIRE", target, KEPT)])
                commands = []
        if commands:
            self._client.write([*commands, ("PEXPIRE", target, KEPT)])
        return count


def _by_id(events: Iterable[Event]) -> Iterator[tuple[Id, list[bytes]]]:
    return ((id_of(name), fields) for name, fields in events)
