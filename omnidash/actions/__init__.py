"""Every change that somebody may ask for: how to look what it would do, and how to do it.

An action knows no browser. `look` says what would be changed, `perform` changes that and nothing
else, batch by batch, and yields what came of each.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from omnidash.actions.lanes import remove_on_lanes
from omnidash.models import Run
from omnidash.progress import Step
from omnidash.stores import Entry
from storage.base import Store
from storage.changes import Change, Keep, Target

Params = Mapping[str, Any]
"""JSON-ready: what an action is asked to do."""


NOT_YET = "It is not known yet whether all of it was done, or nothing."
"""Of a change that is made all at once; replaced by what became of it once the store tells that."""


class Refused(Exception):
    """Cannot be done now, and why; nothing happened."""


@dataclass(slots=True)
class Work:
    """A run, as what it performs sees it. `total` and `says` (what came of it, in words) may be
    changed on the way."""

    entry: Entry
    run: Run
    keep: Keep
    total: int
    says: str = ""
    report: str = ""
    """Name of a file that tells of each record, if there is one (`omnidash.backups.reports`)."""

    @property
    def store(self) -> Store:
        return self.entry.store

    def begin(self) -> str:
        """A token for a change that is made all at once. It is written down before, so that the
        store can be asked for it whatever becomes of this process."""
        token = secrets.token_hex(16)
        self.run.params = json.dumps({**json.loads(self.run.params), "token": token})
        self.run.save(update_fields=["params"])
        return token


Changes = Generator[Change | Step, None, None]
Look = Callable[[Store, Params], list[Target]]
Perform = Callable[[Work, Sequence[Target], Params], Changes]


def _records(targets: Sequence[Target]) -> int:
    return sum(one.count for one in targets)


@dataclass(frozen=True, slots=True)
class Action:
    """`name` is that of the audit log, `permission` a codename of the app's. `verb` is what the
    button says, `object` what it is done to in the singular. `title`: how people call it, where the
    name does not say that. `warns` says what the action does not do, or does besides. `kept`: what
    is removed goes to the bin. `sudo`: it cannot be undone, or reaches far, so the password is
    asked again. `typed`: the store's name has to be typed even for one record; for several that are
    deleted it always is, unless they are `worthless`.

    `changes`: it changes the store, so a read-only one refuses it. `alone`: of all such actions one
    at a time in a store. `summed`: its targets are sums of what would be done, and name no records.
    `counted` says how much there is to do by the targets. `patience`: seconds that a look may take.
    `interrupted` says what became of the store when its worker was killed, by the token under which
    it had begun; StoreError if that cannot be told now."""

    name: str
    verb: str
    object: str
    permission: str
    look: Look
    perform: Perform
    warns: Callable[[Store, Params, Sequence[Target]], list[str]] = lambda *_: []
    kept: bool = True
    sudo: bool = False
    typed: bool = False
    worthless: bool = False
    title: str = ""
    changes: bool = True
    alone: bool = False
    summed: bool = False
    counted: Callable[[Sequence[Target]], int] = _records
    patience: float = 7.0
    interrupted: Callable[[Store, str], str] | None = None

    @property
    def label(self) -> str:
        return self.title or self.name.replace("-", " ").capitalize()

    def logged(self, params: Params) -> dict[str, Any]:
        """What the log may hold: a value of configuration may be a secret."""
        return {name: value for name, value in params.items() if name != "text"}

    def asks_typing(self, targets: Sequence[Target]) -> bool:
        """Whether the name of the store has to be typed: where much goes, or more than one record
        that holds something itself."""
        return self.typed or (self.kept and not self.worthless and _worthy(targets) > 1)

    def destroys(self, targets: Sequence[Target]) -> bool:
        """Whether something goes that somebody may miss."""
        return self.typed or (self.kept and not self.worthless and _worthy(targets) > 0)


_WORTHLESS = ("entry", "member", "hash", "file")  # kinds of record that hold nothing themselves


def _worthy(targets: Sequence[Target]) -> int:
    return sum(one.count for one in targets if one.kind not in _WORTHLESS)


def one(targets: Sequence[Target]) -> int:
    """For what is one deed, whatever it is done to."""
    return 1


_BYTES = 32_000_000  # of records that are in memory at once; a larger one goes alone


def batches(store: Store, targets: Iterable[Target]) -> Iterator[list[Target]]:
    """Stretches of one kind, of at most what the store takes at once, and not too large. What the
    store can only change together is not divided, if it stands side by side."""
    size = store.largest_change
    batch: list[Target] = []
    weight = 0
    for target in targets:
        full = len(batch) == size or weight + target.size > _BYTES
        if batch and (full or target.kind != batch[0].kind):
            place = _border(store, batch, target)
            yield batch[:place]
            batch = batch[place:]
            weight = sum(one.size for one in batch)
        batch.append(target)
        weight += target.size
    if batch:
        yield batch


def _border(store: Store, batch: Sequence[Target], target: Target) -> int:
    """How many of the batch go before those that the next target cannot be divided from."""
    place = len(batch)
    while place and store.inseparable(batch[place - 1], target):
        place -= 1
    return place or len(batch)


def remove(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    for kind, of_kind in groupby(targets, attrgetter("kind")):
        some = batches(work.store, of_kind)
        if kind in work.store.removed_apart:
            yield from remove_on_lanes(work.store, some, work.keep)
        else:
            yield from (work.store.remove(batch, work.keep) for batch in some)
