"""A backup that is damaged anywhere is restored nowhere, and an old one is restored for ever."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from omnidash import backups
from omnidash.models import Run
from omnidash.stores import Entry, registry
from storage.archive import ArchiveReader
from storage.changes import Record
from storage.comparison import identical
from storage.conversion import Loss, converted
from storage.extension import extended
from tests.backups.asking import finished, started
from tests.backups.world import World
from tests.pages import serving
from tests.stores import DATA, Backend, RedisBackend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

YEARS = 60 * 365 * 86_400.0


def flipped(whole: bytes, times: int) -> Iterator[bytes]:
    draw = random.Random(20261125)
    for _ in range(times):
        # Flags, date and system of gzip's own header say nothing of what is in it.
        position = draw.choice([*range(3), *range(10, len(whole))])
        damaged = bytearray(whole)
        damaged[position] ^= 1 << draw.randrange(8)
        try:
            if gzip.decompress(damaged) == gzip.decompress(whole):
                continue  # one of the few bits that fill a byte
        except (OSError, EOFError, ValueError, gzip.zlib.error):  # type: ignore[attr-defined]
            pass
        yield bytes(damaged)


def cut_off(whole: bytes) -> Iterator[bytes]:
    """Behind each of its lines, and before its last bytes."""
    lines = gzip.decompress(whole).splitlines(keepends=True)
    for count in range(len(lines)):
        yield gzip.compress(b"".join(lines[:count]), 1)
    for missing in (1, 4, 8, 9):
        yield whole[:-missing]


def nothing_is_written(world: World, some: Iterable[bytes]) -> None:
    run = world.asked()
    path = world.folder / world.made.name
    before, writes = world.backend.photograph(), writes_to(world.backend)
    for damaged in some:
        path.write_bytes(damaged)
        Run.objects.filter(pk=run.pk).update(state="queued")
        assert finished(run).state == "failed"
        assert "is not good" in run.message and "Nothing was changed." in run.message
        assert writes_to(world.backend) == writes
    assert world.backend.photograph() == before
    assert not backups.good().exists()
    with pytest.raises(backups.BackupError, match="is not good"):
        world.asked()


def writes_to(backend: Backend) -> int:
    return backend.changes() if isinstance(backend, RedisBackend) else 0


@pytest.fixture
def world(backend: Backend, entry: Entry, folder: Path) -> World:
    return World(backend, entry, folder)


def test_no_damaged_backup_is_written_into_a_store(world: World) -> None:
    whole = (world.folder / world.made.name).read_bytes()
    nothing_is_written(world, [*flipped(whole, 25), *list(cut_off(whole))[::4]])


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_of_a_thousand_damaged_backups_none_is_written_into_a_store(world: World) -> None:
    whole = (world.folder / world.made.name).read_bytes()
    nothing_is_written(world, [*flipped(whole, 1000), *cut_off(whole)])


# Old ones


def records(name: str) -> list[Record]:
    with ArchiveReader(str(DATA / "backups" / name)) as reader:
        return [record for batch in reader for record in batch.records]


@pytest.mark.parametrize("name", ["json-1.odb.gz", "redis-1.odb.gz"])
def test_a_backup_of_the_first_format_is_restored_for_ever(backend: Backend, name: str) -> None:
    """Its results have expired long ago, and are given more time."""
    with serving(prod=backend.url):
        store, of = registry()["prod"].store, name.partition("-")[0]
        with (DATA / "backups" / name).open("rb") as file:
            received = backups.receive(iter(lambda: file.read(1 << 16), b""))
        params = {"backup": received.pk, "mode": "replace", "volatile": True, "extend": YEARS}
        run = finished(started("restore", **params))
        wanted = converted(extended(records(name), YEARS, of), of, store.backend, Loss())
        found = identical(wanted, store.snapshot())
        assert found.compared > 100
        skipped = [tuple(names) for names, _ in json.loads(run.report)["named"]]
        assert [names for _, names, _ in found.named] == skipped
        assert len(skipped) <= 1, "a list of another version of Redis"
        assert run.state == (Run.State.FAILED if skipped else Run.State.DONE)
        assert len(store.list_results(1000)) == (37 if of == "json" else 40)
