"""What a restore, a copy or a backup would do: sums by kind and by what becomes of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from omnidash.backups.restoring import CHANGING, ON_THE_WAY, OUTCOMES
from storage.changes import Target

NOUNS = {
    "agent": "agents", "result": "results", "metrics": "events", "config": "keys",
    "file": "files as they were", "member": "names in topics", "hash": "records of agents",
    "topic": "topics", "entry": "index entries",
}  # fmt: skip
"""What the kinds of records are called; those that people look for come first."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A table: `rows` are a noun and a number for each of the `columns`. `stored`: what there is,
    where nothing becomes of it. `reasons`: why some are left out, and how many. `losses`: what is
    lost or altered on the way to another backend."""

    columns: list[str]
    rows: list[tuple[str, list[int]]]
    stored: list[tuple[int, str]]
    reasons: list[tuple[int, str]]
    losses: list[Loss]


@dataclass(frozen=True, slots=True)
class Loss:
    """`named`: the first of them."""

    noun: str
    is_lost: bool
    why: str
    count: int
    named: str


def by_kind(targets: Sequence[Target]) -> list[tuple[int, str]]:
    """How many of each kind, with what they are called; empty if they are of one kind."""
    found = Counter[str]()
    for one in targets:
        found[one.kind] += one.count
    return [(found[kind], noun) for kind, noun in NOUNS.items() if kind in found and len(found) > 1]


def sums_of(targets: Sequence[Target]) -> Sums:
    """Of the targets of a `summed` action."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in NOUNS}
    stored, losses, reasons = [], list[Loss](), Counter[str]()
    for one in targets:
        outcome, *why = one.names
        if outcome in ON_THE_WAY:
            lost = outcome == "lost"
            losses.append(Loss(NOUNS[one.kind], lost, why[0], one.count, one.note))
            # One may be altered for several reasons; how many are is not known.
            found[one.kind]["lost"] += one.count if lost else 0
        elif outcome in OUTCOMES:
            found[one.kind][outcome] += one.count
            reasons.update({why[0]: one.count} if why else {})
        else:
            stored.append((one.count, NOUNS[one.kind]))
    used = {outcome for counts in found.values() for outcome in counts if counts[outcome]}
    columns = [one for one in (*OUTCOMES, "lost") if one in used or (used and one in CHANGING)]
    rows = [
        (NOUNS[kind], [counts[one] for one in columns])
        for kind, counts in found.items()
        if counts.total()
    ]
    left_out = [(count, why) for why, count in reasons.most_common()]
    return Sums(columns, rows, stored, left_out, losses)
