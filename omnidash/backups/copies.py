"""The second destination: what was proven here is sent there, and can be brought back."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

from django.conf import settings

from omnidash.backups.folder import (
    NAME,
    BackupError,
    adopt,
    folder,
    good,
    new_name,
    path_of,
    unwritable,
)
from omnidash.models import Backup
from omnidash.progress import Step
from storage.destinations import Destination, DestinationError, open_destination

_LONGEST = 500  # characters of a note
_NAMED = 3  # of those that were not fetched

log = logging.getLogger("omnidash.backups")


def second() -> Destination | None:
    """None where the settings name none."""
    url = settings.OMNIDASH_BACKUP_COPY
    if not url:
        return None
    return open_destination(url, settings.OMNIDASH_S3_KEY, settings.OMNIDASH_S3_SECRET)


def send(backup: Backup) -> bool:
    """Whether it is there, too, as far as one is named. What goes wrong is noted in its row, and is
    no reason to fail: the backup is good."""
    there = second()
    if there is None:
        return True
    try:
        there.put(path_of(backup), backup.name)
        backup.copied_at, backup.copy_note = time.time(), ""
    except DestinationError as error:
        backup.copy_note = str(error)[:_LONGEST]
        log.warning("%s is not at the second destination: %s", backup.name, error)
    except OSError as error:
        backup.copy_note = f"its file cannot be read: {error.strerror}"
    backup.save(update_fields=["copied_at", "copy_note"])
    return backup.copied_at is not None


def catch_up() -> Iterator[int]:
    """Send what is not there yet; yields one by one. The first that fails is the last for now."""
    if second() is None:
        return
    for backup in list(good().filter(copied_at=None)):
        if not send(backup):
            return
        yield 1


def forget(backup: Backup) -> None:
    """Delete its copy. BackupError if there may still be one."""
    there = second()
    if there is None or backup.copied_at is None:
        return
    try:
        there.delete(backup.name)
    except DestinationError as error:
        raise BackupError(f"the copy of {backup.name} cannot be deleted: {error}") from None


def bring_back(backup: Backup) -> bool:
    """Fetch the file if it was copied, and is missing here, shorter or longer than it was, or known
    to be bad; whether there is one here now. What was fetched is as trustworthy as its checksum."""
    size = _size_here(backup.name)
    if size == backup.size and backup.checked != Backup.State.BAD:
        return True
    there = second()
    if there is None or backup.copied_at is None:
        return size is not None
    try:
        backup.size = _fetch(there, backup.name, _proven_size(backup))
    except BackupError:
        if size is None:
            raise
    return True


def _proven_size(backup: Backup | None) -> int | None:
    """How large the file is that was once read to its end; None of one that never was."""
    return backup.size if backup is not None and backup.unpacked else None


def _size_here(name: str) -> int | None:
    try:
        return os.lstat(folder() / name).st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unwritable(error) from None


def _fetch(there: Destination, name: str, size: int | None) -> int:
    """How large it is. It replaces what is here only if that is its size, where one is known."""
    half = str(folder() / f"{new_name(time.time())}.part")  # of this fetch alone
    try:
        there.fetch(name, half)
        if size not in (None, found := os.stat(half).st_size):
            os.unlink(half)
            raise BackupError(f"{name} cannot be fetched: it has {found:,} bytes, not {size:,}")
        os.rename(half, folder() / name)
    except DestinationError as error:
        raise BackupError(f"{name} cannot be fetched: {error}") from None
    except OSError as error:
        raise unwritable(error) from None
    Backup.objects.filter(name=name).update(
        size=found, checked=Backup.State.UNKNOWN, checked_at=None, checked_note=""
    )
    return found


def fetch_all() -> Iterator[Step]:
    """Bring all of them here that are not here as they are there, as after the loss of a machine,
    and list them. BackupError in the end if some could not be fetched."""
    there = second()
    if there is None:
        raise BackupError("no second destination is named (OMNIDASH_BACKUP_COPY)")
    try:
        sizes = {name: size for name, size in there.names().items() if NAME.fullmatch(name)}
    except DestinationError as error:
        raise BackupError(f"the second destination cannot be asked: {error}") from None
    rows = {row.name: row for row in Backup.objects.filter(name__in=sizes)}
    missing = [name for name in sorted(sizes) if not _is_here(name, sizes[name], rows.get(name))]
    failed = dict[str, BackupError]()
    for number, name in enumerate(missing, 1):
        try:
            _fetch(there, name, _proven_size(rows.get(name)))
        except BackupError as error:  # the others are fetched all the same
            failed[name] = error
        yield Step("Fetching backups", number, len(missing))
    adopt()
    listed = set(Backup.objects.filter(name__in=missing).values_list("name", flat=True))
    for name in sorted(set(missing) - listed - set(failed)):
        failed[name] = BackupError(f"{name} cannot be read as a backup (see the log)")
    come = Backup.objects.filter(name__in=set(sizes) - set(failed), copied_at=None)
    come.update(copied_at=time.time())
    if failed:
        told = "; ".join(str(error) for error in list(failed.values())[:_NAMED])
        raise BackupError(f"{len(failed)} of {len(missing)} were not fetched: {told}")


def _is_here(name: str, there: int, row: Backup | None) -> bool:
    size = _proven_size(row) or there
    return _size_here(name) == size and (row is None or row.checked != Backup.State.BAD)
