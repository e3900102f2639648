"""All that a directory holds: the bytes of its files, then their records."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from storage.changes import Kind, Record
from storage.json_store.agent_cuts import WHOLE, placed_agents
from storage.json_store.files import StoreFile, Version
from storage.json_store.layout import Document, Listing, Objects
from storage.json_store.metrics import unique_event_ids
from storage.json_store.results import ResultIndex
from storage.snapshots import Section, Snapshot

KINDS: dict[str, Kind] = {
    "agents.json": "agent",
    "results.json": "result",
    "metrics.json": "metrics",
    "config.json": "config",
}
PIECE = 16 << 20  # bytes of a file in one record: a line of an archive from elsewhere is limited
_BATCH, _BATCH_BYTES = 1000, 4 << 20


class JsonSnapshot(Snapshot):
    """One version of each of the files, as all readers share it."""

    def __init__(self, files: Sequence[StoreFile[Any]]) -> None:
        self._files = files
        self._sections: list[Section] = []

    def __iter__(self) -> Iterator[Sequence[Record]]:
        began = time.time()
        found, sections = deque[Version[Any]](), list[Section]()
        for file in self._files:
            version, section = _read(file)
            found.append(version)
            sections.append(section)
        sections.insert(0, Section("file", "fuzzy", began, time.time()))
        self.total = sum(map(_count, found))
        for file, version in zip(self._files, found, strict=True):
            yield from _pieces(file.name, version)
        for file in self._files:
            version = found.popleft()  # not to be held any longer than needed
            if version.document is not None:
                yield from _batches(records_of(KINDS[file.name], version.document))
        self._sections = sections

    def sections(self) -> list[Section]:
        return list(self._sections)


def _read(file: StoreFile[Any]) -> tuple[Version[Any], Section]:
    began = time.time()
    version = file.version()
    note = ""
    if version.signature is None:
        note = f"there is no {file.name}"
    elif version.document is None:
        note = f"{file.name} is corrupt: its bytes are here, its records are not"
    return version, Section(KINDS[file.name], "point-in-time", began, time.time(), note)


def _count(version: Version[Any]) -> int:
    pieces = 0 if version.signature is None else 1
    values = [] if version.document is None else version.document.values
    return pieces + len(values)


def _pieces(name: str, version: Version[Any]) -> Iterator[Sequence[Record]]:
    """The bytes of a file; those of a large one in several records, the next ones numbered."""
    if version.signature is None:
        return
    raw = memoryview(version.raw if version.document is None else version.document.raw)
    for number, start in enumerate(range(0, max(1, len(raw)), PIECE), 1):
        names = (name,) if number == 1 else (name, str(number))
        yield [Record("file", names, bytes(raw[start : start + PIECE]))]


def records_of(kind: Kind, document: Document) -> Iterator[Record]:
    """The records of one file, in its order."""
    if isinstance(document, Listing):
        names = unique_event_ids(document.values)
        for position, name in enumerate(names):
            yield Record(kind, (name,), document.text(position))
    elif isinstance(document, Objects) and kind == "agent":
        for topic, agents in document.derive(placed_agents).items():
            for place, one in enumerate(agents):
                score = None if one.name == WHOLE else str(place)
                yield Record(kind, (topic, one.name), one.text, score=score)
    elif isinstance(document, Objects):
        expires = document.derive(ResultIndex).expires if kind == "result" else {}
        for key in document.values:
            at = round(expires[key] * 1000) if key in expires else None
            yield Record(kind, (key,), document.text(key), expires_at_ms=at)


def _batches(records: Iterable[Record]) -> Iterator[Sequence[Record]]:
    batch, size = list[Record](), 0
    for record in records:
        batch.append(record)
        size += len(record.raw)
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
