"""A complete folder beside the directory, exchanged with it in one step of the file system."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from storage.base import StoreChanged, StoreUnavailable
from storage.json_store import files
from storage.json_store.files import Signature
from storage.json_store.marker import MARKER, marker_with, read_marker

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_LIBC = ctypes.CDLL(None, use_errno=True)
_FORMER = "before-restore"


def exchange(one: str, other: str) -> None:
    """Swap what two names stand for: at no moment is either missing."""
    rename = getattr(_LIBC, "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), one)
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), one)


class Sibling:
    """The way to restore that no reader sees anything of. OSError from `prepare` or `commit` where
    it is barred (the directory is a mount point or has folders in it, the parent may not be
    written, the file system knows no exchange): then nothing has changed."""

    def __init__(self, directory: str, token: str) -> None:
        self._directory, self._token = os.path.realpath(directory), token
        self._path = _path(self._directory, token)
        self._along: set[str] = set()  # what was in the directory

    def prepare(self, fresh: Mapping[str, bytes]) -> dict[str, Signature]:
        """Build the folder: the new files as given, all others by another link to each, the lock
        among them. The answer tells the new files."""
        os.mkdir(self._path, 0o700)
        # First of all, so that a folder that is not finished is known as one.
        self._write(MARKER, marker_with(self._directory, self._token))
        written = {name: self._write(name, raw) for name, raw in fresh.items()}
        self._along = set(os.listdir(self._directory))
        for name in self._along - fresh.keys() - {MARKER}:
            path = os.path.join(self._directory, name)
            os.link(path, os.path.join(self._path, name), follow_symlinks=False)
        like, own = os.stat(self._directory), os.stat(self._path)
        if (like.st_uid, like.st_gid) != (own.st_uid, own.st_gid):
            os.chown(self._path, like.st_uid, like.st_gid)
        shutil.copystat(self._directory, self._path)
        files.sync_directory(self._path)
        files.sync_directory(os.path.dirname(self._path))
        return written

    def _write(self, name: str, raw: bytes) -> Signature:
        path = os.path.join(self._path, name)
        files.write_new(path, raw, like=os.path.join(self._directory, name))
        return files.signature_of(os.lstat(path))

    def commit(self) -> None:
        if set(os.listdir(self._directory)) != self._along:
            raise StoreChanged(f"{self._directory} was changed meanwhile; nothing happened")
        exchange(self._path, self._directory)
        try:
            files.sync_directory(os.path.dirname(self._path))
        except OSError as error:
            raise StoreUnavailable(
                f"{self._directory}: it is restored, but the disk did not confirm it: "
                f"{files.reason(error)}"
            ) from None
        _tidy(self._directory, self._token)

    def discard(self) -> None:
        _tidy(self._directory, self._token)


def tidy(directory: str) -> None:
    """What killed writers left beside the directory. Only the holder of its lock may have any."""
    directory = os.path.realpath(directory)
    parent, name = os.path.split(directory)
    pattern = re.compile(rf"\.{re.escape(name)}\.omnidash-restore-([0-9a-f]{{32}})")
    with suppress(OSError):  # a parent that cannot be read was not written either
        for found in map(pattern.fullmatch, os.listdir(parent)):
            if found:
                _tidy(directory, found[1])


def _path(directory: str, token: str) -> str:
    parent, name = os.path.split(directory)
    return os.path.join(parent, f".{name}.omnidash-restore-{token}")


def _tidy(directory: str, token: str) -> None:
    """Remove the folder that was not exchanged; keep the one that came out of the exchange."""
    path = _path(directory, token)
    if not is_folder(path):
        return
    with suppress(OSError):  # then the next one tries again
        if token in read_marker(path):
            _remove(path)
        elif token in read_marker(directory):
            _keep_former(directory, path)
        elif not set(os.listdir(path)) - {MARKER}:
            _remove(path)  # hardly begun; what holds more is not ours


def _remove(path: str) -> None:
    """The marker last, so that what is left is known if this is cut short."""
    for name in sorted(os.listdir(path), key=lambda one: one == MARKER):
        os.unlink(os.path.join(path, name))
    os.rmdir(path)


def _keep_former(directory: str, path: str) -> None:
    """Under a name that says when, without the lock, and in the place of earlier ones."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, files.LOCK_NAME))
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = f"{directory}.{_FORMER}-{now}"
    if is_folder(target):  # of the same second
        shutil.rmtree(target, ignore_errors=True)
    os.rename(path, target)
    for former in former_folders(directory):
        if former != target:
            shutil.rmtree(former, ignore_errors=True)


def former_folders(directory: str) -> Iterator[str]:
    """What was kept of the directory as it was before a restore."""
    parent, name = os.path.split(os.path.realpath(directory))
    pattern = re.compile(rf"{re.escape(name)}\.{_FORMER}-\d{{8}}T\d{{6}}Z")
    for found in os.listdir(parent):
        path = os.path.join(parent, found)
        if pattern.fullmatch(found) and is_folder(path):
            yield path


def is_folder(path: str) -> bool:
    """A folder itself, not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
