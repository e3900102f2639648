"""The clock works beside the pages, for every store by itself, and ends when told to."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from django.db import OperationalError, connections
from django.db.models import Sum

from omnidash import clock
from omnidash.history import History, gauges
from omnidash.history.runners import note_start
from omnidash.models import Gauge, Mark, Rollup, Source, Subject
from omnidash.stores import Entry
from storage.base import Runner, Store, StoreDenied, StoreUnavailable
from tests.pages import serving
from tests.prepared import prepare
from tests.servers import RedisServer
from tests.stores import Backend, JsonBackend, RedisBackend, eventually

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent
NOW = 1_800_000_000.0


def watch(store: Store, name: str = "default") -> clock.Watch:
    return clock.Watch(Entry(name, store, History(store)))


def source_of(store: Store) -> Source:
    return History(store).source()


def received(count: int, start: float) -> list[dict[str, object]]:
    kinds = {"event": "task_received", "topic": "t", "agent": "a"}
    return [{**kinds, "timestamp": start + number / 1000} for number in range(count)]


def start_runner(store: Store, at: float) -> None:
    store.save_config("_omnidaemon_runner_id", "r-1")  # first: then nobody else may write
    store.save_config("_omnidaemon_start_time", at)


def counted(store: Store) -> int:
    rows = Rollup.objects.filter(
        subject__source=source_of(store), subject__kind=Subject.Kind.ALL, level=86_400
    )
    return rows.aggregate(sum=Sum("received"))["sum"] or 0


@contextmanager
def running(target: Callable[[threading.Event], None], times: int = 1) -> Iterator[None]:
    """The target in threads of its own, until the end of the block."""
    stop = threading.Event()

    def body() -> None:
        try:
            target(stop)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=body) for _ in range(times)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# A beat


def test_a_beat_reads_events_starts_and_gauges(backend: Backend) -> None:
    store = backend.open()
    now = time.time()
    start_runner(store, now - 60)
    backend.put_metrics(received(3, now - 10))
    watch(store).beat(now)
    assert counted(store) == 3
    assert Mark.objects.get().at == now - 60
    assert Gauge.objects.get(name=gauges.METRICS, level=60).value == 3.0


def test_gauges_are_sampled_once_in_each_minute(backend: Backend) -> None:
    store = backend.open()
    looks: list[float] = []
    inspect = store.inspect
    store.inspect = lambda: looks.append(1) or inspect()  # type: ignore[method-assign, func-returns-value]
    watched = watch(store)
    for second in (0, 5, 55, 60, 65):
        watched.beat(NOW + second)
    assert Gauge.objects.filter(name=gauges.METRICS, level=60).count() == 2
    assert len(looks) <= 2


def test_two_clocks_count_nothing_twice(redis_backend: RedisBackend) -> None:
    start = time.time() - 10

    def beat(stop: threading.Event) -> None:
        watched = watch(redis_backend.open())
        while not stop.is_set():
            watched._entry.history._read_at = -1e9
            watched.beat(time.time())

    with running(beat, times=2):
        for batch in range(20):
            redis_backend.put_metrics(received(25, start + batch / 10))
        store = redis_backend.open()
        eventually(lambda: source_of(store).events, 500)
    assert counted(store) == 500
    assert Gauge.objects.filter(name=gauges.METRICS, level=60).count() <= 2


# Starts of runners


def runner(start: float | None, runner_id: str = "r-1") -> Runner:
    return Runner(start_time=start, runner_id=runner_id)


@pytest.fixture
def source(store: Store) -> Source:
    return source_of(store)


def test_a_start_is_marked_once(source: Source) -> None:
    assert note_start(source, runner(NOW - 5), NOW)
    source.refresh_from_db()
    assert not note_start(source, runner(NOW - 5), NOW)
    (mark,) = Mark.objects.all()
    assert (mark.at, mark.kind, bytes(mark.subject)) == (NOW - 5, "runner", b"r-1")


def test_another_start_is_another_mark_whatever_its_id(source: Source) -> None:
    for start, name in ((NOW - 50, "r-1"), (NOW - 40, "r-1"), (NOW - 30, "r-2")):
        assert note_start(source, runner(start, name), NOW)
        source.refresh_from_db()
    assert Mark.objects.count() == 3


def test_who_looked_earlier_is_overtaken_and_marks_nothing(source: Source) -> None:
    earlier = Source.objects.get(pk=source.pk)
    assert note_start(source, runner(NOW - 5), NOW)
    assert not note_start(earlier, runner(NOW - 5), NOW)
    assert not note_start(earlier, runner(NOW - 50, "an older one"), NOW)
    assert Mark.objects.count() == 1


@pytest.mark.parametrize(
    "half", [runner(None), runner(NOW, ""), runner(NOW + 3600)], ids=["stopped", "no id", "ahead"]
)
def test_what_is_no_start_is_no_mark(source: Source, half: Runner) -> None:
    assert not note_start(source, half, NOW)
    assert not Mark.objects.exists()


@pytest.mark.parametrize("name", ["\0", "\ud800", "\udcff", "x" * 100_000])
def test_any_text_may_be_the_id_of_a_runner(source: Source, name: str) -> None:
    assert note_start(source, runner(NOW, name), NOW)
    source.refresh_from_db()
    assert not note_start(source, runner(NOW, name), NOW)
    assert len(Mark.objects.get().subject) <= 200


# Troubles


def test_a_trouble_is_said_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles = clock.Troubles("store prod")
    for error in (StoreUnavailable("refused"), StoreUnavailable("timed out"), None, None):
        with troubles.caught():
            if error:
                raise error
        troubles.settle()
    assert [record.getMessage() for record in caplog.records] == [
        "store prod: refused", "store prod: works again after StoreUnavailable",
    ]  # fmt: skip


def test_one_thing_that_is_forbidden_hides_no_later_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles = clock.Troubles("store prod")
    for errors in ([StoreDenied("config")], [StoreDenied("config"), StoreUnavailable("gone")]):
        for error in errors:
            with troubles.caught():
                raise error
        troubles.settle()
    assert [record.getMessage() for record in caplog.records] == [
        "store prod: config", "store prod: gone",
    ]  # fmt: skip


def test_a_locked_database_and_a_fault_of_ours_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles = clock.Troubles("store prod")
    for error in (OperationalError("database is locked"), KeyError("ours")):
        with troubles.caught():
            raise error
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_a_task_that_fails_does_not_end_the_beat(json_backend: JsonBackend) -> None:
    store = json_backend.open()
    start_runner(store, time.time())
    json_backend.write("metrics.json", "{not json")
    watch(store).beat(time.time())
    assert Mark.objects.count() == 1


# Several stores


def test_a_frozen_store_delays_no_other(
    json_backend: JsonBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clock, "BEAT", 0.1)
    caplog.set_level(logging.WARNING)
    server = RedisServer()
    try:
        server.process.send_signal(signal.SIGSTOP)
        with serving(frozen=server.url, good=json_backend.url), running(clock.run):
            store = json_backend.open()
            for batch in (1, 2):
                json_backend.put_metrics(received(10, time.time() - 5))
                eventually(lambda: counted(store), batch * 10)
            eventually(lambda: "store frozen" in caplog.text, True)
            server.process.send_signal(signal.SIGCONT)
            eventually(lambda: "store frozen: works again" in caplog.text, True)
            assert "store good" not in caplog.text
    finally:
        server.close()


# The process


class Clock:
    """`manage.py clock` with a data folder of its own, where the database is ready."""

    def __init__(self, folder: Path, **stores: str) -> None:
        self.database = folder / "var" / "omnidash.sqlite3"
        self._env = {
            "PATH": os.environ["PATH"],
            "OMNIDASH_DATA_DIR": str(folder / "var"),
            "OMNIDASH_STORES": ",".join(f"{name}={url}" for name, url in stores.items()),
        }
        self._folder = folder
        prepare(folder / "var")
        self.process = self._start("clock")

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, str(ROOT / "manage.py"), *command]
        return subprocess.Popen(program, env=self._env, cwd=self._folder)

    def events(self) -> list[int]:
        """Read so far, of each store that was met."""
        with suppress(sqlite3.OperationalError):
            connection = sqlite3.connect(self.database)
            try:
                found = connection.execute("SELECT events FROM omnidash_source ORDER BY events")
                return [events for (events,) in found]
            finally:
                connection.close()
        return []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_clock_even_while_a_store_is_frozen(
    json_backend: JsonBackend, tmp_path: Path, number: int
) -> None:
    json_backend.put_metrics(received(2, time.time() - 5))
    server = RedisServer()
    try:
        server.process.send_signal(signal.SIGSTOP)
        process = Clock(tmp_path, frozen=server.url, good=json_backend.url)
        eventually(lambda: 2 in process.events(), True)
        process.process.send_signal(number)
        assert process.process.wait(timeout=60) == 0
    finally:
        server.close()
