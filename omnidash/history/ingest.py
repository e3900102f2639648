"""Reading a store's new events into the roll-ups, each exactly once.

The cursor and everything that an event changes are written in one transaction, which begins by
replacing the version that was current when the store was read. Whoever finds another version there
has been overtaken and writes nothing, so several processes may ingest at once, and one that is
killed leaves all of a batch or nothing.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeGuard

from django.db import transaction
from django.db.models import Count, F

from omnidash.history import rows
from omnidash.history.failures import normalised
from omnidash.history.levels import LEVELS, written
from omnidash.history.names import shortened
from omnidash.history.recent import noted
from omnidash.history.tally import Tally
from omnidash.models import Gap, Mark, Source, Subject
from storage.base import MetricBatch
from storage.records import Metric, Moment, to_bytes

AHEAD = 600.0  # seconds that the clock of an event may be ahead of ours and still be believed
_CHANGES = 50  # versions whose changes are remembered

# Subjects that are told apart in one source, so that names made up by a program cannot fill the
# database; what is beyond is counted together under a name that says so.
MOST = {Subject.Kind.TOPIC: 20_000, Subject.Kind.AGENT: 50_000, Subject.Kind.ERROR: 5_000}
FURTHER = "(further ones, counted together)"

FINEST = LEVELS[0]
STATE_CHANGE = "agent_state_change"

Name = tuple[str, str, str, str]
"""Topic, agent, error type and message; empty where a subject has none."""
Key = tuple[int, Name]
"""A subject's kind and name."""


