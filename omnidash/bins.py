"""The recycle bin: a file a run with what it removed, so that it can be put back.

The files lie in the data folder, readable by OmniDash alone, and are addressed by names that only
the server makes.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from omnidash.models import Plan, Run
from storage.archive import OWN, ArchiveError, ArchiveReader, ArchiveWriter, Header, present
from storage.base import Store, StoreError
from storage.changes import Change, Record

DAY = 86_400.0
MEGABYTE = 1_000_000
_PORTION = 100  # runs whose files go at once

log = logging.getLogger("omnidash.bins")


def folder() -> Path:
    found = Path(settings.DATA_DIR) / "bin"
    found.mkdir(mode=0o700, exist_ok=True)
    return found


def too_large(size: int) -> bool:
    """Whether so many bytes could not be kept."""
    return size > settings.OMNIDASH_BIN_MB * MEGABYTE


class Box:
    """What one run removes. The file is made with the first record."""

    def __init__(self, run: Run, store: Store) -> None:
        self._run, self._store = run, store
        self._writer: ArchiveWriter | None = None
        self.name = ""

    def keep(self, records: Sequence[Record]) -> None:
        """Returns once they are safe on disk. StoreError if the disk does not take them."""
        try:
            if self._writer is None:
                self._writer = self._begun()
            self._writer.keep(records)
        except OSError as error:
            raise StoreError(
                f"the recycle bin cannot be written ({error.strerror}), so no more is deleted"
            ) from None

    def _begun(self) -> ArchiveWriter:
        self.name = f"run-{self._run.pk}-{secrets.token_hex(8)}.odb.gz"
        # Noted first, so that a file of a worker that was killed is found again.
        Run.objects.filter(pk=self._run.pk).update(bin=self.name)
        about = {"run": self._run.pk, "action": self._run.action, "store": self._run.store}
        header = Header("bin", self._store.backend, self._store.address, time.time(), about)
        return ArchiveWriter(str(folder() / self.name), header)

    def settle(self, change: Change) -> None:
        """What was kept has been deleted, but for what was skipped."""
        if self._writer is not None:
            self._writer.done(change)

    def close(self) -> None:
        if self._writer is not None:
            try:
                self._writer.finish()
            except OSError as error:  # what was kept can still be read
                log.warning("the file %s has no end: %s", self.name, error.strerror)


@contextmanager
def filled_by(run: Run, store: Store) -> Iterator[Box]:
    box = Box(run, store)
    try:
        yield box
    finally:
        box.close()


def records(name: str) -> Iterator[Record]:
    """What the file holds: what was deleted, and what may have been when a worker was killed.
    StoreError if it is gone or damaged."""
    path = present(str(folder() / name))
    if path is None:
        raise StoreError("what the run removed is kept no longer")
    try:
        with ArchiveReader(path, OWN) as reader:
            for batch in reader:
                yield from batch.records
    except (ArchiveError, OSError) as error:
        raise StoreError(f"the file of the recycle bin cannot be read: {error}") from None


def settled(name: str) -> int | None:
    """How many records the file says were deleted; None if it cannot be read."""
    path = present(str(folder() / name))
    if path is None:
        return None
    try:
        with ArchiveReader(path, OWN) as reader:
            return sum(len(batch.records) for batch in reader if batch.done)
    except (ArchiveError, OSError):
        return None


def kept_until(run: Run) -> float | None:
    """When what the run removed goes, if nothing larger drives it out earlier."""
    if not run.bin or run.ended_at is None:
        return None
    return run.ended_at + settings.OMNIDASH_BIN_DAYS * DAY


def prune(now: float) -> Iterator[int]:
    """Drop what is older than it is kept, then the oldest as long as all together are too large;
    and the records of plans with them. Yields how many runs lost theirs, portion by portion."""
    old = now - settings.OMNIDASH_BIN_DAYS * DAY
    while found := list(
        Run.objects.filter(ended_at__lt=old).exclude(bin="").order_by("ended_at")[:_PORTION]
    ):
        yield _drop(found)
    total = sum(_size(run.bin) for run in Run.objects.exclude(bin="").only("bin"))
    oldest = Run.objects.exclude(bin="").exclude(state__in=Run.UNFINISHED).order_by("ended_at")
    for run in oldest.iterator(chunk_size=_PORTION):
        if total <= settings.OMNIDASH_BIN_MB * MEGABYTE:
            break
        total -= _size(run.bin)
        yield _drop([run])
    finished = Plan.objects.filter(run__ended_at__lt=old, content__isnull=False)
    yield finished.update(content=None, params="{}")


def _drop(runs: Sequence[Run]) -> int:
    for run in runs:
        while (path := present(str(folder() / run.bin))) is not None:
            os.unlink(path)
        Run.objects.filter(pk=run.pk).update(bin="")
    return len(runs)


def _size(name: str) -> int:
    path = present(str(folder() / name))
    try:
        return os.stat(path).st_size if path else 0
    except OSError:
        return 0
