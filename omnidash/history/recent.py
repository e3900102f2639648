"""The newest events of an agent or of a kind of failure, kept beside its roll-ups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from typing import Any

import orjson

from omnidash.history.names import shortened
from omnidash.text import masked_text
from storage.records import Metric, parse_json

NEWEST = 10  # events that are kept of a subject
_LONGEST = 500  # characters of a message


@dataclass(frozen=True, slots=True)
class Recent:
    """One event as kept: when (Unix seconds), and for a failure why."""

    event: str
    task_id: str
    at: float
    seconds: float | None
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A subject as stored, or as it becomes with the events of a batch."""

    id: int
    first_seen: float | None
    last_seen: float | None
    recent: str


def parse(text: str) -> list[Recent]:
    return [Recent(*fields) for fields in _read(text)]


def noted(before: Seen, events: Sequence[Metric]) -> Seen:
    """The subject after these events, each of which has a time."""
    newest = [*map(_kept, nlargest(NEWEST, events, key=_time)), *_read(before.recent)]
    newest.sort(key=itemgetter(2), reverse=True)
    times = [at for at in (before.first_seen, before.last_seen) if at is not None]
    times += [min(map(_time, events)), max(map(_time, events))]
    return Seen(before.id, min(times), max(times), _written(newest[:NEWEST]))


def _read(text: str) -> list[Any]:
    found: list[Any] = parse_json(text.encode())[0]
    return found


def _written(events: list[list[Any]]) -> str:
    try:
        return orjson.dumps(events).decode()
    except TypeError:  # a lone surrogate, which no UTF-8 can carry
        return json.dumps(events)


def _kept(event: Metric) -> list[Any]:
    """In the order of the fields of Recent. Secrets are hidden before the message is cut, as half
    of one would not be known for what it is."""
    error = masked_text(event.error[: 4 * _LONGEST])[:_LONGEST] if event.error else ""
    return [
        event.event[:80], shortened(event.task_id), event.timestamp, event.seconds,
        event.error_type[:200], error,
    ]  # fmt: skip


def _time(event: Metric) -> Any:
    return event.timestamp
