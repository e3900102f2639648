"""The folder of backups: its files, and a row for each."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
import uuid
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet

from omnidash.models import Backup, Run
from omnidash.stores import registry
from omnidash.text import printable, without_user
from storage import BACKENDS
from storage.archive import OWN, ArchiveError, ArchiveReader, Header, LimitError, Limits
from storage.base import StoreError

MEGABYTE = 1_000_000
GONE = "its file is gone"
NAME = re.compile(r"omnidash-\d{8}T\d{6}Z-[0-9a-f]{16}\.odb\.gz")
TRIAL = ".trial-"
"""How the folder of a trial restore begins."""
_PART = re.compile(NAME.pattern + r"\.part")
_LONGEST = 1000  # characters of an address
_ABANDONED = 600.0  # seconds since the last write to a file that nobody will finish

log = logging.getLogger("omnidash.backups")


class BackupError(StoreError):
    """A backup cannot be made, read, kept or deleted, or is not good; the message says why."""


def folder() -> Path:
    """Private, and there. BackupError if it cannot be used."""
    found = Path(settings.OMNIDASH_BACKUP_DIR)
    try:
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error) from None
    return found


def unwritable(error: OSError) -> BackupError:
    return BackupError(f"the folder of the backups cannot be used: {error.strerror}")


def new_name(now: float) -> str:
    made = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"omnidash-{made}-{secrets.token_hex(8)}.odb.gz"


def path_of(backup: Backup) -> str:
    return str(folder() / backup.name)


def counts_of(backup: Backup) -> dict[str, int]:
    """Records by kind, as far as they were counted."""
    found: dict[str, int] = json.loads(backup.counts)
    return found


def records_of(backup: Backup) -> int:
    """How many records it has, without the files that they came from."""
    return sum(count for kind, count in counts_of(backup).items() if kind != "file")


def limits() -> Limits:
    """Of what came from elsewhere; none where the settings say that it is trusted."""
    if settings.OMNIDASH_BACKUP_TRUST:
        return OWN
    return Limits(
        output=settings.OMNIDASH_BACKUP_OUTPUT_MB * MEGABYTE,
        size=settings.OMNIDASH_BACKUP_MB * MEGABYTE,
    )


def limits_of(backup: Backup) -> Limits:
    foreign = backup.reason in (Backup.Reason.UPLOAD, Backup.Reason.FOUND)
    return limits() if foreign else OWN


def why_refused(error: Exception) -> str:
    """The reason, and what lets a file in that is one's own."""
    if isinstance(error, LimitError):
        return f"{error}. If it is your own, {_LIFTED}"
    return str(error)


def refused_elsewhere(backup: Backup) -> str:
    """Why another machine with these settings would refuse the file, and this one, too, after the
    loss of its database; empty if it would not. One long line is not noticed."""
    most, size = limits(), backup.size
    checks = (
        ("is larger than {:,} bytes", size, most.size),
        ("holds more than {:,} bytes", backup.unpacked, most.output),
        ("holds more than {:,} records", sum(counts_of(backup).values()), most.records),
        ("is packed more than {:,} times", (backup.unpacked - _SMALL) / max(1, size), most.ratio),
    )
    for told, found, limit in checks:
        if limit is not None and found > limit:
            return f"it {told.format(limit)}. There {_LIFTED}"
    return ""


_LIFTED = "OMNIDASH_BACKUP_TRUST=on, for the dashboard or for one command, lets it in"
_SMALL = 1 << 20  # bytes that may be packed by any ratio


# What is known


def open_to(store: str) -> QuerySet[Backup]:
    """Its own, and those of no store that is configured, which can be restored into any; newest
    first."""
    return Backup.objects.filter(store__in=(store, "")).order_by("-made_at", "-pk")


def good() -> QuerySet[Backup]:
    """Those whose file was proven, and that no trial restore refuted; newest first."""
    found = Backup.objects.filter(checked=Backup.State.GOOD).exclude(tried=Backup.State.BAD)
    return found.order_by("-made_at", "-pk")


_BESIDE = (Backup.Reason.UPLOAD, Backup.Reason.SAFETY)
"""An upload only says what it is of, and what was made before a restore is of what nobody wanted
to keep: neither tells how well a store is backed up."""


def last_good(store: str) -> Backup | None:
    """The newest that was made of this store for its own sake."""
    return good().filter(store=store).exclude(reason__in=_BESIDE).first()


def is_last_good(backup: Backup) -> bool:
    """Whether its store has no other good one, or none but from before a restore; of a store that
    is not configured nobody asks."""
    own = good().filter(store=backup.store).exclude(reason=Backup.Reason.UPLOAD)
    last = [
        set(found.values_list("pk", flat=True)[:2])
        for found in (own, own.exclude(reason__in=_BESIDE))
    ]
    return bool(backup.store) and {backup.pk} in last


