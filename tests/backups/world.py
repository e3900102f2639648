"""A served store with a backup of one state (the new one) that now holds another (the old one),
and what is to be true whatever goes wrong while the one is made of the other."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnidash import backups, runs
from omnidash.models import Backup, Run
from omnidash.stores import Entry
from storage.archive import ArchiveReader
from storage.base import Store
from storage.changes import Record
from tests.backups.asking import backed_up, restored, started
from tests.backups.test_restore import of_theirs
from tests.redis_stores import staged_keys
from tests.stores import Backend, JsonBackend, RedisBackend, let_it_rest

OLD = ("Nothing was changed.", "The store is the old one", "It had not begun to change anything.")
NEW = ("The store is the new one", "The store as it was: ")


@dataclass
class World:
    backend: Backend
    entry: Entry
    folder: Path
    real: Store = field(init=False)
    made: Backup = field(init=False)

    def __post_init__(self) -> None:
        self.real = self.entry.store
        self.made, self.new = backed_up(), of_theirs(self.backend)
        change(self.real)
        let_it_be(self.backend)
        self.old, self._kept = of_theirs(self.backend), kept(self.backend)
        self.old_records = records_in(self.real)
        assert self.old != self.new

    def put_back(self) -> None:
        """As it was in the beginning."""
        self.entry.store = self.real
        give_back(self.backend, self._kept)
        self.real.close()
        for one in Backup.objects.exclude(pk=self.made.pk):
            Path(self.folder, one.name).unlink(missing_ok=True)
            one.delete()

    def asked(self) -> Run:
        """For the new state, all of it."""
        return started("restore", backup=self.made.pk, mode="replace", volatile=True)

    def judged(self, run: Run) -> bool:
        """Whether the store is the new one; else it is the old one, and the run says which."""
        run.refresh_from_db()
        now = of_theirs(self.backend)
        assert now in (self.old, self.new)
        is_new: bool = now == self.new
        assert any(words in run.message for words in (NEW if is_new else OLD)), run.message
        assert not any(words in run.message for words in (OLD if is_new else NEW)), run.message
        assert run.state in Run.State and run.state not in Run.UNFINISHED
        assert is_new or run.state != "done"
        return is_new

    def listed_is_good(self) -> None:
        """Every backup that is listed as good is whole, and holds what the store held."""
        for one in backups.good():
            found = records_of(one)
            assert set(map(repr, found)) >= set(map(repr, self.old_records)) or one == self.made
            assert sum(backups.counts_of(one).values()) == len(found)
        names = set(Backup.objects.values_list("name", flat=True))
        files = {path.name for path in self.folder.iterdir() if path.suffix == ".gz"}
        assert {name for name in files if not name.startswith("report-")} == names

    def is_tidy(self, expiring: bool = False) -> None:
        """Nothing is left of what was prepared; or only keys that `expiring` within the hour."""
        assert [path.name for path in self.folder.iterdir() if path.suffix != ".gz"] == []
        if isinstance(self.backend, JsonBackend):
            beside = set(os.listdir(self.backend.folder.parent)) - {"backups", "small", "store"}
            assert {
                name for name in beside if not name.startswith("store.before-restore-")
            } == set()
            within = {name for name in os.listdir(self.backend.folder) if "json" not in name}
            assert within <= {".omnidash.lock", ".omnidash-restored"}
        elif isinstance(self.backend, RedisBackend):
            raw = self.backend.client
            left = [raw.pttl(key) for key in staged_keys(raw)]
            assert all(0 < life <= 3_600_000 for life in left) if expiring else left == []

    def is_old(self) -> None:
        assert of_theirs(self.backend) == self.old

    def never_begun(self, run: Run) -> None:
        """A worker that was killed before it took the run: nobody does any more."""
        Run.objects.filter(pk=run.pk, state="queued").update(state="running", beat_at=1.0)

    def after_a_crash(self, run: Run) -> None:
        """As the clock finds it some time later."""
        Run.objects.filter(pk=run.pk, state="running").update(beat_at=1.0)
        runs.note_interrupted(time.time())
        for part in self.folder.iterdir():
            if part.suffix != ".gz":
                os.utime(part, (1, 1))
        backups.adopt()

    def goes_on(self) -> None:
        """The next one works."""
        restored(self.made)
        assert of_theirs(self.backend) == self.new


def change(store: Store) -> None:
    """Something of each kind is added, replaced and deleted."""
    store.delete_result("task-0")
    store.save_result("task-1", {"agent": "other"}, 7200)
    store.save_result("other", {"agent": "other"}, 7200)
    store.delete_agent("t", "a")
    store.add_agent("u", {"name": "c"})
    store.save_config("mine", {"x": 2})
    store.save_config("other", [])
    store.save_metric({"event": "task_failed", "topic": "t", "agent": "a", "task_id": "2"})


def let_it_be(backend: Backend) -> None:
    if isinstance(backend, JsonBackend):
        let_it_rest(backend.folder)


def kept(backend: Backend) -> Any:
    if isinstance(backend, JsonBackend):
        return {path.name: path.read_bytes() for path in backend.folder.glob("*.json")}
    photograph: Any = backend.photograph()
    return {key: one for key, one in photograph.items() if key.startswith(b"omni:")}


def give_back(backend: Backend, what: Any) -> None:
    if isinstance(backend, RedisBackend):
        backend.client.flushall()
        for key, (dump, expires) in what.items():
            backend.client.restore(key, max(0, expires), dump, absttl=expires > 0)
        return
    assert isinstance(backend, JsonBackend)
    for beside in backend.folder.parent.glob("*store.*"):
        shutil.rmtree(beside)
    for path in backend.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, raw in what.items():
        (backend.folder / name).write_bytes(raw)
    let_it_rest(backend.folder)


def records_in(store: Store) -> list[Record]:
    return [one for batch in store.snapshot() for one in batch]


def records_of(backup: Backup) -> list[Record]:
    with ArchiveReader(backups.path_of(backup)) as reader:
        for _ in reader.verify():
            pass
        assert reader.complete
    with ArchiveReader(backups.path_of(backup)) as reader:
        return [one for batch in reader for one in batch.records]
