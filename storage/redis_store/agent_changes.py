"""Changes of agents: their records (hashes), their names in the sets of topics, and the topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from storage.changes import CHANGED, GONE, SHARED, STAYS, THERE, Change, Keep, Record, Target
from storage.records import to_bytes, to_text
from storage.redis_store.agents import AgentPart
from storage.redis_store.changing import FOREIGN, ChangingPart
from storage.redis_store.client import Command
from storage.redis_store.keys import may_be_anothers
from storage.redis_store.stored import (
    Read,
    Skip,
    Stored,
    read_hashes,
    record_of,
    restoring,
    unpack_fields,
)

_READ = 1000  # hashes in one round trip
_NAMED = 3  # sharing agents that a note names

Raw = tuple[bytes, bytes]  # topic and name
NO_RECORD = "-"  # the mark of an agent without one


class AgentChanges(ChangingPart, AgentPart):
    def agent_targets(self, agents: Iterable[tuple[str, str]] | None = None) -> list[Target]:
        self._survey.step()
        self._registry.stale()
        self._registry.look()
        if agents is None:
            pairs = [_raw(pair) for pair in self._registry.by_topic]
        else:
            pairs = [_raw(pair) for pair in sorted(set(agents))]
        members = self._are_members(self._client.pipe, pairs)
        pairs = [pair for pair, member in zip(pairs, members, strict=True) if member]
        sharers = self._sharers(self._client.pipe, pairs)
        if sharers:
            places: dict[bytes, int] = {}
            for pair in pairs:
                places.setdefault(self._keys.agent(*pair), len(places))
            pairs.sort(key=lambda pair: places[self._keys.agent(*pair)])
        asked = set(pairs)
        targets: list[Target] = []
        for start in range(0, len(pairs), _READ):
            some = pairs[start : start + _READ]
            keys = [self._keys.agent(*pair) for pair in some]
            found = read_hashes(self._client.pipe, self._expiries, keys)
            for pair, stored in zip(some, found, strict=True):
                note = _note(sharers[pair], asked) if pair in sharers else ""
                size = stored.size if stored else 0
                targets.append(Target("agent", _text(pair), _mark(stored), size, note=note))
        return targets

    def inseparable(self, one: Target, other: Target) -> bool:
        if one.kind != "agent" or other.kind != "agent":
            return False
        return self._keys.agent(*_raw(one.names)) == self._keys.agent(*_raw(other.names))

    def _are_members(self, read: Read, pairs: Sequence[Raw]) -> list[bool]:
        asked: list[Command] = [
            ("SISMEMBER", self._keys.topic(topic), name) for topic, name in pairs
        ]
        replies = [
            reply for start in range(0, len(asked), _READ)
            for reply in read(asked[start : start + _READ])
        ]  # fmt: skip
        return [reply == 1 for reply in replies]

    def _sharers(self, read: Read, pairs: Sequence[Raw]) -> dict[Raw, list[Raw]]:
        """The other registered agents that have the same key: (a:b, c) and (a, b:c)."""
        unsure = [pair for pair in pairs if b":" in pair[0] or b":" in pair[1]]
        if not unsure:
            return {}
        listed = read([("SMEMBERS", self._keys.topics)])[0]
        topics = self._registry.stray_topics.union(listed if isinstance(listed, list) else [])
        others = [
            (pair, other) for pair in unsure for other in _splits(pair, topics) if other != pair
        ]
        members = self._are_members(read, [other for _, other in others])
        found: dict[Raw, list[Raw]] = {}
        for (pair, other), member in zip(others, members, strict=True):
            if member:
                found.setdefault(pair, []).append(other)
        return found

    def _own(self, pair: Raw, stored: Stored | None) -> bool:
        """Whether the record under an agent's key is an agent of ours, also where the key looks
        like another OmniDaemon's."""
        key = self._keys.agent(*pair)
        if stored is None or not may_be_anothers(key[len(self._keys.agent_head) :]):
            return True
        return (owner := _owner(stored)) is not None and self._keys.agent(*owner) == key

    def _own_topic(self, read: Read, topic: bytes) -> bool:
        if not may_be_anothers(topic) or read([("SISMEMBER", self._keys.topics, topic)])[0] == 1:
            return True
        return topic in self._survey.own_topics([topic])

    def _remove_agents(self, targets: Sequence[Target], keep: Keep) -> Change:
        pairs = [_raw(target.names) for target in targets]
        keys = [self._keys.agent(*pair) for pair in pairs]

        def judge(read: Read) -> Iterator[Record | Skip]:
            stored = dict(zip(pairs, read_hashes(read, self._expiries, keys), strict=True))
            members = dict(zip(pairs, self._are_members(read, pairs), strict=True))
            topics = {topic: self._own_topic(read, topic) for topic, _ in pairs}
            reasons: dict[Raw, str] = {}
            for target, pair in zip(targets, pairs, strict=True):
                if not members[pair]:
                    reasons[pair] = GONE
                elif _mark(stored[pair]) != target.mark:
                    reasons[pair] = CHANGED
                elif not topics[pair[0]] or not self._own(pair, stored[pair]):
                    reasons[pair] = FOREIGN
            _spare_shared(pairs, self._sharers(read, pairs), reasons)
            for target, pair in zip(targets, pairs, strict=True):
                if pair in reasons:
                    yield target.names, reasons[pair]
                else:
                    yield record_of("agent", target.names, stored[pair])

        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            hashes = {
                self._keys.agent(*_raw(record.names)) for record in records
                if record.form != "none"
            }  # fmt: skip
            unlink: list[Command] = [("UNLINK", *sorted(hashes))] if hashes else []
            return [*unlink, *self._unregistering(records, read)]

        change, _ = self._change(self._watched_agents(pairs), judge, commands, keep)
        self._registry.stale()
        return change

    def _watched_agents(self, pairs: Sequence[Raw]) -> list[bytes]:
        keys = [self._keys.agent(*pair) for pair in pairs]
        return [*keys, *(self._keys.topic(topic) for topic, _ in pairs), self._keys.topics]

    def _unregistering(self, records: Sequence[Record], read: Read) -> list[Command]:
        """Names out of their sets, and a topic that then has none out of the set of topics."""
        names: dict[bytes, list[bytes]] = {}
        for topic, name in dict.fromkeys(_raw(record.names) for record in records):
            names.setdefault(topic, []).append(name)
        commands: list[Command] = []
        sizes = read([("SCARD", self._keys.topic(topic)) for topic in names])
        for (topic, gone), size in zip(names.items(), sizes, strict=True):
            commands.append(("SREM", self._keys.topic(topic), *gone))
            if size == len(gone):  # Redis removes an empty set by itself
                commands.append(("SREM", self._keys.topics, topic))
        return commands

    def _put_back_agents(self, given: Sequence[Record]) -> Change:
        """Records and names. Agents that shared a record get it back once and share it again."""
        records, unfit = self._fitting(given)
        if not records:
            return Change(skipped=unfit)
        pairs = [_raw(record.names) for record in records]
        keys = [self._keys.agent(*pair) for pair in pairs]

        def judge(read: Read) -> Iterator[Record | Skip]:
            present = read_hashes(read, self._expiries, keys)
            members = self._are_members(read, pairs)
            lasting = []
            for record, found, member in zip(records, present, members, strict=True):
                there = member if record.kind == "agent" else found is not None
                if there or (found is not None and not found.same_as(record)):
                    yield record.names, THERE
                else:
                    lasting.append(record)
            yield from self._lasting(read, lasting)

        def commands(judged: list[Record], read: Read) -> Sequence[Command]:
            raw = {self._keys.agent(*_raw(record.names)): record for record in judged}
            there = read([("EXISTS", key) for key in raw])
            hashes = [
                command
                for (key, record), found in zip(raw.items(), there, strict=True)
                if record.form != "none" and not found
                for command in restoring(key, record)
            ]
            return hashes + self._registering([one for one in judged if one.kind == "agent"])

        watched = self._watched_agents(pairs)
        change, _ = self._change(watched, judge, commands, deleting=False)
        change.skipped += unfit
        self._registry.stale()
        return change

    def _registering(self, records: Sequence[Record]) -> list[Command]:
        commands: list[Command] = []
        for topic, name in (_raw(record.names) for record in records):
            commands += (
                ("SADD", self._keys.topic(topic), name), ("SADD", self._keys.topics, topic)
            )  # fmt: skip
        return commands

    # Names without a record, and records without a name

    def _member_targets(self) -> Iterator[Target]:
        pairs = [_raw(pair) for pair in self._registry.by_topic]
        for start in range(0, len(pairs), _READ):
            some = pairs[start : start + _READ]
            there = self._client.pipe([("EXISTS", self._keys.agent(*pair)) for pair in some])
            for pair, found in zip(some, there, strict=True):
                if not found:
                    yield Target("member", _text(pair), NO_RECORD, len(pair[1]))

    def _remove_members(self, targets: Sequence[Target], keep: Keep) -> Change:
        pairs = [_raw(target.names) for target in targets]

        def judge(read: Read) -> Iterator[Record | Skip]:
            there = read([("EXISTS", self._keys.agent(*pair)) for pair in pairs])
            members = self._are_members(read, pairs)
            for target, pair, found, member in zip(targets, pairs, there, members, strict=True):
                if not member:
                    yield target.names, GONE
                elif found:
                    yield target.names, CHANGED
                elif not self._own_topic(read, pair[0]):
                    yield target.names, FOREIGN
                else:
                    yield record_of("member", target.names, None)

        watched = self._watched_agents(pairs)
        change, _ = self._change(watched, judge, self._unregistering, keep)
        self._registry.stale()
        return change

    def _put_back_members(self, records: Sequence[Record]) -> Change:
        pairs = [_raw(record.names) for record in records]

        def judge(read: Read) -> Iterator[Record | Skip]:
            members = self._are_members(read, pairs)
            for record, member in zip(records, members, strict=True):
                yield (record.names, THERE) if member else record

        def commands(judged: list[Record], read: Read) -> Sequence[Command]:
            return self._registering(judged)

        watched = self._watched_agents(pairs)
        change, _ = self._change(watched, judge, commands, deleting=False)
        self._registry.stale()
        return change

    def _hash_targets(self, orphans: dict[bytes, tuple[str, str]]) -> Iterator[Target]:
        keys = sorted(orphans)
        for start in range(0, len(keys), _READ):
            some = keys[start : start + _READ]
            found = read_hashes(self._client.pipe, self._expiries, some)
            for key, stored in zip(some, found, strict=True):
                if stored is not None:
                    yield Target("hash", orphans[key], _mark(stored), stored.size)

    def _remove_hashes(self, targets: Sequence[Target], keep: Keep) -> Change:
        pairs = [_raw(target.names) for target in targets]
        keys = [self._keys.agent(*pair) for pair in pairs]

        def judge(read: Read) -> Iterator[Record | Skip]:
            stored = read_hashes(read, self._expiries, keys)
            members = self._are_members(read, pairs)
            sharers = self._sharers(read, pairs)
            for target, pair, found, member in zip(targets, pairs, stored, members, strict=True):
                if found is None:
                    yield target.names, GONE
                elif member or pair in sharers or _mark(found) != target.mark:
                    yield target.names, CHANGED
                elif _owner(found) != pair:  # it must prove to be what it was found to be
                    yield target.names, FOREIGN
                else:
                    yield record_of("hash", target.names, found)

        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            return [("UNLINK", *(self._keys.agent(*_raw(record.names)) for record in records))]

        watched = self._watched_agents(pairs)
        change, records = self._change(watched, judge, commands, keep)
        self._survey.forget([self._keys.agent(*_raw(record.names)) for record in records])
        return change


