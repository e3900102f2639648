"""What a restore stages: a store of its own prefix beside the real one, which expires by itself."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import orjson

from storage.base import StoreError, StoreReadOnly
from storage.changes import EXPIRED, Change, Record
from storage.records import to_bytes
from storage.redis_store.agent_reading import UNLISTED
from storage.redis_store.changing import UNFIT
from storage.redis_store.client import Client, parse_info
from storage.redis_store.events import Id, event_fields
from storage.redis_store.keys import Keys
from storage.redis_store.portions import many
from storage.redis_store.replies import Command, ResponseError, require_no_error, unexpected
from storage.redis_store.result_reading import Expiries
from storage.redis_store.scan import walk
from storage.redis_store.snapshot import RedisSnapshot
from storage.redis_store.stored import PORTION, Skip, unpack_fields
from storage.redis_store.whole_values import framed, unframed
from storage.snapshots import Section, Snapshot

HEAD = "omnidash:restore:"  # outside of any prefix of OmniDaemon's
KEPT = 3_600_000  # milliseconds after which what was staged and never finished is gone
_MOST = 250  # records written at once
_INDEXED = 5  # commands of an index at once
_OVERHEAD = 150  # bytes of Redis' own for each record
_AHEAD = 300_000  # milliseconds that an event may be ahead of the server's clock
_LAST = 2**64  # above both halves of an id
_NEVER = 2**62  # milliseconds; no time that Redis could hold is later

_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_NAMELESS = Keys(b"")
_WITHOUT = len(_NAMELESS.head)
TOPICS, INDEX, STREAM = (
    key[_WITHOUT:] for key in (_NAMELESS.topics, _NAMELESS.results_index, _NAMELESS.metrics)
)  # keys without their prefix

_FORMS: dict[str, tuple[tuple[str, ...], int]] = {
    "agent": (("hash", "dump"), 2), "hash": (("hash", "dump"), 2), "member": (("none",), 2),
    "topic": (("none", "text", "dump"), 1), "result": (("text", "dump"), 1),
    "entry": (("none",), 1), "config": (("text", "dump"), 1),
}  # fmt: skip
"""What the records of a kind may be, and how many names they have."""

Named = tuple[Record, list[bytes], bytes | None, str | None]
"""A record with its names, where its value lies, and its score as Redis would say it."""

FUTURE = "its id lies in the future, and no later event could be stored any more"
UNORDERED = "its id does not follow that of the event before it"
UNSCORED = "its place in the index is no number"
FULL = "has no room for what is to be restored; nothing was changed"


class Scratch:
    """Under `omnidash:restore:{token}:`, with the names that the store itself has. What is put is
    remembered by name: the expiry of each value, members, scores; the values are only there."""

    def __init__(self, client: Client, expiries: Expiries, token: str) -> None:
        self._client, self._expiries = client, expiries
        self.keys = Keys(f"{HEAD}{token}".encode())
        self.values: dict[bytes, int | None] = {}  # by key without the prefix
        self.members: dict[bytes, dict[bytes, bool]] = {}  # by topic; whether there is a record
        self.topics: dict[bytes, bool] = {}  # put by themselves, and whether they are listed
        self.odd_topics: set[bytes] = set()
        self.scores: dict[bytes, str | None] = {}
        self.events = 0
        self.began = time.monotonic()
        self._last: Id = (0, 0)

    def put(self, records: Sequence[Record]) -> Change:
        change = Change()
        size = sum(len(one.raw) for one in records) + _OVERHEAD * len(records)
        now = self._now_if_room_for(size)
        lasting = list[Record]()
        for record in records:
            reason = self._obstacle(record, now)
            if reason:
                change.skipped.append((record.names, reason))
            else:
                lasting.append(record)
        change.skipped += self._write(lasting)
        change.done = len(records) - len(change.skipped)
        return change

    def _obstacle(self, record: Record, now: int) -> str:
        """An error inside of a transaction undoes nothing, so what would be one must not get there.
        Takes note of the last event."""
        if record.expires_at_ms is not None and record.expires_at_ms <= now:
            return EXPIRED
        if record.expires_at_ms is not None and record.expires_at_ms >= _NEVER:
            return UNFIT
        if record.form == "hash" and not _has_fields(record.raw):
            return UNFIT
        if record.score is not None and not _is_score(record.score):
            return UNSCORED
        if record.kind != "metrics" or record.form == "dump":
            return "" if _has_form(record) else UNFIT
        name = _event_id(record)
        if name is None or record.form not in ("text", "hash"):
            return UNFIT
        if name[0] > now + _AHEAD:
            return FUTURE
        if name <= self._last:
            return UNORDERED
        self._last = name
        return ""

    def room_for(self, commands: int) -> None:
        """For so many commands that wait for their transaction."""
        self._now_if_room_for(commands * _OVERHEAD)

    def _now_if_room_for(self, size: int) -> int:
        """Milliseconds of the server's clock. Redis itself refuses only what is beyond the limit;
        or evicts somebody's keys for it."""
        clock, memory = self._client.pipe([("TIME",), ("INFO", "memory")], denied_ok=True)
        if isinstance(clock, ResponseError):
            raise self._client.refused(clock, ("TIME",)) or unexpected(clock, ("TIME",))
        info = parse_info(memory)
        limit = int(info.get("maxmemory", "0"))
        if limit and int(info.get("used_memory", "0")) + size >= limit:
            raise StoreReadOnly(f"{self._client.name} {FULL}")
        seconds, micros = clock
        return int(seconds) * 1000 + int(micros) // 1000

    def _write(self, records: Sequence[Record]) -> list[Skip]:
        """A DUMP by itself: it may be of another version, which only trying it shows."""
        skipped: list[Skip] = []
        for is_dump, run in groupby(records, lambda record: record.form == "dump"):
            if not is_dump:
                self._write_run(list(run))
                continue
            for record in run:
                try:
                    self._write_run([record])
                except StoreError as error:
                    if type(error) is not StoreError:  # the server's trouble, not the record's
                        raise
                    skipped.append((record.names, UNFIT))
        return skipped

    def _write_run(self, records: Sequence[Record]) -> None:
        """In transactions, so that nothing is ever there that does not expire. Redis works on one
        while the next is made."""
        sent: deque[tuple[list[Named], list[Command]]] = deque()

        def transactions() -> Iterator[list[Command]]:
            for some in _portions(records):
                named = [_named(record) for record in some]
                sent.append((named, self._storing(named)))
                yield framed(sent[-1][1])

        for replies in self._client.stream(transactions()):
            named, commands = sent.popleft()
            require_no_error(unframed(replies), commands)
            for one in named:
                self._remember(*one)

    def _storing(self, named: Sequence[Named]) -> list[Command]:
        commands = [
            command for record, _, rest, _ in named if rest is not None
            for command in _storing(self.keys.head + rest, record)
        ]  # fmt: skip
        if any(rest == STREAM for _, _, rest, _ in named):
            commands.append(("PEXPIRE", self.keys.metrics, KEPT))
        return commands

    def _remember(
        self, record: Record, names: Sequence[bytes], rest: bytes | None, score: str | None
    ) -> None:
        kind = record.kind
        if rest is not None:
            self.values[rest] = record.expires_at_ms
        if kind in ("result", "entry") and names:
            self.scores[names[0]] = score
        elif kind == "metrics" and record.form != "dump":
            self.events += 1
        elif kind in ("agent", "member"):
            self.members.setdefault(names[0], {})[names[1]] = kind == "agent"
        elif kind == "topic" and names:
            self.topics[names[0]] = record.raw != UNLISTED or record.form == "dump"
            if record.form == "dump":
                self.odd_topics.add(names[0])

    def index_keys(self) -> list[bytes]:
        """Of what is staged and never takes a place in the store."""
        return [
            self.keys.topics, self.keys.results_index,
            *(self.keys.topic(topic) for topic in self.members),
        ]  # fmt: skip

    def discard(self) -> None:
        discard(self._client, self.keys)

    def staged(self) -> Snapshot:
        """Only who reads it back needs indexes: a commit makes those of the store itself."""
        commands = [*self._indexing()]
        for start in range(0, len(commands), _INDEXED):
            some = commands[start : start + _INDEXED]
            keys = dict.fromkeys(command[1] for command in some)
            self._client.write([*some, *(("PEXPIRE", key, KEPT) for key in keys)])
        return _Staged(RedisSnapshot(self._client, self.keys, self._expiries), self.values)

    def _indexing(self) -> Iterator[Command]:
        """What the indexes are to say, those of them that are none of the wrong type."""
        topics = {topic: self.topics.get(topic, True) for topic in (*self.members, *self.topics)}
        for topic in self.members.keys() - self.odd_topics:
            yield from many(("SADD", self.keys.topic(topic)), self.members[topic])
        if TOPICS not in self.values:
            listed = (topic for topic, is_listed in topics.items() if is_listed)
            yield from many(("SADD", self.keys.topics), listed)
        if INDEX not in self.values:
            yield from many(("ZADD", self.keys.results_index), self.places())

    def places(self) -> Iterator[bytes | str]:
        """Scores and members of the index: in their order, which Redis stores four times faster."""
        found = ((float(score), score, one) for one, score in self.scores.items() if score)
        for _, score, one in sorted(found):
            yield from (score, one)