@dataclass(slots=True)
class Digest:
    """What the events of one batch come to."""

    tallies: dict[Key, dict[int, Tally]] = field(default_factory=dict)
    """By subject and start of the finest interval."""
    newest: dict[Key, list[Metric]] = field(default_factory=lambda: defaultdict(list))
    marks: list[tuple[float, Metric]] = field(default_factory=list)
    unreadable: int = 0
    undated: int = 0
    untimed: int = 0
    first: float = math.inf
    last: float = -math.inf

    def add(self, event: Metric, now: float) -> None:
        if event.event == "unreadable":
            self.unreadable += 1
            return
        at = moment_of(event, now)
        if at is None:
            self.undated += 1
            return
        self.first, self.last = min(self.first, at), max(self.last, at)
        if event.problem:
            self.untimed += 1
        if event.event == STATE_CHANGE:
            self.marks.append((at, event))
        event.timestamp = at
        self._count(event, int(at // FINEST) * FINEST)

    def _count(self, event: Metric, start: int) -> None:
        if event.event == STATE_CHANGE:  # of a supervisor; it names no topic
            self._tally((Subject.Kind.ALL, ("", "", "", "")), start).add(event)
            return
        agent = (Subject.Kind.AGENT, (event.topic, event.agent, "", ""))
        self._tally(agent, start).add(event)
        self.newest[agent].append(event)
        if event.event == "task_failed":
            name = (event.topic, event.agent, event.error_type[:200], normalised(event.error))
            error = (Subject.Kind.ERROR, name)
            self._tally(error, start).add(event)
            self.newest[error].append(event)

    def _tally(self, key: Key, start: int) -> Tally:
        starts = self.tallies.get(key)
        if starts is None:
            starts = self.tallies[key] = {}
        tally = starts.get(start)
        if tally is None:
            tally = starts[start] = Tally()
        return tally

    def summed(self) -> dict[Key, dict[int, Tally]]:
        """With the topics and the whole, made up of the agents."""
        whole = self.tallies.setdefault((Subject.Kind.ALL, ("", "", "", "")), {})
        for (kind, name), starts in list(self.tallies.items()):
            if kind == Subject.Kind.AGENT:
                topic = self.tallies.setdefault((Subject.Kind.TOPIC, (name[0], "", "", "")), {})
                _merge(topic, starts)
                _merge(whole, starts)
        return self.tallies


def _merge(into: dict[int, Tally], starts: dict[int, Tally]) -> None:
    for start, tally in starts.items():
        _merge_one(into, start, tally)


def _merge_one(into: dict[int, Tally], start: int, tally: Tally) -> None:
    known = into.get(start)
    if known is None:
        into[start] = tally.copy()
    else:
        known.merge(tally)


def moment_of(event: Metric, now: float) -> float | None:
    """When an event happened: as it says itself, unless that lies in the future or before all that
    is kept; then when the store took it. None if neither is a time."""
    for at in (event.timestamp, event.stored_at):
        if _can_be(at, now):
            return at
    return None


def stored_of(event: Metric, now: float) -> float | None:
    """When the store took an event, or where it does not tell, when the event says it happened."""
    for at in (event.stored_at, event.timestamp):
        if _can_be(at, now):
            return min(at, now)
    return None


def _can_be(at: Moment, now: float) -> TypeGuard[float]:
    return isinstance(at, float) and at <= now + AHEAD and written(LEVELS[-1], at, now)


def key_of(source: Source, kind: int, name: Name) -> bytes:
    """What a subject is found by, whatever its names hold."""
    parts = [f"{source.pk} {kind}".encode(), *map(to_bytes, name)]
    sized = b"".join(b"%d:%s" % (len(part), part) for part in parts)
    return blake2b(sized, digest_size=16).digest()


def digest_of(events: Iterable[Metric], now: float) -> Digest:
    digest = Digest()
    for event in events:
        digest.add(event, now)
    return digest


def take(source: Source, batch: MetricBatch, now: float) -> bool:
    """Write what a batch read after the source's cursor means, and bring the source up to date.
    False, and nothing written, if somebody else has meanwhile."""
    digest = digest_of(batch.events, now)
    changes = json.loads(source.changes)[-_CHANGES + 1 :]
    earliest = digest.first if digest.first < math.inf else now
    gap = _gap(source, batch, now) if batch.gap else None
    if gap:
        earliest = min(earliest, gap[0])
    since = source.since
    if since is None:
        since = next((at for at in (stored_of(event, now) for event in batch.events) if at), None)
        earliest = min(earliest, since or now)
    news = {
        "cursor": batch.cursor,
        "version": F("version") + 1,
        "changes": json.dumps([*changes, [source.version + 1, earliest]]),
        "events": F("events") + len(batch.events),
        "unreadable": F("unreadable") + digest.unreadable,
        "undated": F("undated") + digest.undated,
        "untimed": F("untimed") + digest.untimed,
        "since": since,
        "newest": _greatest(source.newest, digest.last),
        "read_at": _read_until(source, batch, now),
    }
    with transaction.atomic():
        current = Source.objects.filter(pk=source.pk, version=source.version)
        if not current.update(**news):
            return False
        _write(source, digest, now)
        if gap:
            Gap.objects.create(source=source, start=gap[0], end=gap[1])
    source.refresh_from_db()
    return True


def _write(source: Source, digest: Digest, now: float) -> None:
    tallies = digest.summed()
    subjects = _subjects(source, tallies, digest)
    found: dict[rows.Place, Tally] = {}
    for key, starts in tallies.items():
        for place, tally in _levels(subjects[key], starts, now):
            if place in found:
                found[place].merge(tally)
            else:
                found[place] = tally
    rows.add(found)
    Mark.objects.bulk_create([_mark(source, *found) for found in digest.marks], batch_size=500)


def _levels(
    subject: int, starts: dict[int, Tally], now: float
) -> Iterable[tuple[rows.Place, Tally]]:
    """The tallies of each level; a coarser one is made up of the next finer."""
    for level in LEVELS:
        if level != FINEST:
            coarser: dict[int, Tally] = {}
            for start, tally in starts.items():
                _merge_one(coarser, start // level * level, tally)
            starts = coarser
        for start, tally in starts.items():
            if written(level, start, now):
                yield (subject, level, start), tally


def _subjects(source: Source, tallies: Iterable[Key], digest: Digest) -> dict[Key, int]:
    """The ids of the subjects; new ones are added, and all learn what was seen last of them."""
    keys = {key: key_of(source, *key) for key in tallies}
    known = rows.subjects(keys.values())
    fresh = [key for key in keys if keys[key] not in known]
    if fresh:
        names = _within_limits(source, fresh)
        keys |= {key: key_of(source, *name) for key, name in names.items()}
        added = [
            _subject(source, name, key_of(source, *name)) for name in dict.fromkeys(names.values())
        ]
        Subject.objects.bulk_create(added, batch_size=500, ignore_conflicts=True)
        known |= rows.subjects(bytes(subject.key) for subject in added)
    newest: dict[bytes, list[Metric]] = defaultdict(list)
    for key, events in digest.newest.items():
        newest[keys[key]] += events  # of several keys, where they are counted together
    rows.see(noted(known[raw], events) for raw, events in newest.items())
    return {key: known[raw].id for key, raw in keys.items()}


def _within_limits(source: Source, fresh: list[Key]) -> dict[Key, Key]:
    """What each new subject is stored as: itself, as long as there is room for its kind."""
    stored = Subject.objects.filter(source=source).values_list("kind").annotate(Count("pk"))
    room = {kind: MOST[Subject.Kind(kind)] - count for kind, count in stored if kind in MOST}
    names: dict[Key, Key] = {}
    for key in fresh:
        kind = key[0]
        left = room.get(kind, MOST.get(Subject.Kind(kind), 1))
        room[kind] = left - 1
        further = ("", "", "", FURTHER) if kind == Subject.Kind.ERROR else (FURTHER, "", "", "")
        names[key] = key if left > 0 else (kind, further)
    return names


def _subject(source: Source, key: Key, raw: bytes) -> Subject:
    kind, name = key
    topic, agent, error_type, message = (to_bytes(shortened(part)) for part in name)
    return Subject(
        source=source, kind=kind, key=raw, topic=topic, agent=agent,
        error_type=error_type, message=message,
    )  # fmt: skip


def _mark(source: Source, at: float, event: Metric) -> Mark:
    text = f"{event.old_state or '?'} → {event.new_state or '?'}"
    return Mark(
        source=source, at=at, kind=Mark.Kind.STATE,
        subject=to_bytes(shortened(event.agent)), text=to_bytes(text[:200]),
    )  # fmt: skip


def _gap(source: Source, batch: MetricBatch, now: float) -> tuple[float, float] | None:
    """From the newest event that was read before to the first later one that was read now, in the
    order of the store; None if nothing was read before."""
    # The newest may be one whose clock is ahead.
    start = min((at for at in (source.newest, source.read_at) if at is not None), default=now)
    times = (moment_of(event, now) for event in batch.events)
    end = next((at for at in times if at is not None and at > start), now)
    return (start, end) if start < end else None


def _read_until(source: Source, batch: MetricBatch, now: float) -> float | None:
    """The moment up to which all that the store took is read."""
    if not batch.more:
        return now
    found = stored_of(batch.events[-1], now)
    return source.read_at if found is None else max(found, source.read_at or found)


def _greatest(known: float | None, found: float) -> float | None:
    return known if found == -math.inf else found if known is None else max(known, found)
