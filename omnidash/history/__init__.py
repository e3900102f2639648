"""Metric history: each event of a store is read once; any range is answered from what it meant.

`levels` says which intervals there are, `tally` and `sketch` what is kept of one, `ingest` writes
and `answers` reads them; both go through `rows`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from django.db import OperationalError, connection

from omnidash.history.ingest import FINEST, take
from omnidash.models import Source
from storage.base import MetricBatch, Store
from storage.garbage import collector_paused

SOON = 1.0  # seconds for which one reading of the store serves everybody in this process
_NOTED = 5.0  # seconds between notes that the store was read and had nothing new
_PATIENCE = 0.3  # seconds to wait for another reader before going on with what is remembered
_GLANCE = 0.3  # seconds that a page may read; the next one or the clock reads the rest
_BATCH, _FEW = 10_000, 1_000  # events read at once, and by a page, so that it keeps to its time

log = logging.getLogger(__name__)


class History:
    """The history of one store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read_at, self._step = -math.inf, 0
        self.behind = False
        """Whether events are stored that were not read yet."""
        self.aside = 0
        """Stored events that are older than the newest one read, and were perhaps never read."""

    def source(self) -> Source:
        """As it is in the database now."""
        address = self._store.address
        key = blake2b(address.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        found, _ = Source.objects.get_or_create(key=key, defaults={"address": address})
        return found

    def look(self) -> Source:
        """What a page asks: the history with what is new in the store, as far as that is quick. If
        it cannot be written now, as it was."""
        with _hurried():
            try:
                self.refresh(_GLANCE)
            except OperationalError as error:
                log.warning("what is new in %s cannot be noted: %s", self._store.address, error)
                self.behind = True
                self._rest()
            return self.source()

    def refresh(self, budget: float = math.inf) -> None:
        """Read what is new in the store, for all who ask at most once a second and once more when a
        step begins, of which nothing would be known otherwise. `budget` bounds the seconds; what is
        left is read next time. StoreError if the store cannot be read."""
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            if time.monotonic() - self._read_at >= SOON or self._step != _step(time.time()):
                self._read(time.monotonic() + budget)
                self._rest()
        finally:
            self._lock.release()

    def _rest(self) -> None:
        self._read_at, self._step = time.monotonic(), _step(time.time())

    def _read(self, deadline: float) -> None:
        source = self.source()
        more, size = True, _BATCH if deadline == math.inf else _FEW
        while more and time.monotonic() < deadline:
            now = time.time()  # what comes while the store answers may be missing in it
            batch = self._store.metrics_after(source.cursor, size)
            if not _news(source, batch):
                self._note_reading(source, now)
            elif not _taken(source, batch, now):
                source.refresh_from_db()  # somebody else was faster; go on behind what they read
                continue
            more = batch.more
            self.aside = batch.aside
        self.behind = more

    @staticmethod
    def _note_reading(source: Source, now: float) -> None:
        before = source.read_at
        if before is None or abs(now - before) >= _NOTED or _step(now) != _step(before):
            Source.objects.filter(pk=source.pk).update(read_at=now)


@contextmanager
def _hurried() -> Iterator[None]:
    """Within, nobody waits long for another writer; PostgreSQL is asked with patience anyway."""
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")
        try:
            yield
        finally:
            usual = connection.settings_dict["OPTIONS"]["timeout"]
            cursor.execute(f"PRAGMA busy_timeout = {usual * 1000:.0f}")


def _step(at: float) -> int:
    return int(at // FINEST)


def _taken(source: Source, batch: MetricBatch, now: float) -> bool:
    with collector_paused(len(batch.events)):
        return take(source, batch, now)


def _news(source: Source, batch: MetricBatch) -> bool:
    return bool(batch.events) or batch.gap or batch.cursor != source.cursor
