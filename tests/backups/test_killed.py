"""Killed anywhere, a restore leaves the old store or the new one and says which, and a backup is
whole or not there; nothing is left behind, and the next one works."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from omnidash.models import Run
from omnidash.stores import Entry
from tests.backups.asking import started
from tests.backups.killing import arm_calls, arm_commands, in_child
from tests.backups.world import World
from tests.crashing import Fuse
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db(transaction=True)

Arm = Callable[[int], Fuse]
WAYS = [("json", arm_calls), ("redis", arm_commands)]
over_both = pytest.mark.parametrize(("backend", "arm"), WAYS, indirect=["backend"])


@pytest.fixture
def world(backend: Backend, entry: Entry, folder: Path) -> World:
    return World(backend, entry, folder)


def asked(world: World, what: str) -> Run:
    if what == "restore":
        return world.asked()
    if what == "verify-backup":
        return started(what, backup=world.made.pk, level="trial")
    return started(what)


def judged(world: World, run: Run) -> bool | None:
    """Whether the store is the new one, after a run that may have been killed."""
    world.after_a_crash(run)
    world.listed_is_good()
    run.refresh_from_db()
    assert run.state in ("done", "interrupted")
    is_new = world.judged(run) if run.action == "restore" else None
    if run.state == "interrupted" and is_new is None:
        world.is_old()
    world.is_tidy(expiring=run.action == "verify-backup")
    world.goes_on()
    world.put_back()
    return is_new


def killed_at_calls(world: World, arm: Arm, what: str, stride: int) -> list[bool | None]:
    """What the store was after each, until the run came to its end."""
    found = []
    for at in count(1, stride):
        run = asked(world, what)
        calls = in_child(run, arm, at)
        found.append(judged(world, run))
        if calls:
            return found
    raise AssertionError


@over_both
def test_a_killed_restore_leaves_the_old_store_or_the_new_one(world: World, arm: Arm) -> None:
    found = killed_at_calls(world, arm, "restore", 13)
    assert found == sorted(found) and {*found} == {False, True}


@over_both
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_restore_killed_at_any_call_leaves_the_old_store_or_the_new_one(
    world: World, arm: Arm
) -> None:
    found = killed_at_calls(world, arm, "restore", 1)
    assert found == sorted(found) and len(found) > 60


@over_both
@pytest.mark.parametrize("what", ["back-up", "verify-backup"])
def test_a_killed_backup_is_none_and_a_killed_trial_leaves_nothing(
    world: World, arm: Arm, what: str
) -> None:
    assert len(killed_at_calls(world, arm, what, 7)) > 1


@over_both
@pytest.mark.parametrize("what", ["back-up", "verify-backup"])
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_backup_killed_at_any_call_is_none_and_a_trial_leaves_nothing(
    world: World, arm: Arm, what: str
) -> None:
    assert len(killed_at_calls(world, arm, what, 1)) > 7


def killed_at_random(world: World, arm: Arm, times: int) -> set[bool | None]:
    run = world.asked()
    began = time.monotonic()
    assert in_child(run, arm)
    whole = time.monotonic() - began
    found = {judged(world, run)}
    for number in range(times):
        run = asked(world, ("restore", "restore", "back-up", "verify-backup")[number % 4])
        in_child(run, arm, delay=random.uniform(0.0, whole))
        world.never_begun(run)
        found.add(judged(world, run))
    return found


@over_both
def test_killed_at_random_the_store_is_the_old_one_or_the_new_one(world: World, arm: Arm) -> None:
    assert True in killed_at_random(world, arm, 4)


@over_both
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_random_two_hundred_times(world: World, arm: Arm) -> None:
    assert {False, True} <= killed_at_random(world, arm, 200)
