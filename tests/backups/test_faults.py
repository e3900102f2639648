"""Whatever call fails, comes late, is cut short or is made twice: no backup is listed that is not
good, no restore is half done, and the run says which store it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnidash import runs
from omnidash.actions import NOT_YET
from omnidash.backups import checking
from omnidash.models import Backup, Run
from omnidash.stores import Entry
from storage import open_store
from storage.base import Store
from storage.json_store import files
from tests.backups.asking import finished, started
from tests.backups.faulty import Fault, FaultyStore
from tests.backups.test_restore import of_theirs
from tests.backups.world import World, records_of
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def world(backend: Backend, entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(files, "_LOCK_PATIENCE", 0.0)  # nobody else is at work
    return World(backend, entry, folder)


def with_fault(world: World, run: Run, fault: Fault, store: Store | None = None) -> Run:
    world.entry.store = FaultyStore(store or world.real, fault)  # type: ignore[assignment]
    try:
        return finished(run)
    finally:
        world.entry.store = world.real


def backed_up_with(world: World, fault: Fault) -> None:
    """Either there is no new backup, or it holds all that is in the store."""
    run = with_fault(world, started("back-up"), fault)
    made = Backup.objects.filter(run=run).first()
    assert (made is not None) == (run.state == "done"), run.message
    if made is None:
        assert "No backup was made." in run.message
    elif fault.happened:
        assert fault.how in ("delay", "double"), f"{fault} and it counts as good"
        assert set(map(repr, records_of(made))) == set(map(repr, world.old_records))
    world.listed_is_good()
    world.is_tidy()
    assert of_theirs(world.backend) == world.old


def restored_with(world: World, fault: Fault) -> None:
    run = with_fault(world, world.asked(), fault)
    world.judged(run)
    world.listed_is_good()
    world.is_tidy()


ALL = ("error", "late error", "delay", "short", "double")
LOUD = ("error", "late error", "delay", "double")  # of what has no length
STRIDES = {"error": 2, "late error": 6, "delay": 30, "short": 3, "double": 6}
"""Of so many calls one is tried; the long form tries each."""

BACKUP = [*(("batch", how) for how in ALL), *(("sections", how) for how in LOUD)]
RESTORE = [
    *(("batch", how) for how in ALL),
    *((call, how) for call in ("snapshot", "stage", "commit") for how in LOUD),
    *(("put", how) for how in LOUD if how != "double"),
]


def at_each_call(
    world: World, call: str, how: str, judge: Callable[[World, Fault], None], stride: int = 1
) -> None:
    """From the first call on, until there is none that it could happen to."""
    at, happened = 1, True
    while happened:
        fault = Fault(call, how, at)
        judge(world, fault)
        happened = fault.happened
        assert happened or at > 1
        world.put_back()
        at += stride


@pytest.mark.parametrize(("call", "how"), BACKUP)
def test_a_backup_is_whole_or_none(world: World, call: str, how: str) -> None:
    at_each_call(world, call, how, backed_up_with, STRIDES[how])


@pytest.mark.soak
@pytest.mark.parametrize(("call", "how"), BACKUP)
def test_a_backup_is_whole_or_none_at_every_call(world: World, call: str, how: str) -> None:
    at_each_call(world, call, how, backed_up_with)


@pytest.mark.parametrize(("call", "how"), RESTORE)
def test_a_restore_is_whole_or_none(world: World, call: str, how: str) -> None:
    at_each_call(world, call, how, restored_with, STRIDES[how])


@pytest.mark.soak
@pytest.mark.parametrize(("call", "how"), RESTORE)
def test_a_restore_is_whole_or_none_at_every_call(world: World, call: str, how: str) -> None:
    at_each_call(world, call, how, restored_with)


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
def test_records_that_are_staged_twice_are_there_once(world: World) -> None:
    """A JSON directory may hold two agents of one name, and two events that say the same."""
    at_each_call(world, "put", "double", restored_with)


@pytest.mark.parametrize(
    ("call", "how"), [("put", "short"), ("batch", "short"), ("batch", "error"), ("staged", "error")]
)
def test_a_trial_that_did_not_read_back_all_is_not_passed(
    world: World, call: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried_with(world: World, fault: Fault) -> None:
        monkeypatch.setattr(checking, "open_store", lambda url: FaultyStore(open_store(url), fault))
        asked = started("verify-backup", backup=world.made.pk, level="trial")
        run = with_fault(world, asked, fault)
        world.made.refresh_from_db()
        assert (run.state == "done") == (world.made.tried == "good") == (not fault.happened)
        world.is_tidy()
        Backup.objects.update(tried="")

    at_each_call(world, call, how, tried_with)


@pytest.mark.parametrize("how", ["error", "late error"])
def test_what_became_of_a_change_is_asked_until_the_store_tells_it(world: World, how: str) -> None:
    lost: Any = FaultyStore(world.real, Fault("commit", how))
    run = with_fault(world, world.asked(), Fault("committed", "error"), lost)
    assert (run.state, NOT_YET in run.message) == ("failed", True)
    asked_again = FaultyStore(world.real, Fault("committed", "error"))
    world.entry.store = asked_again  # type: ignore[assignment]
    assert [runs.note_interrupted(time.time()) for _ in range(3)] == [0, 1, 0]
    assert world.judged(run) is (how == "late error")
