"""The four files of a store, and how one of them is changed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from storage import StoreURL
from storage.base import Store, StoreBusy, StoreError, StoreUnavailable
from storage.json_store import files, journal
from storage.json_store.files import Signature, StoreFile
from storage.json_store.layout import (
    Corrupt,
    Document,
    Listing,
    Objects,
    parse_list,
    parse_objects,
)
from storage.json_store.owner import Owner, judge

DocumentT = TypeVar("DocumentT", bound=Document)
AnswerT = TypeVar("AnswerT")

_ATTEMPTS = 5
_FORMER, _PREVIOUS = "former ", "previous "  # what a version replaced: others', or our own


class JsonFiles(Store):
    """What all parts of the JSON store share."""

    backend = "json"
    can_expire_natively = False
    has_index = False
    has_bus = False
    metrics_lag = 99

    def __init__(self, where: StoreURL, as_runner: bool = False) -> None:
        self.address = where.safe
        self.directory = where.path
        self._as_runner = as_runner
        self._agents, self._results, self._metrics, self._config = files_in(where.path)
        self._statement = threading.local()

    @property
    def _files(self) -> tuple[StoreFile[Any], ...]:
        return self._agents, self._results, self._metrics, self._config

    def connect(self) -> None:
        files.check_directory(self.directory)

    def close(self) -> None:
        for file in self._files:
            file.forget()

    def _config_if_readable(self) -> Mapping[str, Any] | None:
        try:
            return self._config.document().values
        except StoreError:
            return None

    def _last_change(self) -> float | None:
        """When the newest of the files changed."""
        found = [status.st_mtime for status in map(self._status, self._files) if status]
        return max(found, default=None)

    @staticmethod
    def _status(file: StoreFile[Any]) -> os.stat_result | None:
        try:
            return files.status_of(file.path)
        except StoreError:
            return None

    # Who owns the directory

    def owner(self) -> Owner:
        """Whether a running OmniDaemon owns the directory, with the evidence."""
        files.check_directory(self.directory)
        for _ in range(_ATTEMPTS):
            ours = self._our_writes()
            changes = self._changes_of_others(ours)
            if not changes or ours == self._our_writes():
                break  # else another process of ours has written between the two looks
        before_ours = ours.get(_FORMER + self._config.name)
        stopped = changes.get(self._config.name, before_ours and before_ours[1] / 1e9)
        return judge(self._config_if_readable(), changes, stopped, time.time())

    def _changes_of_others(self, ours: Mapping[str, Signature]) -> dict[str, float]:
        return {
            file.name: status.st_mtime
            for file in self._files
            if (status := self._status(file))
            and files.signature_of(status)
            not in (ours.get(file.name), ours.get(_PREVIOUS + file.name))
        }

    @contextmanager
    def owner_stated_stopped(self) -> Iterator[None]:
        """Within it, in this thread, an administrator vouches that no OmniDaemon runs here. That
        settles what cannot be proven; it does not overrule signs of life."""
        before = getattr(self._statement, "stopped", False)
        self._statement.stopped = True
        try:
            yield
        finally:
            self._statement.stopped = before

    def owned_by(self) -> str:
        return self._objections().get("live", "")

    def owner_unproven(self) -> str:
        return self._objections().get("unproven", "")

    def _objections(self) -> dict[str, str]:
        """What speaks against a write now, by the owner's state: at most one reason."""
        if self._as_runner:
            return {}
        owner = self.owner()
        evidence = "; ".join(owner.evidence)
        if owner.state == "live":
            why = (
                f"a running OmniDaemon owns {self.directory} ({evidence}). It keeps these files in "
                "memory and would undo the change: stop the runner, then try again"
            )
        elif owner.state == "unproven":
            why = (
                f"it cannot be proven that OmniDaemon has stopped using {self.directory} "
                f"({evidence})"
            )
        else:
            return {}
        return {owner.state: why}

    def _require_ownership(self) -> None:
        for state, why in self._objections().items():
            if state == "live" or not getattr(self._statement, "stopped", False):
                todo = "" if state == "live" else ". Stop it cleanly, or state that it has stopped"
                raise StoreBusy(f"{why}{todo}; nothing changed")

    def _our_writes(self) -> dict[str, Signature]:
        """The versions that we wrote ourselves: they are no sign of a runner. The last one of
        others that we replaced dates a clean stop."""
        try:
            found = files.read_generation(os.path.join(self.directory, files.LOCK_NAME))
            noted = json.loads(found[0]) if found else {}
            return {name: (int(a), int(b), int(c)) for name, (a, b, c) in noted.items()}
        except (StoreError, ValueError, TypeError, AttributeError):
            return {}

    def _note_our_writes(
        self, lock: int, written: Mapping[str, tuple[Signature, Signature | None]]
    ) -> None:
        """By file the version that is to be moved into place, before it is, and the one that is
        there: so at any moment the file is one that is noted."""
        ours = self._our_writes()
        noted = dict(ours)
        for name, (signature, was) in written.items():
            if was is not None:
                own = was in (ours.get(name), ours.get(_PREVIOUS + name))
                noted[(_PREVIOUS if own else _FORMER) + name] = was
            noted[name] = signature
        text = json.dumps(noted).encode("ascii")
        os.pwrite(lock, text.ljust(os.fstat(lock).st_size), 0)  # whole for a reader at any moment

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The lock of all our writers; what a killed restore left half done is done first."""
        with files.directory_lock(self.directory) as lock:
            if journal.is_pending(self.directory):
                if owned := self.owned_by():
                    raise StoreBusy(f"a restore was left half done, and {owned}")
                journal.settle(self.directory)
            yield lock

    # Changing a file

    def _change(
        self,
        file: StoreFile[DocumentT],
        edit: Callable[[DocumentT], tuple[DocumentT | None, AnswerT]],
    ) -> AnswerT:
        """Replace a file by what `edit` makes of its present version (None: leave it). No other
        process of ours writes in between, and a file that somebody else changed is read again."""
        files.check_directory(self.directory)
        self._require_ownership()
        with self._locked() as lock:
            for _ in range(_ATTEMPTS):
                version = file.version()
                try:
                    document, answer = edit(file.checked(version))
                except (Corrupt, RecursionError) as error:
                    raise StoreUnavailable(f"{file.name}: {error}; nothing changed") from None
                if document is None or self._replaced(file, document, version.signature, lock):
                    return answer
        raise StoreBusy(f"{file.path} is being changed by somebody else; nothing changed")

    def _replaced(
        self, file: StoreFile[DocumentT], document: DocumentT, was: Signature | None, lock: int
    ) -> bool:
        durable = not self._as_runner  # sample data need not survive a power cut
        with files.errors_of_writing(file.path):
            files.remove_leftovers(self.directory)
            beside = files.write_beside(file.path, document.raw, durable)
        try:
            self._require_ownership()
            present = files.status_of(file.path)
            if (files.signature_of(present) if present else None) != was:
                return False
            with files.errors_of_writing(file.path):
                if not self._as_runner:
                    signature = files.signature_of(os.lstat(beside))
                    self._note_our_writes(lock, {file.name: (signature, was)})
                status = files.move_into_place(beside, file.path, durable)
        finally:
            if os.path.exists(beside):
                os.unlink(beside)
        file.remember(document, status)
        return True

    @staticmethod
    def _trouble(file: StoreFile[Any]) -> str:
        """Why a file's records cannot be read; empty if they can."""
        try:
            return file.version().problem
        except StoreError as error:
            return str(error)


def files_in(
    directory: str,
) -> tuple[StoreFile[Objects], StoreFile[Objects], StoreFile[Listing], StoreFile[Objects]]:
    """Agents, results, metrics and configuration."""
    return (
        StoreFile(directory, "agents.json", parse_objects, b"{}"),
        StoreFile(directory, "results.json", _parse_results, b"{}"),
        StoreFile(directory, "metrics.json", parse_list, b"[]"),
        StoreFile(directory, "config.json", parse_objects, b"{}"),
    )


def _parse_results(raw: bytes) -> Objects:
    return parse_objects(raw, exact=False)


def objects_or_none(file: StoreFile[Objects]) -> Objects | None:
    """The records, or None if they cannot be read though the store can."""
    return _or_none(file)


def listing_or_none(file: StoreFile[Listing]) -> Listing | None:
    return _or_none(file)


def _or_none(file: StoreFile[DocumentT]) -> DocumentT | None:
    files.check_directory(os.path.dirname(file.path))
    try:
        return file.document()
    except StoreError:
        return None
