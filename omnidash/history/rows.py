"""The roll-ups' tables, by SQL that SQLite and PostgreSQL both speak.

Django's objects would take longer than everything else: a refresh touches a thousand rows, a month
of a page reads ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, product
from typing import Any

from django.db import connection

from omnidash.history.levels import Span, level_of
from omnidash.history.names import shortened
from omnidash.history.recent import Seen
from omnidash.history.tally import COLUMNS, Tally
from omnidash.models import Subject
from storage.records import to_bytes, to_text

Place = tuple[int, int, int]
"""Subject's id, level, start."""
Part = tuple[int, int, int]
"""Level, start, end: the rows of a level that begin in [start, end)."""

_AT_ONCE = 5000  # places in one query: SQLite takes 32,766 parameters

_COLUMNS = ", ".join(COLUMNS)
_FIND = (
    "WITH wanted(subject_id, level, start) AS (VALUES {places}) "
    f"SELECT subject_id, level, start, {_COLUMNS} "
    "FROM wanted JOIN omnidash_rollup USING (subject_id, level, start)"
)
_SAVE = (
    f"INSERT INTO omnidash_rollup (subject_id, level, start, {_COLUMNS}) "
    f"VALUES ({', '.join(['%s'] * (3 + len(COLUMNS)))}) "
    "ON CONFLICT (subject_id, level, start) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
)
_SEE = "UPDATE omnidash_subject SET first_seen = %s, last_seen = %s, recent = %s WHERE id = %s"
_OF_SUBJECTS = (
    f"SELECT subject_id, start, {_COLUMNS} FROM omnidash_rollup "
    "WHERE subject_id IN ({subjects}) AND level = %s AND start >= %s AND start < %s"
)


def add(found: dict[Place, Tally]) -> None:
    """Add tallies to the rows at their places. In a transaction that keeps others from doing so."""
    for some in _portions(sorted(found)):
        for place, stored in _find(some):
            found[place].merge(stored)
    save(found)


def save(found: dict[Place, Tally]) -> None:
    """Put rows at their places, whatever is there."""
    with connection.cursor() as cursor:
        cursor.executemany(_SAVE, [(*place, *found[place].row()) for place in sorted(found)])


def _find(places: Sequence[Place]) -> Iterator[tuple[Place, Tally]]:
    query = _FIND.format(places=", ".join(["(%s, %s, %s)"] * len(places)))
    with connection.cursor() as cursor:
        cursor.execute(query, list(chain.from_iterable(places)))
        for subject, level, start, *row in cursor.fetchall():
            yield (subject, level, start), Tally.of(row)


def subjects(keys: Iterable[bytes]) -> dict[bytes, Seen]:
    """Those of the subjects that are stored, by key."""
    found: dict[bytes, Seen] = {}
    for some in _portions(list(keys)):
        query = Subject.objects.filter(key__in=some)
        for row in query.values_list("key", "id", "first_seen", "last_seen", "recent"):
            found[bytes(row[0])] = Seen(*row[1:])
    return found


def see(seen: Iterable[Seen]) -> None:
    """Store what subjects have become."""
    changes = [(one.first_seen, one.last_seen, one.recent, one.id) for one in seen]
    with connection.cursor() as cursor:
        cursor.executemany(_SEE, changes)


def of_subjects(subjects: Sequence[int], part: Part) -> Iterator[tuple[int, int, Tally]]:
    """(subject, start, tally) of the rows of a part."""
    level, start, end = part
    for some in _portions(subjects):
        query = _OF_SUBJECTS.format(subjects=", ".join(["%s"] * len(some)))
        with connection.cursor() as cursor:
            cursor.execute(query, [*some, level, start, end])
            for subject, at, *row in cursor.fetchall():
                yield subject, at, Tally.of(row)


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


# Sums


@dataclass(frozen=True, slots=True)
class Found:
    """An agent that has rows in the parts that were asked for."""

    subject: int
    topic: str
    agent: str
    last_seen: float | None


@dataclass(frozen=True, slots=True)
class ErrorSums:
    """A kind of failure of an agent, and how often it was in the rows that were asked for."""

    subject: int
    topic: str
    agent: str
    error_type: str
    message: str
    first_seen: float | None
    last_seen: float | None
    count: int


_ADDED = (
    "SUM(received) AS received, SUM(processed) AS processed, SUM(failed) AS failed, "
    "SUM(other) AS other, SUM(timed) AS timed, SUM(seconds) AS seconds, "
    "MIN(low) AS low, MAX(high) AS high"
)
_PLAIN = "received, processed, failed, other, timed, seconds, low, high"
_SUMS = f"SELECT {_ADDED} FROM omnidash_rollup"
_IN_PART = "level = %s AND start >= %s AND start < %s"
# What is added up of a subject's rows to put it in order, and the order. Of equals, who was seen
# first comes first: names would have to be read of all of them.
_NAMES = {"topic": "topic, agent", "agent": "agent, topic", "last_seen": "last_seen DESC, id"}
_VALUES = {
    "ended": "SUM(processed + failed)",
    "received": "SUM(received)",
    "processed": "SUM(processed)",
    "failed": "SUM(failed)",
    "max": "MAX(COALESCE(high, 0))",
}


