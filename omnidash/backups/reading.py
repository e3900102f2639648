"""Reading a store to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omnidash.backups.folder import BackupError
from storage.changes import Record
from storage.snapshots import Snapshot

_EACH = frozenset({"agent", "result", "metrics", "config"})


def whole(snapshot: Snapshot) -> Iterator[Sequence[Record]]:
    """Its batches. BackupError if it came to an end before it had read each kind: what is missing
    without a word would be taken for deleted."""
    yield from snapshot
    if not {section.kind for section in snapshot.sections()} >= _EACH:
        raise BackupError("the store could not be read to its end")
