"""A real store of which one call fails, comes late, is cut short or is made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from storage.base import Store, StoreUnavailable
from storage.changes import Change, Kind, Names, Record
from storage.snapshots import Section, Snapshot, Staging

AnswerT = TypeVar("AnswerT")
CALLS = ("snapshot", "batch", "sections", "stage", "put", "staged", "commit", "committed")
HOWS = ("error", "late error", "delay", "short", "double")


@dataclass
class Fault:
    """What is wrong with one call: the so manieth of its name. `late error`: it is done, and the
    answer is lost. `short`: it ends early and says nothing. `before` is done just before it."""

    call: str
    how: str
    at: int = 1
    before: Callable[[], object] = lambda: None
    met: int = 0

    @property
    def happened(self) -> bool:
        return self.met >= self.at

    def strikes(self, call: str) -> str:
        """How, if this is the call; else empty."""
        self.met += call == self.call
        return self.how if call == self.call and self.met == self.at else ""

    def answer(self, call: str, real: Callable[[], AnswerT]) -> AnswerT:
        how = self.strikes(call)
        if how:
            self.before()
        if how == "error":
            raise StoreUnavailable(f"{call} failed")
        if how == "delay":
            time.sleep(0.02)
        answer = real()
        if how == "late error":
            raise StoreUnavailable(f"the answer to {call} was lost")
        return real() if how == "double" else answer


class FaultyStore:
    def __init__(self, store: Store, fault: Fault) -> None:
        self._store, self._fault = store, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def snapshot(self) -> Snapshot:
        found = self._fault.answer("snapshot", self._store.snapshot)
        return FaultySnapshot(found, self._fault)

    def stage(self, token: str, trial: bool = False) -> Staging:
        def staged() -> Staging:
            return self._store.stage(token, trial)

        return FaultyStaging(self._fault.answer("stage", staged), self._fault)

    def committed(self, token: str) -> bool | None:
        return self._fault.answer("committed", lambda: self._store.committed(token))


class FaultySnapshot(Snapshot):
    def __init__(self, real: Snapshot, fault: Fault) -> None:
        self._real, self._fault = real, fault

    def __iter__(self) -> Iterator[Sequence[Record]]:
        for batch in self._real:
            how = self._fault.strikes("batch")
            if how:
                self._fault.before()
            if how == "error":
                raise StoreUnavailable("batch failed")
            if how == "short":
                return
            yield batch
            if how == "double":
                yield batch
            if how == "late error":
                raise StoreUnavailable("batch failed")

    def sections(self) -> list[Section]:
        found = self._fault.answer("sections", self._real.sections)
        return found[:-1] if self._is_short("sections") else found

    def _is_short(self, call: str) -> bool:
        fault = self._fault
        return (fault.call, fault.how, fault.met) == (call, "short", fault.at)


class FaultyStaging(Staging):
    def __init__(self, real: Staging, fault: Fault) -> None:
        self._real, self._fault, self.token = real, fault, real.token

    def put(self, records: Sequence[Record]) -> Change:
        fault = self._fault
        is_short = (fault.call, fault.how, fault.met + 1) == ("put", "short", fault.at)
        some = records[:-1] if is_short else records
        change = fault.answer("put", lambda: self._real.put(some))
        change.done += len(records) - len(some)  # so it says
        return change

    def staged(self) -> Snapshot:
        found = self._fault.answer("staged", self._real.staged)
        return FaultySnapshot(found, self._fault)

    def commit(self, deleted: Iterable[tuple[Kind, Names]], keep_events: bool) -> None:
        doomed = list(deleted)
        self._fault.answer("commit", lambda: self._real.commit(doomed, keep_events))

    def discard(self) -> None:
        self._real.discard()
