"""What was remembered, as figures: over any span, of everything, a topic or an agent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from omnidash.history import rows
from omnidash.history.ingest import Key, key_of
from omnidash.history.levels import DAY, KEEP, MINUTE, SLACK, Span, cover, level_of, written
from omnidash.history.names import is_cut, shortened
from omnidash.history.recent import Recent, Seen, parse
from omnidash.history.tally import Tally
from omnidash.models import Gap, Mark, Source, Subject
from storage.records import to_bytes, to_text

Agent = tuple[str, str]
"""Topic and name."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A tally as shown. Times in seconds, percentiles within 2 %; None is "no value", not zero."""

    topic: str
    agent: str
    received: int | None
    processed: int | None
    failed: int | None
    success_rate: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    last_seen: float | None = None

    @property
    def ended(self) -> int:
        return (self.processed or 0) + (self.failed or 0)

    @classmethod
    def of(cls, tally: Tally, agent: Agent = ("", ""), last_seen: float | None = None) -> Figures:
        p50, p95, p99 = tally.quantiles()
        return cls(
            *agent,
            received=tally.received,
            processed=tally.processed,
            failed=tally.failed,
            success_rate=tally.success_rate,
            mean=tally.mean,
            p50=p50,
            p95=p95,
            p99=p99,
            max=tally.high,
            last_seen=last_seen,
        )


@dataclass(frozen=True, slots=True)
class Points:
    """The tally of each step of a span; None where nothing is known. `last_seen` is when the
    newest event ever happened, of one agent whose points these are."""

    span: Span
    tallies: list[Tally | None]
    last_seen: float | None = None

    def add(self, start: int, tally: Tally) -> None:
        """Add what happened in the interval that begins at `start`."""
        place = (start - self.span.start) // self.span.step
        known = self.tallies[place]
        if known is None or known is _ZERO:
            self.tallies[place] = tally
        else:
            known.merge(tally)

    @property
    def total(self) -> Tally:
        return summed(tally for tally in self.tallies if tally)

    @property
    def ended(self) -> list[int | None]:
        return self.column("ended")

    def column(self, name: str) -> list[Any]:
        """A figure of each step."""
        return [None if tally is None else getattr(tally, name) for tally in self.tallies]

    def quantiles(self) -> list[list[float | None]]:
        """p50, p95 and p99 of each step."""
        found = [tally.quantiles() if tally else [None, None, None] for tally in self.tallies]
        return [list(column) for column in zip(*found, strict=True)]


UNKNOWN = Figures("", "", *[None] * 9)


def figures(points: Points) -> Figures:
    """Of the whole span; without any value where nothing of it is known."""
    if all(tally is None for tally in points.tallies):
        return UNKNOWN
    return Figures.of(points.total)


def minutes_known(points: Points) -> float:
    """Of the span, those that events were read for. The running interval counts half, so that the
    figure does not change with every look."""
    known = sum(tally is not None for tally in points.tallies)
    return max(1.0, (known - 0.5) * points.span.step / MINUTE)


