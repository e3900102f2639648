"""A snapshot of what a test says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from storage.changes import Record
from storage.snapshots import Section, Snapshot


class Listed(Snapshot):
    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def __iter__(self) -> Iterator[Sequence[Record]]:
        for _, some in groupby(self.records, key=lambda record: record.kind):
            yield list(some)

    def sections(self) -> list[Section]:
        return []
