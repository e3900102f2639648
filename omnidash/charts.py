"""What charts draw: the figures of each step of a span, as columns.

A reader that has drawn a version of the history gets only what changed since, and where nothing
did, nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnidash.history import answers, errors
from omnidash.history.answers import EVERYTHING, Points, Whom
from omnidash.history.errors import Failure
from omnidash.history.levels import Span
from omnidash.models import Source
from omnidash.text import masked_text, printable, ref

COUNTS = ("received", "processed", "failed")
LATENCIES = ("p50", "p95", "p99", "max")
NUMBERS = (*COUNTS, "failure_rate", *LATENCIES, "in_flight")
_MARKS = 200
_KINDS = 8  # kinds of failure that have a line of their own
_LONGEST = 60  # characters of a name in a legend


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: which columns it draws (`static/js/charts.js` knows how), and how wide."""

    kind: str
    title: str
    width: str = "span-6"


TASKS = Chart("tasks", "Tasks", "span-12")
FAILURES = Chart("failure", "Failure rate")
LATENCY = Chart("latency", "Latency")
FLIGHT = Chart("flight", "In flight")
AGENTS = Chart("agents", "Tasks ended, by agent")
ERRORS = Chart("errors", "Failed tasks, by kind of failure", "span-12")

ALL = (TASKS, FAILURES, LATENCY, FLIGHT, AGENTS)
"""Those of the metrics."""


