"""Redis is killed, frozen, full or a replica in the middle of a backup, a trial or a restore: the
run says what became of it, at the latest when the server is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnidash import runs
from omnidash.models import Backup, Run
from omnidash.stores import registry
from tests.backups.asking import fill, finished, started
from tests.backups.faulty import Fault, FaultyStore
from tests.backups.test_restore import of_theirs
from tests.backups.world import World
from tests.pages import serving
from tests.servers import RedisServer
from tests.stores import RedisBackend, eventually
from tests.test_redis_staging_faults import DURABLE, TROUBLES, Phases, wait_for

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def durable(server: RedisServer) -> RedisServer:
    """It remembers what it was told, however it ends."""
    server.stop()
    server.start(*DURABLE)
    return server


@pytest.fixture
def world(durable: RedisServer, folder: Path) -> Iterator[World]:
    backend = RedisBackend(durable.url)
    with serving(prod=backend.url):
        fill(registry()["prod"].store)
        yield World(backend, registry()["prod"], folder)
    backend.close()


def answers(world: World) -> bool:
    """Whoever waited for a server that did not answer leaves it alone for a second."""
    try:
        world.real.connect()
    except Exception:  # noqa: BLE001
        return False
    return True


def in_trouble(
    world: World, server: RedisServer, run: Run, trouble: str, arm: Callable[[Any], Fault | None]
) -> Run:
    """The run, with the trouble where it is armed to begin, and as it is once that is over."""
    begin, end = TROUBLES[trouble]
    fault = arm(lambda: begin(server))
    if fault is not None:
        world.entry.store = FaultyStore(world.real, fault)  # type: ignore[assignment]
    finished(run)
    world.entry.store = world.real
    end(server)
    wait_for(server)
    eventually(lambda: answers(world), True)
    runs.note_interrupted(time.time())
    run.refresh_from_db()
    return run


def at(call: str, number: int) -> Callable[[Any], Fault]:
    return lambda before: Fault(call, "before", number, before)


EARLY, LATE = 2, 3  # of the four batches of the store
BACKUPS = [("back-up", "batch", EARLY), ("back-up", "batch", LATE)]
TRIALS = [
    ("verify-backup", call, number)
    for call, number in (("stage", 1), ("put", 2), ("staged", 1), ("batch", 3))
]
RESTORES = [
    ("batch", EARLY), ("stage", 1), ("batch", 4 + LATE), ("put", 1), ("put", 3), ("commit", 1),
    ("before exec", 0), ("after exec", 0), ("batch", 8 + LATE),
]  # fmt: skip


def backed_up_in_trouble(
    world: World, server: RedisServer, trouble: str, action: str, call: str, number: int
) -> None:
    params = {} if action == "back-up" else {"backup": world.made.pk, "level": "trial"}
    run = in_trouble(world, server, started(action, **params), trouble, at(call, number))
    made = Backup.objects.filter(run=run).exists()
    world.made.refresh_from_db()
    if run.state == "done":  # reading goes on from a full one and from a replica
        assert trouble in ("full", "a replica")
        assert made or world.made.tried == "good"
    else:
        assert run.state == "failed" and "Redis at" in run.message
        assert not made and world.made.tried == ""
    assert of_theirs(world.backend) == world.old
    world.listed_is_good()
    world.is_tidy(expiring=True)
    world.goes_on()


def restored_in_trouble(
    world: World, server: RedisServer, monkeypatch: pytest.MonkeyPatch, trouble: str, *where: Any
) -> None:
    call, number = where

    def phases(before: Callable[[], None]) -> None:
        Phases(monkeypatch, call, before)

    arm: Any = phases if "exec" in call else at(call, number)
    run = in_trouble(world, server, world.asked(), trouble, arm)
    world.judged(run)
    world.listed_is_good()
    world.is_tidy(expiring=True)
    world.goes_on()


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("action", "call", "number"), [BACKUPS[1], TRIALS[1]])
def test_a_backup_or_a_trial_fails_with_the_reason_or_goes_on(
    world: World, durable: RedisServer, trouble: str, action: str, call: str, number: int
) -> None:
    backed_up_in_trouble(world, durable, trouble, action, call, number)


@pytest.mark.soak
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("action", "call", "number"), [*BACKUPS, *TRIALS])
def test_at_each_phase_a_backup_or_a_trial_fails_with_the_reason_or_goes_on(
    world: World, durable: RedisServer, trouble: str, action: str, call: str, number: int
) -> None:
    backed_up_in_trouble(world, durable, trouble, action, call, number)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("call", "number"), [("put", 3), ("after exec", 0)])
def test_a_restore_leaves_the_old_store_or_the_new_one_and_says_which(
    world: World, durable: RedisServer, monkeypatch: pytest.MonkeyPatch,
    trouble: str, call: str, number: int,
) -> None:  # fmt: skip
    restored_in_trouble(world, durable, monkeypatch, trouble, call, number)


@pytest.mark.soak
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("call", "number"), RESTORES)
def test_at_each_phase_a_restore_leaves_the_old_store_or_the_new_one_and_says_which(
    world: World, durable: RedisServer, monkeypatch: pytest.MonkeyPatch,
    trouble: str, call: str, number: int,
) -> None:  # fmt: skip
    restored_in_trouble(world, durable, monkeypatch, trouble, call, number)
