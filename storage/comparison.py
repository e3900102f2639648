"""What a restore would change: the records of an archive against all that a store holds.

Of each record only its names, a digest, its expiry and its age are held; the values are read from
the archive again when they are put (`Difference.chosen`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Literal, NamedTuple, get_args

import orjson

from storage.changes import Kind, Names, Record
from storage.records import moment, parse_json
from storage.redis_store.stored import unpack_fields
from storage.snapshots import Snapshot

Mode = Literal["merge", "replace"]
"""`merge`: what is only in the store stays, and of what is in both the newer: agents by created_at,
results by saved_at, the store's own where that cannot be told; events of both; of configuration
always the store's own. `replace`: the store becomes what the archive holds."""
Outcome = Literal["added", "replaced", "deleted"]

NAMED = 1000
"""How many records are named of all that are skipped, and of all that change."""

DOWNLOAD = "is for download only"
VOLATILE = "is what OmniDaemon notes while it runs"
LOOSE = "belongs to nothing, which a merge does not bring back"
NO_EVENT = "is no event, which a merge does not bring back"
FUTURE = "has a time in the future, and would stand in the way of later events"

_LOOSE_KINDS = frozenset({"entry", "member", "hash", "topic"})
_LASTING = _LOOSE_KINDS - {"entry"} | {"agent", "config"}
_JITTER = 10  # milliseconds: an old Redis tells only how long a key still lives
_AHEAD = 300  # seconds that another machine's clock may be ahead
_NEVER = -(1 << 63)
_STATE = Struct("<16sqdd")


@dataclass(slots=True)
class Tally:
    """Records of one kind. `kept`: the store's own is newer; `expired`: is not stored again."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0
    unchanged: int = 0
    kept: int = 0
    expired: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Difference:
    """`deleted` and `keep_events` are what `Staging.commit` asks. `digest` is another one where
    the store would lose something else, what does not expire has changed in it, or other agents or
    configuration would come; results and events come all the time, and do not count."""

    tallies: dict[Kind, Tally] = field(default_factory=lambda: {one: Tally() for one in _KINDS})
    reasons: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    skipped: list[tuple[Kind, Names, str]] = field(default_factory=list)
    changes: list[tuple[Kind, Names, Outcome]] = field(default_factory=list)
    deleted: list[tuple[Kind, Names]] = field(default_factory=list)
    keep_events: bool = True
    digest: str = ""
    _judgements: bytearray = field(default_factory=bytearray)

    def judged(self, records: Iterable[Record]) -> Iterator[tuple[Record, str, bool]]:
        """The same records in the same order as they were compared, each with what becomes of it
        (of one that is skipped: why), and whether it is to be put. ValueError if there are more or
        fewer."""
        put = {_ADDED, _REPLACED} if self.keep_events else {_ADDED, _REPLACED, _AMONG_ALL}
        for judgement, record in zip(self._judgements, records, strict=True):
            yield record, _SAID[judgement], judgement in put

    def chosen(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those of them that are to be put."""
        return (record for record, _, is_put in self.judged(records) if is_put)


_KINDS: tuple[Kind, ...] = get_args(Kind)
_SAID = (
    "added", "replaced", "unchanged", "unchanged", "kept", "expired",
    DOWNLOAD, VOLATILE, LOOSE, NO_EVENT, FUTURE,
)  # fmt: skip
_ADDED, _REPLACED, _UNCHANGED, _AMONG_ALL, _KEPT, _EXPIRED = range(6)
# An event that is as it was is put `among all` where the events that are there are replaced.


class _State(NamedTuple):
    digest: bytes
    expires_at_ms: int
    place: float  # in the index; NaN: in none
    age: float  # NaN: not known

    def same_as(self, other: _State) -> bool:
        return (
            self.digest == other.digest
            and abs(self.expires_at_ms - other.expires_at_ms) <= _JITTER
            and not abs(self.place - other.place) * 1000 > _JITTER
            and math.isnan(self.place) == math.isnan(other.place)
        )


