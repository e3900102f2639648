"""Whether a backup is good, at two levels: its file, and a trial restore record by record."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omnidash.backups.copies import bring_back
from omnidash.backups.folder import (
    GONE,
    TRIAL,
    BackupError,
    folder,
    limits_of,
    path_of,
    records_of,
    require_known,
    unwritable,
    why_refused,
)
from omnidash.backups.restoring import of_backup, put
from omnidash.models import Backup
from omnidash.progress import Step
from omnidash.stores import registry
from omnidash.text import printable
from storage import open_store
from storage.archive import ArchiveError, ArchiveReader, Header, Limits
from storage.base import Store
from storage.comparison import identical
from storage.snapshots import Staging

_LONGEST = 500  # characters of a note
_NAMED = 3  # records that it names


@dataclass(frozen=True, slots=True)
class Found:
    """What a whole file says."""

    header: Header
    counts: dict[str, int]
    sections: list[Any]
    unpacked: int

    def note(self, backup: Backup) -> None:
        """Into its row, which is not saved."""
        backup.counts, backup.sections = json.dumps(self.counts), json.dumps(self.sections)
        backup.unpacked = self.unpacked
        _judge(backup, "checked", "")

    @property
    def records(self) -> int:
        return sum(self.counts.values())


def _judge(backup: Backup, what: str, problem: str) -> None:
    state = Backup.State.BAD if problem else Backup.State.GOOD
    setattr(backup, what, state)
    setattr(backup, f"{what}_at", time.time())
    setattr(backup, f"{what}_note", printable(problem)[:_LONGEST])  # names of records


def looked_through(path: str, limits: Limits) -> Generator[Step, None, Found]:
    """All of a file: its checksum, what it counts and how it is written. ArchiveError if it is not
    as it should be, OSError if it cannot be read."""
    size = os.stat(path).st_size
    with ArchiveReader(path, limits) as reader:
        require_known(reader.header)
        for done in reader.verify():
            yield Step("Checking the file", done, size)
        sections = reader.about.get("sections")
        counts = {str(kind): count for kind, count in reader.counts.items()}
        known = sections if isinstance(sections, list) else []
        return Found(reader.header, counts, known, reader.unpacked)


def look_through(path: str, limits: Limits) -> Found:
    steps = looked_through(path, limits)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Found = end.value
            return found


def check(backup: Backup) -> Generator[Step, None, bool]:
    """Level 1: its file. What was found is in the row then."""
    problem = ""
    try:
        if bring_back(backup):
            found = yield from looked_through(path_of(backup), limits_of(backup))
            found.note(backup)
        else:
            problem = GONE
    except ArchiveError as error:
        problem = why_refused(error)
    except FileNotFoundError:
        problem = GONE
    except OSError as error:
        problem = f"its file cannot be read: {error.strerror}"
    if problem:
        _judge(backup, "checked", problem)
    _keep(backup, "checked", "counts", "sections", "unpacked")
    return not problem


def trial(backup: Backup) -> Generator[Step, None, bool]:
    """Level 2: restored beside a store, read back and compared record by record, and dropped.
    StoreError if there is no place where that could be tried; the row is as before then."""
    problem = ""
    try:
        with _place(backup) as store, store.stage(secrets.token_hex(16), trial=True) as staging:
            problem = yield from _tried(backup, staging)
    except OSError as error:
        raise unwritable(error) from None
    _judge(backup, "tried", problem)
    _keep(backup, "tried")
    return not problem


def _keep(backup: Backup, what: str, *others: str) -> None:
    """Only these: whatever else became of the row meanwhile stays so, its deletion too."""
    names = (what, f"{what}_at", f"{what}_note", *others)
    Backup.objects.filter(pk=backup.pk).update(**{name: getattr(backup, name) for name in names})


@contextmanager
def _place(backup: Backup) -> Iterator[Store]:
    """A store of the same backend: of JSON a folder that is made for it; of Redis its own store, or
    another one that may be changed, where the trial lies under keys of its own."""
    if backup.backend == "json":
        try:
            scratch = tempfile.mkdtemp(prefix=TRIAL, dir=folder())
        except OSError as error:
            raise unwritable(error) from None
        try:
            (Path(scratch) / "store").mkdir(mode=0o700)
            store = open_store(f"json://{quote(scratch)}/store")
            yield store
            store.close()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return
    entries = sorted(registry().values(), key=lambda entry: entry.store.address != backup.address)
    for entry in entries:
        if entry.store.backend == backup.backend and not entry.read_only:
            yield entry.store
            return
    raise BackupError(
        f"a trial restore of {backup.name} needs a {backup.backend} store that may be changed, and "
        "none is configured"
    )


def _tried(backup: Backup, staging: Staging) -> Generator[Step, None, str]:
    """What is wrong; empty if nothing."""
    total = records_of(backup) or None
    source = of_backup(backup, total)
    kept = (one for one in source.records() if one.kind != "file")  # to be read by people
    yield from put(staging, kept, total)
    yield Step("Comparing record by record", 0, total)
    found = identical(source.records(), staging.staged())
    if not found.differing:
        return ""
    named = "; ".join(
        f"{kind} {' / '.join(names)[:80]} {why}" for kind, names, why in found.named[:_NAMED]
    )
    return f"{found.differing:,} of {found.compared:,} records did not come back: {named}"
