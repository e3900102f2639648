"""A backup that is made while OmniDaemon writes: every record in it is one that there was, none is
torn, and what belongs together is stated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnidash.models import Backup
from omnidash.stores import registry
from storage.changes import Record
from storage.comparison import identical
from storage.redis_store.stored import unpack_fields
from tests.backups.asking import backed_up, did
from tests.backups.world import records_in, records_of
from tests.backups.writer import AGENTS, KEYS, RESULTS, body
from tests.pages import serving
from tests.stores import Backend, JsonBackend, RedisBackend
from tests.test_live_runner import Runner

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parent.parent.parent


class Writer:
    def __init__(self, backend: Backend) -> None:
        if isinstance(backend, JsonBackend):
            where = str(backend.folder)
        else:
            assert isinstance(backend, RedisBackend)
            where = backend.server
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.backups.writer", backend.name, where],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env={**os.environ, "STORAGE_BACKEND": "redis"},
        )  # fmt: skip
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) != "ready\n":
            assert line, "the writer ended"

    def stop(self) -> int:
        """The number of its last write."""
        return int(self.process.communicate()[0].split()[-1])


@pytest.fixture
def writer(backend: Backend) -> Iterator[Writer]:
    found = Writer(backend)
    yield found
    found.process.kill()
    found.process.wait()


def number_in(record: Record) -> int:
    """Of which write it is: all of it."""
    if record.kind == "agent":
        first, pad, again = description_of(record).split(" ")
        assert (first, len(pad)) == (again, int(first) % 500)
        assert record.names == ("t", f"a{int(first) % AGENTS}")
        return int(first)
    value: Any = json.loads(record.raw)
    found = value["result"] if record.kind == "result" else value
    number: int = found["n"]
    assert {name: found[name] for name in ("n", "pad", "again")} == body(number)
    if record.kind == "result":
        assert value["task_id"] == record.names[0] == f"r{number % RESULTS}"
    elif record.kind == "config":
        assert record.names == (f"k{number % KEYS}",)
    return number


def description_of(record: Record) -> str:
    if record.form == "hash":
        parts = unpack_fields(record.raw)
        return dict(zip(parts[::2], parts[1::2], strict=True))[b"description"].decode()
    found: str = json.loads(record.raw)["description"]
    return found


def looked_at(backup: Backup) -> int:
    """The last write that anything in it is of."""
    numbers: dict[str, list[int]] = {}
    for record in records_of(backup):
        assert record.form in ("text", "hash")
        if record.kind == "file":
            json.loads(record.raw)
        else:
            numbers.setdefault(record.kind, []).append(number_in(record))
    assert (len(numbers["agent"]), len(numbers["result"])) == (AGENTS, RESULTS)
    events = numbers.get("metrics", [])  # up to 99 are in OmniDaemon's memory alone
    assert events == list(range(events[0], events[0] + len(events))) if events else True
    stated = {section[0]: section[1] for section in json.loads(backup.sections)}
    assert stated["metrics"] == "point-in-time"
    assert stated["result"] == ("fuzzy" if backup.backend == "redis" else "point-in-time")
    if stated["agent"] == "point-in-time":
        assert max(numbers["agent"]) - min(numbers["agent"]) == AGENTS - 1
    return max(max(some) for some in numbers.values())


def written_beside(backend: Backend, writer: Writer, seconds: float) -> None:
    with serving(prod=backend.url):
        until, made, last = time.monotonic() + seconds, list[Backup](), 0
        while len(made) < 3 or time.monotonic() < until:
            made.append(backed_up())
            last = max(last, looked_at(made[-1]))
            if len(made) % 10 == 0:
                did("verify-backup", backup=made[-1].pk, level="trial")
        assert 0 < last <= writer.stop()
        did("verify-backup", backup=made[-1].pk, level="trial")
        end = backed_up()
        assert identical(records_of(end), registry()["prod"].store.snapshot()).differing == 0


def test_a_backup_beside_a_writer_holds_nothing_that_never_was(
    backend: Backend, writer: Writer
) -> None:
    written_beside(backend, writer, 1.5)


@pytest.mark.soak
def test_backups_beside_a_writer_for_a_minute_hold_nothing_that_never_was(
    backend: Backend, writer: Writer
) -> None:
    written_beside(backend, writer, 60)


def of_a_runner(backend: Backend, redis_url: str, tmp_path: Path, tasks: int, times: int) -> None:
    """Results and events are never written again: what was backed up is there in the end."""
    environment = {"STORAGE_BACKEND": backend.name, "JSON_STORAGE_DIR": str(tmp_path / "store")}
    runner = Runner(redis_url, **environment)
    try:
        with serving(prod=backend.url):
            store, seen = registry()["prod"].store, set[str]()
            for number in range(1, times + 1):
                runner.publish(tasks)
                deadline = time.monotonic() + 60
                while (store.counts().results or 0) < number * tasks:
                    assert time.monotonic() < deadline
                    seen |= lasting(records_of(backed_up()))
            runner.stop()
            assert len(seen) > tasks
            assert seen <= lasting(records_in(store))
    finally:
        runner.kill()


def lasting(records: list[Record]) -> set[str]:
    return {repr((one.kind, one.raw)) for one in records if one.kind in ("result", "metrics")}


def test_what_is_backed_up_beside_a_real_runner_is_what_it_wrote(
    backend: Backend, redis_url: str, tmp_path: Path
) -> None:
    of_a_runner(backend, redis_url, tmp_path, 60, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_what_is_backed_up_beside_a_runner_for_long_is_what_it_wrote(
    backend: Backend, redis_url: str, tmp_path: Path
) -> None:
    of_a_runner(backend, redis_url, tmp_path, 200, 15)
