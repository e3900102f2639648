"""Reading an archive, one batch at a time, within limits, and believing only what is sealed."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from storage.archive.lines import (
    ArchiveError,
    check_seal,
    header_of,
    last_versions,
    names_in,
    parse_line,
    record_of,
)
from storage.changes import Names, Record

_GZIP = zlib.MAX_WBITS | 16
_READ, _CHUNK = 1 << 16, 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader of a file from anywhere puts up with; None: any. `line` and `output` are
    uncompressed bytes, `ratio` is of these to compressed ones, `depth` is of the header."""

    line: int = 64 << 20
    output: int | None = 2 << 30
    ratio: int | None = 200
    records: int | None = 2_000_000
    depth: int = 100


OWN = Limits(line=1 << 30, output=None, ratio=None, records=None)
"""For files that we wrote ourselves: a line holds the largest record of a JSON directory."""


@dataclass(slots=True)
class Batch:
    """Records that were kept for one deletion. Not `done`: the writer did not live to say whether
    they were deleted."""

    records: list[Record]
    done: bool = True


class ArchiveReader:
    """Iterates once over the batches of an archive, also of one that was cut off; `complete` in the
    end if it has all that was written. ArchiveError if it is damaged, no archive, or beyond a
    limit, where what came before is still right."""

    def __init__(self, path: str, limits: Limits = OWN) -> None:
        self.complete = False
        self.counts = Counter[str]()  # records that were deleted, by kind
        self._limits, self._digest = limits, hashlib.sha256()
        self._kept, self._records = 0, 0
        self._current, self._open = list[Record](), list[list[Record]]()
        self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise ArchiveError("this is no regular file")
            self._stream = _Stream(self._file, limits)
            self._lines = self._stream.lines()
            self.header = header_of(self._first(), limits.depth)
        except BaseException:
            self.close()
            raise

    def _first(self) -> dict[str, Any]:
        raw = next(self._lines, None)
        if raw is None:
            raise ArchiveError("the archive was cut off before its header")
        line = parse_line(raw)
        if "format" in line:  # else it is nothing of ours, which is the better message
            check_seal(raw, self._digest)
        return line

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

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
        for raw in self._lines:
            line = parse_line(raw)
            if "sha256" not in line:
                self._take(raw, line)
                continue
            check_seal(raw, self._digest)
            if "counts" in line:
                return self._end(line)
            if "kept" in line:
                self._keep(line)
            elif records := self._settle(line):
                yield Batch(records)

    def _take(self, raw: bytes, line: dict[str, Any]) -> None:
        self._digest.update(raw + b"\n")
        self._records += 1
        most = self._limits.records
        if most is not None and self._records > most:
            raise ArchiveError(f"the archive holds more than {most:,} records")
        self._current.append(record_of(line))

    def _keep(self, line: dict[str, Any]) -> None:
        self._kept += 1
        if line.get("kept") != self._kept or line.get("records") != len(self._current):
            raise ArchiveError("a batch of the archive is not as it should be")
        self._open.append(self._current)
        self._current = []

    def _settle(self, line: dict[str, Any]) -> list[Record]:
        """Those of the open batches that were deleted."""
        number = line.get("done", line.get("void"))
        if self._current or not self._open or number != self._kept:
            raise ArchiveError("the notes of the archive do not fit its batches")
        missing = _missing(line) if "done" in line else None
        found = [] if missing is None else last_versions(self._open, missing)
        self.counts.update(record.kind for record in found)
        self._open = []
        return found

    def _end(self, line: dict[str, Any]) -> None:
        if self._current or line["counts"] != dict(self.counts) or line.get("complete") is not True:
            raise ArchiveError("the archive does not hold what it says at its end")
        if next(self._lines, None) is not None:
            raise ArchiveError("something follows the end of the archive")
        self.complete = self._stream.ended


def _missing(line: dict[str, Any]) -> list[Names]:
    try:
        return [names_in(names) for names in line["except"]]
    except (KeyError, TypeError, ValueError):
        raise ArchiveError("a note of the archive is not as it should be") from None


class _Stream:
    """Unpacks one gzip stream, never more at once than a chunk and the line at hand."""

    def __init__(self, file: int, limits: Limits) -> None:
        self.ended = False  # with its own checksum, and nothing behind it
        self._file, self._limits = file, limits
        self._read = self._made = 0
        self._gzip = zlib.decompressobj(_GZIP)

    def lines(self) -> Iterator[bytes]:
        """Without their line breaks; the rest of one that was cut off is left out."""
        parts, size = list[bytes](), 0
        for chunk in self._chunks():
            *whole, rest = chunk.split(b"\n")
            for text in whole:
                self._check_line(size + len(text))
                yield b"".join([*parts, text])
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            self._check_line(size)

    def _check_line(self, size: int) -> None:
        if size > self._limits.line:
            raise ArchiveError(f"a line of the archive is longer than {self._limits.line:,} bytes")

    def _chunks(self) -> Iterator[bytes]:
        while raw := os.read(self._file, _READ):
            self._read += len(raw)
            yield from self._unpacked(raw)
            if self._gzip.eof:
                if self._gzip.unused_data or os.read(self._file, 1):
                    raise ArchiveError("something follows the end of the archive")
                self.ended = True

    def _unpacked(self, raw: bytes) -> Iterator[bytes]:
        while True:
            before = self._gzip.copy()
            try:
                chunk = self._gzip.decompress(raw, _CHUNK)
            except zlib.error:
                yield from _until_damage(before, raw)
                raise ArchiveError("the archive is damaged, or is no gzip file") from None
            self._made += len(chunk)
            self._check()
            yield chunk
            raw = self._gzip.unconsumed_tail
            if self._gzip.eof or (not raw and len(chunk) < _CHUNK):
                return

    def _check(self) -> None:
        output, ratio = self._limits.output, self._limits.ratio
        if output is not None and self._made > output:
            raise ArchiveError(f"the archive holds more than {output:,} bytes")
        if ratio is not None and self._made > ratio * self._read + _CHUNK:
            raise ArchiveError(f"the archive is packed more than {ratio} times")


def _until_damage(unpacker: Any, raw: bytes) -> Iterator[bytes]:
    """What comes before the damage, which zlib keeps to itself."""
    for position in range(len(raw)):
        try:
            yield unpacker.decompress(raw[position : position + 1])
        except zlib.error:
            return