def newest(store: str) -> Backup | None:
    """As `last_good`, whether it is good or not."""
    found = Backup.objects.filter(store=store).exclude(reason__in=_BESIDE)
    return found.order_by("-made_at", "-pk").first()


def described(path: str, header: Header, reason: Backup.Reason, store: str = "") -> Backup:
    """A row that is not saved yet. A header from elsewhere may hold what no database takes, and a
    time that never was."""
    return Backup(
        id=uuid.uuid4().hex, name=os.path.basename(path), store=store,
        backend=printable(header.backend)[:16],
        address=printable(without_user(header.address))[:_LONGEST],
        made_at=max(0.0, min(header.created_at, time.time())), reason=reason,
        size=os.stat(path).st_size, unpacked=0,
    )  # fmt: skip


def require_known(header: Header) -> None:
    """ArchiveError if it is of a store of which nothing here knows how to restore it."""
    if header.backend not in BACKENDS:
        told = f"{header.backend[:40]!a}"
        raise ArchiveError(f"it is of a kind of store that OmniDash does not know: {told}")


def store_of(header: Header) -> str:
    """The configured store that a backup from elsewhere is of, by its address; else empty."""
    found = registry().get(str(header.about.get("store", "")))
    return found.name if found is not None and found.store.address == header.address else ""


# Files and rows


def adopt() -> int:
    """A row for each file of the folder that has none, and what is gone is said; how many rows
    were added. What was never finished is removed."""
    there = {one.name for one in _files() if NAME.fullmatch(one.name)}
    known = dict(Backup.objects.values_list("name", "pk"))
    added = 0
    for name in sorted(there - set(known)):
        path = str(folder() / name)
        try:
            with ArchiveReader(path, limits()) as reader:
                header = reader.header
            require_known(header)
            row = described(path, header, Backup.Reason.FOUND, store_of(header))
        except (ArchiveError, OSError) as error:
            log.warning("%s lies among the backups and is none: %s", name, why_refused(error))
            continue
        # Two may look at once; the first one's row stays.
        added += Backup.objects.get_or_create(name=name, defaults=_fields(row))[1]
    for name in set(known) - there:
        lost = Backup.objects.filter(pk=known[name]).exclude(checked_note=GONE)
        if not os.path.lexists(folder() / name):  # it may have come since
            lost.update(checked=Backup.State.BAD, checked_at=time.time(), checked_note=GONE)
    for name in there & set(known):
        found = Backup.objects.filter(pk=known[name], checked_note=GONE)
        found.update(checked=Backup.State.UNKNOWN, checked_at=None, checked_note="")
    tidy()
    return added


def _fields(row: Backup) -> dict[str, object]:
    names = [field.attname for field in Backup._meta.concrete_fields if field.attname != "name"]
    return {name: getattr(row, name) for name in names}


def _files() -> list[Path]:
    return [one for one in _entries() if one.is_file() and not one.is_symlink()]


def _entries() -> list[Path]:
    try:
        return list(folder().iterdir())
    except OSError as error:
        raise unwritable(error) from None


def tidy() -> int:
    """Remove what writers began that were killed; one that is alive writes every little while, or
    belongs to a run that is alive."""
    if Run.objects.filter(state=Run.State.RUNNING, action__in=_WRITERS).exists():
        return 0
    removed = 0
    for one in _entries():
        with suppress(FileNotFoundError):
            status = one.lstat()
            if status.st_mtime > time.time() - _ABANDONED:
                continue
            if stat.S_ISREG(status.st_mode) and _PART.fullmatch(one.name):
                one.unlink()
                removed += 1
            elif stat.S_ISDIR(status.st_mode) and one.name.startswith(TRIAL):
                shutil.rmtree(one, ignore_errors=True)
                removed += 1
    return removed


_WRITERS = ("back-up", "restore", "copy-store", "verify-backup")


def delete(backup: Backup) -> None:
    """Its file, here and at the second destination, and its row. BackupError, and nothing is
    deleted, if it is the last good one of its store or its copy cannot be deleted."""
    if is_last_good(backup):
        raise BackupError(f"{backup.name} is the last good backup of {backup.store}, so it stays")
    drop(backup)


def drop(backup: Backup) -> None:
    """Whatever it is worth."""
    from omnidash.backups.copies import forget  # it knows the folder, too

    forget(backup)
    try:
        os.unlink(path_of(backup))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(error) from None
    backup.delete()
