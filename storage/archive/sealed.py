"""Lines in groups, each up to a note whose seal proves that all of it was written so."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from typing import Any, TypeVar

from storage.ahead import ahead
from storage.archive.lines import (
    ArchiveError,
    about_of,
    check_seal,
    header_of,
    parse_line,
)
from storage.archive.stream import Limits, Stream

T = TypeVar("T")
Line = dict[str, Any]


class SealedFile:
    """An archive that is read once. `complete` once its end was read, with nothing behind it;
    `about` is then what that says."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.complete = False
        self.about: dict[str, Any] = {}
        self._limits, self._digest = limits, hashlib.sha256()
        self._records = 0
        self._unpacked: Generator[list[bytes], None, None] | None = None
        self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._check_file()
            self.stream = Stream(self._file, limits)
            self._portions: Iterator[list[bytes]] = self.stream.lines()
            self.header = header_of(self._first(), limits.depth)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._file >= 0:
            if self._unpacked is not None:
                self._unpacked.close()
            os.close(self._file)
        self._file = -1

    def _check_file(self) -> None:
        status, most = os.fstat(self._file), self._limits.size
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveError("this is no regular file")
        if most is not None and status.st_size > most:
            raise ArchiveError(f"the archive is larger than {most:,} bytes")

    def _first(self) -> Line:
        portion = next(self._portions, None)
        if portion is None:
            raise ArchiveError("the archive was cut off before its header")
        raw, *rest = portion
        line = parse_line(raw)
        if "format" in line:  # else it is nothing of ours, which is the better message
            check_seal(raw, self._digest)
        # From here on the next chunks are unpacked while these lines are looked at.
        self._unpacked = ahead(self._portions)
        self._portions = chain([rest], self._unpacked)
        return line

    def groups(self, take: Callable[[Line], T]) -> Iterator[tuple[list[T], Line]]:
        """What `take` makes of the records before each note, and the note; ends with that which
        says how many there are, or where the file was cut off."""
        taken, size = list[T](), 0
        for lines in self._portions:
            unhashed = 0
            size += sum(map(len, lines)) + len(lines)
            for place, raw in enumerate(lines):
                line = parse_line(raw)
                if "sha256" not in line:
                    taken.append(take(line))
                    continue
                self._hash(lines[unhashed:place])
                unhashed = place + 1
                check_seal(raw, self._digest)
                self._check_batch(len(taken), size)
                self._count(len(taken))
                if "counts" in line:
                    self._end(line, nothing_behind=unhashed == len(lines))
                    yield taken, line
                    return
                yield taken, line
                taken, size = list[T](), 0
            self._hash(lines[unhashed:])
            self._check_batch(len(taken), size)

    def _hash(self, lines: list[bytes]) -> None:
        if lines:
            self._digest.update(b"\n".join([*lines, b""]))

    def _count(self, records: int) -> None:
        self._records += records
        most = self._limits.records
        if most is not None and self._records > most:
            raise ArchiveError(f"the archive holds more than {most:,} records")

    def _check_batch(self, records: int, size: int) -> None:
        most, largest = self._limits.batch_records, self._limits.batch
        if (most is not None and records > most) or (
            largest is not None and records > 1 and size > largest
        ):
            raise ArchiveError("a batch of the archive is larger than it should be")

    def _end(self, line: Line, nothing_behind: bool) -> None:
        if line.get("complete") is not True:
            raise ArchiveError("the archive does not hold what it says at its end")
        if not nothing_behind or next(self._portions, None) or self.stream.rest:
            raise ArchiveError("something follows the end of the archive")
        self.about = about_of(line, self._limits.depth)
        self.complete = self.stream.ended
