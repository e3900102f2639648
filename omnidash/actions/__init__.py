"""Every change that somebody may ask for: how to look what it would do, and how to do it.

An action knows no browser. `look` says what would be changed, `perform` changes that and nothing
else, batch by batch, and yields what came of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.base import Store
from storage.changes import Change, Keep, Target

Params = Mapping[str, Any]
"""JSON-ready: what an action is asked to do."""
Look = Callable[[Store, Params], list[Target]]
Perform = Callable[[Store, Sequence[Target], Params, Keep], Iterator[Change]]


@dataclass(frozen=True, slots=True)
class Action:
    """`name` is that of the audit log, `permission` a codename of the app's. `verb` is what the
    button says, `object` what it is done to in the singular. `warns` says what the action does not
    do, or does besides. `kept`: what is removed goes to the bin. `sudo`: it cannot be undone, or
    reaches far, so the password is asked again. `typed`: the store's name has to be typed even for
    one record; for several that are deleted it always is, unless they are `worthless`. `title`: how
    people call it, where the name does not say that."""

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

    @property
    def label(self) -> str:
        return self.title or self.name.replace("-", " ").capitalize()

    def logged(self, params: Params) -> dict[str, Any]:
        """What the log may hold: a value of configuration may be a secret."""
        return {name: value for name, value in params.items() if name != "text"}

    def asks_typing(self, targets: Sequence[Target]) -> bool:
        """Whether the name of the store has to be typed: where much goes, or more than one record
        that holds something itself."""
        worthy = sum(one.count for one in targets if one.kind not in _WORTHLESS)
        return self.typed or (self.kept and not self.worthless and worthy > 1)


_WORTHLESS = ("entry", "member", "hash", "file")  # kinds of record that hold nothing themselves


_BYTES = 32_000_000  # of records that are in memory at once; a larger one goes alone


def batches(targets: Iterable[Target], size: int) -> Iterator[list[Target]]:
    """Stretches of one kind, of at most so many, and not too large."""
    batch: list[Target] = []
    weight = 0
    for target in targets:
        full = len(batch) == size or weight + target.size > _BYTES
        if batch and (full or target.kind != batch[0].kind):
            yield batch
            batch, weight = [], 0
        batch.append(target)
        weight += target.size
    if batch:
        yield batch


def remove(store: Store, targets: Sequence[Target], params: Params, keep: Keep) -> Iterator[Change]:
    for batch in batches(targets, store.largest_change):
        yield store.remove(batch, keep)
