"""A disk that is full at any write, and a database of our own that is: nothing is half done."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection

from omnidash import backups
from omnidash.backups import making
from omnidash.models import Backup, Mark, Run
from omnidash.stores import Entry, registry
from tests.backups.asking import administrator, backed_up, did, finished, started
from tests.backups.test_restore import of_theirs
from tests.backups.world import World
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db
PAGE = resource.getpagesize()
PAGES = 64


@pytest.fixture
def full_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The disk of the backups takes so many calls that need room, and then none."""
    left = [-1]

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= 1
            return real(*arguments, **named)

        return call

    def arm(count: int) -> None:
        left[0] = count

    for name in ("write", "fsync", "fdatasync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return arm


@pytest.fixture
def world(backend: Backend, entry: Entry, folder: Path) -> World:
    return World(backend, entry, folder)


def each_call(world: World, full_at: Any, action: str, stride: int) -> int:
    """How many there were; the store is the old one until all could be done."""
    at = 0
    while True:
        run = world.asked() if action == "restore" else started(action)
        full_at(at)
        finished(run)
        full_at(-1)
        if action == "restore":
            is_new = world.judged(run)
        else:
            is_new = run.state == "done"
            assert Backup.objects.filter(run=run).exists() is is_new
        world.listed_is_good()
        world.is_tidy()
        if run.state == "done":
            return at
        assert "No space left" in run.message or "no space left" in run.message
        world.put_back()
        at += stride


@pytest.mark.parametrize("action", ["back-up", "restore"])
def test_a_disk_that_is_full_at_any_write_leaves_nothing_half_done(
    world: World, full_at: Any, action: str
) -> None:
    assert each_call(world, full_at, action, 3) > 6


@pytest.mark.soak
@pytest.mark.parametrize("action", ["back-up", "restore"])
def test_a_disk_that_is_full_at_each_write_leaves_nothing_half_done(
    world: World, full_at: Any, action: str
) -> None:
    assert each_call(world, full_at, action, 1) > 6


@pytest.fixture
def small_disk(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The backups lie on a file system of their own, where the system lets us mount one."""
    path = tmp_path / "small"
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={PAGES * PAGE},mode=700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount: errors in the place of writes have to do")
    settings.OMNIDASH_BACKUP_DIR = path
    monkeypatch.setattr(making, "_ROOM", 0)
    monkeypatch.setattr(making, "_GROWN", 0.0)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill_up(disk: Path, free: int) -> None:
    with open(disk / "report-filler.gz", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * PAGE)
        except OSError:
            pass
        filler.truncate(max(0, filler.tell() - free * PAGE))


def test_on_a_small_disk_there_is_a_whole_backup_or_none(entry: Entry, small_disk: Path) -> None:
    noise = random.Random(1)
    for number in range(12):
        entry.store.save_result(f"big-{number}", noise.randbytes(PAGE).hex(), 3600)
    first = backed_up()
    failed = 0
    for free in range(PAGES):
        fill_up(small_disk, free)
        run = finished(started("back-up"))
        if run.state == "done":
            break
        failed += 1
        assert "No space left" in run.message and "No backup was made." in run.message
        assert {one.name for one in small_disk.iterdir()} == {first.name, "report-filler.gz"}
        assert backups.last_good("prod") == first
    assert failed >= 12
    (small_disk / "report-filler.gz").unlink()
    did("verify-backup", backup=first.pk, level="file")


def test_on_a_small_disk_a_restore_is_done_with_its_report_or_not_at_all(
    backend: Backend, entry: Entry, small_disk: Path
) -> None:
    world, ends = World(backend, entry, small_disk), set[str]()
    for free in range(PAGES):
        fill_up(small_disk, free)
        run = finished(world.asked())
        ends.add(run.message.partition(":")[0])
        is_new = world.judged(run)
        assert is_new is (run.state == "done")
        if is_new:
            break
        world.is_tidy()
        world.put_back()
    assert len(ends) > 1 and run.state == "done"
    assert json.loads(run.report)["file"].startswith("report-")


# Our own database


@pytest.fixture
def full_database(transactional_db: None) -> Iterator[Any]:
    """SQLite takes no page more."""

    def limit(pages: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA page_count")
            limit(cursor.fetchone()[0])
        size = 100_000
        while size:
            try:
                Mark.objects.create(
                    source=source(), at=1.0, kind=Mark.Kind.RUN, subject=b"", text=b"x" * size
                )
            except DatabaseError:
                size //= 2

    yield fill
    limit(1 << 30)


def source() -> Any:
    return registry()["prod"].history.source()


def test_a_full_database_refuses_a_restore_before_anything_is_done(
    world: World, full_database: Any
) -> None:
    administrator()
    full_database()
    with pytest.raises(DatabaseError, match="full"):
        for _ in range(1000):  # until the last page is full
            started("restore", backup=world.made.pk, mode="replace", volatile=True)
            Run.objects.update(digest=b"")
    assert of_theirs(world.backend) == world.old
