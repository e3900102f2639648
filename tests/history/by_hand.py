"""Events of all kinds, each with what it means, and what a sum by hand over them comes to.

What an event means is said where it is made up, so that nothing here reads events as the code under
test does.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from storage.records import to_bytes
from tests.stores import AWKWARD, Backend, JsonBackend, RedisBackend

MINUTE, HOUR, DAY = 60, 3600, 86_400
SHARES = (Fraction(1, 2), Fraction(95, 100), Fraction(99, 100))
Name = tuple[bytes, ...]
"""Of a topic, an agent or an error; bytes, because that is what names are once they were stored."""


@dataclass(frozen=True)
class Event:
    """What is stored, and what it means. `at` is a time, an age until `settled`, or None; `kind`
    None is not to be read at all."""

    value: Any
    kind: str | None = None
    topic: str = ""
    agent: str = ""
    at: float | None = None
    seconds: float | None = None
    untimed: bool = False
    error_type: str = ""
    error: str = ""
    saved: Any = ...
    saved_age: float | None = None
    stored: float | None = None
    """When the store took it, once settled; None if it does not say."""

    @property
    def dated(self) -> bool:
        return self.kind is not None and self.at is not None

    @property
    def is_task(self) -> bool:
        return self.dated and self.kind != "state"


# Fields, each with what it means

KINDS: list[tuple[dict[str, Any], str | None]] = [
    *[({"event": "task_received"}, "received")] * 3,
    *[({"event": "task_processed"}, "processed")] * 4,
    *[({"event": "task_failed"}, "failed")] * 3,
    ({"event_type": "task_processed"}, "processed"),
    ({"event": "dlq_push"}, "other"),
    ({"event": "\0\ud800"}, "other"),
    ({"event": "agent_state_change", "old_state": "idle", "new_state": "\0"}, "state"),
    ({}, None),
    *[({"event": odd}, None) for odd in (7, "", None, ["task_failed"], True)],
]
HOSTILE = [name for key, name in AWKWARD.items() if key != "megabyte"]
TOPICS: list[tuple[dict[str, Any], str]] = [
    *[({"topic": name}, name) for name in ("a", "b", "a:b", "")] * 3,
    *[({"topic": name}, name) for name in HOSTILE],
    ({}, ""),
    *[({"topic": odd}, text) for odd, text in ((7, "7"), ([1], "[1]"), (None, ""), (True, "true"))],
]
AGENTS: list[tuple[dict[str, Any], str]] = [
    *[({"agent": name}, name) for name in ("x", "y", "b:x", "")] * 3,
    *[({"agent": name}, name) for name in HOSTILE],
    ({}, ""),
    ({"agent_name": "x"}, "x"),
    ({"agent": None, "agent_name": "y"}, "y"),
    ({"agent": {"x": [1.5]}}, '{"x": [1.5]}'),
]
ERRORS: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({"error_type": "E", "error": "no way"}, ("E", "no way")),
    ({"error_type": "F", "error": "no way"}, ("F", "no way")),
    ({"error_type": "E", "error": "task 17 took 3.5 s"}, ("E", "task <n> took <n> s")),
    ({"error_type": "E", "error": "task 4 took 12:30.25 s"}, ("E", "task <n> took <n> s")),
    ({"error": "<f at 0x7f00aa>"}, ("", "<f at <hex>>")),
    ({"error": "of 3F2504E0-4f89-11d3-9a0c-0305e82c3301"}, ("", "of <id>")),
    ({"error_type": "\0\ud800", "error": "\udcff\n"}, ("\0\ud800", "\udcff\n")),
    ({"error_type": 5, "error": None}, ("5", "")),
    ({"error_type": "T" * 1000, "error": "m" * 1000}, ("T" * 200, "m" * 300)),
    ({}, ("", "")),
]
DURATIONS: list[tuple[dict[str, Any], float | None, bool]] = [
    ({}, None, False),
    ({"processing_time_sec": 0}, 0.0, False),
    ({"processing_time_sec": 1e9}, 1e9, False),
    ({"processing_time_sec": 5e-324}, 5e-324, False),
    ({"processing_time_ms": 250}, 0.25, False),
    ({"processing_time_sec": 2, "processing_time_ms": 250}, 2.0, False),
    ({"processing_time_sec": "x", "processing_time_ms": 250}, 0.25, False),
    *[
        ({"processing_time_sec": odd}, None, True)
        for odd in (math.nan, math.inf, -0.001, -1e300, "1", None, True, [1], 10**400, 1.1e9)
    ],
    ({"processing_time_ms": -1}, None, True),
]
DURATION = st.one_of(
    st.floats(1e-7, 1e5, allow_subnormal=False).map(
        lambda seconds: ({"processing_time_sec": seconds}, seconds, False)
    ),
    st.sampled_from(DURATIONS),
)

# Ages in seconds. Where a level ends is left out: whether a row is still written there depends on
# the moment at which the event is read.
AGE = st.one_of(
    st.floats(-500, 0),
    st.floats(0, 60),
    st.floats(0, 900),
    st.floats(0, 2 * HOUR),
    st.floats(2.3 * HOUR, 2 * DAY),
    st.floats(2.3 * DAY, 30 * DAY),
    st.floats(35 * DAY, 700 * DAY),
)
ODD_TIMES = [
    None, 0, "", "x", math.nan, math.inf, -math.inf, -5, 1e13, 10**400, True, [1], {}, "nan",
    5e-324, 12345.678, "99999",
]  # fmt: skip
AGES_THAT_ARE_NONE = [-700.0, -30 * DAY, 900.0 * DAY]
TIME = st.one_of(
    AGE.map(lambda age: (("age", age), age)),
    AGE.map(lambda age: (("text", age), age)),
    st.sampled_from(AGES_THAT_ARE_NONE).map(lambda age: (("age", age), None)),
    st.sampled_from(ODD_TIMES).map(lambda odd: (("odd", odd), None)),
    st.just((("missing", None), None)),
)
NOT_EVENTS = [Event(value) for value in (5, None, "text", [1], [], True, 1.5)]


@st.composite
def _event(draw: st.DrawFn) -> Event:
    kind_fields, kind = draw(st.sampled_from(KINDS))
    topic_fields, topic = draw(st.sampled_from(TOPICS))
    agent_fields, agent = draw(st.sampled_from(AGENTS))
    error_fields, error = draw(st.sampled_from(ERRORS))
    duration_fields, seconds, untimed = draw(DURATION)
    time, at = draw(TIME)
    saved, saved_age = draw(st.one_of(st.just((..., None)), TIME))
    return Event(
        {**kind_fields, **topic_fields, **agent_fields, **error_fields, **duration_fields,
         "timestamp": time},
        kind, topic, agent, at, seconds, untimed, *error, saved, saved_age,
    )  # fmt: skip


EVENT = st.one_of(_event(), _event(), _event(), _event(), st.sampled_from(NOT_EVENTS))


def _aged(event: Event, age: float) -> Event:
    return replace(event, value={**event.value, "timestamp": ("age", age)}, at=age)


RECENT = st.builds(_aged, _event(), st.floats(0, 1000))
"""Events of the last quarter of an hour."""


class Stream:
    """The events of one store, written behind its back; `told` is what they mean."""

    def __init__(self, backend: Backend, base: float) -> None:
        self.backend, self.base = backend, base
        self.told: list[Event] = []
        self._last = int(base * 1000) - 5_000_000  # milliseconds: Redis' ids, JSON's `saved_at`

    def write(self, events: Sequence[Event]) -> None:
        pairs = [self._settled(event) for event in events]
        if isinstance(self.backend, RedisBackend):
            pipeline = self.backend.client.pipeline(transaction=False)
            for event, stored in pairs:
                data = json.dumps(event.value)
                pipeline.xadd(self.backend.key("metrics", "stream"), {"data": data}, id=stored)
            pipeline.execute()
        else:
            self.backend.put_metrics([event.value for event, _ in pairs])

    def _settled(self, event: Event) -> tuple[Event, int]:
        """The event with its times. Redis itself says when it took one; a JSON file does not."""
        self._last += 7
        if not isinstance(event.value, dict):
            stored = self._last / 1000 if isinstance(self.backend, RedisBackend) else None
            self.told.append(replace(event, stored=stored))
            return event, self._last
        value = {name: found for name, found in event.value.items() if name != "timestamp"}
        value |= _field("timestamp", event.value["timestamp"], self.base)
        at = None if event.at is None else self.base - event.at
        stored = self._last / 1000
        if isinstance(self.backend, JsonBackend):
            if event.saved is ...:
                value["saved_at"] = stored
            else:
                # No two moments are the same: events that OmniDaemon saves at one are neighbours.
                base = self.base - len(self.told) / 1000
                value |= _field("saved_at", event.saved, base)
                stored = None if event.saved_age is None else base - event.saved_age
        settled = replace(event, value=value, at=stored if at is None else at, stored=stored)
        self.told.append(settled)
        return settled, self._last


def _field(name: str, drawn: tuple[str, Any], base: float) -> dict[str, Any]:
    """A drawn time as a field; nothing where it is missing."""
    how, what = drawn
    if how == "missing":
        return {}
    moment = base - what if how in ("age", "text") else what
    return {name: repr(moment) if how == "text" else moment}


# Sums


@dataclass
class Sum:
    received: int = 0
    processed: int = 0
    failed: int = 0
    other: int = 0
    times: list[float] = field(default_factory=list)

    def add(self, event: Event) -> None:
        name = "other" if event.kind == "state" else event.kind
        setattr(self, str(name), getattr(self, str(name)) + 1)
        if event.kind == "processed" and event.seconds is not None:
            self.times.append(event.seconds)

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        return self.received, self.processed, self.failed, self.other, len(self.times)

    @property
    def ended(self) -> int:
        return self.processed + self.failed

    def quantiles(self) -> list[float | None]:
        """The nearest ranks."""
        if not self.times:
            return [None, None, None]
        ordered = sorted(self.times)
        return [ordered[math.ceil(share * len(ordered)) - 1] for share in SHARES]


def total(events: Iterable[Event]) -> Sum:
    found = Sum()
    for event in events:
        found.add(event)
    return found


def by(events: Iterable[Event], key: Callable[[Event], Sequence[Any]]) -> dict[Any, Sum]:
    """A sum for each of the keys that an event has."""
    found: dict[Any, Sum] = defaultdict(Sum)
    for event in events:
        for one in key(event):
            found[one].add(event)
    return dict(found)


def agent_of(event: Event) -> Name:
    return to_bytes(event.topic), to_bytes(event.agent)


def error_of(event: Event) -> Name:
    return to_bytes(event.error_type), to_bytes(event.error)


def subjects_of(event: Event) -> list[tuple[int, Name]]:
    """Kind and names of all that an event is counted for."""
    found: list[tuple[int, Name]] = [(0, (b"", b"", b"", b""))]
    if event.kind != "state":
        topic, agent = agent_of(event)
        found += [(1, (topic, b"", b"", b"")), (2, (topic, agent, b"", b""))]
        if event.kind == "failed":
            found.append((3, (topic, agent, *error_of(event))))
    return found


def close(found: float | None, exact: float | None) -> bool:
    """Within 2 %, or a microsecond."""
    if found is None or exact is None:
        return found is exact
    return abs(found - exact) <= max(0.02 * exact, 1e-6)
