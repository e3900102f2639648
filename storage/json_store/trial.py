"""A folder of its own for what is only tried, which its maker holds by a lock and removes."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from contextlib import suppress

from storage.json_store import files


class TrialFolder:
    """Beside the directory, or among the system's temporary files where that cannot be written.
    Makes an end of those whose makers were killed."""

    def __init__(self, directory: str, token: str) -> None:
        self.path, self._lock = "", -1
        beside, elsewhere = _places(directory)
        with files.errors_of_writing(directory):
            try:
                self._make(*beside, token)
            except OSError:
                self._make(*elsewhere, token)

    def _make(self, parent: str, stem: str, token: str) -> None:
        _remove_dead(parent, stem)
        path = os.path.join(parent, stem + token)
        while True:
            os.mkdir(path, 0o700)
            with suppress(OSError):  # else another one has just taken it for a dead one's
                lock = _locked(path)
                if _is(path, lock):
                    self.path, self._lock = path, lock
                    return
                os.close(lock)

    def remove(self) -> None:
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def remove_all_dead(directory: str) -> None:
    """The folders of trials that were killed."""
    for place in _places(directory):
        with suppress(OSError):
            _remove_dead(*place)


def _places(directory: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Where such folders lie, and how their names begin."""
    parent, name = os.path.split(os.path.realpath(directory))
    beside = parent, f".{name}.omnidash-trial-"
    return beside, (tempfile.gettempdir(), ".omnidash-trial-")


def _remove_dead(parent: str, stem: str) -> None:
    """Folders whose makers live no more, so that their locks are free."""
    pattern = re.compile(re.escape(stem) + "[0-9a-f]{32}")
    for name in filter(pattern.fullmatch, os.listdir(parent)):
        path = os.path.join(parent, name)
        with suppress(OSError):
            lock = _locked(path)
            try:
                shutil.rmtree(path)
            finally:
                os.close(lock)


def _locked(path: str) -> int:
    """A descriptor of the folder that holds its lock; OSError if it is held by another."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _is(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
