"""What became of each record that a restore meant to change: a private file beside the backups."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from omnidash.backups.folder import folder, unwritable
from omnidash.downloads import cell
from omnidash.models import Run
from storage.changes import Names, Record

_NAME = re.compile(r"report-\d+-[0-9a-f]{16}\.csv\.gz")
KEPT = 90 * 86_400.0  # seconds


class Report:
    """Lines of CSV, harmless in a spreadsheet. An outcome is `added`, `replaced`, `deleted`,
    `unchanged`, `kept` (the store's own is newer), `expired`, or why a record is left out. `finish`
    before what is reported is done: a disk that is full then stops it, and does not belie it
    later."""

    def __init__(self, name: str, file: io.TextIOBase, raw: BinaryIO) -> None:
        self.name, self._file, self._raw = name, file, raw
        self._unsettled = deque[str]()
        self._write = csv.writer(file, lineterminator="\r\n").writerow
        self._write(["kind", "names", "outcome"])

    def finish(self) -> None:
        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())

    def line(self, kind: str, names: Names, outcome: str) -> None:
        self._write([kind, cell(" / ".join(names)), cell(outcome)])

    def telling(self, judged: Iterable[tuple[Record, str, bool]]) -> Iterator[Record]:
        """Those of the records that are to be put, each to be `settled` then, in their order; what
        becomes of the others is written."""
        for record, outcome, is_put in judged:
            if is_put:
                self._unsettled.append(outcome)
                yield record
            else:
                self.line(record.kind, record.names, outcome)

    def settled(self, record: Record, refused: str) -> None:
        outcome = self._unsettled.popleft()
        self.line(record.kind, record.names, refused or outcome)


@contextmanager
def report_of(run: Run) -> Iterator[Report]:
    """BackupError if the disk does not take it. After an error there is none."""
    name = f"report-{run.pk}-{secrets.token_hex(8)}.csv.gz"
    path = str(folder() / name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with (
            os.fdopen(os.open(path, flags, 0o600), "wb") as raw,
            gzip.open(raw, "wt", encoding="utf-8", errors="replace", newline="") as file,
        ):
            yield Report(name, file, raw)
    except BaseException as error:
        if os.path.lexists(path):
            os.unlink(path)
        if isinstance(error, OSError):
            raise unwritable(error) from None
        raise


def path_of_report(name: str) -> Path | None:
    """None if there is none of this name (any more)."""
    path = folder() / name
    return path if _NAME.fullmatch(name) and path.is_file() and not path.is_symlink() else None


def forget_reports() -> int:
    old = [
        one for one in folder().iterdir()
        if _NAME.fullmatch(one.name) and one.stat().st_mtime < time.time() - KEPT
    ]  # fmt: skip
    for one in old:
        one.unlink(missing_ok=True)
    return len(old)
