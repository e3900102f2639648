"""Making a backup: read once, written, read back, and only then given its name and a row."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import astuple

from omnidash import __version__
from omnidash.backups.folder import BackupError, described, folder, new_name, newest, unwritable
from omnidash.backups.reading import whole
from omnidash.models import Backup, Run
from omnidash.progress import Step
from omnidash.stores import Entry
from storage.ahead import ahead
from storage.archive import ArchiveError, ArchiveWriter, Header

_ROOM = 16_000_000  # bytes that have to be free, whatever a backup takes
_GROWN = 1.5  # times as large as the one before


def create(entry: Entry, reason: Backup.Reason, run: Run | None) -> Generator[Step, None, Backup]:
    """Of what the store holds now. Ends with a good backup, or leaves nothing: StoreError if the
    store cannot be read, BackupError if the file cannot be written."""
    _require_room(entry)
    now = time.time()
    path = str(folder() / new_name(now))
    about = {"store": entry.name, "tool": __version__, "reason": str(reason)}
    if version := entry.store.health_check().get("redis_version"):
        about["version"] = version
    header = Header("backup", entry.store.backend, entry.store.address, now, about)
    try:
        with ArchiveWriter(path, header) as writer:
            snapshot, done = entry.store.snapshot(), 0
            with closing(ahead(whole(snapshot))) as batches:
                for batch in batches:
                    writer.add(batch)
                    done += len(batch)
                    yield Step("Reading the store", done, snapshot.total)
            sections = [list(astuple(one)) for one in snapshot.sections()]
            yield Step("Reading the backup back", done, done)
            writer.finish(verify=True, about={"sections": sections})
    except OSError as error:
        with suppress(OSError):
            os.unlink(path)  # it may have its name already, which the disk did not confirm
        raise unwritable(error) from None
    except ArchiveError as error:
        raise BackupError(f"the backup could not be read back: {error}") from None
    made = described(path, header, reason, entry.name)
    made.run, made.unpacked = run, writer.unpacked
    made.counts, made.sections = json.dumps(writer.counts), json.dumps(sections)
    made.checked, made.checked_at = Backup.State.GOOD, time.time()
    made.save(force_insert=True)
    return made


def _require_room(entry: Entry) -> None:
    """Before the store is read for nothing; a disk that fills up later is noticed then."""
    before = newest(entry.name)
    needed = max(_ROOM, int(_GROWN * before.size) if before is not None else 0)
    try:
        free = shutil.disk_usage(folder()).free
    except OSError as error:
        raise unwritable(error) from None
    if free < needed:
        raise BackupError(
            f"the folder of the backups has {free / 1e6:,.0f} MB free, and a backup needs about "
            f"{needed / 1e6:,.0f} MB"
        )