def _raw(names: Sequence[str]) -> Raw:
    topic, name = names
    return to_bytes(topic), to_bytes(name)


def _text(pair: Raw) -> tuple[str, str]:
    return to_text(pair[0]), to_text(pair[1])


def _mark(stored: Stored | None) -> str:
    return NO_RECORD if stored is None else stored.shape


def _owner(stored: Stored) -> Raw | None:
    """Topic and name that a hash holds."""
    if stored.form != "hash":
        return None
    parts = iter(unpack_fields(stored.raw))
    fields = dict(zip(parts, parts, strict=True))
    topic, name = fields.get(b"topic"), fields.get(b"name")
    return None if topic is None or name is None else (topic, name)


def _splits(pair: Raw, topics: Iterable[bytes]) -> Iterator[Raw]:
    """All (topic, name) of these topics that have the key of this pair."""
    rest = b":".join(pair)
    for topic in topics:
        if rest.startswith(topic + b":"):
            yield topic, rest[len(topic) + 1 :]


def _spare_shared(
    pairs: Sequence[Raw], sharers: dict[Raw, list[Raw]], reasons: dict[Raw, str]
) -> None:
    """An agent goes with all that share its record, or stays: so does what shares with that one."""
    doomed = {pair for pair in pairs if pair not in reasons}
    for pair in pairs:
        if pair in doomed and not doomed.issuperset(sharers.get(pair, [])):
            reasons[pair] = SHARED


def _note(others: Sequence[Raw], asked: set[Raw]) -> str:
    if not others:
        return ""
    named = Counter(other in asked for other in others)
    shown = ", ".join(f"{name} of topic {topic}" for topic, name in map(_text, others[:_NAMED]))
    if len(others) > _NAMED:
        shown += f" and {len(others) - _NAMED} more"
    if not named[False]:
        return f"shares its record with {shown}, deleted together"
    return f"shares its record with {shown}, not all of them to be deleted{STAYS}"