class _Staged(Snapshot):
    """As it is to be stored: until then all of it expires within the hour."""

    def __init__(self, snapshot: Snapshot, expiries: dict[bytes, int | None]) -> None:
        self._snapshot, self._expiries = snapshot, expiries

    def __iter__(self) -> Iterator[Sequence[Record]]:
        for batch in self._snapshot:
            self.total = self._snapshot.total
            yield [replace(record, expires_at_ms=self._expiry(record)) for record in batch]

    def _expiry(self, record: Record) -> int | None:
        rest = _value_key(record, [*map(to_bytes, record.names)])
        return None if rest is None else self._expiries.get(rest)

    def sections(self) -> list[Section]:
        return self._snapshot.sections()


def _named(record: Record) -> Named:
    names = [*map(to_bytes, record.names)]
    score = None if record.score is None else repr(float(record.score))
    return record, names, _value_key(record, names), score


def _value_key(record: Record, names: Sequence[bytes]) -> bytes | None:
    """Where its value lies, without the prefix; None where it is only a name."""
    kind = record.kind
    if kind == "metrics":
        return STREAM
    if kind == "result":
        key = _NAMELESS.result(names[0])
    elif kind == "config":
        key = _NAMELESS.config(names[0])
    elif kind in ("agent", "hash"):
        key = _NAMELESS.agent(names[0], names[1])
    elif kind == "topic" and record.form == "dump":
        key = _NAMELESS.topic(names[0]) if names else _NAMELESS.topics
    elif kind == "entry" and not names:
        key = _NAMELESS.results_index
    else:
        return None
    return key[_WITHOUT:]