@dataclass(frozen=True, slots=True)
class Charts:
    """The charts of a page: `query` is that of their range, `period` says it in words, and `page`
    (a URL name) shows what the reader selects of it."""

    query: str
    period: str
    shown: tuple[Chart, ...]
    page: str = "metrics"

    @property
    def draw(self) -> str:
        """The parameter of the points that names the charts."""
        return ",".join(chart.kind for chart in self.shown)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One look at a span: whose, and whether the span before it is drawn beside. `text` restricts
    the kinds of failure to those that hold it."""

    source: Source
    span: Span
    whom: Whom = EVERYTHING
    compare: bool = False
    charts: tuple[Chart, ...] = ALL
    text: str = ""

    @property
    def version(self) -> str:
        """The same as long as the answer is. It ends where what is known does: later steps are
        drawn anew."""
        end = answers.read_until(self.source, self.span)
        return f"{self.source.version}.{self.span.start}.{end}.{self.span.step}"

    def since(self, version: str) -> int | None:
        """From which step on the answer differs from that of an earlier version; None for all."""
        try:
            known, start, end, step = map(int, version.split("."))
        except ValueError:
            return None
        changes = json.loads(self.source.changes)
        versions = [number for number, _ in changes]
        if not self._can_follow(start, end, step) or known > self.source.version:
            return None
        if self.text:  # which kinds of failure hold it follows their newest examples
            return None
        if known < self.source.version and known + 1 not in versions:
            return None
        earliest = [at for number, at in changes if number > known]
        changed = int(min([*earliest, end - step]) // step) * step
        if changed <= self.span.start or not self._flies_on(Span(start, end, step)):
            return None
        return changed

    def _can_follow(self, start: int, end: int, step: int) -> bool:
        """Whether a span that a reader names can be one that was drawn before this one, and not so
        long before that nothing of it is left: the numbers are the reader's, and work is done for
        all that lies between."""
        return (
            step == self.span.step
            and start % step == 0 == end % step
            and self.span.start - self.span.seconds <= start <= self.span.start
            and start < end <= self.span.end
        )

    def _flies_on(self, earlier: Span) -> bool:
        """Whether what was in flight in an earlier span still is as it was."""
        if FLIGHT not in self.charts or earlier.start == self.span.start:
            return True
        pairs = [(earlier, self.span)]
        if self.compare:
            pairs.append((earlier.before(), self.span.before()))
        return all(answers.flying_alike(self.source, *pair, self.whom) for pair in pairs)

    def columns(self, since: int | None = None) -> dict[str, Any]:
        """JSON-ready. `times` begin with the step `since`; every column is as long as `times`, and
        null is unknown. Times and latencies in seconds, rates as shares."""
        points = answers.points(self.source, self.span, self.whom)
        first = 0 if since is None else (since - self.span.start) // self.span.step
        return {
            "version": self.version,
            "start": self.span.start,
            "end": self.span.end,
            "step": self.span.step,
            "times": list(self.span.times)[first:],
            **self._numbers(points, first),
            "agents": self._agents(points, first) if AGENTS in self.charts else None,
            "errors": self._errors(points, first) if ERRORS in self.charts else None,
            "before": self._before(first) if self.compare else None,
            "gaps": answers.gaps(self.source, self.span),
            "marks": [
                {"at": mark.at, "kind": mark.kind, "text": _mark_text(mark)}
                for mark in answers.marks(self.source, self.span, _MARKS, self.whom.agent)
            ],
        }

    def _numbers(self, points: Points, first: int) -> dict[str, Sequence[Any]]:
        found = numbers(Points(points.span, points.tallies[first:]))
        if FLIGHT in self.charts:
            found["in_flight"] = answers.in_flight(self.source, points, self.whom)[first:]
        return found

    def _before(self, first: int) -> dict[str, Sequence[Any]]:
        return self._numbers(answers.points(self.source, self.span.before(), self.whom), first)

    def _agents(self, points: Points, first: int) -> dict[str, Any]:
        """Tasks ended, of the agents with most of them and of all others together."""
        busiest = answers.busiest(self.source, self.span, self.whom)
        names = {ref(*agent): agent_label(*agent) for agent, _ in busiest}
        return _parts(names, [column for _, column in busiest], points.ended, first)

    def _errors(self, points: Points, first: int) -> dict[str, Any]:
        """Tasks failed, of the most frequent kinds of failure and of all others together."""
        found = errors.failures(self.source, self.span, self.whom)
        whole = points.column("failed")
        if self.text:
            found = errors.holding(self.text, found)
            every = [subject for failure in found for subject in failure.subjects]
            (whole,) = errors.over_time(self.source, self.span, [every])
        shown = found[:_KINDS]
        names = {str(failure.id): error_label(failure) for failure in shown}
        columns = errors.over_time(self.source, self.span, [one.subjects for one in shown])
        return _parts(names, columns, whole, first)


def _parts(
    names: dict[str, str],
    columns: Sequence[Sequence[int | None]],
    whole: Sequence[int | None],
    first: int,
) -> dict[str, Any]:
    """Columns, named by what tells them apart, and what is left of the whole without them; None
    wherever the whole is unknown."""
    known = [
        [None if total is None else count for count, total in zip(column, whole, strict=True)]
        for column in columns
    ]
    rest = [
        None if total is None else total - sum(column[place] or 0 for column in columns)
        for place, total in enumerate(whole)
    ]
    return {
        "keys": list(names),
        "names": list(names.values()),
        "columns": [column[first:] for column in known],
        "rest": rest[first:],
    }


def numbers(points: Points) -> dict[str, Sequence[Any]]:
    """The columns of a chart that need nothing but the points."""
    rates = points.column("success_rate")
    return {
        **{name: points.column(name) for name in COUNTS},
        "success_rate": rates,
        "failure_rate": [None if rate is None else 1 - rate for rate in rates],
        **dict(zip(LATENCIES[:3], points.quantiles(), strict=True)),
        "max": points.column("high"),
    }


def agent_label(topic: str, agent: str) -> str:
    return _label(agent or "(no agent)")


def error_label(failure: Failure) -> str:
    parts = (masked_text(failure.error_type), failure.message)
    return _label(": ".join(part for part in parts if part) or "(no message)")


def _label(name: str) -> str:
    return printable(name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…")


def _mark_text(mark: answers.Happening) -> str:
    if mark.kind == "run":
        return printable(mark.text)[:_LONGEST]
    if mark.kind == "runner":
        return f"runner started {printable(mark.text)[:_LONGEST]}"
    return f"{printable(mark.subject)[:_LONGEST]}: {printable(mark.text)}"
