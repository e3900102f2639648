"""Names without end, and a database that others hold."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import client_of
from django.db import connection

from omnidash.history import History, answers, errors, ingest
from omnidash.history.answers import Whom
from omnidash.history.levels import last
from omnidash.history.names import is_cut, shortened
from omnidash.models import Subject
from omnidash.stores import registry
from storage.records import to_bytes
from tests.history.readers import read_now
from tests.pages import PAGES, get_part, links, serving, text_of
from tests.stores import AWKWARD, Backend, RedisBackend, waited

pytest_plugins = ["tests.store_fixtures"]

KINDS = ("task_received", "task_processed", "task_failed")


def of(topic: str, agent: str, error: str = "", age: float = 5.0) -> list[dict[str, Any]]:
    """One event of each kind."""
    return [
        {"event": kind, "topic": topic, "agent": agent, "error": error,
         "timestamp": time.time() - age}
        for kind in KINDS
    ]  # fmt: skip


@pytest.mark.django_db
def test_more_names_than_are_told_apart_are_counted_together(
    redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Subject.Kind
    monkeypatch.setattr(ingest, "MOST", {kind.TOPIC: 3, kind.AGENT: 5, kind.ERROR: 4})
    history = History(redis_backend.open())
    ages = iter(range(60, 0, -1))
    for batch in (range(4), range(2, 10), range(20)):
        for name in batch:
            redis_backend.put_metrics(of(f"t{name}", "a", f"kind {'x' * name}", next(ages)))
        read_now(history)
    source, span = history.source(), last(900, time.time())
    stored = Subject.objects.filter(source=source)
    counts = [stored.filter(kind=one).count() for one in (kind.TOPIC, kind.AGENT, kind.ERROR)]
    assert counts == [4, 6, 5]  # and one more, for all further ones
    figures, _ = answers.by_agent(source, span)
    assert [sum(getattr(row, name) for row in figures)
            for name in ("received", "processed", "failed")] == [32, 32, 32]  # fmt: skip
    assert sum(failure.count for failure in errors.failures(source, span)) == 32
    whole, further = answers.points(source, span).total, Whom(ingest.FURTHER)
    assert (whole.received, whole.processed, whole.failed) == (32, 32, 32)
    topics = [answers.points(source, span, Whom(f"t{name}")).total for name in range(20)]
    others = answers.points(source, span, further).total
    assert others.received == 32 - sum(total.received for total in topics) == 32 - 7
    told = answers.last_seen(source, (ingest.FURTHER, ""))
    assert told == source.newest


@pytest.mark.django_db
@pytest.mark.parametrize("name", AWKWARD.values(), ids=AWKWARD)
def test_any_name_is_counted_and_found(backend: Backend, name: str) -> None:
    backend.put_metrics(of(name, name, name) + of("other", "other"))
    source = read_now(History(backend.open())).source()
    span = last(900, time.time())
    (row,), count = answers.by_agent(source, span, Whom(name, name))
    assert count == 1
    assert (to_bytes(row.topic), to_bytes(row.agent)) == (to_bytes(shortened(name)),) * 2
    # As it comes back from an address that was made of what was shown.
    for whom in (Whom(name, name), Whom(row.topic, row.agent), Whom(name), Whom(None, row.agent)):
        total = answers.points(source, span, whom).total
        assert (total.received, total.processed, total.failed) == (1, 1, 1)
        assert sum(failure.count for failure in errors.failures(source, span, whom)) == 1
    newest, *_ = answers.recent(source, (name, name))
    assert newest.event in KINDS


@pytest.mark.django_db
def test_one_name_in_very_many_topics_is_summed(redis_backend: RedisBackend) -> None:
    """More than a database takes parameters."""
    now = time.time()
    redis_backend.put_metrics(
        [
            {"event": "task_received", "topic": f"t{number}", "agent": "a",
             "timestamp": now - (5 if number else 40_000)}
            for number in range(7000)
        ]
    )  # fmt: skip
    source = read_now(History(redis_backend.open())).source()
    everywhere = Whom(agent="a")
    hour = answers.points(source, last(3600, now), everywhere)
    assert hour.total.received == 6999
    assert answers.in_flight(source, hour, everywhere)[-1] == 7000


@pytest.mark.django_db
@pytest.mark.parametrize("letter", ["x", "翻", "\udcff", "\ud800"])
def test_names_of_a_megabyte_are_kept_short_and_found_whole(
    redis_backend: RedisBackend, letter: str
) -> None:
    long = letter * 300_000
    names = [(f"{long}{number}", f"{long}a{number}") for number in range(2)]
    store = redis_backend.open()
    for topic, agent in names:
        redis_backend.put_metrics(
            [{**event, "task_id": long, "error_type": long} for event in of(topic, agent, long)]
        )
    redis_backend.put_metrics(
        [{"event": "agent_state_change", "agent": names[0][1], "timestamp": time.time() - 1}]
    )
    history = read_now(History(store))
    source, span = history.source(), last(900, time.time())
    for subject in Subject.objects.filter(source=source):
        sizes = [len(name) for name in (subject.topic, subject.agent, subject.recent)]
        assert max(sizes) < 3 * 1000 + 30 * 1000  # ten events, of which a letter may take six
        assert max(sizes[:2]) < 3000
    rows, count = answers.by_agent(source, span)
    assert count == len({(row.topic, row.agent) for row in rows}) == 2
    for row, (topic, agent) in zip(
        sorted(rows, key=lambda row: row.last_seen or 0), names, strict=True
    ):
        assert is_cut(row.topic)
        assert is_cut(row.agent)
        for whom in (
            Whom(topic),
            Whom(None, agent),
            Whom(topic, agent),
            Whom(None, row.agent),
            Whom(row.topic),
            Whom(row.topic, row.agent),
        ):
            assert answers.points(source, span, whom).total.received == 1
            assert [one.count for one in errors.failures(source, span, whom)] == [1]
            assert answers.by_agent(source, span, whom)[1] == 1
        assert len(answers.recent(source, (topic, agent))) == 3
    assert [len(answers.marks(source, span, 9, agent)) for _, agent in names] == [1, 0]


@pytest.mark.parametrize("length", [998, 999, 1000])
def test_names_up_to_a_thousand_bytes_are_kept_whole(length: int) -> None:
    name = "x" * length
    assert shortened(name) == name
    assert not is_cut(name)
    assert is_cut(shortened(name + "xxx"))
    assert shortened(shortened(name + "xxx")) == shortened(name + "xxx")


@pytest.mark.django_db(transaction=True)
def test_a_name_that_was_cut_is_no_link(redis_backend: RedisBackend) -> None:
    client, long = client_of("viewer"), "x" * 5000
    store = redis_backend.open()
    store.add_agent("topic", {"name": long})
    redis_backend.put_metrics([*of("topic", long, "boom"), *of("topic", "short", "boom")])
    with serving(prod=redis_backend.url):
        for path in ("", "metrics/", "errors/"):
            page = client.get(f"/prod/{path}")
            assert "x" * 30 in text_of(page)
            found = links(page, "/prod/agents/")
            assert path == "" or "short" in found.values()
            assert not any("xxx" in label for label in found.values())
        (address,) = links(client.get("/prod/agents/"), "/prod/agents/")
        said = text_of(client.get(address))
        assert "boom" in said, "the agent's own page finds what is kept of it"


# A database that another process holds


@contextmanager
def held() -> Iterator[None]:
    """Another writer of the SQLite file, who does not come to an end."""
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


@pytest.mark.django_db(transaction=True)
def test_pages_answer_from_what_is_remembered_while_another_holds_the_database(
    redis_backend: RedisBackend,
) -> None:
    client = client_of("viewer")
    redis_backend.put_metrics(of("topic", "first-agent"))
    with serving(prod=redis_backend.url):
        history = registry()["prod"].history
        assert client.get("/prod/metrics/").status_code == 200
        redis_backend.put_metrics(of("topic", "second-agent"))
        with held():
            for path in (*PAGES.values(), "metrics/points", "metrics/numbers"):
                history._read_at = -math.inf
                with waited() as took:
                    response = client.get(f"/prod/{path}")
                assert response.status_code == 200, path
                assert took() < 3, path  # the promise of a page
            said = text_of(client.get("/prod/metrics/"))
            assert "first-agent" in said
            assert "second-agent" not in said
            assert "Still reading" in said
        assert read_now(history).source().events == 6
        assert not history.behind
        assert "second-agent" in text_of(get_part(client, "/prod/metrics/"))
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout")
            assert cursor.fetchone() == (10_000,)


@pytest.mark.django_db(transaction=True)
def test_what_could_not_be_written_is_said_in_the_log(
    redis_backend: RedisBackend, caplog: pytest.LogCaptureFixture
) -> None:
    history = read_now(History(redis_backend.open()))
    redis_backend.put_metrics(of("t", "a"))
    with held():
        history._read_at = -math.inf
        for _ in range(3):
            history.look()
    assert caplog.text.count("database is locked") == 1
    assert read_now(history).source().events == 3