def _grouped(
    value: str, parts: Sequence[Part], source: int, kind: int, topic: str | None, agent: str | None
) -> tuple[str, list[Any]]:
    """A query that begins with `found`: the subjects of a kind, and of a name if given, that have
    rows in the parts, and a value of these."""
    names = {"topic": topic, "agent": agent}
    wanted = {name: to_bytes(shortened(one)) for name, one in names.items() if one is not None}
    condition = "source_id = %s AND kind = %s" + "".join(f" AND {name} = %s" for name in wanted)
    chosen = f"SELECT id FROM omnidash_subject WHERE {condition}"
    one = (
        "SELECT subject_id, received, processed, failed, high FROM omnidash_rollup "
        f"WHERE {_IN_PART} AND subject_id IN (SELECT id FROM chosen)"
    )
    return (
        f"WITH chosen AS ({chosen}), found AS (SELECT subject_id, {value} AS value "
        f"FROM ({' UNION ALL '.join([one] * len(parts))}) AS parts GROUP BY subject_id)",
        [source, kind, *wanted.values(), *chain.from_iterable(parts)],
    )


def agents(
    source: int,
    parts: Sequence[Part],
    topic: str | None,
    agent: str | None,
    order: str,
    offset: int,
    limit: int | None,
) -> tuple[list[Found], int]:
    """A page of the agents that have rows in the parts, and how many there are."""
    kind, value = Subject.Kind.AGENT, _VALUES.get(order, "COUNT(*)")
    found, values = _grouped(value, parts, source, kind, topic, agent)
    page = [2**31 if limit is None else limit, offset]
    if order in _NAMES:
        query = (
            f"{found} SELECT COUNT(*) OVER (), id, topic, agent, last_seen "
            "FROM found JOIN omnidash_subject ON id = subject_id "
            f"ORDER BY {_NAMES[order]} LIMIT %s OFFSET %s"
        )
    else:  # names of those on the page only
        query = (
            f"{found} SELECT total, id, topic, agent, last_seen FROM (SELECT COUNT(*) OVER () AS "
            "total, subject_id, value FROM found ORDER BY value DESC, subject_id LIMIT %s OFFSET "
            "%s) AS page JOIN omnidash_subject ON id = subject_id ORDER BY value DESC, id"
        )
    with connection.cursor() as cursor:
        cursor.execute(query, [*values, *page])
        rows = cursor.fetchall()
    return [
        Found(subject, _name(topic), _name(agent), last_seen)
        for _, subject, topic, agent, last_seen in rows
    ], rows[0][0] if rows else 0


def _plain(value: Any) -> Any:
    """PostgreSQL sums integers into decimals."""
    return int(value) if isinstance(value, Decimal) else value


def errors(
    source: int, parts: Sequence[Part], topic: str | None, agent: str | None
) -> list[ErrorSums]:
    """The kinds of failure that have rows in the parts."""
    kind, value = Subject.Kind.ERROR, _VALUES["failed"]
    sums, values = _grouped(value, parts, source, kind, topic, agent)
    query = (
        f"{sums} SELECT subject_id, topic, agent, error_type, message, first_seen, last_seen, "
        "value FROM found JOIN omnidash_subject ON id = subject_id"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found = cursor.fetchall()
    return [
        ErrorSums(
            subject, _name(topic), _name(agent), _name(kind), _name(message),
            first, last, int(count),
        )
        for subject, topic, agent, kind, message, first, last, count in found
    ]  # fmt: skip


def _name(raw: Any) -> str:
    """PostgreSQL answers with memory views."""
    return to_text(bytes(raw))


def sums(subjects: Sequence[int], parts: Sequence[Part]) -> Tally:
    """What the rows of the subjects add up to, without the sketch."""
    total = Tally()
    for some, part in product(_portions(subjects), parts):
        query = f"{_SUMS} WHERE subject_id IN ({', '.join(['%s'] * len(some))}) AND {_IN_PART}"
        with connection.cursor() as cursor:
            cursor.execute(query, [*some, *part])
            row = cursor.fetchone()
        if row and row[0] is not None:
            total.merge(Tally(*map(_plain, row)))
    return total


def ended(subjects: Sequence[int], span: Span) -> dict[int, list[int]]:
    """How many tasks of each subject ended in each step."""
    columns = {subject: [0] * len(span.times) for subject in subjects}
    if not subjects:
        return columns
    query = (
        f"SELECT subject_id, start, processed + failed FROM omnidash_rollup "
        f"WHERE subject_id IN ({', '.join(['%s'] * len(subjects))}) AND {_IN_PART}"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [*subjects, level_of(span.step), span.start, span.end])
        for subject, start, count in cursor.fetchall():
            columns[subject][(start - span.start) // span.step] += count
    return columns


_FAILED = (
    "WITH wanted(subject_id, place) AS (VALUES {places}) SELECT place, start, SUM(failed) "
    # CROSS, so that SQLite goes from the subjects to their rows and not through all of the part.
    "FROM wanted CROSS JOIN omnidash_rollup WHERE omnidash_rollup.subject_id = wanted.subject_id "
    f"AND {_IN_PART} GROUP BY place, start"
)


def failed(groups: Sequence[Sequence[int]], span: Span) -> list[list[int]]:
    """How many tasks of each group of subjects failed in each step."""
    columns = [[0] * len(span.times) for _ in groups]
    wanted = [(subject, place) for place, group in enumerate(groups) for subject in group]
    part = level_of(span.step), span.start, span.end
    for some in _portions(wanted):
        query = _FAILED.format(places=", ".join(["(%s, %s)"] * len(some)))
        with connection.cursor() as cursor:
            cursor.execute(query, [*chain.from_iterable(some), *part])
            for place, start, count in cursor.fetchall():
                columns[place][(start - span.start) // span.step] += int(count)
    return columns


def recent(subjects: Sequence[int]) -> dict[int, str]:
    """The newest events of each subject, as they are stored."""
    found: dict[int, str] = {}
    for some in _portions(subjects):
        found |= dict(Subject.objects.filter(pk__in=some).values_list("pk", "recent"))
    return found