def _storing(key: bytes, record: Record) -> list[Command]:
    if record.form == "dump":
        return [("RESTORE", key, KEPT, record.raw, "REPLACE")]
    if record.kind == "metrics":
        name = record.stream_id or record.names[0]
        return [("XADD", key, name if "-" in name else f"{name}-0", *event_fields(record))]
    if record.form == "hash":
        return [("UNLINK", key), ("HSET", key, *unpack_fields(record.raw)), ("PEXPIRE", key, KEPT)]
    return [("SET", key, record.raw, "PX", KEPT)]


def discard(client: Client, keys: Keys) -> None:
    for some in walk(client, keys.head):
        for start in range(0, len(some), _MOST):
            client.write([("UNLINK", *some[start : start + _MOST])], deleting=True)


def _has_form(record: Record) -> bool:
    """Whether it is something that a snapshot of Redis gives."""
    if record.form == "dump" and not record.names:
        return record.kind in ("topic", "entry", "metrics")
    allowed, count = _FORMS.get(record.kind, ((), 0))
    is_placed = record.score is None or record.kind in ("result", "entry")
    return record.form in allowed and len(record.names) == count and is_placed


def _has_fields(raw: bytes) -> bool:
    try:
        return bool(unpack_fields(raw)) and all(len(pair) == 2 for pair in orjson.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return False


def _is_score(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _event_id(record: Record) -> Id | None:
    found = _ID.fullmatch(record.stream_id or "".join(record.names[:1]))
    if found is None:
        return None
    name = int(found[1]), int(found[2] or 0)
    return name if max(name) < _LAST and name > (0, 0) else None


def _portions(records: Sequence[Record]) -> Iterator[list[Record]]:
    some, size = list[Record](), 0
    for record in records:
        if some and (len(some) == _MOST or size + len(record.raw) > PORTION):
            yield some
            some, size = [], 0
        some.append(record)
        size += len(record.raw)
    if some:
        yield some
