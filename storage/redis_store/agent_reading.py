"""Agents, their topics, and what is left of either, read as one where there are not too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.changes import Kind, Record
from storage.records import to_text
from storage.redis_store.client import Client, Command, ResponseError, is_wrong_type
from storage.redis_store.keys import Keys, may_be_anothers
from storage.redis_store.ownership import Ownership
from storage.redis_store.result_reading import Expiries
from storage.redis_store.scan import walk
from storage.redis_store.stored import PORTION, Stored, pack_fields, record_of
from storage.redis_store.whole_values import at_once

UNLISTED = b"unlisted"
"""What the record of a topic says which has agents and that the set of topics does not name."""

_TOGETHER = 2000  # keys read as of one moment: Redis is held for some 10 ms
_READ = 500  # keys in one exchange
_MEMBERS = 5000  # of a set that are asked for at once
_ATTEMPTS = 3  # to read as one what changes meanwhile
_ASSUMED = 2000  # bytes of a record whose size Redis does not tell

Pair = tuple[bytes, bytes]  # topic and name
Stores = Callable[[Sequence[bytes]], list[Stored | None]]


@dataclass(slots=True)
class Names:
    """What the sets say: names by topic, those of topics that the set of topics lacks too. `odd`
    are sets of another type, the set of topics itself under None."""

    listed: frozenset[bytes] = frozenset()
    names: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    odd: set[bytes | None] = field(default_factory=set)

    def pairs(self) -> list[Pair]:
        return sorted((topic, name) for topic, names in self.names.items() for name in names)


class AgentReading:
    """To be read once."""

    def __init__(self, client: Client, keys: Keys, expiries: Expiries) -> None:
        self._client, self._keys, self._expiries = client, keys, expiries
        self._owned = Ownership(client, keys)
        self.consistency: Literal["point-in-time", "fuzzy"] = "fuzzy"
        self.count = 0

    def records(self) -> Iterator[list[Record]]:
        """Agents, members, hashes and topics. The hashes and the sets that no index names are
        those that a walk over all keys met before."""
        topics, loose = self._walk()
        names = self._names(topics)
        stores: Stores = self._read
        orphans = self._orphans(names, loose)
        for _ in range(_ATTEMPTS):
            found = self._together(names, orphans)
            if found is None:
                break
            seen, stored = found
            if seen == names:
                self.consistency, stores = "point-in-time", _from(stored)
                break
            names, orphans = seen, self._orphans(seen, loose)
        pairs = names.pairs()
        self.count = len(pairs) + len(orphans) + len(names.names)
        yield from self._registered(pairs, stores)
        yield from self._hashes(orphans, stores)
        yield from self._topics(names)

    # What there is

    def names(self) -> Names:
        return self._names(self._walk()[0])

    def _walk(self) -> tuple[list[bytes], list[bytes]]:
        """Topics that have a set, and keys of records."""
        topics, hashes = dict[bytes, None](), dict[bytes, None]()
        for keys in walk(self._client, self._keys.head + b"agent"):
            for key in keys:
                if key.startswith(self._keys.agent_head):
                    hashes[key] = None
                elif key.startswith(self._keys.topic_head):
                    topics[key[len(self._keys.topic_head) :]] = None
        return list(topics), list(hashes)

    def _names(self, candidates: Sequence[bytes]) -> Names:
        listed = self._sets([self._keys.topics])[0]
        found = Names(frozenset(listed or ()), odd=set() if listed is not None else {None})
        unlisted = [topic for topic in candidates if topic not in found.listed]
        own = self._owned.own_topics(unlisted)
        topics = [*sorted(found.listed), *(one for one in unlisted if one in own)]
        sets = self._sets([self._keys.topic(topic) for topic in topics])
        for topic, members in zip(topics, sets, strict=True):
            if members is not None:
                found.names[topic] = members
            elif topic in found.listed:
                found.odd.add(topic)
        return found

    def _sets(self, keys: Sequence[bytes]) -> list[frozenset[bytes] | None]:
        """None for what is no set."""
        found: dict[bytes, set[bytes] | None] = {key: set() for key in keys}
        left: dict[bytes, bytes | int] = dict.fromkeys(keys, 0)
        while left:
            some = list(left.items())[:_READ]
            replies = self._client.pipe([
                ("SSCAN", key, cursor, "COUNT", _MEMBERS) for key, cursor in some
            ])  # fmt: skip
            for (key, _), reply in zip(some, replies, strict=True):
                members = found[key]
                if isinstance(reply, ResponseError) or members is None:
                    found[key] = None
                    del left[key]
                    continue
                left[key] = reply[0]
                members.update(reply[1])
                if reply[0] == b"0":
                    del left[key]
        return [None if one is None else frozenset(one) for one in found.values()]

    def _orphans(self, names: Names, keys: Sequence[bytes]) -> dict[bytes, Pair]:
        """Records that no set names. What does not say whose it is counts by its key, unless that
        may be another OmniDaemon's."""
        registered = {self._keys.agent(*pair) for pair in names.pairs()}
        loose = [key for key in keys if key not in registered]
        found: dict[bytes, Pair] = {}
        for start in range(0, len(loose), _READ):
            some = loose[start : start + _READ]
            for key, pair in zip(some, self._owned.own_names(some), strict=True):
                rest = key[len(self._keys.agent_head) :]
                topic, colon, name = rest.partition(b":")
                if pair is not None:
                    found[key] = pair
                elif colon and not may_be_anothers(rest):
                    found[key] = topic, name
        return found

    # All as of one moment

    def _together(
        self, names: Names, orphans: Iterable[bytes]
    ) -> tuple[Names, dict[bytes, Stored | None]] | None:
        """What the sets say and what the records are at one moment; None if there is too much, or
        something that takes another look."""
        keys = [*dict.fromkeys(self._keys.agent(*pair) for pair in names.pairs()), *orphans]
        topics = list(names.names)
        if names.odd or len(keys) + len(topics) > _TOGETHER:
            return None
        if sum(self._sizes(keys)) > PORTION:
            return None
        commands: list[Command] = [("SMEMBERS", self._keys.topics)]
        commands += [("SMEMBERS", self._keys.topic(topic)) for topic in topics]
        commands += _asked(self._expiries, keys)
        replies, together = at_once(self._client.pipe, commands)
        if not together or any(isinstance(reply, ResponseError) for reply in replies):
            return None
        sets = map(frozenset, replies[1 : len(topics) + 1])
        there = {
            topic: members for topic, members in zip(topics, sets, strict=True)
            if members or topic in replies[0]
        }  # fmt: skip
        seen = Names(frozenset(replies[0]), there)
        for topic in seen.listed.difference(there):  # came meanwhile
            seen.names[topic] = self._sets([self._keys.topic(topic)])[0] or frozenset()
        stored = self._stored(keys, replies[len(topics) + 1 :])
        return seen, dict(zip(keys, stored, strict=True))

    def _sizes(self, keys: Sequence[bytes]) -> list[int]:
        sizes: list[int] = []
        for start in range(0, len(keys), _READ):
            some = keys[start : start + _READ]
            replies = self._client.pipe([("MEMORY", "USAGE", key) for key in some], denied_ok=True)
            sizes += [size if isinstance(size, int) else _ASSUMED for size in replies]
        return sizes

    def _stored(self, keys: Sequence[bytes], replies: Sequence[Any]) -> list[Stored | None]:
        found: list[Stored | None] = []
        for key, fields, expiry in zip(keys, replies[::2], replies[1::2], strict=True):
            expires = self._expiries.read(expiry)
            if is_wrong_type(fields):
                found.append(self._dump(key, expires))
            elif isinstance(fields, list) and fields:
                # Redis gives them in any order, and copies of a record are to be the same.
                pairs = sorted(zip(fields[::2], fields[1::2], strict=True))
                packed = pack_fields([part for pair in pairs for part in pair])
                found.append(Stored(packed, "hash", 0, expires))
            else:
                found.append(None)
        return found

    def _dump(self, key: bytes, expires: float | None = None) -> Stored | None:
        dump = self._client.pipe([("DUMP", key)])[0]
        return Stored(dump, "dump", 0, expires) if isinstance(dump, bytes) else None

    # In portions

    def _read(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """Each as of one moment, in exchanges of a bounded size."""
        found: list[Stored | None] = []
        some, room = list[bytes](), PORTION
        for key, size in zip(keys, self._sizes(keys), strict=True):
            if some and size > room:
                found += self._exchange(some)
                some, room = [], PORTION
            some.append(key)
            room -= size
        return found + self._exchange(some)

    def _exchange(self, keys: Sequence[bytes]) -> list[Stored | None]:
        if not keys:
            return []
        replies, _ = at_once(self._client.pipe, _asked(self._expiries, keys))
        return self._stored(keys, replies)

    def _registered(self, pairs: Sequence[Pair], stores: Stores) -> Iterator[list[Record]]:
        members: list[Record] = []
        for start in range(0, len(pairs), _READ):
            some = pairs[start : start + _READ]
            agents: list[Record] = []
            found = stores([self._keys.agent(*pair) for pair in some])
            for pair, stored in zip(some, found, strict=True):
                kind: Kind = "agent" if stored else "member"
                (agents if stored else members).append(record_of(kind, _text(pair), stored))
            yield agents
        yield members

    def _hashes(self, orphans: dict[bytes, Pair], stores: Stores) -> Iterator[list[Record]]:
        keys = sorted(orphans)
        for start in range(0, len(keys), _READ):
            some = keys[start : start + _READ]
            yield [
                record_of("hash", _text(orphans[key]), stored)
                for key, stored in zip(some, stores(some), strict=True) if stored
            ]  # fmt: skip

    def _topics(self, names: Names) -> Iterator[list[Record]]:
        """Those that no agent's record tells of."""
        found: list[Record] = []
        for topic, members in sorted(names.names.items()):
            if topic not in names.listed:
                found.append(Record("topic", (to_text(topic),), UNLISTED))
            elif not members:
                found.append(Record("topic", (to_text(topic),), form="none"))
        yield found
        for odd in sorted(names.odd, key=lambda one: one or b""):
            stored = self._dump(self._keys.topics if odd is None else self._keys.topic(odd))
            if stored is not None:
                yield [record_of("topic", () if odd is None else (to_text(odd),), stored)]


def _asked(expiries: Expiries, keys: Sequence[bytes]) -> list[Command]:
    return [part for key in keys for part in (("HGETALL", key), expiries.command(key))]


def _from(found: dict[bytes, Stored | None]) -> Stores:
    return lambda keys: [found.get(key) for key in keys]


def _text(pair: Pair) -> tuple[str, str]:
    return to_text(pair[0]), to_text(pair[1])
