"""A backup is made whole or not at all, proven at two levels, and never lost by carelessness."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import make_user

from omnidash import backups, clock, runs
from omnidash.keeping import Keep
from omnidash.models import Backup, Run, Schedule
from omnidash.schedules import start_due
from omnidash.stores import Entry
from storage.archive import ArchiveWriter
from tests.backups.asking import administrator, backed_up, did, finished, started
from tests.pages import serving
from tests.servers import RedisServer
from tests.stores import Backend, contents

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)


def test_a_backup_is_a_private_file_that_was_read_back(entry: Entry, folder: Path) -> None:
    made = backed_up()
    path = folder / made.name
    assert [one.name for one in folder.iterdir()] == [made.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (made.checked, made.size, made.store) == ("good", path.stat().st_size, "prod")
    counts = backups.counts_of(made)
    assert (counts["agent"], counts["result"], counts["metrics"]) == (2, 5, 1)


def test_a_backup_changes_nothing_in_the_store(entry: Entry, backend: Backend) -> None:
    before = backend.photograph()
    backed_up()
    assert backend.photograph() == before


def test_an_operator_may_back_up_and_verify_a_read_only_store(
    backend: Backend, entry: Entry, settings: Any
) -> None:
    settings.OMNIDASH_READ_ONLY = True
    operator = make_user("operator")
    did("back-up", user=operator)
    did("verify-backup", user=operator, backup="newest", level="file")


def test_a_viewer_may_not_back_up(entry: Entry) -> None:
    with pytest.raises(runs.NotAllowed):
        started("back-up", user=make_user("viewer"))


@pytest.mark.parametrize("name", ["restore", "copy-store", "delete-backup"])
def test_an_operator_may_neither_restore_nor_copy_nor_delete(entry: Entry, name: str) -> None:
    made = backed_up()
    with pytest.raises(runs.NotAllowed):
        started(name, user=make_user("operator"), backup=made.pk, mode="merge")


def test_a_trial_restore_compares_every_record_and_leaves_nothing(
    backend: Backend, entry: Entry, folder: Path
) -> None:
    made = backed_up()
    before = contents(backend)
    run = did("verify-backup", backup=made.pk, level="trial")
    made.refresh_from_db()
    assert (made.tried, made.tried_note) == ("good", "")
    assert "compared record by record" in run.message
    assert contents(backend) == before
    assert [one.name for one in folder.iterdir()] == [made.name]


@pytest.mark.parametrize("level", ["file", "trial"])
def test_a_damaged_backup_is_found_out_and_does_not_count(
    entry: Entry, folder: Path, level: str
) -> None:
    made = backed_up()
    damage(folder / made.name)
    run = finished(started("verify-backup", backup=made.pk, level=level))
    made.refresh_from_db()
    assert (run.state, made.checked) == ("failed", "bad")
    assert "is not good" in run.message
    assert backups.last_good("prod") is None


def test_a_backup_whose_file_is_gone_is_said_and_found_again(entry: Entry, folder: Path) -> None:
    made = backed_up()
    aside = folder.parent / made.name
    (folder / made.name).rename(aside)
    backups.adopt()
    made.refresh_from_db()
    assert (made.checked, made.checked_note) == ("bad", backups.GONE)
    aside.rename(folder / made.name)
    backups.adopt()
    did("verify-backup", backup=made.pk, level="file")
    assert backups.last_good("prod") == made


def test_files_that_are_found_get_a_row_once(entry: Entry, folder: Path) -> None:
    made = backed_up()
    Backup.objects.all().delete()
    (folder / "omnidash-20261125T000000Z-0123456789abcdef.odb.gz").write_bytes(b"no archive")
    (folder / "notes.txt").write_bytes(b"mine")
    assert [backups.adopt(), backups.adopt()] == [1, 0]
    found = Backup.objects.get()
    assert (found.name, found.store, found.reason) == (made.name, "prod", "found")
    did("verify-backup", backup=found.pk, level="file")
    assert backups.last_good("prod") == found


def test_the_last_good_backup_is_never_deleted(entry: Entry, folder: Path) -> None:
    first = backed_up()
    run = finished(started("delete-backup", backup=first.pk))
    assert (run.state, (folder / first.name).exists()) == ("refused", True)
    second = backed_up()
    did("delete-backup", backup=first.pk)
    assert [one.name for one in folder.iterdir()] == [second.name]
    damage(folder / second.name)
    third = backed_up()
    finished(started("verify-backup", backup=second.pk, level="file"))
    assert finished(started("delete-backup", backup=third.pk)).state == "refused"
    did("delete-backup", backup=second.pk)


def test_a_folder_that_cannot_be_written_leaves_no_backup(
    entry: Entry, folder: Path, settings: Any
) -> None:
    settings.OMNIDASH_BACKUP_DIR = folder / "a file" / "within"
    (folder / "a file").write_bytes(b"")
    run = finished(started("back-up"))
    assert (run.state, Backup.objects.count()) == ("failed", 0)
    assert "folder of the backups cannot be used" in run.message


def test_a_disk_that_fills_up_leaves_no_backup(
    entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ArchiveWriter, "finish", full)
    run = finished(started("back-up"))
    assert (run.state, list(folder.iterdir())) == ("failed", [])
    assert "No space left" in run.message and "No backup was made" in run.message


def test_too_little_room_is_noticed_before_the_store_is_read(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(entry.store, "snapshot", lambda: pytest.fail("it was read"))
    assert "MB free" in finished(started("back-up")).message


def test_a_store_that_is_lost_in_the_middle_leaves_no_backup(
    server: RedisServer, folder: Path
) -> None:
    with serving(prod=server.url):
        server.client().set("omni:config:k", "1")
        run = started("back-up")
        server.stop()
        assert finished(run).state == "failed"
    assert list(folder.iterdir()) == []
    assert not Backup.objects.exists()


def test_what_a_killed_writer_left_is_never_listed_and_removed(entry: Entry, folder: Path) -> None:
    half = folder / "omnidash-20261125T000000Z-0123456789abcdef.odb.gz.part"
    half.write_bytes(b"half")
    assert (backups.adopt(), half.exists()) == (0, True), "its writer may be alive"
    os.utime(half, (1, 1))
    Run.objects.create(action="back-up", store="prod", state="running", created_at=1, beat_at=1)
    assert (backups.tidy(), half.exists()) == (0, True), "a run is at work"
    Run.objects.update(state="interrupted")
    assert (backups.tidy(), half.exists()) == (1, False)


def test_one_backup_of_a_store_at_a_time_and_the_dead_are_in_nobodys_way(entry: Entry) -> None:
    at_work = Run.objects.create(
        action="restore", store="prod", state="running", created_at=1, started_at=1,
        beat_at=time.time(),
    )  # fmt: skip
    run = finished(started("back-up"))
    assert run.state == "refused"
    assert f"restore of prod is at work (run {at_work.pk})" in run.message
    Run.objects.filter(pk=at_work.pk).update(beat_at=time.time() - runs.DEAD - 1)
    did("back-up")


@pytest.mark.parametrize(
    ("action", "params"),
    [("back-up", "{}"), ("verify-backup", '{"backup": "newest", "level": "trial"}')],
)
def test_backups_are_made_and_verified_on_schedule(entry: Entry, action: str, params: str) -> None:
    backed_up()
    user = administrator()
    Schedule.objects.create(
        store="prod", action=action, params=params, every="hours", hours=1, user=user, next_at=1.0
    )
    assert start_due(time.time()) == 1
    run = finished(Run.objects.get(origin="schedule"))
    assert run.state == "done", run.message
    if action == "back-up":
        assert Backup.objects.latest("made_at").reason == "schedule"


def test_a_password_of_a_store_is_in_no_backup_and_no_log(
    server: RedisServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.client().config_set("requirepass", "hunter2")
    with serving(prod=f"redis://:hunter2@127.0.0.1:{server.port}/0"):
        made = backed_up()
        run = Run.objects.get()
        row = {name: str(getattr(made, name)) for name in ("address", "name", "counts")}
        assert "hunter2" not in f"{row} {run.message} {run.params} {caplog.text}"

        assert b"hunter2" not in gzip.decompress((folder / made.name).read_bytes())


def test_the_clock_finds_sends_and_lets_go(
    entry: Entry, folder: Path, settings: Any, tmp_path: Path
) -> None:
    settings.OMNIDASH_BACKUP_KEEP = Keep(last=1)
    first, second = backed_up(), backed_up()
    settings.OMNIDASH_BACKUP_COPY = str(tmp_path / "elsewhere")
    assert list(clock._tend()) == [0, 1, 1, 1]
    assert not Backup.objects.filter(pk=first.pk).exists()
    assert [one.name for one in (tmp_path / "elsewhere").iterdir()] == [second.name]


def test_a_verdict_does_not_bring_a_deleted_row_back(entry: Entry) -> None:
    made = backed_up()
    checking = backups.check(made)
    next(checking)
    Backup.objects.all().delete()
    list(checking)
    assert not Backup.objects.exists()
