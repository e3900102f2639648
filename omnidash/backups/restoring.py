"""Restoring: compare, prove again that nothing else would be lost, then all at once or not at all.

A copy is the same with a backup that was just made of another store.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from omnidash.backups.folder import BackupError, limits_of, path_of
from omnidash.backups.reading import whole
from omnidash.meanings import meaning_of
from omnidash.models import Backup
from omnidash.progress import Step
from storage.archive import ArchiveError, ArchiveReader
from storage.base import Store
from storage.changes import Names, Record, Target
from storage.comparison import Comparison, Difference, Mode
from storage.conversion import Loss, converted
from storage.extension import extended
from storage.snapshots import Staging

CHANGING = ("added", "replaced", "deleted")
OUTCOMES = (*CHANGING, "unchanged", "kept", "expired", "skipped")
ON_THE_WAY = ("lost", "altered")
"""What becomes of a record; and of one on its way to another backend."""
_NAMED = 3  # records that are named of those
_BATCH = 1000
_BYTES = 8_000_000  # of a batch


@dataclass(frozen=True, slots=True)
class Wish:
    """How to restore. `volatile`: what OmniDaemon notes while it runs, too. `extend`: seconds that
    results live longer."""

    mode: Mode
    volatile: bool = False
    extend: float = 0.0

    def is_left_out(self, key: str) -> bool:
        return not self.volatile and bool(meaning_of(key))


@dataclass(frozen=True, slots=True)
class Source:
    """Records to be restored: the same, in the same order, each time they are asked for."""

    backend: str
    records: Callable[[], Iterator[Record]]
    total: int | None = None

    def for_store(self, store: Store, wish: Wish, loss: Loss) -> Iterator[Record]:
        found = self.records()
        if wish.extend:
            found = extended(found, wish.extend, self.backend)
        return converted(found, self.backend, store.backend, loss)


def of_backup(backup: Backup, total: int | None = None) -> Source:
    def records() -> Iterator[Record]:
        try:
            with ArchiveReader(path_of(backup), limits_of(backup)) as reader:
                for batch in reader:
                    yield from batch.records
                if not reader.complete:
                    raise ArchiveError("it was cut off: it has no end")
        except (ArchiveError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise BackupError(f"{backup.name} cannot be read: {why}") from None

    return Source(backup.backend, records, total)


def of_store(store: Store) -> Source:
    """As it is when it is asked, for a preview."""
    return Source(store.backend, lambda: (one for batch in store.snapshot() for one in batch))


@dataclass(slots=True)
class Comparing:
    """A comparison with what is lost on the way to it."""

    difference: Difference
    loss: Loss

    def targets(self) -> list[Target]:
        """Sums by kind and outcome, with the state of the store that they are true for."""
        mark, found = self.difference.digest, list[Target]()
        for kind, tally in self.difference.tallies.items():
            for outcome in OUTCOMES[:-1]:
                if count := getattr(tally, outcome):
                    found.append(Target(kind, (outcome,), mark, 0, count))
        reasons = {
            "skipped": self.difference.reasons,
            "lost": self.loss.refused,
            "altered": self.loss.altered,
        }
        for what, counts in reasons.items():
            found += [
                Target(kind, (what, why), mark, 0, count) for (kind, why), count in counts.items()
            ]
        # Even where there is nothing to do it is to be seen whether that is still so.
        return [self._named(one) for one in found] or [Target("file", ("unchanged",), mark, 0, 0)]

    def _named(self, target: Target) -> Target:
        """With the names of the first that it counts, where these are lost or altered."""
        if target.names[0] not in ON_THE_WAY:
            return target
        why = target.names[1]
        named = [
            " / ".join(names) for kind, names, said in self.loss.named
            if kind == target.kind and (said == why or said.startswith(f"{why}: "))
        ]  # fmt: skip
        return replace(target, note=", ".join(named[:_NAMED]))

    @property
    def changing(self) -> int:
        tallies = self.difference.tallies.values()
        return sum(one.added + one.replaced + one.deleted for one in tallies)


def compared(store: Store, source: Source, wish: Wish) -> Generator[Step, None, Comparing]:
    """StoreError if either of them cannot be read."""
    comparison = Comparison(wish.mode, wish.is_left_out)
    snapshot, done = store.snapshot(), 0
    for batch in whole(snapshot):
        comparison.stored(batch)
        done += len(batch)
        yield Step("Comparing: what the store holds", done, snapshot.total)
    loss, done = Loss(), 0
    for batch in batched(source.for_store(store, wish, loss)):
        comparison.archived(batch)
        done += len(batch)
        yield Step("Comparing: what is to be restored", done, source.total)
    return Comparing(comparison.difference(), loss)


def compared_now(store: Store, source: Source, wish: Wish) -> Comparing:
    steps = compared(store, source, wish)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Comparing = end.value
            return found


def put(
    staging: Staging,
    records: Iterable[Record],
    total: int | None,
    note: Callable[[Record, str], None] = lambda *_: None,
) -> Generator[Step, None, list[tuple[Names, str]]]:
    """Stage them; those that were skipped, and why. `note` is told of each what became of it."""
    skipped: list[tuple[Names, str]] = []
    done = 0
    for batch in batched(records):
        refused: dict[Names, str] = dict(staging.put(batch).skipped)
        skipped += refused.items()
        for record in batch:
            note(record, refused.get(record.names, ""))
        done += len(batch)
        yield Step("Preparing the change beside the store", done, total)
    return skipped


def batched(records: Iterable[Record]) -> Iterator[Sequence[Record]]:
    """Of one kind each, and not too large."""
    for _, same in groupby(records, lambda one: one.kind):
        batch, size = list[Record](), 0
        for record in same:
            batch.append(record)
            size += len(record.raw)
            if len(batch) == _BATCH or size > _BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
