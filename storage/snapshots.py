"""Whole stores: all that one holds, read once, and changes of it that happen all or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from storage.changes import Change, Kind, Names, Record


@dataclass(frozen=True, slots=True)
class Section:
    """How far the records of one kind belong together. `point-in-time`: they are what was stored
    at one moment between `began` and `ended` (Unix seconds); `fuzzy`: each is as it was at some
    moment between the two, so that of two changes only the later one may be in it. `note` says
    what is not among the records though it may be stored (a corrupt file's)."""

    kind: Kind
    consistency: Literal["point-in-time", "fuzzy"]
    began: float
    ended: float
    note: str = ""


class Snapshot(ABC):
    """All records of a store, to be iterated over once: batches of one kind, every kind in one
    stretch. Reads only; memory follows the largest batch and the names, not what is stored.

    Order: `file` (JSON only: the original bytes of each file, corrupt ones too), `agent`,
    `member`, `hash`, `topic`, `result`, `entry`, `metrics` (oldest first), `config`. What lies
    under a key with the wrong type is a record of the form `dump`. Expiries are absolute; what has
    expired is left out where the backend hides it.

    StoreError in the middle if the store fails: what was read until then is no snapshot."""

    total: int | None = None
    """About how many records there are, for a progress bar; None if nobody knows yet."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sequence[Record]]: ...

    @abstractmethod
    def sections(self) -> list[Section]:
        """One for each kind, also of those without a record. Complete after the last batch, and not
        before: so it is known whether all was read."""


class Staging(ABC):
    """A change of many records, prepared beside the store and then done all or not at all.

    A context manager, which discards what was not committed. From its beginning on it notices
    other changes of what it concerns: JSON by holding the directory's lock, Redis by watching the
    indexes. So what is compared within it is what is changed."""

    token: str

    @abstractmethod
    def put(self, records: Sequence[Record]) -> Change:
        """Stage records of one kind, of a snapshot of the same backend, to be stored with their
        expiries, in the place of what has their names; an event of a directory, which has none
        that is its own, stands beside. Skipped with the reason: what has expired, and what the
        backend cannot hold. StoreReadOnly where there is no room."""

    @abstractmethod
    def staged(self) -> Snapshot:
        """What was put so far, read back from where it was written."""

    @abstractmethod
    def commit(self, deleted: Iterable[tuple[Kind, Names]], keep_events: bool) -> None:
        """Store all that was put and delete these, at once; what is in neither stays untouched.
        Events that were put stand between those that are there by their ids (JSON: their times),
        or with `keep_events` False in the place of all. `StoreChanged` if somebody else changed
        what it concerns since the staging began, StoreBusy under a live runner: then nothing
        happened. Returns once it is durable as far as the backend can say."""

    @abstractmethod
    def discard(self) -> None:
        """Drop what was staged; harmless after a commit."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class Restorable(ABC):
    """The part of the store contract that backups ask."""

    can_save: bool = False
    """There is a server that can be told to save all that it holds to its own disk."""

    @abstractmethod
    def snapshot(self) -> Snapshot: ...

    @abstractmethod
    def stage(self, token: str, trial: bool = False) -> Staging:
        """Begin a change under a token (lower-case hex, 32 characters, used once). A `trial` is
        never committed: it neither reads nor locks what is stored, is written beside it (Redis:
        keys under `omnidash:restore:{token}:`, which expire by themselves within an hour; JSON: a
        folder beside the directory), and its `staged` proves that the records can be stored.
        StoreBusy where OmniDaemon is at work on a JSON directory (not for a trial), StoreReadOnly,
        StoreDenied where it cannot be written."""

    @abstractmethod
    def committed(self, token: str) -> bool | None:
        """Whether the change of this token was made, however its writer ended: True: the store is
        the new one; False: it is the old one; None: it cannot be told (any more, after a day).
        Finishes or undoes, and tidies up after, what a killed writer left in the middle."""

    def save_to_disk(self) -> Iterator[float]:
        """Tell the server to save all its data, ours or not; yields the seconds so far while it
        does. StoreError unless the server then says itself that it succeeded."""
        raise NotImplementedError("this store has no server that could save itself")
