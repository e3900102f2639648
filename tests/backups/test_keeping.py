"""Which backups stay, and what is received from elsewhere."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from omnidash import backups
from omnidash.keeping import Keep, folder_of, keep_of
from omnidash.models import Backup, Run
from omnidash.stores import Entry
from tests.backups.asking import backed_up, did, restored

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def backend(json_backend: Any) -> Any:
    return json_backend


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


def day(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%m-%d %H")


HOURLY = [at("2026-11-25 12:00") - 3600 * number for number in range(24 * 100)]


def test_the_newest_stay() -> None:
    assert sorted(backups.chosen(HOURLY, Keep(last=3))) == sorted(HOURLY[:3])


def test_the_newest_of_each_day_week_and_month_stays() -> None:
    found = sorted(map(day, backups.chosen(HOURLY, Keep(daily=3))))
    assert found == ["11-23 23", "11-24 23", "11-25 12"]
    found = sorted(map(day, backups.chosen(HOURLY, Keep(weekly=3))))
    assert found == ["11-15 23", "11-22 23", "11-25 12"], "weeks begin on Monday"
    found = sorted(map(day, backups.chosen(HOURLY, Keep(monthly=3))))
    assert found == ["09-30 23", "10-31 23", "11-25 12"]


def test_days_without_a_backup_do_not_count() -> None:
    found = [at("2026-01-01"), at("2026-03-01"), at("2026-11-25")]
    assert backups.chosen(found, Keep(daily=2)) == {found[1], found[2]}


def test_asked_again_nothing_more_goes() -> None:
    keep = Keep(2, 3, 2, 2)
    stay = backups.chosen(HOURLY, keep)
    assert backups.chosen(sorted(stay), keep) == stay


def test_the_newest_stays_whatever_is_kept() -> None:
    assert HOURLY[0] in backups.chosen(HOURLY, Keep(monthly=1))


def test_retention_waits_for_a_good_one_and_leaves_what_it_did_not_make(
    entry: Entry, settings: Any
) -> None:
    settings.OMNIDASH_BACKUP_KEEP = Keep(last=1)
    made = [backed_up() for _ in range(3)]
    Backup.objects.filter(pk=made[0].pk).update(reason="upload")
    Backup.objects.filter(pk=made[2].pk).update(checked="bad")
    assert list(backups.retain()) == []
    Backup.objects.filter(pk=made[2].pk).update(checked="good")
    assert list(backups.retain()) == [1]
    assert set(Backup.objects.values_list("pk", flat=True)) == {made[0].pk, made[2].pk}


def test_what_retention_deletes_is_in_the_log_of_runs(entry: Entry, settings: Any) -> None:
    settings.OMNIDASH_BACKUP_KEEP = Keep(last=1)
    gone = backed_up()
    backed_up()
    assert list(backups.retain()) == [1]
    run = Run.objects.get(action="forget-backup")
    assert (run.state, run.store, run.done) == ("done", "prod", 1)
    assert gone.name in run.message


def test_retention_that_cannot_delete_says_no_such_thing(
    entry: Entry, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OMNIDASH_BACKUP_KEEP = Keep(last=1)
    backed_up()
    backed_up()

    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", denied)
    assert list(backups.retain()) == []
    assert not Run.objects.filter(action="forget-backup").exists()
    assert Backup.objects.count() == 2


def test_retention_never_takes_the_newest_that_a_trial_proved_nor_the_last_good_one(
    entry: Entry, settings: Any
) -> None:
    settings.OMNIDASH_BACKUP_KEEP = Keep(last=1)
    proven = [backed_up() for _ in range(2)]
    last, safety = backed_up(), backed_up()
    Backup.objects.filter(pk__in=[one.pk for one in proven]).update(tried="good")
    Backup.objects.filter(pk=safety.pk).update(reason="safety")
    assert list(backups.retain()) == [1]
    left = set(Backup.objects.values_list("pk", flat=True))
    assert left == {proven[1].pk, last.pk, safety.pk}


def test_what_was_made_before_a_restore_is_not_the_last_good_one_and_protects_none(
    entry: Entry,
) -> None:
    made, safety = backed_up(), backed_up()
    Backup.objects.filter(pk=safety.pk).update(reason="safety")
    assert (backups.last_good("prod"), backups.newest("prod")) == (made, made)
    with pytest.raises(backups.BackupError, match="last good"):
        backups.delete(made)
    made.delete()
    assert backups.last_good("prod") is None
    with pytest.raises(backups.BackupError, match="last good"):
        backups.delete(Backup.objects.get(pk=safety.pk))


def test_without_a_rule_all_are_kept(entry: Entry) -> None:
    for _ in range(2):
        backed_up()
    assert list(backups.retain()) == []


@pytest.mark.parametrize(
    "text", ["last", "last=x", "last=-1", "yearly=1", "last=1,last=2", "last=0"]
)
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="OMNIDASH_BACKUP_KEEP"):
        keep_of(text)


def test_the_folder_is_made_private_and_lies_in_no_store(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "store")
    stores, static = {"prod": f"json://{tmp_path}/store"}, tmp_path / "static"
    for name in ("wide", "new/er"):
        assert folder_of(tmp_path / name, stores, static).stat().st_mode & 0o077 == 0
    for name in ("store", "store/backups", "link/backups", "static/x"):
        with pytest.raises(ImproperlyConfigured, match="OMNIDASH_BACKUP_DIR"):
            folder_of(tmp_path / name, stores, static)


# Received


def pieces(raw: bytes) -> Iterator[bytes]:
    return (raw[start : start + 1000] for start in range(0, len(raw), 1000))


def test_a_backup_from_elsewhere_is_looked_through_and_can_be_restored(
    entry: Entry, folder: Path
) -> None:
    made = backed_up()
    found = backups.receive(pieces((folder / made.name).read_bytes()))
    assert (found.reason, found.checked, found.counts) == ("upload", "good", made.counts)
    assert found.name != made.name
    did("clear", what="results")
    restored(found)
    assert entry.store.get_result("task-0")


def test_an_upload_is_not_the_last_good_one(entry: Entry, folder: Path) -> None:
    made = backed_up()
    backups.receive(pieces((folder / made.name).read_bytes()))
    assert backups.last_good("prod") == made


def refused(raw: bytes, folder: Path) -> str:
    before = sorted(folder.iterdir())
    with pytest.raises(backups.BackupError) as raised:
        backups.receive(pieces(raw))
    assert sorted(folder.iterdir()) == before
    assert not Backup.objects.filter(reason="upload").exists()
    return str(raised.value)


def test_whatever_is_odd_is_refused_with_the_reason_and_leaves_nothing(
    entry: Entry, folder: Path, settings: Any
) -> None:
    raw = (folder / backed_up().name).read_bytes()
    plain = gzip.decompress(raw)
    assert "gzip" in refused(b"PK\x03\x04 no archive", folder)
    assert refused(b"", folder)
    assert refused(raw[:-20], folder)
    assert "follows" in refused(raw + b"x", folder)
    assert refused(gzip.compress(plain.replace(b"task-0", b"task-9")), folder)
    assert refused(gzip.compress(b"{" + b'"a":{' * 5000 + b"}" * 5001 + b"\n"), folder)
    settings.OMNIDASH_BACKUP_MB = 0
    assert "OMNIDASH_BACKUP_MB" in refused(raw, folder)
    settings.OMNIDASH_BACKUP_MB, settings.OMNIDASH_BACKUP_OUTPUT_MB = 256, 0
    assert "bytes" in refused(raw, folder)


def test_a_flipped_bit_is_refused_wherever_it_is(entry: Entry, folder: Path) -> None:
    raw = (folder / backed_up().name).read_bytes()
    chance = random.Random(5)
    for _ in range(40):
        flipped = bytearray(raw)
        # Behind gzip's own header, whose time and system mean nothing.
        flipped[chance.randrange(10, len(raw))] ^= 1 << chance.randrange(8)
        assert refused(bytes(flipped), folder)


def test_a_folder_that_is_full_keeps_nothing(
    entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = (folder / backed_up().name).read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(raw, folder)


def test_counts_are_those_of_the_file(entry: Entry, folder: Path) -> None:
    made = backed_up()
    lines = gzip.decompress((folder / made.name).read_bytes()).splitlines()
    assert json.loads(lines[-1])["counts"] == backups.counts_of(made)
