"""A longer life for the results of an archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from storage.changes import Record
from storage.json_store.expiry import expiring

LONGEST = 10 * 365 * 86_400.0  # seconds that a result may live longer


def extended(records: Iterable[Record], seconds: float, backend: str) -> Iterator[Record]:
    """Each result that expires expires so much later; in a JSON directory its text says when."""
    for record in records:
        if record.kind != "result" or record.expires_at_ms is None:
            yield record
            continue
        at = record.expires_at_ms + round(seconds * 1000)
        raw = expiring(record.raw, at / 1000) if backend == "json" else None
        yield replace(record, expires_at_ms=at, raw=record.raw if raw is None else raw)