def summed(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom figures are about: everything, or what a topic and a name restrict it to."""

    topic: str | None = None
    agent: str | None = None

    def subjects(self, source: Source) -> list[int]:
        key = self._key()
        if key is not None and not any(map(is_cut, key[1])):
            found = Subject.objects.filter(key=key_of(source, *key))
        else:
            kind = Subject.Kind.TOPIC if self.agent is None else Subject.Kind.AGENT
            names = {"topic": self.topic, "agent": self.agent}
            known = {
                name: to_bytes(shortened(one)) for name, one in names.items() if one is not None
            }
            found = Subject.objects.filter(source=source, kind=kind, **known)
        return list(found.values_list("pk", flat=True))

    def _key(self) -> Key | None:
        if self.agent is None:
            kind = Subject.Kind.ALL if self.topic is None else Subject.Kind.TOPIC
            return kind, (self.topic or "", "", "", "")
        if self.topic is None:
            return None
        return Subject.Kind.AGENT, (self.topic, self.agent, "", "")


EVERYTHING = Whom()


# Series


def points(source: Source, span: Span, whom: Whom = EVERYTHING) -> Points:
    return _points_of(source, span, whom.subjects(source))


def _points_of(source: Source, span: Span, subjects: Sequence[int]) -> Points:
    found = Points(span, list(nothing(source, span)))
    for _, start, tally in rows.of_subjects(subjects, _part(span)):
        found.add(start, tally)
    return found


def _part(span: Span) -> rows.Part:
    return level_of(span.step), span.start, span.end


_ZERO = Tally()
"""Shared by all intervals without events, and so never changed."""


def nothing(source: Source, span: Span) -> Iterable[Tally | None]:
    """Zero where everything was read, None before that began and after it was done last, where
    events were missed, and where it is not kept any more."""
    unread, level, now = gaps(source, span), level_of(span.step), time.time()
    until = read_until(source, span)
    for start in span.times:
        end = start + span.step
        missed = any(gap[0] < end and start < gap[1] for gap in unread)
        read = source.since is not None and source.since < end <= until and not missed
        yield _ZERO if read and written(level, start, now) else None


def read_until(source: Source, span: Span) -> int:
    """The end of the last step that had begun when the store was read last."""
    if source.read_at is None:
        return span.start
    begun = (int(source.read_at // span.step) + 1) * span.step
    return max(span.start, min(begun, span.end))


def of_agents(source: Source, span: Span, agents: Iterable[Agent]) -> dict[Agent, Points]:
    """The points of each of the agents, at the cost of these alone."""
    keys = {key_of(source, Subject.Kind.AGENT, (*agent, "", "")): agent for agent in agents}
    known = rows.subjects(keys)
    zeros = list(nothing(source, span))
    found = {
        agent: Points(span, list(zeros), known[key].last_seen if key in known else None)
        for key, agent in keys.items()
    }
    agents_by_id = {seen.id: keys[key] for key, seen in known.items()}
    for subject, start, tally in rows.of_subjects(list(agents_by_id), _part(span)):
        found[agents_by_id[subject]].add(start, tally)
    return found


def in_flight(source: Source, found: Points, whom: Whom = EVERYTHING) -> list[int | None]:
    """Tasks received and not ended at the end of each step: all received before minus all ended
    before. Where more ended than was received, receipts were missed, and it starts again at 0."""
    _, *ends = _flying(source, found, whom)
    return [
        None if tally is None else flying for tally, flying in zip(found.tallies, ends, strict=True)
    ]


def flying_alike(source: Source, before: Span, span: Span, whom: Whom = EVERYTHING) -> bool:
    """Whether as much is in flight at each step of the span as counted from an earlier beginning.
    It is not if the steps before it, which are left out now, started again at 0."""
    left_out = points(source, Span(before.start, span.start, span.step), whom)
    return _flying(source, left_out, whom)[-1] == _flying_before(source, span, whom)


def _flying(source: Source, found: Points, whom: Whom) -> list[int]:
    """What is in flight at the beginning of the first step and at the end of each."""
    column = [_flying_before(source, found.span, whom)]
    for tally in found.tallies:
        change = 0 if tally is None else tally.received - tally.ended
        column.append(max(0, column[-1] + change))
    return column


def _flying_before(source: Source, span: Span, whom: Whom) -> int:
    # Not from `since` on: events may tell of earlier times.
    first = int((time.time() - KEEP[DAY] * SLACK) // DAY) * DAY
    before = rows.sums(whom.subjects(source), list(cover(Span(first, span.start, span.step))))
    return max(0, before.received - before.ended)


# Tables


def by_agent(
    source: Source,
    span: Span,
    whom: Whom = EVERYTHING,
    order: str = "topic",
    offset: int = 0,
    limit: int | None = None,
) -> tuple[list[Figures], int]:
    """A page of the agents with events in the span, and how many there are. `order` is topic or
    agent, or a figure, of which the largest come first."""
    parts = list(cover(span))
    if order == "p95":
        return _by_p95(source, parts, whom, offset, limit)
    agents, count = rows.agents(source.pk, parts, whom.topic, whom.agent, order, offset, limit)
    return _figures(agents, parts), count


def _figures(agents: Sequence[rows.Found], parts: list[rows.Part]) -> list[Figures]:
    """Added up of the rows of these agents alone."""
    tallies = {row.subject: Tally() for row in agents}
    for part in parts:
        for subject, _, tally in rows.of_subjects(list(tallies), part):
            tallies[subject].merge(tally)
    return [
        Figures.of(tallies[row.subject], (row.topic, row.agent), row.last_seen) for row in agents
    ]


def _by_p95(
    source: Source, parts: list[rows.Part], whom: Whom, offset: int, limit: int | None
) -> tuple[list[Figures], int]:
    """The one order that cannot be had from the database."""
    agents, count = rows.agents(source.pk, parts, whom.topic, whom.agent, "topic", 0, None)
    figures = sorted(_figures(agents, parts), key=lambda row: row.p95 or 0.0, reverse=True)
    return figures[offset : None if limit is None else offset + limit], count


def busiest(
    source: Source, span: Span, whom: Whom = EVERYTHING, limit: int = 8
) -> list[tuple[Agent, list[int]]]:
    """The agents that ended most tasks in the span, each with how many in each step."""
    parts = list(cover(span))
    agents, _ = rows.agents(source.pk, parts, whom.topic, whom.agent, "ended", 0, limit)
    columns = rows.ended([row.subject for row in agents], span)
    return [
        ((row.topic, row.agent), columns[row.subject])
        for row in agents
        if any(columns[row.subject])
    ]


def recent(source: Source, agent: Agent) -> list[Recent]:
    """The newest events of an agent, newest first."""
    found = _seen(source, agent)
    return parse(found.recent) if found else []


def last_seen(source: Source, agent: Agent) -> float | None:
    """When the newest event of an agent happened."""
    found = _seen(source, agent)
    return found.last_seen if found else None


def _seen(source: Source, agent: Agent) -> Seen | None:
    key = key_of(source, Subject.Kind.AGENT, (*agent, "", ""))
    return rows.subjects([key]).get(key)


# The time axis


@dataclass(frozen=True, slots=True)
class Happening:
    """A mark of the time axis."""

    at: float
    kind: str
    subject: str
    text: str


def marks(source: Source, span: Span, limit: int, agent: str | None = None) -> list[Happening]:
    """The newest in the span, newest first; of changes of state only those of `agent`."""
    query = Mark.objects.filter(source=source, at__gte=span.start, at__lt=span.end)
    if agent is not None:
        query = query.filter(~Q(kind=Mark.Kind.STATE) | Q(subject=to_bytes(shortened(agent))))
    found = query.order_by("-at").values_list("at", "kind", "subject", "text")[:limit]
    return [Happening(at, kind, to_text(bytes(a)), to_text(bytes(b))) for at, kind, a, b in found]


def gaps(source: Source, span: Span) -> list[tuple[float, float]]:
    """Where events may be missing, oldest first."""
    query = Gap.objects.filter(source=source, end__gt=span.start, start__lt=span.end)
    return list(query.order_by("start").values_list("start", "end"))
