"""The bytes of an archive, unpacked within limits, line by line."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from storage.archive.lines import ArchiveError, LimitError

_GZIP = zlib.MAX_WBITS | 16
_READ, _CHUNK = 1 << 16, 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader of a file from anywhere puts up with; None: any. `size` is of the file, `line`
    and `output` are uncompressed bytes, `ratio` is of these to compressed ones, `depth` is of what
    header and end say. `batch` and `batch_records` are what may lie between two notes, where it is
    more than one record: a reader holds so much at once."""

    size: int | None = None
    line: int = 64 << 20
    output: int | None = 2 << 30
    ratio: int | None = 200
    records: int | None = 2_000_000
    depth: int = 100
    batch: int | None = 64 << 20
    batch_records: int | None = 20_000


OWN = Limits(
    line=1 << 30, output=None, ratio=None, records=None, batch=None, batch_records=None
)  # fmt: skip
"""For files that we wrote ourselves: a line holds the largest record of a JSON directory, and what
was kept for one deletion is one batch."""


class Stream:
    """Unpacks one gzip stream, never more at once than a chunk and the line at hand."""

    def __init__(self, file: int, limits: Limits) -> None:
        self.ended = False  # with its own checksum, and nothing behind it
        self.read = self.made = 0  # bytes of the file, and what they became
        self.rest = 0  # bytes behind the last line break, in the end
        self._file, self._limits = file, limits
        self._gzip = zlib.decompressobj(_GZIP)

    def lines(self) -> Iterator[list[bytes]]:
        """Those that end in one chunk, without their line breaks; the rest of one that was cut off
        is left out."""
        parts, size = list[bytes](), 0
        for chunk in self._chunks():
            first, *more = chunk.split(b"\n")
            parts.append(first)
            size += len(first)
            self._check_line(size)
            if more:
                rest = more.pop()
                self._check_line(max(map(len, more), default=0))
                yield [b"".join(parts), *more]
                parts, size = [rest], len(rest)
        self.rest = size

    def _check_line(self, size: int) -> None:
        if size > self._limits.line:
            raise LimitError(f"a line of the archive is longer than {self._limits.line:,} bytes")

    def _chunks(self) -> Iterator[bytes]:
        while raw := os.read(self._file, _READ):
            self.read += len(raw)
            yield from self._unpacked(raw)
            if self._gzip.eof:
                if self._gzip.unused_data or os.read(self._file, 1):
                    raise ArchiveError("something follows the end of the archive")
                self.ended = True

    def _unpacked(self, raw: bytes) -> Iterator[bytes]:
        while True:
            before = self._gzip.copy()  # a twentieth of what it costs to unpack the chunk
            try:
                chunk = self._gzip.decompress(raw, _CHUNK)
            except zlib.error:
                yield from _until_damage(before, raw)
                raise ArchiveError("the archive is damaged, or is no gzip file") from None
            self.made += len(chunk)
            self._check()
            yield chunk
            raw = self._gzip.unconsumed_tail
            if self._gzip.eof or (not raw and len(chunk) < _CHUNK):
                return

    def _check(self) -> None:
        size, output, ratio = self._limits.size, self._limits.output, self._limits.ratio
        if size is not None and self.read > size:
            raise LimitError(f"the archive is larger than {size:,} bytes")
        if output is not None and self.made > output:
            raise LimitError(f"the archive holds more than {output:,} bytes")
        if ratio is not None and self.made > ratio * self.read + _CHUNK:
            raise LimitError(f"the archive is packed more than {ratio} times")


def _until_damage(unpacker: Any, raw: bytes) -> Iterator[bytes]:
    """What comes before the damage, which zlib keeps to itself; found by halves."""
    while raw:
        half = (len(raw) + 1) // 2
        before = unpacker.copy()
        try:
            yield unpacker.decompress(raw[:half])
        except zlib.error:
            if half == 1:
                return
            unpacker, raw = before, raw[:half]
        else:
            raw = raw[half:]
