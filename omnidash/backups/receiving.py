"""A backup from another machine: looked through before anything of it is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from django.conf import settings

from omnidash.backups.checking import Found, look_through
from omnidash.backups.folder import (
    MEGABYTE,
    BackupError,
    described,
    folder,
    limits,
    new_name,
    store_of,
    unwritable,
    why_refused,
)
from omnidash.models import Backup
from storage.archive import ArchiveError

_PART = ".part"


def receive(chunks: Iterable[bytes]) -> Backup:
    """What an upload brought. BackupError says why it is refused, and nothing of it stays."""
    path = str(folder() / new_name(time.time()))
    try:
        found = _kept(chunks, path)
    except ArchiveError as error:
        raise BackupError(why_refused(error)) from None
    except OSError as error:
        raise unwritable(error) from None
    made = described(path, found.header, Backup.Reason.UPLOAD, store_of(found.header))
    found.note(made)
    made.save(force_insert=True)
    return made


def _kept(chunks: Iterable[bytes], path: str) -> Found:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    most, size = settings.OMNIDASH_BACKUP_MB * MEGABYTE, 0
    try:
        with os.fdopen(os.open(path + _PART, flags, 0o600), "wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise ArchiveError(f"it has more than {most:,} bytes (OMNIDASH_BACKUP_MB)")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        found = look_through(path + _PART, limits())
        os.rename(path + _PART, path)
    except BaseException:
        if os.path.lexists(path + _PART):
            os.unlink(path + _PART)
        raise
    directory = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return found
