"""What the settings say of backups: where they lie, where else, and how many of them are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from storage import parse_url
from storage.destinations import open_destination

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Keep:
    """How many of each are kept: the newest, and the newest of so many days, weeks and months that
    have one. All 0: all are kept."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def __bool__(self) -> bool:
        return any((self.last, self.daily, self.weekly, self.monthly))


def keep_of(text: str) -> Keep:
    """`last=7,daily=7,weekly=4,monthly=6`, each of them or none."""
    found: dict[str, int] = {}
    known = {field.name for field in fields(Keep)}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        fits = number.isascii() and number.isdecimal() and len(number) < 6
        if name not in known or name in found or not fits or int(number) > _MOST:
            raise ImproperlyConfigured(
                "OMNIDASH_BACKUP_KEEP must be like last=7,daily=7,weekly=4,monthly=6, "
                f"each a whole number up to {_MOST}."
            )
        found[name] = int(number)
    if text and not any(found.values()):
        raise ImproperlyConfigured("OMNIDASH_BACKUP_KEEP keeps none; leave it out to keep all.")
    return Keep(**found)


def folder_of(path: Path, stores: Mapping[str, str], static: Path) -> Path:
    """A private folder, made if it is missing, that is no part of what others read or replace."""
    path = path.expanduser().absolute()
    for folder, what in _others(stores, static):
        if path.resolve().is_relative_to(folder.resolve()):
            raise ImproperlyConfigured(f"OMNIDASH_BACKUP_DIR cannot be used: it lies in {what}.")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:  # every backup holds the secrets of its store
            path.chmod(0o700)
    except OSError as error:
        raise ImproperlyConfigured(
            f"OMNIDASH_BACKUP_DIR cannot be used: {error.strerror}."
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ImproperlyConfigured("OMNIDASH_BACKUP_DIR cannot be used: it is not writable.")
    return path


def _others(stores: Mapping[str, str], static: Path) -> Iterable[tuple[Path, str]]:
    yield static, "the folder of the static files"
    for name, url in stores.items():
        where = parse_url(url)
        if where.backend == "json":
            yield Path(where.path), f"the directory of the store {name}"


def copy_of(url: str, key: str, secret: str, folder: Path) -> str:
    """The address of the second destination as it is, once it can be one."""
    if bool(key) != bool(secret):
        raise ImproperlyConfigured("OMNIDASH_S3_KEY and OMNIDASH_S3_SECRET belong together.")
    if not url:
        return ""
    try:
        found = open_destination(url, key, secret)
    except ValueError as error:
        raise ImproperlyConfigured(f"OMNIDASH_BACKUP_COPY: {error}.") from None
    if "://" not in url and Path(found.address).resolve() == folder.resolve():
        raise ImproperlyConfigured("OMNIDASH_BACKUP_COPY is the folder of the backups itself.")
    return url
