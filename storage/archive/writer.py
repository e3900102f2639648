"""Writing an archive: each batch is safe on disk before what it holds is deleted."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from storage.archive.lines import (
    ArchiveError,
    Digest,
    Header,
    header_line,
    sealed,
)
from storage.archive.reader import ArchiveReader
from storage.archive.record_lines import last_versions, names_out, record_line
from storage.changes import Change, Names, Record

_PART = ".part"
_LEVEL = 1  # to keep a batch should not take longer than to delete it
_GZIP = zlib.MAX_WBITS | 16
_PIECE = 1 << 16  # larger ones cost a third more: memory for them is fetched from the system anew
# Of a backup, whose reader holds one in memory: as lines at most six times as large, all escapes.
_BATCH, _BATCH_RECORDS = 8 << 20, 10_000


def present(path: str) -> str | None:
    """Where an archive is now: under its name, or under that of one whose writer is still at work
    or was killed; None if there is neither."""
    return next((name for name in (path, path + _PART) if os.path.lexists(name)), None)


class ArchiveWriter:
    """Writes `path`, under another name until it is finished (`present`).

    As a context manager it finishes in the end, even after an error, because what has been deleted
    until then should be found; a backup is then discarded instead. OSError if the disk refuses:
    that batch counts as never kept, and all before it stay."""

    def __init__(self, path: str, header: Header) -> None:
        directory = os.path.dirname(path) or "."
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.path, self.header = path, header
        self.counts = Counter[str]()  # records that were deleted, by kind
        self.size = 0  # bytes on disk so far
        self.unpacked = 0  # bytes that were read back in the end
        self._kept, self._open = 0, list[Sequence[Record]]()
        self._gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path + _PART, flags, 0o600)
        self._closed = False
        try:
            if os.path.lexists(path):
                raise FileExistsError(f"{path} is there already")
            self._write([header_line(header)], durable=True)
            _sync_directory(directory)
        except BaseException:
            self.discard()
            raise

    def keep(self, records: Sequence[Record]) -> None:
        """Returns once they are safe on disk. Of a record given again before `done` the later
        version counts."""
        self._write([records, {"kept": self._kept + 1, "records": len(records)}], durable=True)
        self._kept += 1
        self._open.append(records)

    def done(self, change: Change) -> None:
        """What came of the deletion for which records were kept since the last `done`."""
        if not self._open:
            return
        if change.done:
            missing = self._missing(change)
            self._write([{"done": self._kept, "except": list(map(names_out, missing))}])
            self.counts.update(record.kind for record in last_versions(self._open, missing))
        else:
            self._write([{"void": self._kept}])
        self._open = []

    def _missing(self, change: Change) -> list[Names]:
        """Those kept that were not deleted in the end. Where one of two of one name was skipped,
        the last that were kept are those deleted."""
        if not change.skipped:
            return []
        kept = {record.names for records in self._open for record in records}
        missing = [
            names for names in dict.fromkeys(names for names, _ in change.skipped) if names in kept
        ]
        if len(last_versions(self._open, missing)) < change.done:
            last = {record.names for record in self._open[-1]}
            missing = [names for names in missing if names not in last]
        return missing

    def add(self, records: Sequence[Record]) -> None:
        """Records of a backup, which nobody deletes, in one batch or several: safe on disk only at
        the end."""
        for some in _batches(records):
            kept = self._kept + 1
            end = {"kept": kept, "records": len(some)}
            self._write([some, end, {"done": kept, "except": []}], flush=zlib.Z_NO_FLUSH)
            self._kept = kept
            self.counts.update(record.kind for record in some)

    def finish(self, verify: bool = False, about: Mapping[str, Any] | None = None) -> None:
        """Give it its name; if asked, only after all of it has been read back (else ArchiveError).
        `about` is what only the end can say, as JSON. Once is enough."""
        if self._closed:
            return
        end: dict[str, Any] = {"counts": dict(self.counts), "complete": True}
        end = end if about is None else {**end, "about": about}
        self._write([end], durable=True, flush=zlib.Z_FINISH)
        if verify:
            self._verify()
        os.rename(self.path + _PART, self.path)
        self._close()
        _sync_directory(os.path.dirname(self.path) or ".")

    def _verify(self) -> None:
        with ArchiveReader(self.path + _PART) as reader:
            for _ in reader.verify() if self.header.kind == "backup" else reader:
                pass
        self.unpacked = reader.unpacked
        if not reader.complete:
            raise ArchiveError("what is read back is not what was written")

    def discard(self) -> None:
        """As if it had never been begun."""
        if not self._closed:
            self._close()
            os.unlink(self.path + _PART)

    def _close(self) -> None:
        self._closed = True
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None and self.header.kind == "backup":
            return self.discard()
        try:
            self.finish()
        except OSError:
            if error is None:
                raise  # else that one is the cause
        finally:
            if not self._closed:
                self._close()

    def _write(
        self,
        lines: list[Sequence[Record] | dict[str, Any]],
        durable: bool = False,
        flush: int = zlib.Z_SYNC_FLUSH,
    ) -> None:
        """All of it or nothing, as far as readers and later writes can tell."""
        gzip, digest = self._gzip.copy(), self._digest.copy()
        try:
            for piece in _pieces(lines, digest):
                self._put(gzip.compress(piece))
            if flush != zlib.Z_NO_FLUSH:
                self._put(gzip.flush(flush))
            if durable:
                os.fdatasync(self._file)
        except BaseException:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self._gzip, self._digest = gzip, digest
        self.size = os.lseek(self._file, 0, os.SEEK_CUR)

    def _put(self, raw: bytes) -> None:
        rest = memoryview(raw)
        while rest:
            rest = rest[os.write(self._file, rest) :]


def _batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    some, size = list[Record](), 0
    for record in records:
        one = len(record.raw) + 4 * sum(map(len, record.names))
        if some and (size + one > _BATCH or len(some) == _BATCH_RECORDS):
            yield some
            some, size = [], 0
        some.append(record)
        size += one
    if some:
        yield some


def _pieces(lines: list[Sequence[Record] | dict[str, Any]], digest: Digest) -> Iterator[bytes]:
    """Their bytes in parts that are large enough to be compressed at once."""
    for item in lines:
        if isinstance(item, dict):
            yield sealed(item, digest)
            continue
        for piece in _gathered(map(record_line, item)):
            digest.update(piece)
            yield piece


def _gathered(texts: Iterable[bytes]) -> Iterator[bytes]:
    gathered, size = list[bytes](), 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= _PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