class Comparison:
    """Is told all records of the store first, then those of the archive. `volatile` says which keys
    of configuration are neither restored nor deleted."""

    def __init__(self, mode: Mode, volatile: Callable[[str], bool] = lambda _: False) -> None:
        self._mode, self._volatile = mode, volatile
        self._now = time.time()
        self._stored: dict[Kind, dict[Names | str, bytes]] = {one: {} for one in _KINDS}
        self._agents: dict[Names, tuple[_State, list[int]]] = {}
        self._found = Difference()
        self._concerned = 0  # a sum: the order of the store's records means nothing
        self._events = {"stored": Counter[bytes](), "archived": Counter[bytes]()}

    def stored(self, records: Iterable[Record]) -> None:
        for record in records:
            if self._reason(record):
                continue
            if record.kind == "metrics":
                self._stored["metrics"][self._event(record, "stored")] = _digest(record)
            else:
                known, key = self._stored[record.kind], _key(record.names)
                state = self._state(record)
                if record.kind == "agent" and key in known:
                    state = _together(_State(*_STATE.unpack(known[key])), state)
                known[key] = _STATE.pack(*state)

    def archived(self, records: Iterable[Record]) -> None:
        for record in records:
            self._found._judgements.append(_UNCHANGED)
            place = len(self._found._judgements) - 1
            if reason := self._reason(record):
                self._skip(record, place, reason)
            elif record.kind == "metrics":
                self._judge_event(record, place)
            elif record.kind == "agent":
                state, places = self._state(record), [place]
                if record.names in self._agents:  # JSON may list two of one name
                    before, earlier = self._agents[record.names]
                    state, places = _together(before, state), [*earlier, place]
                self._agents[record.names] = state, places
            else:
                self._judge(record.kind, record.names, self._state(record), [place])

    def difference(self) -> Difference:
        """Once all of both are known."""
        found = self._found
        for names, (state, places) in self._agents.items():
            self._judge("agent", names, state, places)
        self._agents = {}
        if self._mode == "replace":
            self._delete_the_rest()
            events = found.tallies["metrics"]
            found.keep_events = not events.deleted and not events.replaced
        found.digest = f"{self._concerned % (1 << 128):032x}"
        return found

    # What a record is

    def _reason(self, record: Record) -> str:
        """Why it is not compared; empty if it is."""
        if record.kind == "file":
            return DOWNLOAD
        if record.kind == "config" and self._volatile(record.names[0]):
            return VOLATILE
        if record.kind in _LOOSE_KINDS and self._mode == "merge":
            return LOOSE
        if record.kind == "metrics" and record.form == "dump" and self._mode == "merge":
            return NO_EVENT
        return ""

    def _state(self, record: Record) -> _State:
        expires = _NEVER if record.expires_at_ms is None else record.expires_at_ms
        # The place of an agent in a list changes with those before it, and means nothing.
        place = math.nan if record.score is None or record.kind == "agent" else float(record.score)
        age = _age(record) if self._mode == "merge" else math.nan
        return _State(_digest(record), expires, place, age)

    def _event(self, record: Record, side: Literal["stored", "archived"]) -> str:
        """What an event is known by: its id, or where there is none what it says and how often
        that was said before."""
        if record.stream_id is not None:
            return record.stream_id
        digest = _event_digest(record.raw)
        self._events[side][digest] += 1
        return f"{digest.hex()} {self._events[side][digest]}"

    # What becomes of it

    def _judge(self, kind: Kind, names: Names, state: _State, places: Sequence[int]) -> None:
        tally, known = self._found.tallies[kind], self._stored[kind]
        raw, count = known.get(_key(names)), len(places)
        before = None if raw is None else _State(*_STATE.unpack(raw))
        if before is not None and before.same_as(state):
            tally.unchanged += count
            self._mark(places, _UNCHANGED)
        elif _NEVER < state.expires_at_ms <= self._now * 1000:
            tally.expired += count
            self._mark(places, _EXPIRED)
            return  # in a replacement, what the store holds instead is deleted
        elif before is None:
            tally.added += count
            self._mark(places, _ADDED)
            self._name(kind, names, "added")
            self._come(kind, names, state)
        elif self._mode == "replace" or (kind != "config" and state.age > before.age):
            tally.replaced += count
            self._mark(places, _REPLACED)
            self._name(kind, names, "replaced")
            self._concern(kind, names, before.digest)
            self._come(kind, names, state)
        else:
            tally.kept += count
            self._mark(places, _KEPT)
        if before is not None:
            if _NEVER in (before.expires_at_ms, state.expires_at_ms):
                self._concern(kind, names, before.digest)
            del known[_key(names)]

    def _judge_event(self, record: Record, place: int) -> None:
        tally = self._found.tallies["metrics"]
        digest = _digest(record)
        if _milliseconds(record.stream_id) > (self._now + _AHEAD) * 1000:
            return self._skip(record, place, FUTURE)
        before = self._stored["metrics"].pop(self._event(record, "archived"), None)
        if before is None:
            tally.added += 1
            self._mark([place], _ADDED)
            self._name("metrics", record.names, "added")
        elif record.stream_id is None or before == digest:
            tally.unchanged += 1
            self._mark([place], _AMONG_ALL)
        elif self._mode == "merge":
            tally.kept += 1
            self._mark([place], _KEPT)
        else:
            tally.replaced += 1
            self._mark([place], _REPLACED)
            self._name("metrics", record.names, "replaced")
            self._concern("metrics", record.names, before)

    def _delete_the_rest(self) -> None:
        found = self._found
        for kind, known in self._stored.items():
            found.tallies[kind].deleted += len(known)
            for key, raw in known.items():
                names = (key,) if isinstance(key, str) else key
                self._concern(kind, names, raw[:16])
                self._name(kind, names, "deleted")
                if kind != "metrics":
                    found.deleted.append((kind, names))

    def _skip(self, record: Record, place: int, reason: str) -> None:
        self._found.tallies[record.kind].skipped += 1
        self._found.reasons[record.kind, reason] += 1
        self._mark([place], _SAID.index(reason))
        if len(self._found.skipped) < NAMED:
            self._found.skipped.append((record.kind, record.names, reason))

    def _mark(self, places: Iterable[int], judgement: int) -> None:
        for place in places:
            self._found._judgements[place] = judgement

    def _name(self, kind: Kind, names: Names, outcome: Outcome) -> None:
        if len(self._found.changes) < NAMED:
            self._found.changes.append((kind, names, outcome))

    def _come(self, kind: Kind, names: Names, state: _State) -> None:
        if kind in _LASTING:
            self._concern(kind, names, b"comes " + state.digest)

    def _concern(self, kind: Kind, names: Names, digest: bytes) -> None:
        said = repr((kind, names)).encode("ascii", "backslashreplace") + digest
        self._concerned += int.from_bytes(hashlib.blake2b(said, digest_size=16).digest(), "big")


