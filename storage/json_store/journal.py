"""Several files of a directory replaced as one, where the directory itself cannot be exchanged.

All new files are complete in a folder within before a note names them: from then on the change is
made, whoever carries it out. Readers may see new files beside old ones while they are renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from storage.base import StoreUnavailable
from storage.json_store import files
from storage.json_store.files import Signature
from storage.json_store.marker import IS_TOKEN, MARKER, marker_with

_FOLDER, _NOTE = ".omnidash-restore", "intent.json"


class Journal:
    """The way to restore that always works. OSError from `prepare` or `commit`: nothing has
    changed."""

    def __init__(self, directory: str, token: str) -> None:
        self._directory, self._token = directory, token
        self._folder = os.path.join(directory, _FOLDER)
        self._files: dict[str, dict[str, Any]] = {}

    def prepare(self, fresh: Mapping[str, bytes]) -> dict[str, Signature]:
        os.mkdir(self._folder, 0o700)
        marker = marker_with(self._directory, self._token)
        written = {}
        # Where there is no such file yet comes first: only that can want for room in the directory.
        for name in sorted(fresh, key=lambda one: os.path.lexists(self._place(one))):
            written[name] = self._write(name, fresh[name])
        self._write(MARKER, marker)
        files.sync_directory(self._folder)
        return written

    def _place(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _write(self, name: str, raw: bytes) -> Signature:
        path, place = os.path.join(self._folder, name), self._place(name)
        files.write_new(path, raw, like=place)
        self._files[name] = {"sha256": _digest(raw), "was": _signature(place)}
        return files.signature_of(os.lstat(path))

    def commit(self) -> None:
        note = os.path.join(self._folder, _NOTE)
        text = json.dumps({"token": self._token, "files": self._files}).encode("ascii")
        files.write_new(note + ".part", text, like=note)
        os.rename(note + ".part", note)
        try:
            files.sync_directory(self._folder)
            files.sync_directory(self._directory)
            self._begin()
        except OSError:
            os.unlink(note)
            raise
        try:
            _finish(self._directory, self._files)
        except OSError as error:
            raise StoreUnavailable(
                f"{self._directory}: a part is restored, the rest follows with the next change or "
                f"check of it: {files.reason(error)}"
            ) from None

    def _begin(self) -> None:
        """Those that nothing is replaced by, which can be undone."""
        moved: list[str] = []
        try:
            for name, entry in self._files.items():
                if entry["was"] is None and name != MARKER:
                    os.rename(os.path.join(self._folder, name), self._place(name))
                    moved.append(name)
        except OSError:
            for name in moved:
                os.rename(self._place(name), os.path.join(self._folder, name))
            raise

    def discard(self) -> None:
        if not os.path.lexists(os.path.join(self._folder, _NOTE)):
            shutil.rmtree(self._folder, ignore_errors=True)


def is_pending(directory: str) -> bool:
    """Whether a killed writer left something to be settled."""
    return os.path.lexists(os.path.join(directory, _FOLDER))


def settle(directory: str) -> None:
    """Finish a change that was decided on, drop one that was not. Where somebody else changed a
    file that is still to be replaced neither is right: it is left alone, and its token marked. The
    caller holds the lock."""
    folder = os.path.join(directory, _FOLDER)
    with files.errors_of_writing(folder):
        token, noted = _read_note(folder)
        if token:
            if all(_may_move(directory, name, entry) for name, entry in noted.items()):
                return _finish(directory, noted)
            _give_up(directory, token)
            os.unlink(os.path.join(folder, _NOTE))  # first: what is gone would count as moved
        shutil.rmtree(folder)


def _read_note(folder: str) -> tuple[str, dict[str, Any]]:
    """The token and the files of what was decided on; empty if nothing was."""
    found = files.read_generation(os.path.join(folder, _NOTE))
    if found is None:
        return "", {}
    try:
        note = json.loads(found[0])
        token, noted = note["token"], note["files"]
        fits = all(
            name == os.path.basename(name) and isinstance(noted[name]["was"], (list, type(None)))
            for name in noted
        )
    except (ValueError, TypeError, KeyError):
        fits = False
    if not fits or not IS_TOKEN.fullmatch(token):
        raise StoreUnavailable(f"{folder} is damaged: it says that a restore was begun, not which")
    return token, noted


def _may_move(directory: str, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether it has been moved, or is whole and replaces what it was meant to."""
    found = files.read_generation(os.path.join(directory, _FOLDER, name))
    if found is None:
        return True
    was = None if entry["was"] is None else tuple(entry["was"])
    whole = _digest(found[0]) == entry.get("sha256")
    return whole and _signature(os.path.join(directory, name)) == was


def _finish(directory: str, noted: Mapping[str, Any]) -> None:
    """Move what has not been moved yet, the marker last."""
    folder = os.path.join(directory, _FOLDER)
    for name in sorted(noted, key=lambda one: one == MARKER):
        if os.path.lexists(os.path.join(folder, name)):
            if name == MARKER:
                files.sync_directory(directory)
            os.rename(os.path.join(folder, name), os.path.join(directory, name))
    files.sync_directory(directory)
    shutil.rmtree(folder)


def _give_up(directory: str, token: str) -> None:
    path = os.path.join(directory, MARKER)
    beside = files.write_beside(path, marker_with(directory, token, made=None), durable=True)
    files.move_into_place(beside, path, durable=True)


def _signature(path: str) -> Signature | None:
    status = files.status_of(path)
    return files.signature_of(status) if status else None


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
