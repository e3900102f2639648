"""Batches on two lanes: one is read while the one before it is kept and deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from queue import SimpleQueue

from storage.base import Store
from storage.changes import Change, Keep, Record, Target


class _GivenUp(Exception):
    """The batch was only read: its turn will not come."""


class _Removal:
    """One batch under way in a thread of its own, which waits with what it read until the caller
    keeps that; nothing is deleted before."""

    def __init__(self, lanes: Executor, store: Store, batch: Sequence[Target]) -> None:
        self._read = SimpleQueue[Sequence[Record] | None]()
        self._answers = SimpleQueue[BaseException | None]()
        self._change = lanes.submit(self._removed, store, batch)

    def _removed(self, store: Store, batch: Sequence[Target]) -> Change:
        try:
            return store.remove(batch, self._hand_over)
        finally:
            self._read.put(None)

    def _hand_over(self, records: Sequence[Record]) -> None:
        self._read.put(records)
        if (refusal := self._answers.get()) is not None:
            raise refusal

    def end(self, keep: Keep) -> Change:
        """Its turn has come. `keep` is called in the caller's thread."""
        while (records := self._read.get()) is not None:
            try:
                keep(records)
            except BaseException as error:
                self._answers.put(error)
                self._change.exception()
                raise
            self._answers.put(None)
        return self._change.result()

    def give_up(self) -> None:
        self._answers.put(_GivenUp())


def remove_on_lanes(
    store: Store, batches: Iterable[Sequence[Target]], keep: Keep
) -> Iterator[Change]:
    """What came of each batch, in order. A batch is kept and deleted only when the caller has dealt
    with all before it and asks for it; one that it never asks for is left as it is."""
    with ThreadPoolExecutor(2, "remove") as lanes:
        ahead: _Removal | None = None
        try:
            for batch in batches:
                present, ahead = ahead, _Removal(lanes, store, batch)
                if present:
                    yield present.end(keep)
            if ahead:
                yield ahead.end(keep)
        finally:
            if ahead:
                ahead.give_up()
