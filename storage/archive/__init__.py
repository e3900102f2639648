"""Records outside their store, in one file: the recycle bin of a run, or a backup.

The file is one gzip stream of JSON lines in ASCII, with no paths and nothing to extract:

    {"format": "omnidash-archive", "version": 1, "kind": "bin", …, "sha256": …}
    {"kind": "result", "names": ["id"], "raw": "…", "expires_at_ms": 1764060000000}
    … more records
    {"kept": 1, "records": 500, "sha256": …}
    {"done": 1, "except": [], "sha256": …}     or {"void": 1, "sha256": …}
    … more batches
    {"counts": {"result": 500}, "complete": true, "about": {…}, "sha256": …}

`raw_b64` stands where `raw` is not UTF-8, and {"b64": …} for a name that is not. `sha256` is of all
uncompressed bytes before its comma, so that nothing is believed that was not written so, even in a
file that was cut off.

Records are kept before they are deleted, and that they were deleted is noted after it. What was
kept but has no such note, because the writer was killed, may have been deleted or not. A backup has
the same notes, with nothing left out, and is none without its end.

Gzip at level 1, by measurement: of results of 1 KB it packs 146 MB/s 3.6 times, zstd 430 MB/s 4.0
times. That is not worth a dependency, and a file that `zcat` cannot read. A backup of
results, events and agents is written with 165 MB/s of CPU time and verified with 189.
"""

from __future__ import annotations

from storage.archive.lines import ArchiveError, Header, LimitError
from storage.archive.reader import ArchiveReader, Batch
from storage.archive.stream import OWN, Limits
from storage.archive.writer import ArchiveWriter, present

__all__ = [
    "OWN",
    "ArchiveError",
    "ArchiveReader",
    "ArchiveWriter",
    "Batch",
    "Header",
    "LimitError",
    "Limits",
    "present",
]