def compare(
    records: Iterable[Record], target: Snapshot, mode: Mode,
    volatile: Callable[[str], bool] = lambda _: False,
) -> Difference:  # fmt: skip
    comparison = Comparison(mode, volatile)
    for batch in target:
        comparison.stored(batch)
    comparison.archived(records)
    return comparison.difference()


@dataclass(slots=True)
class Identity:
    """`compared` records of the archive, and how many of both sides have no equal on the other;
    the first of these are named, each with what is wrong."""

    compared: int
    differing: int
    named: list[tuple[Kind, Names, str]]


_WRONG: dict[Outcome, str] = {
    "added": "is missing",
    "replaced": "is not the same",
    "deleted": "was never in the archive",
}


def identical(records: Iterable[Record], found: Snapshot) -> Identity:
    """Whether a store that was made of these records is what they say. What has expired meanwhile
    need not be there; the files of a directory are not looked at."""
    difference = compare(records, found, "replace")
    tallies = difference.tallies.values()
    return Identity(
        sum(one.added + one.replaced + one.unchanged + one.expired for one in tallies),
        sum(one.added + one.replaced + one.deleted for one in tallies),
        [(kind, names, _WRONG[outcome]) for kind, names, outcome in difference.changes],
    )


def _key(names: Names) -> Names | str:
    return names[0] if len(names) == 1 else names


def _digest(record: Record) -> bytes:
    raw = record.raw
    if record.form == "hash":  # Redis lists the fields of a hash in any order
        raw = orjson.dumps(sorted(orjson.loads(raw)))
    return hashlib.blake2b(record.form.encode() + b" " + raw, digest_size=16).digest()


def _event_digest(raw: bytes) -> bytes:
    """The same for the same event, however it is laid out."""
    value, problem = parse_json(raw)
    if not problem:
        try:
            raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except (orjson.JSONEncodeError, TypeError):
            raw = repr(value).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=16).digest()


def _together(one: _State, other: _State) -> _State:
    """Two agents of one name, in their order."""
    digest = hashlib.blake2b(one.digest + other.digest, digest_size=16).digest()
    return other._replace(digest=digest, age=max(one.age, other.age))


def _age(record: Record) -> float:
    if record.kind == "result":
        value = parse_json(record.raw)[0] if record.form == "text" else None
        found = moment(value.get("saved_at")) if isinstance(value, dict) else None
    elif record.kind == "agent":
        found = moment(_created_at(record))
    else:
        found = None
    return found if isinstance(found, float) else math.nan


def _created_at(record: Record) -> object:
    if record.form == "hash":
        parts = unpack_fields(record.raw)
        return dict(zip(parts[::2], parts[1::2], strict=True)).get(b"created_at")
    value = parse_json(record.raw)[0] if record.form == "text" else None
    return value.get("created_at") if isinstance(value, dict) else None


def _milliseconds(stream_id: str | None) -> int:
    return int(stream_id.partition("-")[0]) if stream_id else 0
