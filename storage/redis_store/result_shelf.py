"""What has been learnt of the results, in memory, in the orders that pages ask for.

Nothing here talks to Redis. Each filter that a page uses becomes a view that is kept up to date
entry by entry, so that a page costs what it shows and not what is stored.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from storage.records import Moment

_VIEWS = 16  # remembered filters; another one costs one pass over all entries
_FEW = 64  # additions or removals up to which a list is patched and not rebuilt

Life = Literal["", "forever", "expired", "unreadable"]


@dataclass(slots=True)
class Entry:
    """One live result. `score` is its place in the index, `expires` Unix seconds."""

    task_id: bytes
    score: float
    expires: float | None
    size: int
    agent: str = ""
    topic: str = ""
    status: str = ""
    saved_at: Moment = None
    problem: str = ""
    indexed: bool = True
    truncated: bool = False
    digest: int | None = None  # of a value that was read whole

    @property
    def saved(self) -> float:
        """When it was saved, by the index where the result itself does not say; 0.0 unknown."""
        return self.saved_at if isinstance(self.saved_at, float) else self.score


@dataclass(frozen=True, slots=True)
class Filter:
    agent: str | None = None
    topic: str | None = None
    status: str | None = None
    life: Life = ""
    larger: int | None = None
    registered: frozenset[tuple[str, str]] | None = None  # (topic, agent) that are left out

    def keeps(self, entry: Entry) -> bool:
        return (
            (self.agent is None or entry.agent == self.agent)
            and (self.topic is None or entry.topic == self.topic)
            and (self.status is None or entry.status == self.status)
            and (self.life != "forever" or entry.expires is None)
            and (self.life != "unreadable" or entry.problem != "")
            and (self.larger is None or entry.size > self.larger)
            and (self.registered is None or self._is_of_none(entry))
        )

    def _is_of_none(self, entry: Entry) -> bool:
        """One that names no agent is of no agent that could have gone."""
        return entry.agent != "" and (entry.topic, entry.agent) not in (self.registered or ())


class Order:
    """Ids by a number, ascending. Changes wait until somebody looks, and are then made together."""

    def __init__(self) -> None:
        self._items: list[tuple[float, bytes]] = []
        self._added: dict[tuple[float, bytes], None] = {}
        self._removed: set[tuple[float, bytes]] = set()

    def add(self, number: float, task_id: bytes) -> None:
        item = (number, task_id)
        if item in self._removed:
            self._removed.discard(item)
        else:
            self._added[item] = None

    def discard(self, number: float, task_id: bytes) -> None:
        """Must have been added before."""
        item = (number, task_id)
        if item in self._added:
            del self._added[item]
        else:
            self._removed.add(item)

    def discard_all(self, items: set[tuple[float, bytes]]) -> None:
        waiting = {item for item in items if item in self._added} if self._added else set()
        for item in waiting:
            del self._added[item]
        self._removed |= items - waiting

    def items(self) -> list[tuple[float, bytes]]:
        """Not to be changed, nor kept beyond the lock."""
        if len(self._removed) > _FEW:
            self._items = [item for item in self._items if item not in self._removed]
        else:
            for item in self._removed:
                place = bisect_left(self._items, item)
                if place < len(self._items) and self._items[place] == item:
                    del self._items[place]
        if len(self._added) > _FEW:
            self._items.extend(self._added)
            self._items.sort()
        else:
            for item in self._added:
                insort(self._items, item)
        self._removed.clear()
        self._added.clear()
        return self._items

    def up_to(self, number: float) -> int:
        """How many are at most this number."""
        return bisect_right(self.items(), number, key=lambda item: item[0])

    def below(self, number: float) -> int:
        """How many are less than this number."""
        return bisect_left(self.items(), (number,))

    def __len__(self) -> int:
        return len(self._items) + len(self._added) - len(self._removed)


@dataclass(slots=True)
class View:
    """The entries that one filter keeps: by score, and by expiry (those without come last)."""

    newest: Order = field(default_factory=Order)
    expiring: Order = field(default_factory=Order)

    def add(self, entry: Entry) -> None:
        self.newest.add(entry.score, entry.task_id)
        self.expiring.add(_expiry(entry), entry.task_id)

    def discard(self, entry: Entry) -> None:
        self.newest.discard(entry.score, entry.task_id)
        self.expiring.discard(_expiry(entry), entry.task_id)

    def discard_all(self, entries: Sequence[Entry]) -> None:
        self.newest.discard_all({(entry.score, entry.task_id) for entry in entries})
        self.expiring.discard_all({(_expiry(entry), entry.task_id) for entry in entries})


def _expiry(entry: Entry) -> float:
    return math.inf if entry.expires is None else entry.expires


class Shelf:
    """All learnt entries. Its owner holds a lock around every call."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.gone: set[bytes] = set()  # ids of the index without a result
        self.broken: dict[bytes, None] = {}
        self.facets: dict[str, Counter[str]] = {
            "agent": Counter(), "topic": Counter(), "status": Counter()
        }  # fmt: skip
        self._all = View()
        self._views: OrderedDict[Filter, View] = OrderedDict()
        self.forever = 0

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, entry: Entry) -> None:
        """Add or replace."""
        self.take(entry.task_id)
        self.gone.discard(entry.task_id)
        self.entries[entry.task_id] = entry
        self._count(entry, 1)
        self._all.add(entry)
        for kept, view in self._views.items():
            if kept.keeps(entry):
                view.add(entry)

    def take(self, task_id: bytes) -> None:
        """Forget an entry, if there is one."""
        entry = self.entries.pop(task_id, None)
        if entry is None:
            return
        self._count(entry, -1)
        self._all.discard(entry)
        for kept, view in self._views.items():
            if kept.keeps(entry):
                view.discard(entry)

    def take_all(self, task_ids: Iterable[bytes]) -> None:
        """Many at once, at a fifth of the cost of each."""
        found = [self.entries.pop(task_id, None) for task_id in task_ids]
        entries = [entry for entry in found if entry is not None]
        self.forever -= sum(entry.expires is None for entry in entries)
        for entry in entries:
            if entry.problem:
                self.broken.pop(entry.task_id, None)
        for name, counter in self.facets.items():
            gone = Counter(map(attrgetter(name), entries))
            for value in gone.keys() & counter.keys():
                counter[value] -= gone[value]
                if not counter[value]:
                    del counter[value]
        self._all.discard_all(entries)
        for kept, view in self._views.items():
            view.discard_all([entry for entry in entries if kept.keeps(entry)])

    def lose(self, task_id: bytes) -> None:
        """The id is still in the index, but its result is gone."""
        self.take(task_id)
        self.gone.add(task_id)

    def sweep(self, now: float) -> None:
        """Redis has expired what was to expire by now."""
        order = self._all.expiring
        for _, task_id in order.items()[: order.up_to(now)]:
            if self.entries[task_id].indexed:
                self.lose(task_id)
            else:
                self.take(task_id)

    def view(self, wanted: Filter) -> View:
        if wanted == Filter():
            return self._all
        view = self._views.get(wanted)
        if view is None:
            view = self._views[wanted] = View()
            for entry in self.entries.values():
                if wanted.keeps(entry):
                    view.add(entry)
            if len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(wanted)
        return view

    def _count(self, entry: Entry, step: int) -> None:
        if entry.expires is None:
            self.forever += step
        if entry.problem and step > 0:
            self.broken[entry.task_id] = None
        elif entry.problem:
            self.broken.pop(entry.task_id, None)
        for name, counter in self.facets.items():
            value = getattr(entry, name)
            if value:
                counter[value] += step
                if not counter[value]:
                    del counter[value]


def newest_first(order: Order) -> Iterator[bytes]:
    return (task_id for _, task_id in reversed(order.items()))
