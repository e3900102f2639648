"""Metric history: each event of a store is read once; any figure is answered from what it meant.

The window holds what the store still holds: events that it trims leave the figures too.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import replace
from heapq import nlargest
from operator import itemgetter
from typing import Any

from omnidash.figures import ErrorGroup, Figures, Series, Tally, percentile, summed
from storage.base import Store
from storage.records import Metric

MINUTE = 60
_RECENT = 50  # events kept by agent for its page
_STATE_CHANGES = 500
_RANKED = 5.0  # seconds for which a ranking of the agents stands
_SOON = 1.0  # seconds for which one reading of the store serves everybody


class History:
    """The stored events of one store, as figures. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._read_at = -math.inf
        self._forget()

    def _forget(self) -> None:
        self._cursor: str | None = None
        self._events: deque[Metric] = deque()
        self._total = Tally()
        self._agents: dict[tuple[str, str], Tally] = defaultdict(Tally)
        self._minutes: dict[int, Tally] = defaultdict(Tally)
        self._agent_minutes: dict[int, dict[tuple[str, str], Tally]] = {}
        self._recent: dict[tuple[str, str], deque[Metric]] = {}
        self._errors: dict[tuple[str, str, str, str], ErrorGroup] = {}
        self._changes: deque[Metric] = deque(maxlen=_STATE_CHANGES)
        self._unreadable = 0
        self._newest: float | None = None
        self._ranking: list[tuple[str, str]] = []
        self._ranked_at = -math.inf
        self._keys_in_order: list[tuple[str, str]] | None = None

    def refresh(self) -> None:
        """Read what is new in the store, at most once a second for all who ask. StoreError if the
        store cannot be read; the figures so far are kept."""
        with self._lock:
            if time.monotonic() - self._read_at < _SOON:
                return
            more = True
            while more:
                batch = self._store.metrics_after(self._cursor)
                if batch.gap:
                    # Trimmed, cleared or deleted from: what is stored now is read from its start.
                    self._forget()
                    batch = self._store.metrics_after(None)
                self._cursor, more = batch.cursor, batch.more
                for event in batch.events:
                    self._add(event)
            self._trim(batch.stored)
            self._read_at = time.monotonic()

    def _add(self, event: Metric) -> None:
        self._events.append(event)
        if event.event == "unreadable":
            self._unreadable += 1
            return
        if isinstance(event.timestamp, float):
            self._newest = max(self._newest or 0.0, event.timestamp)
        if event.event == "agent_state_change":
            self._changes.append(event)
            return
        key = (event.topic, event.agent)
        self._total.add(event)
        if key not in self._agents:
            self._keys_in_order = None
        self._agents[key].add(event)
        start = _minute(event)
        if start is not None:
            self._minutes[start].add(event)
            self._agent_minutes.setdefault(start, {}).setdefault(key, Tally()).add(event)
        self._recent.setdefault(key, deque(maxlen=_RECENT)).append(event)
        if event.event == "task_failed":
            group = (*key, event.error_type, event.error)
            self._errors.setdefault(group, ErrorGroup(event.error_type, event.error)).add(event)

    def _trim(self, stored: int) -> None:
        """Take out what the store has dropped since, which is always the oldest."""
        while len(self._events) > stored:
            event = self._events.popleft()
            if event.event == "unreadable":
                self._unreadable -= 1
            elif event.event != "agent_state_change":
                self._remove(event)

    def _remove(self, event: Metric) -> None:
        key = (event.topic, event.agent)
        self._total.remove(event)
        self._agents[key].remove(event)
        if self._agents[key].empty:
            del self._agents[key], self._recent[key]
            self._keys_in_order = None
        self._remove_from_minute(key, event)
        if event.event == "task_failed":
            group = (*key, event.error_type, event.error)
            self._errors[group].count -= 1
            if not self._errors[group].count:
                del self._errors[group]

    def _remove_from_minute(self, key: tuple[str, str], event: Metric) -> None:
        start = _minute(event)
        if start is None:
            return
        self._minutes[start].remove(event)
        agents = self._agent_minutes[start]
        agents[key].remove(event)
        if agents[key].empty:
            del agents[key]
        if not agents:
            del self._minutes[start], self._agent_minutes[start]

    @property
    def read_age(self) -> float:
        """Seconds since the store was last read."""
        return time.monotonic() - self._read_at

    def stored(self) -> tuple[int, int]:
        """(events stored, of them unreadable)."""
        with self._lock:
            return len(self._events), self._unreadable

    def newest(self) -> float | None:
        """When the newest event happened, by its own time stamp."""
        return self._newest

    def oldest(self) -> float | None:
        """When the oldest stored event happened."""
        with self._lock:
            for event in self._events:
                if isinstance(event.timestamp, float):
                    return event.timestamp
            return None

    def by_agent(
        self,
        topic: str | None = None,
        agent: str | None = None,
        order: str = "topic",
        offset: int = 0,
        limit: int | None = None,
    ) -> tuple[list[Figures], int]:
        """A page of figures over all stored events by topic and agent, and how many rows there are.
        `order` is topic or agent, or a figure, of which the largest come first."""
        with self._lock:
            keys = self._chosen(topic, agent)
            if order == "agent":
                keys = sorted(keys, key=itemgetter(1, 0))
            elif order != "topic":
                keys = sorted(keys, key=lambda key: _figure(self._agents[key], order), reverse=True)
            shown = keys[offset : None if limit is None else offset + limit]
            return [Figures.of(self._agents[key], *key) for key in shown], len(keys)

    def of_agent(self, topic: str, agent: str) -> Figures:
        """Figures of one agent over all stored events."""
        with self._lock:
            return Figures.of(self._agents.get((topic, agent), Tally()), topic, agent)

    def totals(self, topic: str | None = None, agent: str | None = None) -> Figures:
        """Figures over all stored events; `topic` and `agent` restrict them."""
        with self._lock:
            if topic is None and agent is None:
                return Figures.of(self._total)
            return Figures.of(summed(self._agents[key] for key in self._chosen(topic, agent)))

    def _chosen(self, topic: str | None, agent: str | None) -> list[tuple[str, str]]:
        if self._keys_in_order is None:
            self._keys_in_order = sorted(self._agents)
        if topic is None and agent is None:
            return self._keys_in_order
        return [
            key
            for key in self._keys_in_order
            if topic in (None, key[0]) and agent in (None, key[1])
        ]

    def covered(self, now: float, minutes: int) -> int:
        """How many of the last whole minutes the stored events reach back to; what was before the
        oldest of them is not known."""
        with self._lock:
            if not self._minutes:
                return minutes
            running = int(now // MINUTE) * MINUTE
            return max(1, min(minutes, (running - min(self._minutes)) // MINUTE))

    def lately(self, now: float, minutes: int) -> Figures:
        """Figures over the last whole minutes and the running one; `per_minute` is the mean number
        of tasks that ended in one of the whole minutes that are covered."""
        with self._lock:
            starts = _starts(now, minutes + 1)
            tallies = [self._minutes[start] for start in starts if start in self._minutes]
            rate = self._ended(starts[:-1]) / self.covered(now, minutes)
            return replace(Figures.of(summed(tallies)), per_minute=rate)

    def _ended(self, starts: list[int]) -> int:
        return sum(self._minutes[start].ended for start in starts if start in self._minutes)

    def busiest(self, now: float, minutes: int, limit: int) -> list[Figures]:
        """Figures over the last whole minutes of the agents that ended most tasks. Ranked anew
        every few seconds, because that looks at every agent of every minute."""
        with self._lock:
            starts = _starts(now, minutes + 1)[:-1]
            if time.monotonic() - self._ranked_at > _RANKED:
                ended: Counter[tuple[str, str]] = Counter()
                for start in starts:
                    for key, tally in self._agent_minutes.get(start, {}).items():
                        ended[key] += tally.ended
                self._ranking = nlargest(limit, ended, key=lambda key: (ended[key], key))
                self._ranked_at = time.monotonic()
            covered = self.covered(now, minutes)
            rows = [self._over(starts, key, covered) for key in self._ranking]
            return sorted(rows, key=lambda row: row.per_minute or 0, reverse=True)

    def _over(self, starts: list[int], key: tuple[str, str], minutes: int) -> Figures:
        found = [self._agent_minutes.get(start, {}).get(key) for start in starts]
        total = summed(tally for tally in found if tally)
        return replace(Figures.of(total, *key), per_minute=total.ended / minutes)

    def series(
        self, now: float, minutes: int = 60, topic: str | None = None, agent: str | None = None
    ) -> Series:
        """Counts of the last whole minutes, None where the stored events do not reach back to;
        `topic` and `agent` restrict them."""
        with self._lock:
            starts = _starts(now, minutes + 1)[:-1]
            unknown = minutes - self.covered(now, minutes)
            tallies = [self._minute_of(start, topic, agent) for start in starts[unknown:]]
            gap = [None] * unknown
            return Series(
                starts=starts,
                received=[*gap, *(tally.received for tally in tallies)],
                processed=[*gap, *(tally.processed for tally in tallies)],
                failed=[*gap, *(tally.failed for tally in tallies)],
                success_rate=[*gap, *(tally.success_rate for tally in tallies)],
                p95=[*gap, *(percentile(tally.ordered(), 0.95) for tally in tallies)],
            )

    def _minute_of(self, start: int, topic: str | None, agent: str | None) -> Tally:
        if topic is None and agent is None:
            return self._minutes.get(start) or Tally()
        agents = self._agent_minutes.get(start, {})
        if topic is not None and agent is not None:
            return agents.get((topic, agent)) or Tally()
        return summed(
            tally
            for (its_topic, its_agent), tally in agents.items()
            if topic in (None, its_topic) and agent in (None, its_agent)
        )

    def errors(self, topic: str | None = None, agent: str | None = None) -> list[ErrorGroup]:
        """Failures by type and text, most frequent first; `topic` and `agent` restrict them."""
        with self._lock:
            found: dict[tuple[str, str], ErrorGroup] = {}
            for (its_topic, its_agent, *_), group in self._errors.items():
                if topic in (None, its_topic) and agent in (None, its_agent):
                    kind = (group.error_type, group.error)
                    found.setdefault(kind, ErrorGroup(*kind)).merge(group)
            return sorted(found.values(), key=lambda g: (-g.count, g.error_type, g.error))

    def recent(self, topic: str, agent: str) -> list[Metric]:
        """The newest events of an agent, newest first."""
        with self._lock:
            return list(reversed(self._recent.get((topic, agent), ())))

    def state_changes(self) -> list[Metric]:
        """The newest changes of supervisors' states, newest first."""
        with self._lock:
            return list(reversed(self._changes))


def _figure(tally: Tally, name: str) -> Any:
    if name == "p95":
        return percentile(tally.ordered(), 0.95) or 0.0
    if name == "max":
        return tally.ordered()[-1] if tally.seconds else 0.0
    return getattr(tally, name) or 0


def _minute(event: Metric) -> int | None:
    if not isinstance(event.timestamp, float):
        return None
    return int(event.timestamp // MINUTE) * MINUTE


def _starts(now: float, minutes: int) -> list[int]:
    running = int(now // MINUTE) * MINUTE
    return list(range(running - (minutes - 1) * MINUTE, running + 1, MINUTE))
