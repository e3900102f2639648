"""Reading an archive, one batch at a time, within limits, and believing only what is sealed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from storage.archive.lines import ArchiveError
from storage.archive.record_lines import kind_of, last_versions, names_in, record_of
from storage.archive.sealed import Line, SealedFile
from storage.archive.stream import OWN, Limits
from storage.changes import Names, Record


@dataclass(slots=True)
class Batch:
    """Records that were kept for one deletion. Not `done`: the writer did not live to say whether
    they were deleted."""

    records: list[Record]
    done: bool = True


class ArchiveReader:
    """Reads an archive once: iterates over its batches, also of one that was cut off, or verifies
    a backup. `complete` in the end if it has all that was written, and `about` is then what the
    writer said at the end. ArchiveError if it is damaged, no archive, or beyond a limit, where what
    came before is still right."""

    def __init__(self, path: str, limits: Limits = OWN) -> None:
        self.counts = Counter[str]()  # records that were deleted, by kind
        self._kept = 0
        self._open = list[list[Record]]()
        self._file = SealedFile(path, limits)
        self.header = self._file.header

    @property
    def complete(self) -> bool:
        return self._file.complete

    @property
    def about(self) -> dict[str, Any]:
        return self._file.about

    @property
    def unpacked(self) -> int:
        """Bytes that what was read so far holds."""
        return self._file.stream.made

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        damage = None
        try:
            yield from self._batches()
        except ArchiveError as error:
            damage = error
        if self._open:
            yield Batch(last_versions(self._open), done=False)
        if damage:
            raise damage

    def _batches(self) -> Iterator[Batch]:
        for records, note in self._file.groups(record_of):
            if "counts" in note:
                self._end(len(records), note)
            elif "kept" in note:
                self._keep(len(records), note)
                self._open.append(records)
            elif settled := self._settle(len(records), note):
                yield Batch(settled)

    def _keep(self, records: int, note: Line) -> None:
        self._kept += 1
        if note.get("kept") != self._kept or note.get("records") != records:
            raise ArchiveError("a batch of the archive is not as it should be")

    def _settle(self, records: int, note: Line) -> list[Record]:
        """Those of the open batches that were deleted."""
        number = note.get("done", note.get("void"))
        if records or not self._open or number != self._kept:
            raise ArchiveError("the notes of the archive do not fit its batches")
        missing = _missing(note) if "done" in note else None
        found = [] if missing is None else last_versions(self._open, missing)
        self.counts.update(record.kind for record in found)
        self._open = []
        return found

    def _end(self, records: int, note: Line) -> None:
        if records or note["counts"] != dict(self.counts):
            raise ArchiveError("the archive does not hold what it says at its end")

    def verify(self) -> Iterator[int]:
        """Everything that reading a backup would refuse, without making its records, and that it
        has an end; `counts` afterwards. Yields how many bytes of the file were read so far."""
        if self.header.kind != "backup":
            raise ArchiveError("this is no backup")
        settled = True
        for kinds, note in self._file.groups(kind_of):
            if "counts" in note:
                self._end(len(kinds) + (not settled), note)
            elif settled:
                self._keep(len(kinds), note)
                self.counts.update(kinds)
                settled = False
            elif kinds or note.get("done") != self._kept or note.get("except") != []:
                raise ArchiveError("the notes of the archive do not fit its batches")
            else:
                settled = True
                yield self._file.stream.read
        if not self.complete:
            raise ArchiveError("the archive was cut off: it has no end")


def _missing(note: Line) -> list[Names]:
    try:
        return [names_in(names) for names in note["except"]]
    except (KeyError, TypeError, ValueError):
        raise ArchiveError("a note of the archive is not as it should be") from None
