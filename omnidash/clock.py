"""The clock: what happens beside the pages, whether or not anybody looks at them.

Each store has a thread of its own, so that one which does not answer delays no other. Any number
of clocks may run at once: what they write is guarded where it is written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from django.db import DatabaseError, close_old_connections, connections

from omnidash import audit, backups, bins
from omnidash.history import gauges, runners
from omnidash.history.levels import MINUTE
from omnidash.history.retention import prune
from omnidash.runs import forget_plans, note_interrupted
from omnidash.schedules import start_due
from omnidash.stores import Entry, registry
from storage.base import StoreError

BEAT = 5.0  # seconds between two looks at a store
_PRUNE = 600.0  # seconds between two prunings …
_PAUSE = 0.1  # … and between two portions of one, in which others may write
_LEAVE = 1.0  # seconds that threads have to come to an end

log = logging.getLogger("omnidash.clock")


class Troubles:
    """Says once when something begins to fail and once when that is over."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._known: set[str] = set()
        self._now: set[str] = set()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """What goes wrong within is said, and no more: the next time it may work."""
        try:
            yield
        except StoreError as error:
            if self._is_new(error):
                log.warning("%s: %s", self._who, error)
        except DatabaseError as error:
            if self._is_new(error):
                log.warning("%s: OmniDash's own database: %s", self._who, error)
        except Exception as error:
            if self._is_new(error):
                log.exception("%s: unexpected", self._who)

    def _is_new(self, error: Exception) -> bool:
        kind = type(error).__name__
        is_new = kind not in self._known | self._now
        self._now.add(kind)
        return is_new

    def settle(self) -> None:
        """Everything was tried: what failed before and did not fail now is over."""
        for kind in sorted(self._known - self._now):
            log.warning("%s: works again after %s", self._who, kind)
        self._known, self._now = self._now, set()


class Watch:
    """What is done for one store at every beat."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._troubles = Troubles(f"store {entry.name}")
        self._sampled: float | None = None

    def beat(self, now: float) -> None:
        for task in (self._read, self._note_start, self._sample):
            with self._troubles.caught():
                task(now)
        self._troubles.settle()

    def _read(self, now: float) -> None:
        self._entry.history.refresh()

    def _note_start(self, now: float) -> None:
        source = self._entry.history.source()
        runners.note_start(source, self._entry.store.runner(), now)

    def _sample(self, now: float) -> None:
        """Once in each minute, so that no interval is left out."""
        minute = now // MINUTE
        if minute != self._sampled:
            counts = self._entry.counts()
            facts = self._entry.inspection(max_age=BEAT).facts
            source = self._entry.history.source()
            gauges.note(source, gauges.figures(source, counts, facts), now)
            self._sampled = minute


def run(stop: threading.Event) -> None:
    """Watch all stores and prune, until told to stop."""
    threads = [
        threading.Thread(target=_watch, args=(entry, stop), name=f"clock-{name}", daemon=True)
        for name, entry in registry().items()
    ]
    threads.append(
        threading.Thread(target=_mind_runs, args=(stop,), name="clock-runs", daemon=True)
    )
    for thread in threads:
        thread.start()
    try:
        _prune(stop)
    finally:
        stop.set()
        deadline = time.monotonic() + _LEAVE
        for thread in threads:  # one that waits for its store ends with the process
            thread.join(max(0.0, deadline - time.monotonic()))
        connections.close_all()


def _watch(entry: Entry, stop: threading.Event) -> None:
    watch = Watch(entry)
    try:
        while not stop.is_set():
            watch.beat(time.time())
            close_old_connections()
            stop.wait(BEAT)
    finally:
        connections.close_all()


def _mind_runs(stop: threading.Event) -> None:
    """Start what is scheduled, and notice runs whose worker has died."""
    troubles = Troubles("schedules")
    try:
        while not stop.is_set():
            for task in (note_interrupted, forget_plans, start_due):
                with troubles.caught():
                    task(time.time())
            troubles.settle()
            close_old_connections()
            stop.wait(BEAT)
    finally:
        connections.close_all()


def _tend() -> Iterator[int]:
    """Backups: know what lies in their folder, send what is not at the second destination yet, and
    let go of what is not kept."""
    yield backups.adopt()
    yield from backups.catch_up()
    yield from backups.retain()


def _prune(stop: threading.Event) -> None:
    troubles = Troubles("pruning")
    while not stop.is_set():
        with troubles.caught():
            for _ in chain(prune(time.time()), bins.prune(time.time()), audit.prune(), _tend()):
                if stop.wait(_PAUSE):
                    return
        troubles.settle()
        close_old_connections()
        stop.wait(_PRUNE)
