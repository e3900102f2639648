"""The second destination: a folder, and a bucket that is asked over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from omnidash import backups
from omnidash.keeping import Keep
from omnidash.models import Backup
from omnidash.stores import Entry
from storage import destinations
from storage.destinations import Destination, DestinationError, open_destination
from tests.backups.asking import backed_up, did, finished, started
from tests.servers import free_port

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

KEY, SECRET = "AKIAHUNTER", "hunter2/secret"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port())
    server.start()
    yield f"http://127.0.0.1:{server._port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str) -> str:
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        region_name="eu-west-1",
    )  # fmt: skip
    made = client.list_buckets()["Buckets"]
    name = f"backups-{len(made)}"
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return f"s3://{name}/some/where?endpoint={endpoint}&region=eu-west-1"


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "elsewhere")
    return str(request.getfixturevalue("bucket"))


@pytest.fixture
def there(url: str, settings: Any) -> Destination:
    settings.OMNIDASH_BACKUP_COPY = url
    settings.OMNIDASH_S3_KEY, settings.OMNIDASH_S3_SECRET = KEY, SECRET
    return open_destination(url, KEY, SECRET)


@pytest.fixture
def backend(redis_backend: Any) -> Any:
    return redis_backend


def test_a_backup_is_sent_and_checked_there(
    entry: Entry, there: Destination, folder: Path, tmp_path: Path
) -> None:
    run = did("back-up")
    made = Backup.objects.get()
    assert "checked at the second destination" in run.message
    assert (made.copied_at is not None, there.names()) == (True, {made.name: made.size})
    there.fetch(made.name, str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (folder / made.name).read_bytes()


def test_what_is_lost_here_is_brought_back(entry: Entry, there: Destination, folder: Path) -> None:
    made = backed_up()
    (folder / made.name).unlink()
    did("verify-backup", backup=made.pk, level="file")
    assert (folder / made.name).stat().st_mode & 0o077 == 0


def test_after_the_loss_of_a_machine_all_are_fetched(
    entry: Entry, there: Destination, folder: Path
) -> None:
    made = backed_up()
    (folder / made.name).unlink()
    Backup.objects.all().delete()
    assert [step.done for step in backups.fetch_all()] == [1]
    found = Backup.objects.get()
    assert (found.name, found.store, found.copied_at is not None) == (made.name, "prod", True)


def lost(folder: Path) -> None:
    """The machine, but for its settings."""
    for one in folder.iterdir():
        one.unlink()
    Backup.objects.all().delete()


def fetched() -> str:
    """What is said in the end; empty if all came."""
    try:
        list(backups.fetch_all())
    except backups.BackupError as error:
        return str(error)
    return ""


def test_one_that_is_cut_off_on_the_way_stops_no_other_and_comes_the_next_time(
    entry: Entry, there: Destination, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [backed_up(), backed_up()]
    lost(folder)
    broken = sorted(one.name for one in made)[0]
    fetch = type(there).fetch

    def cut_off(self: Destination, name: str, path: str) -> None:
        if name == broken:
            with destinations._whole(path) as file:
                file.write(b"half")
                raise DestinationError("cut off")
        fetch(self, name, path)

    with monkeypatch.context() as patched:
        patched.setattr(type(there), "fetch", cut_off)
        assert fetched() == f"1 of 2 were not fetched: {broken} cannot be fetched: cut off"
    assert [one.name for one in folder.iterdir()] == [
        one.name for one in made if one.name != broken
    ]
    assert fetched() == ""
    assert {one.name for one in Backup.objects.exclude(copied_at=None)} == set(there.names())


def test_what_was_cut_off_there_is_fetched_again_once_it_is_whole(
    entry: Entry, there: Destination, folder: Path, tmp_path: Path
) -> None:
    made = backed_up()
    content = (folder / made.name).read_bytes()
    whole, half = tmp_path / "whole", tmp_path / "half"
    whole.write_bytes(content)
    half.write_bytes(content[:-9])
    for again in ("fetch", "verify"):
        there.put(str(half), made.name)
        lost(folder)
        assert fetched() == ""
        found = Backup.objects.get()
        if again == "verify":
            assert (
                finished(started("verify-backup", backup=found.pk, level="file")).state == "failed"
            )
        there.put(str(whole), made.name)
        if again == "fetch":
            assert fetched() == ""
        did("verify-backup", backup=found.pk, level="file")
        found.refresh_from_db()
        assert (found.checked, found.size) == ("good", len(content))


def test_a_file_of_another_size_does_not_replace_one_that_was_proven(
    entry: Entry, there: Destination, folder: Path, tmp_path: Path
) -> None:
    made = backed_up()
    (tmp_path / "half").write_bytes((folder / made.name).read_bytes()[:-9])
    there.put(str(tmp_path / "half"), made.name)
    assert fetched() == ""
    (folder / made.name).unlink()
    assert "not fetched" in fetched() and list(folder.iterdir()) == []


def test_what_is_beyond_a_limit_is_told_when_it_is_made_and_let_in_by_who_trusts_it(
    entry: Entry, settings: Any, tmp_path: Path, folder: Path
) -> None:
    settings.OMNIDASH_BACKUP_COPY = str(tmp_path / "elsewhere")
    settings.OMNIDASH_BACKUP_OUTPUT_MB = 2
    for number in range(15):
        entry.store.save_result(f"alike-{number}", {"text": "x" * 200_000}, 3600)
    run = did("back-up")
    told = "holds more than 2,000,000 bytes"
    assert told in run.message and "OMNIDASH_BACKUP_TRUST=on" in run.message
    assert told in backups.refused_elsewhere(Backup.objects.get())
    lost(folder)
    assert fetched() == ""
    found = Backup.objects.get()
    refused = finished(started("verify-backup", backup=found.pk, level="file"))
    assert (refused.state, told in refused.message) == ("failed", True)
    assert "OMNIDASH_BACKUP_TRUST=on" in refused.message
    settings.OMNIDASH_BACKUP_TRUST = True
    did("verify-backup", backup=found.pk, level="trial")
    found.refresh_from_db()
    assert (found.checked, found.tried, backups.refused_elsewhere(found)) == ("good", "good", "")


def test_what_was_fetched_and_is_no_backup_is_said(
    entry: Entry, there: Destination, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"nothing of ours")
    there.put(str(tmp_path / "file"), f"omnidash-20261125T000000Z-{'0' * 16}.odb.gz")
    assert "cannot be read as a backup" in fetched()


def test_a_usual_backup_is_refused_nowhere(entry: Entry) -> None:
    assert backups.refused_elsewhere(backed_up()) == ""


def test_what_is_packed_too_well_and_too_many_records_are_foreseen() -> None:
    packed = Backup(size=100_000, unpacked=30_000_000, counts="{}")
    assert "is packed more than 200 times" in backups.refused_elsewhere(packed)
    many = Backup(size=1, unpacked=1, counts='{"result": 1999999, "agent": 2}')
    assert "holds more than 2,000,000 records" in backups.refused_elsewhere(many)


def test_it_goes_with_the_backup(entry: Entry, there: Destination) -> None:
    first = backed_up()
    second = backed_up()
    did("delete-backup", backup=first.pk)
    assert set(there.names()) == {second.name}


def test_retention_keeps_both_in_step(
    entry: Entry, there: Destination, settings: Any, folder: Path
) -> None:
    settings.OMNIDASH_BACKUP_KEEP = Keep(last=1)
    backed_up()
    second = backed_up()
    assert list(backups.retain()) == [1]
    assert set(there.names()) == {second.name} == {one.name for one in folder.iterdir()}


def test_a_backup_is_good_though_it_could_not_be_sent_and_is_sent_later(
    entry: Entry, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    settings.OMNIDASH_BACKUP_COPY = str(tmp_path / "file" / "within")
    run = did("back-up")
    made = Backup.objects.get()
    assert (made.checked, made.copied_at) == ("good", None)
    assert "not copied" in run.message and made.copy_note
    assert list(backups.catch_up()) == []
    settings.OMNIDASH_BACKUP_COPY = str(tmp_path / "elsewhere")
    assert list(backups.catch_up()) == [1]
    made.refresh_from_db()
    assert (made.copied_at is not None, made.copy_note) == (True, "")


def test_a_copy_that_cannot_be_deleted_keeps_the_backup(
    entry: Entry, settings: Any, tmp_path: Path, folder: Path
) -> None:
    settings.OMNIDASH_BACKUP_COPY = str(tmp_path / "elsewhere")
    first = backed_up()
    backed_up()
    settings.OMNIDASH_BACKUP_COPY = f"s3://none/?endpoint=http://127.0.0.1:{free_port()}"
    settings.OMNIDASH_S3_KEY, settings.OMNIDASH_S3_SECRET = KEY, SECRET
    run = finished(started("delete-backup", backup=first.pk))
    assert (run.state, (folder / first.name).exists()) == ("failed", True)
    assert SECRET not in run.message and KEY not in run.message


def test_a_bucket_that_is_not_there_is_said_without_a_secret(bucket: str, tmp_path: Path) -> None:
    missing = open_destination(bucket.replace("s3://backups", "s3://nothing"), KEY, SECRET)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DestinationError) as raised:
        missing.put(str(tmp_path / "file"), "name")
    assert "bucket" in str(raised.value)
    assert SECRET not in f"{raised.value} {missing.address}"


def test_what_is_read_back_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    there = open_destination(str(tmp_path / "elsewhere"))
    monkeypatch.setattr("os.fsync", lambda file: __import__("os").ftruncate(file, 0))
    with pytest.raises(DestinationError, match="read back"):
        there.put(str(tmp_path / "file"), "name")
    assert there.names() == {}


@pytest.mark.parametrize(
    "url",
    ["ftp://x/y", "s3://", "s3://u:p@bucket/x", "s3://b/x?acl=public", "s3://b?endpoint=file:///x"],
)
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"second destination|bucket"):
        open_destination(url)
