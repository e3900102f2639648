"""Each event is counted exactly once, whoever reads, dies, or changes the store behind our back."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from omnidash.history import History, answers, ingest
from omnidash.history.levels import LEVELS, Span
from omnidash.models import Gap, Source
from tests.history.forks import Forks
from tests.history.readers import read_now
from tests.servers import PostgresServer
from tests.stores import Backend, JsonBackend, RedisBackend

pytest_plugins = ["tests.store_fixtures"]

KILLS = 30  # of two processes each, in each of four pairs of a store and a database
KINDS = ("task_received", "task_processed", "task_failed", "agent_state_change")


def events(numbers: range) -> list[dict[str, Any]]:
    now = time.time()
    return [
        {"event": KINDS[number % 4], "topic": f"t{number % 3}", "agent": f"a{number % 5}",
         "task_id": str(number), "error": f"e{number % 2}", "processing_time_sec": number / 7,
         "timestamp": now - number % 60, "saved_at": now - 600 + number / 1000}
        for number in numbers
    ]  # fmt: skip


def counted(numbers: range) -> dict[str, int]:
    """What so many of the events come to."""
    kinds = [number % 4 for number in numbers]
    return {
        "events": len(kinds),
        "received": kinds.count(0),
        "processed": kinds.count(1),
        "failed": kinds.count(2),
    }


class Database:
    """A database of its own and the processes that use it."""

    def __init__(self, folder: Path, postgres: PostgresServer | None) -> None:
        folder.mkdir()
        self.folder, self.postgres = folder, postgres
        self.name = f"of_{abs(hash(folder))}"
        environment = {}
        if postgres:
            postgres.execute(f"CREATE DATABASE {self.name}")
            environment["DATABASE_URL"] = postgres.url.replace("/omnidash", f"/{self.name}")
        self.forks = Forks(folder, **environment)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        connection: Any
        if self.postgres:
            connection = psycopg.connect(self.postgres.url.replace("/omnidash", f"/{self.name}"))
        else:
            connection = sqlite3.connect(self.folder / "omnidash.sqlite3")
        try:
            found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
            return found
        finally:
            connection.close()

    def remembered(self) -> dict[str, int]:
        """What all is said to come to; every level, and the agents and topics, say the same."""
        sums = self.rows(
            "SELECT kind, level, SUM(received), SUM(processed), SUM(failed) FROM omnidash_rollup "
            "JOIN omnidash_subject ON id = subject_id WHERE kind < 3 GROUP BY kind, level"
        )
        said = {tuple(map(int, row[2:])) for row in sums} or {(0, 0, 0)}
        assert len(said) == 1, sums
        assert len(sums) in (0, 3 * len(LEVELS))
        read = self.rows("SELECT events FROM omnidash_source")
        names = ("events", "received", "processed", "failed")
        return dict(zip(names, (read[0][0] if read else 0, *said.pop()), strict=True))

    def close(self) -> None:
        self.forks.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    found = Database(tmp_path / "data", server)
    yield found
    found.close()


# Many readers


def test_several_processes_that_read_at_once_count_each_event_once(
    backend: Backend, database: Database, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    database.forks.start(url=backend.url, count=4, at_once=7, until=str(enough))
    for start in range(0, 600, 30):
        backend.put_metrics(events(range(start, start + 30)))
        time.sleep(0.01)
    enough.touch()
    assert database.forks.ended() == [0] * 4
    assert database.remembered() == counted(range(600))


@pytest.mark.django_db
def test_who_was_overtaken_writes_nothing(backend: Backend) -> None:
    store = backend.open()
    history = History(store)
    backend.put_metrics(events(range(8)))
    source = history.source()
    batch = store.metrics_after(source.cursor)
    read_now(History(backend.open()))
    assert not ingest.take(source, batch, time.time())
    assert totals(history) == counted(range(8))


# Killed


def test_a_process_killed_at_any_statement_leaves_all_of_a_batch_or_nothing(
    backend: Backend, database: Database
) -> None:
    written, place, outcomes = 0, 0, set()
    survived = False
    while not survived:
        place += 1
        backend.put_metrics(events(range(written, written + 8)))
        (status,) = database.forks.run(url=backend.url, die_at=place)
        survived = status == 0
        after = database.remembered()
        assert status in (0, -9)
        assert after in (counted(range(written)), counted(range(written + 8)))
        outcomes.add(after == counted(range(written)))
        assert database.forks.run(url=backend.url) == [0]
        written += 8
        assert database.remembered() == counted(range(written))
    assert place > 10
    assert outcomes == {True, False}


def test_kills_at_any_moment_lose_and_double_nothing(backend: Backend, database: Database) -> None:
    chance = random.Random(7)  # the same moments in every run, as far as that is ours
    started = time.monotonic()
    assert database.forks.run(url=backend.url) == [0]
    whole, killed = time.monotonic() - started, 0
    for number in range(KILLS):
        backend.put_metrics(events(range(number * 10, number * 10 + 10)))
        ended = database.forks.run(
            url=backend.url, at_once=4, count=2, kill_after=chance.uniform(0, whole)
        )
        killed += ended.count(-9)
    assert database.forks.run(url=backend.url) == [0]
    assert database.remembered() == counted(range(10 * KILLS))
    assert killed > KILLS / 4


# A store that changes behind our back


def totals(history: History) -> dict[str, int]:
    source = history.source()
    now = int(time.time() // 10) * 10 + 10
    total = answers.points(source, Span(now - 7200, now, 10)).total
    return {
        "events": source.events,
        "received": total.received,
        "processed": total.processed,
        "failed": total.failed,
    }


def gaps(history: History) -> list[tuple[float, float]]:
    found = Gap.objects.filter(source=history.source())
    return list(found.order_by("start").values_list("start", "end"))


def at(moment: float, number: int = 0) -> dict[str, Any]:
    return {
        "event": "task_received", "topic": "t", "agent": "a", "task_id": str(number),
        "timestamp": moment, "saved_at": moment,
    }  # fmt: skip


@pytest.mark.django_db
def test_what_was_trimmed_unread_is_a_gap_and_what_is_left_is_counted(backend: Backend) -> None:
    now = int(time.time() // 60) * 60
    history = History(backend.open())
    backend.put_metrics([at(now - 600 + number, number) for number in range(10)])
    read_now(history)
    Source.objects.update(since=now - 600)  # as if the store had taken them when they happened
    backend.put_metrics([at(now - 400 + number, number) for number in range(100)])
    backend.trim_metrics(40)
    source = read_now(history).source()
    assert source.events == 50
    assert gaps(history) == [(now - 591, now - 340)]
    column = answers.points(source, Span(now - 660, now, 60)).column("received")
    assert column == [None, 10, None, None, None, 40, 0, 0, 0, 0, 0]
    assert gaps(read_now(history)) == [(now - 591, now - 340)]
    flying = answers.in_flight(source, answers.points(source, Span(now - 600, now, 60)))
    assert flying == [10, None, None, None, 50, 50, 50, 50, 50, 50]


@pytest.mark.django_db
def test_a_gap_ends_with_the_first_later_event_whatever_its_neighbours_say(
    backend: Backend,
) -> None:
    """Neither a clock that is ahead before it, nor a late event after it, hides that there is a
    gap."""
    now = time.time()
    history = History(backend.open())
    backend.put_metrics([at(now - 600), {**at(now - 599), "timestamp": now + 300}])
    read_now(history)
    Source.objects.update(read_at=now - 598)
    backend.put_metrics([at(now - 300 + number, number) for number in range(9)])
    backend.put_metrics([{**at(now - 100), "timestamp": now - 5000}, at(now - 99), at(now - 98)])
    backend.trim_metrics(3)
    assert gaps(read_now(history)) == [(pytest.approx(now - 598), pytest.approx(now - 99))]
    assert history.source().events == 5


@pytest.mark.django_db
def test_cleared_events_stay_counted_and_what_follows_is_a_gap_and_counted(
    backend: Backend,
) -> None:
    now = time.time()
    store = backend.open()
    history = History(store)
    backend.put_metrics([at(now - 600, number) for number in range(6)])
    read_now(history)
    store.clear_metrics()
    assert read_now(history).source().events == 6
    assert (gaps(history), history.aside) == ([], 0)
    store.save_metric(at(now - 10))
    assert read_now(history).source().events == 7
    assert gaps(history) == [(pytest.approx(now - 600), pytest.approx(now - 10))]
    assert len(gaps(read_now(history))) == 1


@pytest.mark.django_db
def test_events_that_came_and_went_before_the_first_was_read_are_a_gap(
    redis_backend: RedisBackend,
) -> None:
    history = History(redis_backend.open())
    redis_backend.put_metrics(events(range(4)))
    redis_backend.trim_metrics(0)
    before = read_now(history).source().read_at
    assert gaps(history) == []
    redis_backend.put_metrics(events(range(4)))
    redis_backend.trim_metrics(0)
    assert before is not None
    ((start, end),) = gaps(read_now(history))
    assert start == before < end <= time.time()


@pytest.mark.django_db
def test_a_store_put_back_to_an_older_state_doubles_nothing(backend: Backend) -> None:
    history = History(backend.open())
    backend.put_metrics(events(range(40)))
    older = backend.metrics_photograph()
    backend.put_metrics(events(range(40, 60)))
    read_now(history)
    backend.put_back_metrics(older)
    for _ in range(2):
        assert read_now(history).aside == 40
        assert totals(history) == counted(range(60))
    backend.put_metrics(events(range(60, 70)))
    assert read_now(history).aside == 0
    assert totals(history) == counted(range(70))
    assert gaps(history) == []


@pytest.mark.django_db
def test_a_stream_deleted_and_begun_anew_is_a_gap_and_counted(
    redis_backend: RedisBackend,
) -> None:
    history = History(redis_backend.open())
    redis_backend.put_metrics(events(range(20)))
    read_now(history)
    redis_backend.client.delete(redis_backend.key("metrics", "stream"))
    redis_backend.put_metrics(events(range(20, 30)))
    for _ in range(2):
        assert totals(read_now(history)) == counted(range(30))
        assert len(gaps(history)) == 1


@pytest.mark.django_db
def test_a_deleted_newest_event_takes_no_other_along(redis_backend: RedisBackend) -> None:
    history = History(redis_backend.open())
    stream = redis_backend.key("metrics", "stream")
    redis_backend.put_metrics(events(range(10)))
    read_now(history)
    redis_backend.client.xdel(stream, redis_backend.client.xrevrange(stream, count=1)[0][0])
    redis_backend.put_metrics(events(range(10, 14)))
    assert totals(read_now(history)) == counted(range(14))
    assert gaps(history) == []


@pytest.mark.django_db
def test_unreadable_entries_of_a_stream_are_counted_and_passed(
    redis_backend: RedisBackend,
) -> None:
    history = History(redis_backend.open())
    stream = redis_backend.key("metrics", "stream")
    for fields in ({"x": "y"}, {"data": "{"}, {"data": b"\xff"}, {"data": "[" * 5000}):
        redis_backend.client.xadd(stream, fields)
    redis_backend.put_metrics(events(range(4)))
    source = read_now(history).source()
    assert (source.events, source.unreadable) == (8, 4)
    assert totals(history) == {**counted(range(4)), "events": 8}


@pytest.mark.django_db
def test_equal_events_without_a_time_are_each_counted_once(json_backend: JsonBackend) -> None:
    """Which of them was read last cannot be told by what they are, only by how many there are."""
    history = History(json_backend.open())
    for odd in (None, float("nan"), "x"):
        same = {"event": "task_received", "saved_at": odd}
        for batch in ([same], [same, {**same, "task_id": "1"}, same], [same]):
            json_backend.put_metrics(batch)
            read_now(history)
    assert history.source().events == 15
    assert json.loads(history.source().changes)[-1][0] == 9
