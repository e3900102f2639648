"""A restore: what was put is merged with what is there, and all files are changed as one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from storage.base import StoreChanged, StoreUnavailable
from storage.changes import Change, Kind, Names, Record
from storage.garbage import LARGE, collector_paused
from storage.json_store import exchange, files
from storage.json_store.exchange import Sibling
from storage.json_store.files import Signature, StoreFile, Version
from storage.json_store.journal import Journal
from storage.json_store.layout import Corrupt
from storage.json_store.marker import IS_TOKEN, is_full, read_marker
from storage.json_store.merging import Puts, empty
from storage.json_store.snapshot import KINDS, JsonSnapshot
from storage.json_store.store import JsonFiles, files_in
from storage.json_store.trial import TrialFolder, remove_all_dead
from storage.snapshots import Restorable, Snapshot, Staging


class JsonRestore(JsonFiles, Restorable):
    """The restore's part of the store."""

    def snapshot(self) -> Snapshot:
        files.check_directory(self.directory)
        return JsonSnapshot(self._files)

    def stage(self, token: str, trial: bool = False) -> Staging:
        _check(token)
        return JsonTrial(self.directory, token) if trial else JsonStaging(self, token)

    def committed(self, token: str) -> bool | None:
        _check(token)
        files.check_directory(self.directory)
        with self._locked():
            self._tidy()
            noted = read_marker(self.directory)
            return noted[token] if token in noted else None if is_full(self.directory) else False

    def _tidy(self) -> None:
        """What killed restores and trials left behind. The caller holds the lock."""
        with files.errors_of_writing(self.directory):
            files.remove_leftovers(self.directory)
            exchange.tidy(self.directory)
            remove_all_dead(self.directory)

    # What the staging asks of it

    def _begin(self, staging: ExitStack) -> tuple[int, list[tuple[StoreFile[Any], Version[Any]]]]:
        """The lock, held as long as the staging, and the versions that it changes."""
        files.check_directory(self.directory)
        self._require_ownership()
        lock = staging.enter_context(self._locked())
        self._tidy()
        return lock, [(file, file.version()) for file in self._files]

    def _check_and_note(
        self,
        lock: int,
        versions: Sequence[tuple[StoreFile[Any], Version[Any]]],
        written: Mapping[str, Signature],
    ) -> None:
        """Just before the files are changed: that everything is as it was at the beginning."""
        self._require_ownership()
        for file, version in versions:
            status = files.status_of(file.path)
            if (files.signature_of(status) if status else None) != version.signature:
                raise StoreChanged(f"{file.path} was changed meanwhile; nothing happened")
        if not self._as_runner:
            was = {file.name: version.signature for file, version in versions}
            self._note_our_writes(lock, {name: (written[name], was[name]) for name in written})


class JsonTrial(Staging):
    """What is only tried: files of what was put alone, in a folder of its own."""

    def __init__(self, directory: str, token: str) -> None:
        self.token = token
        self._puts = Puts()
        self._folder = TrialFolder(directory, token)

    def put(self, records: Sequence[Record]) -> Change:
        return _put(self._puts, records)

    def staged(self) -> Snapshot:
        return _written(self._puts, self._folder.path)

    def commit(self, deleted: Iterable[tuple[Kind, Names]], keep_events: bool) -> None:
        raise ValueError("a trial is never committed")

    def discard(self) -> None:
        self._folder.remove()


class JsonStaging(Staging):
    """A change of the directory. What was put is kept in memory, as these files always are; the
    files are written by `commit`, and by `staged` into a trial's folder."""

    def __init__(self, store: JsonRestore, token: str) -> None:
        self.token = token
        self._store, self._directory = store, store.directory
        self._puts = Puts()
        self._open = ExitStack()
        try:
            self._lock, self._versions = store._begin(self._open)
        except BaseException:
            self._open.close()
            raise
        self._folder: TrialFolder | None = None

    def put(self, records: Sequence[Record]) -> Change:
        return _put(self._puts, records)

    def staged(self) -> Snapshot:
        if self._folder is None:
            self._folder = TrialFolder(self._directory, self.token)
            self._open.callback(self._folder.remove)
        return _written(self._puts, self._folder.path)

    def commit(self, deleted: Iterable[tuple[Kind, Names]], keep_events: bool) -> None:
        doomed: dict[Kind, list[Names]] = {}
        for kind, names in deleted:
            doomed.setdefault(kind, []).append(names)
        fresh = {}
        for file, version in self._versions:
            with collector_paused(LARGE):
                raw = self._merged(file, version, doomed.get(KINDS[file.name], []), keep_events)
            if raw is not None:
                fresh[file.name] = raw
        for way in (Sibling(self._directory, self.token), Journal(self._directory, self.token)):
            if self._change(way, fresh):
                return

    def _merged(
        self, file: StoreFile[Any], version: Version[Any], doomed: list[Names], keep_events: bool
    ) -> bytes | None:
        """The new bytes of a file; None if it stays. One that is corrupt stays only where nothing
        of it was asked for; its bytes are in the backup that was made before."""
        all_events = keep_events or file.name != "metrics.json"
        if all_events and not doomed and not self._puts.asks_for(file.name):
            return None
        present = version.document or empty(file.name)
        try:
            raw = self._puts.merged(file.name, present, doomed, all_events)
        except (Corrupt, RecursionError) as error:
            raise StoreUnavailable(f"{file.name}: {error}; nothing changed") from None
        as_it_is = version.document is not None and version.document.raw == raw
        if version.signature is None:  # no file is made of nothing, unless it was one
            as_it_is = as_it_is and not self._puts.has_file(file.name)
        return None if as_it_is else raw

    def _change(self, way: Sibling | Journal, fresh: Mapping[str, bytes]) -> bool:
        """Whether it could be done this way."""
        try:
            written = way.prepare(fresh)
            self._store._check_and_note(self._lock, self._versions, written)
            way.commit()
        except OSError:
            way.discard()
            if isinstance(way, Sibling):
                return False
            with files.errors_of_writing(self._directory):
                raise
        except BaseException:
            way.discard()
            raise
        return True

    def discard(self) -> None:
        self._open.close()


def _check(token: str) -> None:
    if not IS_TOKEN.fullmatch(token):
        raise ValueError("a token is 32 hexadecimal digits")


def _put(puts: Puts, records: Sequence[Record]) -> Change:
    change = Change()
    with collector_paused(len(records)):
        for record in records:
            reason = puts.add(record)
            if reason:
                change.skipped.append((record.names, reason))
            else:
                change.done += 1
    return change


def _written(puts: Puts, folder: str) -> Snapshot:
    """What was put, in files of its own, to be read back."""
    with files.errors_of_writing(folder), collector_paused(LARGE):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        for name in filter(puts.asks_for, KINDS):
            path = os.path.join(folder, name)
            try:
                files.write_new(path, puts.merged(name, empty(name)), like=path)
            except (Corrupt, RecursionError) as error:
                raise StoreUnavailable(f"{name}: {error}") from None
    return JsonSnapshot(files_in(folder))
