"""Kinds of failure: how often each was in a span, of which agents, when, and its newest examples.

Subjects of failures are kept by agent; a kind is all that are of one type and message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnidash.history import answers, rows
from omnidash.history.answers import EVERYTHING, Agent, Whom
from omnidash.history.levels import Span, coarser, cover
from omnidash.history.recent import Recent, parse
from omnidash.models import Source
from omnidash.text import masked_text

_EXAMPLES = 5
_POINTS = 48  # of a sparkline

Column = list[int | None]
"""Failures in each step of a span; None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures of one type and message: how many in the span, of which agents (those with most
    first, beside their subjects); when the first and the newest ever were."""

    error_type: str
    message: str
    count: int
    agents: list[Agent]
    subjects: list[int]
    first_seen: float | None
    last_seen: float | None

    @property
    def id(self) -> int:
        """The same in each span in which the agent that failed so first did."""
        return min(self.subjects)


@dataclass(frozen=True, slots=True)
class Example:
    """One failure, and whose it was."""

    agent: Agent
    event: Recent


@dataclass(frozen=True, slots=True)
class Detail:
    """What is shown of a kind of failure: its share of all failures, few points of a sparkline."""

    failure: Failure
    share: float | None
    over_time: Column
    examples: list[Example]


def failures(source: Source, span: Span, whom: Whom = EVERYTHING) -> list[Failure]:
    """By type and message, most frequent first."""
    kinds: dict[tuple[str, str], list[rows.ErrorSums]] = {}
    for row in rows.errors(source.pk, list(cover(span)), whom.topic, whom.agent):
        kinds.setdefault((row.error_type, row.message), []).append(row)
    found = [_failure(kind, of_kind) for kind, of_kind in kinds.items()]
    return sorted(found, key=lambda one: (-one.count, one.error_type, one.message))


def _failure(kind: tuple[str, str], of_kind: list[rows.ErrorSums]) -> Failure:
    of_kind.sort(key=lambda row: (-row.count, row.topic, row.agent))
    return Failure(
        *kind,
        count=sum(row.count for row in of_kind),
        agents=[(row.topic, row.agent) for row in of_kind],
        subjects=[row.subject for row in of_kind],
        first_seen=min((row.first_seen for row in of_kind if row.first_seen), default=None),
        last_seen=max((row.last_seen for row in of_kind if row.last_seen), default=None),
    )


def holding(text: str, found: list[Failure]) -> list[Failure]:
    """Those that hold the text, whatever the case, in type, message or a newest example."""
    if not text:
        return found
    wanted = text.casefold()
    return [
        failure
        for failure, shown in zip(found, examples(found), strict=True)
        if any(wanted in said.casefold() for said in _said(failure, shown))
    ]


def _said(failure: Failure, shown: list[Example]) -> list[str]:
    """As it is shown: nobody finds out a secret by looking for it. Messages hold none, as they are
    kept without."""
    error_type = masked_text(failure.error_type)
    return [error_type, failure.message, *(example.event.error for example in shown)]


def examples(found: Sequence[Failure]) -> list[list[Example]]:
    """The newest of each kind, newest first."""
    stored = rows.recent([subject for failure in found for subject in failure.subjects])
    return [_examples(failure, stored) for failure in found]


def _examples(failure: Failure, stored: dict[int, str]) -> list[Example]:
    shown = [
        Example(agent, event)
        for agent, subject in zip(failure.agents, failure.subjects, strict=True)
        for event in parse(stored.get(subject, "[]"))[:_EXAMPLES]
    ]
    return sorted(shown, key=lambda example: example.event.at, reverse=True)[:_EXAMPLES]


def over_time(source: Source, span: Span, groups: Sequence[Sequence[int]]) -> list[Column]:
    """How many failures of each group of subjects were in each step."""
    unknown = [zero is None for zero in answers.nothing(source, span)]
    return [
        [
            None if missed and not count else count
            for count, missed in zip(column, unknown, strict=True)
        ]
        for column in rows.failed(groups, span)
    ]


def details(source: Source, span: Span, found: Sequence[Failure], total: int) -> list[Detail]:
    """What is shown of kinds of failure; `total` counts all failures in the span."""
    coarse = coarser(span, _POINTS)
    columns = over_time(source, coarse, [failure.subjects for failure in found])
    return [
        Detail(failure, failure.count / total if total else None, column, shown)
        for failure, column, shown in zip(found, columns, examples(found), strict=True)
    ]
