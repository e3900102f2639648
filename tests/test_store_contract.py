"""The store contract over every backend: edges first. A new backend is one factory in stores.py."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import base
from storage.base import AgentQuery, RecordNotFound, ResultQuery, Store, StoreUnavailable
from storage.records import RAW_LIMIT, Agent, Result, to_bytes
from tests.stores import (
    AWKWARD,
    Backend,
    JsonBackend,
    RedisBackend,
    all_config,
    eventually,
    inspected,
    settled,
)

pytest_plugins = ["tests.store_fixtures"]

LONG_AGO = 1_700_000_000.0
LOST = {"lone surrogate"}  # Redis keeps its bytes, and they come back as surrogate escapes

awkward = pytest.mark.parametrize("name", AWKWARD.values(), ids=AWKWARD)


def agent_data(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "callback_name": "callback",
        "description": "does it",
        "tools": ["search", "read"],
        "config": {"consumer_count": 2},
        **fields,
    }


def envelope(agent: str, topic: str, status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"agent": agent, "topic": topic, "status": status, "result": {"answer": 42}, **fields}


def event(number: int, topic: str = "t", agent: str = "a") -> dict[str, Any]:
    return {
        "topic": topic,
        "agent": agent,
        "event": "task_received",
        "task_id": f"task-{number}",
        "timestamp": LONG_AGO + number,
    }


def ids(rows: list[Result]) -> list[str]:
    return [row.task_id for row in rows]


def names(rows: list[Agent]) -> list[tuple[str, str]]:
    return [(row.topic, row.name) for row in rows]


def all_events(store: Store, cursor: str | None = None, limit: int = 10_000) -> list[str]:
    """Task ids of all events after the cursor, read in batches."""
    found: list[str] = []
    while True:
        batch = store.metrics_after(cursor, limit)
        assert len(batch.events) <= limit
        found += [metric.task_id for metric in batch.events]
        cursor = batch.cursor
        if not batch.more:
            return found


# A store in itself


def test_a_backend_that_forgets_a_method_cannot_be_made():
    class Half(Store):
        def connect(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_a_store_may_be_connected_twice_closed_twice_and_used_again(store: Store):
    store.connect()
    store.connect()
    store.save_config("a", 1)
    store.close()
    store.close()
    assert store.get_config("a") == 1


def test_a_store_connects_by_itself(store: Store):
    assert store.get_config("a", "default") == "default"


def test_a_healthy_store_says_so(backend: Backend, store: Store):
    health = store.health_check()
    assert health["status"] == "healthy"
    assert health["backend"] == backend.name == store.backend
    assert health["latency_ms"] >= 0


def test_an_empty_store_has_nothing(store: Store):
    assert store.get_agent("t", "a") is None
    assert store.get_agents_by_topic("t") == []
    assert store.list_all_agents() == {}
    assert store.get_result("a") is None
    assert store.list_results() == []
    assert store.get_metrics() == []
    assert store.get_config("a") is None
    counts = settled(store)
    assert (counts.agents, counts.topics, counts.results, counts.metrics) == (0, 0, 0, 0)
    assert (counts.config, counts.expired, counts.forever, counts.unreadable) == (0, 0, 0, 0)
    if store.has_index:
        assert (counts.results_indexed, counts.orphans) == (0, 0)
    assert store.topics() == []
    assert store.agent_page(AgentQuery()).rows == []
    assert store.agent_page(AgentQuery()).total == 0
    for order in ("newest", "expiring"):
        page = store.result_page(ResultQuery(order=order))
        assert (page.rows, page.total, page.complete) == ([], 0, True)
    assert store.results_by_id(["a"]) == {}
    assert store.results_by_id([]) == {}
    assert store.expiring(3600) == 0
    assert store.expiry_histogram([0, time.time(), math.inf]) == [0, 0]
    assert not any(store.result_facets().values())
    batch = store.metrics_after(None)
    assert (batch.events, batch.more, batch.stored, batch.gap) == ([], False, 0, False)
    assert all_config(store) == []
    assert store.supervisors() == []
    assert store.runner().start_time is None


def test_deleting_from_an_empty_store_answers_that_nothing_was_there(store: Store):
    assert store.delete_agent("t", "a") is False
    assert store.delete_topic("t") == 0
    assert store.delete_result("a") is False
    assert store.clear_agents() == 0
    assert store.clear_results() == 0
    assert store.clear_metrics() == 0
    assert store.clear_all() == {"agents": 0, "results": 0, "metrics": 0, "config": 0}


def test_a_store_that_is_not_there_is_unavailable_and_stays_so(tmp_path: Path):
    absent = tmp_path / "absent"
    for url in (f"json://{absent}", "redis://user:s3cret@127.0.0.1:1/0"):
        store = base_store(url)
        questions: list[Callable[[], object]] = [
            store.connect,
            store.list_all_agents,
            store.counts,
            store.topics,
            lambda store=store: store.get_result("a"),
            lambda store=store: store.agent("t", "a"),
            lambda store=store: store.agent_page(AgentQuery()),
            lambda store=store: store.result_page(ResultQuery()),
            lambda store=store: store.results_by_id(["a"]),
            lambda store=store: store.expiry_histogram([0, 1]),
            lambda store=store: store.metrics_after(None),
            store.config_listing,
            store.get_metrics,
        ]
        for question in questions:
            with pytest.raises(StoreUnavailable) as caught:
                question()
            assert str(caught.value)
            assert "s3cret" not in str(caught.value)
        health = store.health_check()
        assert health["status"] == "unhealthy"
        assert "s3cret" not in repr(health)
        store.close()
    assert not absent.exists()


def base_store(url: str) -> Store:
    from storage import open_store

    return open_store(url)


# Agents


@pytest.mark.parametrize("data", [{}, {"name": ""}, {"name": None}, {"callback_name": "x"}])
def test_an_agent_without_a_name_is_refused_and_nothing_is_stored(store: Store, data):
    with pytest.raises(ValueError, match="name"):
        store.add_agent("t", data)
    assert store.list_all_agents() == {}
    assert store.topics() == []


def test_a_topic_may_be_empty(store: Store):
    store.add_agent("", agent_data("a"))
    assert store.topics() == [("", 1)]
    assert list(store.list_all_agents()) == [""]
    assert store.agent("", "a").name == "a"
    assert names(store.agent_page(AgentQuery(topic="")).rows) == [("", "a")]
    assert store.delete_agent("", "a") is True
    assert store.topics() == []


def test_an_agent_with_nothing_but_a_name_can_be_read(store: Store):
    store.add_agent("t", {"name": "a"})
    found = store.agent("t", "a")
    assert (found.description, found.tools, found.config, found.problem) == ("", [], {}, "")
    data = store.get_agent("t", "a")
    assert data is not None
    assert data["name"] == "a"


@awkward
def test_an_agent_may_have_any_name_in_any_topic(store: Store, name: str):
    store.add_agent(name, agent_data(name))
    store.add_agent(name, agent_data("neighbour"))
    data = store.get_agent(name, name)
    assert data is not None
    assert to_bytes(data["name"]) == to_bytes(name)
    [(topic, number)] = store.topics()
    assert (to_bytes(topic), number) == (to_bytes(name), 2)
    assert {to_bytes(found["name"]) for found in store.get_agents_by_topic(topic)} == {
        to_bytes(name),
        b"neighbour",
    }
    rows = store.agent_page(AgentQuery(topic=topic)).rows
    [row] = [row for row in rows if row.name != "neighbour"]
    assert to_bytes(row.name) == to_bytes(name)
    # What a listing shows leads to exactly that record.
    assert store.agent(row.topic, row.name).name == row.name
    assert store.delete_agent(row.topic, row.name) is True
    assert store.get_agent(name, name) is None
    assert store.topics() == [(topic, 1)]


def test_adding_an_agent_again_replaces_it(store: Store):
    store.add_agent("t", agent_data("a", tools=["x"], config={"old": 1}))
    store.add_agent("t", agent_data("b"))
    store.add_agent("t", agent_data("a", description="new", tools=[], config={}))
    assert store.topics() == [("t", 2)]
    assert len(store.get_agents_by_topic("t")) == 2
    found = store.agent("t", "a")
    assert (found.description, found.tools, found.config) == ("new", [], {})


def test_the_same_name_in_two_topics_is_two_agents(store: Store):
    store.add_agent("one", agent_data("a", description="first"))
    store.add_agent("two", agent_data("a", description="second"))
    assert store.delete_agent("one", "a") is True
    assert store.agent("two", "a").description == "second"
    assert store.topics() == [("two", 1)]


def test_an_agent_can_be_deleted_once(store: Store):
    store.add_agent("t", agent_data("a"))
    assert store.delete_agent("t", "b") is False
    assert store.delete_agent("u", "a") is False
    assert store.delete_agent("t", "a") is True
    assert store.delete_agent("t", "a") is False
    with pytest.raises(RecordNotFound):
        store.agent("t", "a")


def test_deleting_the_last_agent_removes_its_topic(store: Store):
    store.add_agent("t", agent_data("a"))
    store.add_agent("t", agent_data("b"))
    store.delete_agent("t", "a")
    assert store.topics() == [("t", 1)]
    store.delete_agent("t", "b")
    assert store.topics() == []
    assert "t" not in store.list_all_agents()
    assert store.counts().topics == 0


def test_no_key_is_left_of_a_deleted_topic(redis_backend: RedisBackend):
    store = redis_backend.open()
    store.add_agent("t", agent_data("a"))
    store.add_agent("t", agent_data("b"))
    store.add_agent("u", agent_data("c"))
    store.delete_agent("t", "a")
    store.delete_agent("t", "b")
    store.delete_topic("u")
    assert redis_backend.photograph() == {}


def test_deleting_a_topic_takes_all_its_agents_and_no_other(store: Store):
    for name in ("a", "b", "c"):
        store.add_agent("t", agent_data(name))
    store.add_agent("t:a", agent_data("a"))
    store.add_agent("t*", agent_data("a"))
    assert store.delete_topic("t") == 3
    assert store.delete_topic("t") == 0
    assert {topic for topic, _ in store.topics()} == {"t:a", "t*"}
    assert store.delete_topic("t*") == 1
    assert store.topics() == [("t:a", 1)]


def test_agents_whose_names_run_together_are_told_apart_or_flagged(backend: Backend):
    store = backend.open()
    store.add_agent("a:b", agent_data("c"))
    store.add_agent("a", agent_data("b:c"))
    assert store.topics() == [("a", 1), ("a:b", 1)]
    one, two = store.agent("a:b", "c"), store.agent("a", "b:c")
    if backend.name == "redis":
        assert one.shares_record_with == [("a", "b:c")]
        assert two.shares_record_with == [("a:b", "c")]
    else:
        assert one.shares_record_with == two.shares_record_with == []


def test_what_get_agent_returns_may_be_changed(store: Store):
    store.add_agent("t", agent_data("a"))
    found = store.get_agent("t", "a")
    assert found is not None
    found["description"] = "changed"
    store.list_all_agents()["t"][0]["description"] = "changed"
    store.list_all_agents().clear()
    store.get_agents_by_topic("t")[0]["description"] = "changed"
    assert store.agent("t", "a").description == "does it"
    assert store.list_all_agents()["t"][0]["description"] == "does it"


def test_agents_are_found_by_name(store: Store):
    for topic, name in (("t", "a"), ("t", "b"), ("a:b", "c"), ("", "a")):
        store.add_agent(topic, agent_data(name))
    store.save_config("_subscription_active:group:t:a", False)
    wanted = [("t", "a"), ("t", "c"), ("a:b", "c"), ("t", "a"), ("", "a"), ("absent", ""), ("", "")]
    found = store.agents_by_name(iter(wanted))
    assert sorted(set(names(found))) == [("", "a"), ("a:b", "c"), ("t", "a")]
    for agent in found:
        assert agent == store.agent(agent.topic, agent.name)
    assert store.agents_by_name([]) == []


# One page of agents


@pytest.fixture
def thirty_agents(store: Store) -> Store:
    for number in range(30):
        topic = f"topic-{number % 3}"
        tools = ["search"] if number % 2 else ["search", "write"]
        store.add_agent(topic, agent_data(f"Agent {29 - number:02}", tools=tools))
    return store


@pytest.mark.parametrize("order", ["topic", "name", "newest"])
@pytest.mark.parametrize("descending", [False, True])
def test_the_pages_of_agents_are_the_whole_list(thirty_agents: Store, order, descending):
    def page(offset: int, limit: int) -> base.Page[Agent]:
        query = AgentQuery(order=order, descending=descending, offset=offset, limit=limit)
        return thirty_agents.agent_page(query)

    whole = names(page(0, 100).rows)
    assert len(set(whole)) == 30
    assert [name for start in range(0, 35, 7) for name in names(page(start, 7).rows)] == whole
    assert {page(start, 7).total for start in (0, 7, 100)} == {30}
    assert page(100, 7).rows == []
    assert page(0, 0).rows == []


def test_agents_are_ordered_by_topic_or_name_both_ways(thirty_agents: Store):
    def listed(order, descending) -> list[tuple[str, str]]:
        query = AgentQuery(order=order, descending=descending, limit=100)
        return names(thirty_agents.agent_page(query).rows)

    by_topic = listed("topic", False)
    assert [topic for topic, _ in by_topic] == sorted(topic for topic, _ in by_topic)
    assert by_topic == sorted(by_topic)
    assert [topic for topic, _ in listed("topic", True)] == sorted(
        (topic for topic, _ in by_topic), reverse=True
    )
    by_name = [name for _, name in by_topic]
    assert [name for _, name in listed("name", False)] == sorted(by_name)
    assert [name for _, name in listed("name", True)] == sorted(by_name, reverse=True)


def test_the_newest_registrations_come_first(redis_backend: RedisBackend):
    store = redis_backend.open()
    for number in (3, 1, 2):
        store.add_agent("t", agent_data(f"a{number}"))
        time.sleep(0.002)
    rows = store.agent_page(AgentQuery(order="newest")).rows
    created = [row.created_at for row in rows]
    assert created == sorted(created, reverse=True)
    assert [row.name for row in rows] == ["a2", "a1", "a3"]


def test_agents_are_filtered_by_topic_text_and_tool(thirty_agents: Store):
    def found(**filters: Any) -> tuple[int, int | None]:
        page = thirty_agents.agent_page(AgentQuery(limit=100, **filters))
        return len(page.rows), page.total

    assert found(topic="topic-1") == (10, 10)
    assert found(topic="topic-") == (0, 0)
    assert found(topic="absent") == (0, 0)
    assert found(text="") == (30, 30)
    assert found(text="aGENT 0") == (10, 10)
    assert found(text="agent 07") == (1, 1)
    assert found(text="agent.07") == (0, 0)
    assert found(text="*") == (0, 0)
    assert found(tool="search") == (30, 30)
    assert found(tool="write") == (15, 15)
    assert found(tool="writ") == (0, 0)
    assert found(topic="topic-0", tool="write", text="agent 2") == (2, 2)


def test_text_is_found_in_names_whatever_their_case_and_script(store: Store):
    for name in ("STRASSE", "ΣΊΣΥΦΟΣ", "翻訳エージェント", "a[b]*", "50%"):
        store.add_agent("t", agent_data(name))

    def found(text: str) -> list[str]:
        return [row.name for row in store.agent_page(AgentQuery(text=text)).rows]

    assert found("strasse") == ["STRASSE"]
    assert found("σίσυφος") == ["ΣΊΣΥΦΟΣ"]
    assert found("エージェント") == ["翻訳エージェント"]
    assert found("[b]*") == ["a[b]*"]
    assert found("%") == ["50%"]


def test_a_further_filter_counts_and_pages_what_it_keeps(thirty_agents: Store):
    def keep(agent: Agent) -> bool:
        return agent.name >= "Agent 20"

    page = thirty_agents.agent_page(AgentQuery(order="name", offset=8, limit=5), keep)
    assert page.total == 10
    assert [row.name for row in page.rows] == ["Agent 28", "Agent 29"]
    assert thirty_agents.agent_page(AgentQuery(), lambda agent: False).total == 0


def test_an_agent_knows_its_subscription_and_its_supervisor(backend: Backend):
    store = backend.open()
    for name in ("active", "paused", "unknown", "odd"):
        store.add_agent("a:b", agent_data(name))
    store.save_config("_subscription_active:group:a:b:active", True)
    store.save_config("_subscription_active:group:a:b:paused", False)
    store.save_config("_subscription_active:group:a:b:odd", "maybe")
    store.save_config("supervisor:active", {"agent_name": "active", "state": "stopped"})
    store.save_config("_supervisor_registry", ["active", "gone"])
    rows = {row.name: row for row in store.agent_page(AgentQuery()).rows}
    assert {name: row.subscribed for name, row in rows.items()} == {
        "active": True,
        "paused": False,
        "unknown": None,
        "odd": None,
    }
    assert rows["active"].supervisor is not None
    assert rows["active"].supervisor.state == "stopped"
    assert rows["paused"].supervisor is None
    assert store.agent("a:b", "active").subscribed is True
    assert store.agent("a:b", "active").supervisor == rows["active"].supervisor
    assert store.agent("a:b", "paused").subscribed is False
    assert "active" in [found.agent_name for found in store.supervisors()]
    paused = store.agent_page(AgentQuery(), lambda agent: agent.subscribed is False)
    assert [row.name for row in paused.rows] == ["paused"]


# Results


@pytest.mark.parametrize("task_id", ["", *AWKWARD.values()], ids=["empty", *AWKWARD])
def test_a_result_may_have_any_id(store: Store, task_id: str):
    store.save_result(task_id, envelope("a", "t", secret=task_id))
    store.save_result("neighbour", envelope("a", "t"), 3600)
    assert store.get_result(task_id)["secret"] == task_id
    settled(store)
    rows = store.result_page(ResultQuery()).rows
    [listed] = [row.task_id for row in rows if row.task_id != "neighbour"]
    assert to_bytes(listed) == to_bytes(task_id)
    assert store.result(listed).task_id == listed
    found = store.result(listed)
    assert found.truncated or found.body["secret"] == task_id
    assert found.truncated is (found.size > RAW_LIMIT)
    assert list(store.results_by_id([listed, "absent"])) == [listed]
    assert len(store.list_results()) == 2
    assert store.delete_result(listed) is True
    assert store.get_result(task_id) is None
    assert ids(store.result_page(ResultQuery()).rows) == ["neighbour"]


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "",
        0,
        False,
        "text",
        3.14,
        [1, [2, [3]]],
        {"a": {"b": [None, True]}},
        {"": ""},
        2**64,
        -(2**200),
        [2**63, 2**63 - 1, 2**64 - 1, 10**18, 10**19],
        1e300,
        0.1,
        "a\0b\r\n\u2028",
        "\ud800",
        {"\ud800": "\udcff"},
        "翻訳🚀",
    ],
)
def test_every_json_value_comes_back_exactly(store: Store, value: Any):
    for ttl in (None, 3600):
        store.save_result("a", value, ttl)
        assert store.get_result("a") == value
        assert type(store.get_result("a")) is type(value)
        assert store.result("a").body == value
    store.save_config("a", value)
    assert store.get_config("a", "default") == value
    assert all_config(store)[0].value == value


def test_a_result_that_is_null_is_stored(store: Store):
    store.save_result("a", None)
    assert store.get_result("a") is None
    settled(store)
    assert ids(store.result_page(ResultQuery()).rows) == ["a"]
    assert store.list_results()[0]["result"] is None
    assert store.delete_result("a") is True


def test_nan_and_infinity_come_back(store: Store):
    store.save_result("a", [math.nan, math.inf, -math.inf])
    store.save_config("a", math.nan)
    nan, infinity, minus = store.get_result("a")
    assert math.isnan(nan)
    assert (infinity, minus) == (math.inf, -math.inf)
    assert math.isnan(store.get_config("a"))
    settled(store)
    assert store.result_page(ResultQuery()).rows[0].problem == ""


class Colour:
    def __str__(self) -> str:
        return "red"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05+00:00"),
        (Path("/data"), "/data"),
        (Colour(), "red"),
        (b"ab", "b'ab'"),
        ({1}, "{1}"),
        ((1, 2), [1, 2]),
        ({1: "a", None: "b", 1.5: "c"}, {"1": "a", "null": "b", "1.5": "c"}),
    ],
    ids=["datetime", "path", "object", "bytes", "set", "tuple", "keys"],
)
def test_what_json_does_not_know_is_stored_as_omnidaemon_does(store: Store, value, stored):
    expected = json.loads(json.dumps(value, default=str))
    store.save_result("a", {"deep": [value]})
    assert store.get_result("a") == {"deep": [expected]}
    store.save_config("a", [value])
    assert store.get_config("a") == [expected]
    store.save_metric({"event": "e", "value": value})
    assert store.get_metrics()[0]["value"] == expected
    assert expected == stored


class Unspeakable:
    def __str__(self) -> str:
        raise OSError("no text")


def test_a_value_that_cannot_be_written_changes_nothing_and_blocks_nothing(backend: Backend):
    store = backend.open()
    store.save_result("a", 1, 3600)
    before = backend.photograph()
    with pytest.raises(OSError, match="no text"):
        store.save_result("a", [Unspeakable()])
    with pytest.raises(OSError, match="no text"):
        store.save_config("a", [Unspeakable()])
    with pytest.raises(OSError, match="no text"):
        store.save_metric({"event": Unspeakable()})
    if backend.name == "redis":
        assert backend.photograph() == before
    assert store.get_result("a") == 1
    store.save_result("b", 2)
    assert store.get_result("b") == 2


def test_a_result_three_hundred_levels_deep_comes_back(store: Store):
    deep: Any = "bottom"
    for _ in range(300):
        deep = [deep]
    store.save_result("a", deep)
    found = store.get_result("a")
    for _ in range(300):
        [found] = found
    assert found == "bottom"


@pytest.mark.parametrize("ttl", [None, 0])
def test_without_a_time_to_live_a_result_is_kept_for_ever(store: Store, ttl):
    store.save_result("a", envelope("a", "t"), ttl)
    settled(store)
    assert store.result("a").expires_at is None
    assert store.results_by_id(["a"])["a"].expires_at is None
    assert ids(store.result_page(ResultQuery(life="forever")).rows) == ["a"]
    assert settled(store).forever == 1
    assert store.expiring(10**9) == 0


def test_a_time_to_live_is_in_seconds(store: Store):
    before = time.time()
    store.save_result("a", envelope("a", "t"), 3600)
    after = time.time()
    expires_at = store.result("a").expires_at
    assert expires_at is not None
    assert before + 3600 - 0.1 <= expires_at <= after + 3600 + 0.1
    saved_at = store.result("a").saved_at
    assert isinstance(saved_at, float)
    assert before <= saved_at <= after


def test_saving_again_takes_the_new_time_to_live(store: Store):
    store.save_result("a", 1, 3600)
    store.save_result("a", 2)
    settled(store)
    assert store.result("a").expires_at is None
    assert store.results_by_id(["a"])["a"].expires_at is None
    store.save_result("a", 3, 60)
    expires_at = store.result("a").expires_at
    assert expires_at is not None
    assert expires_at < time.time() + 61
    assert store.expiring(120) == 1
    assert len(store.list_results()) == 1
    assert store.get_result("a") == 3


def test_an_expired_result_is_gone_everywhere_but_on_disk(backend: Backend):
    store = backend.open()
    store.save_result("short", envelope("a", "t"), 1)
    store.save_result("long", envelope("a", "t"), 3600)
    settled(store)
    assert ids(store.result_page(ResultQuery(order="expiring")).rows) == ["short", "long"]
    time.sleep(1.1)
    before = backend.photograph()
    assert store.get_result("short") is None
    assert [found["task_id"] for found in store.list_results()] == ["long"]
    for order in ("newest", "expiring"):
        page = store.result_page(ResultQuery(order=order))
        assert (ids(page.rows), page.total) == (["long"], 1)
    assert store.expiring(7200) == 1
    counts = settled(store)
    assert counts.results == 1
    on_disk = ids(store.result_page(ResultQuery(life="expired")).rows)
    if backend.name == "json":
        assert store.result("short").expired(time.time())
        assert (counts.expired, on_disk) == (1, ["short"])
    else:
        with pytest.raises(RecordNotFound):
            store.result("short")
        assert (counts.expired, counts.orphans, on_disk) == (0, 1, [])
    assert backend.photograph() == before, "reading what expired tidied it up"
    assert store.delete_result("short") is (backend.name == "json")
    counts = settled(store)
    assert (counts.results, counts.orphans) in ((1, 0), (1, None))


def test_a_missing_result_is_not_found(store: Store):
    with pytest.raises(RecordNotFound):
        store.result("absent")
    assert store.results_by_id(["absent"]) == {}


def test_a_result_can_be_deleted_once(store: Store):
    store.save_result("a", 1)
    assert store.delete_result("a") is True
    assert store.delete_result("a") is False
    assert store.list_results() == []
    settled(store)
    assert store.result_page(ResultQuery()).total == 0


def test_results_are_listed_newest_first_up_to_the_limit(store: Store):
    for number in range(12):
        store.save_result(f"task-{number}", {"number": number}, 3600)
        time.sleep(0.001)
    newest = [f"task-{number}" for number in range(11, -1, -1)]
    assert [found["task_id"] for found in store.list_results()] == newest
    assert store.list_results(0) == []
    assert [found["task_id"] for found in store.list_results(1)] == newest[:1]
    assert [found["task_id"] for found in store.list_results(limit=5)] == newest[:5]
    assert [found["task_id"] for found in store.list_results(10_000)] == newest
    first = store.list_results(1)[0]
    assert first["result"] == {"number": 11}
    assert isinstance(first["saved_at"], float)


def test_saving_a_result_again_makes_it_the_newest(store: Store):
    for task_id in ("a", "b", "a"):
        store.save_result(task_id, {"task": task_id}, 3600)
        time.sleep(0.002)
    assert [found["task_id"] for found in store.list_results()] == ["a", "b"]
    settled(store)
    assert ids(store.result_page(ResultQuery()).rows) == ["a", "b"]
    assert settled(store).results == 2


# One page of results


@pytest.fixture
def forty_results(store: Store) -> Store:
    """Saved in order; later ones expire sooner; every tenth never does."""
    for number in range(40):
        ttl = None if number % 10 == 0 else 10_000 - 100 * number
        status = "failed" if number % 4 == 3 else "completed"
        body = envelope(
            f"agent-{number % 2}", f"topic-{number % 5}", status, note=f"N°{number} Ünï"
        )
        store.save_result(f"task-{number:02}", body, ttl)
    settled(store)
    return store


@pytest.mark.parametrize("order", ["newest", "expiring"])
def test_the_pages_of_results_are_the_whole_list(forty_results: Store, order):
    def page(offset: int, limit: int) -> base.Page[Result]:
        return forty_results.result_page(ResultQuery(order=order, offset=offset, limit=limit))

    whole = ids(page(0, 100).rows)
    assert len(set(whole)) == page(0, 100).total == len(whole)
    assert [found for start in range(0, 45, 9) for found in ids(page(start, 9).rows)] == whole
    assert page(500, 9).rows == []
    assert page(500, 9).total == len(whole)
    assert page(0, 0).rows == []


def test_the_newest_results_come_first(forty_results: Store):
    rows = forty_results.result_page(ResultQuery(limit=100)).rows
    assert ids(rows) == [f"task-{number:02}" for number in range(39, -1, -1)]


def test_the_soonest_to_expire_come_first(forty_results: Store):
    rows = forty_results.result_page(ResultQuery(order="expiring", limit=100)).rows
    mortal = [row for row in rows if row.expires_at is not None]
    assert ids(mortal) == [f"task-{n:02}" for n in range(39, 0, -1) if n % 10]
    assert rows[: len(mortal)] == mortal, "what never expires comes after what does, or not at all"


def test_a_row_holds_what_a_listing_shows(forty_results: Store):
    [row] = forty_results.result_page(ResultQuery(limit=1)).rows
    assert (row.task_id, row.agent, row.topic, row.status) == (
        "task-39",
        "agent-1",
        "topic-4",
        "failed",
    )
    assert row.size > 50
    assert row.problem == ""
    assert isinstance(row.saved_at, float)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"agent": "agent-1"}, [n for n in range(40) if n % 2]),
        ({"agent": "agent"}, []),
        ({"topic": "topic-4"}, [n for n in range(40) if n % 5 == 4]),
        ({"status": "failed"}, [n for n in range(40) if n % 4 == 3]),
        ({"status": "absent"}, []),
        ({"agent": "agent-1", "topic": "topic-3", "status": "failed"}, [3, 23]),
        ({"life": "forever"}, [0, 10, 20, 30]),
        ({"life": "expired"}, []),
        ({"life": "unreadable"}, []),
        ({"within": 6_250}, [38, 39]),
        ({"within": 6_250, "agent": "agent-0"}, [38]),
        ({"within": 1}, []),
        ({"text": "N°1"}, [1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        ({"text": "ünï"}, []),
        ({"text": "Ünï"}, list(range(40))),
        ({"text": "TASK-07"}, [7]),
        ({"text": ".*"}, []),
        ({"text": "topic-4", "agent": "agent-0"}, [4, 14, 24, 34]),
    ],
)
@pytest.mark.parametrize("order", ["newest", "expiring"])
def test_results_are_filtered(forty_results: Store, filters, expected, order):
    query = ResultQuery(order=order, limit=100, budget=30, **filters)
    page = forty_results.result_page(query)
    immortal = {0, 10, 20, 30} if order == "expiring" else set()  # last there, or not at all
    found = {int(task_id[5:]) for task_id in ids(page.rows)}
    assert found - immortal == set(expected) - immortal
    assert found <= set(expected)
    assert page.complete
    first = forty_results.result_page(ResultQuery(order=order, limit=1, budget=30, **filters))
    assert ids(first.rows) == ids(page.rows[:1])


def test_text_is_found_as_typed_even_where_json_escapes_it(store: Store):
    store.save_result("a", {"note": 'naïve 🚀 "quoted" back\\slash 100%\nline'})
    store.save_result("b", {"note": "nothing"})
    settled(store)
    for text in ("naïve", "🚀", "🚀 ", "NA", "100%"):
        page = store.result_page(ResultQuery(text=text, budget=30))
        assert "a" in ids(page.rows), text
    assert ids(store.result_page(ResultQuery(text="naïve", budget=30)).rows) == ["a"]


def test_a_search_out_of_time_says_how_far_it_came(store: Store):
    for number in range(20):
        store.save_result(f"task-{number}", "x" * 100)
    settled(store)
    page = store.result_page(ResultQuery(text="absent", budget=0))
    assert page.rows == []
    assert page.complete or (page.total is None and page.searched < page.of == 20)


def test_how_many_expire_soon_is_counted(forty_results: Store):
    assert forty_results.expiring(6_250) == 2
    assert forty_results.expiring(0) == 0
    assert forty_results.expiring(10**6) == 36


# What expires when


def an_hour_ahead() -> float:
    """A whole second, so that a Redis keeps it exactly."""
    return math.floor(time.time()) + 3600.0


def expiring_between(store: Store, start: float | None, end: float | None, **filters: Any) -> Any:
    query = ResultQuery(expires_from=start, expires_before=end, limit=1000, **filters)
    page = store.result_page(query)
    assert page.total == len(page.rows)
    return sorted(ids(page.rows))


@pytest.mark.parametrize("edges", [[], [0.0], [math.inf]])
def test_without_an_interval_there_is_nothing_to_count(store: Store, edges: list[float]):
    store.save_result("a", {}, 60)
    settled(store)
    assert store.expiry_histogram(edges) == []


def test_an_interval_holds_its_first_moment_and_not_its_last(backend: Backend):
    at = an_hour_ahead()
    backend.put_results({"before": at - 0.001, "on": at, "after": at + 0.001})
    store = backend.open()
    settled(store)
    assert store.expiry_histogram([0, at, math.inf]) == [1, 2]
    assert store.expiry_histogram([at, at + 0.001, at + 0.002]) == [1, 1]
    assert store.expiry_histogram([at, at]) == [0]
    for order in ("newest", "expiring"):
        assert expiring_between(store, None, at, order=order) == ["before"]
        assert expiring_between(store, at, at + 0.001, order=order) == ["on"]
        assert expiring_between(store, at, None, order=order) == ["after", "on"]
        assert expiring_between(store, at, at, order=order) == []
        assert expiring_between(store, at + 1, at - 1, order=order) == []


def test_what_has_expired_or_never_does_is_in_no_interval(backend: Backend):
    now, at = time.time(), an_hour_ahead()
    backend.put_results({"past": now - 10, "never": None, "alive": at})
    store = backend.open()
    settled(store)
    assert store.expiry_histogram([0, now - 10, now, at, at + 1, math.inf]) == [0, 0, 0, 1, 0]
    for order in ("newest", "expiring"):
        assert expiring_between(store, 1, None, order=order) == ["alive"]
        assert expiring_between(store, None, 4e9, order=order) == ["alive"]
        assert expiring_between(store, 1, 4e9, order=order, life="forever") == []
        assert expiring_between(store, at, None, order=order, life="expired") == []
        past = expiring_between(store, now - 20, now, order=order, life="expired")
        assert past == (["past"] if backend.name == "json" else [])


def test_moments_of_expiry_are_filtered_together_with_all_else(forty_results: Store):
    rows = forty_results.results_by_id(["task-13", "task-17"])
    until, start = rows["task-13"].expires_at, rows["task-17"].expires_at
    assert start is not None
    assert until is not None
    span = (start, until + 1)  # later ones expire sooner
    between = [f"task-{number}" for number in range(13, 18)]
    assert expiring_between(forty_results, *span) == between
    assert expiring_between(forty_results, *span, agent="agent-1") == between[::2]
    assert expiring_between(forty_results, *span, topic="topic-4") == ["task-14"]
    assert expiring_between(forty_results, *span, text="n°16", budget=30) == ["task-16"]
    assert expiring_between(forty_results, *span, within=8_350) == ["task-17"]
    assert expiring_between(forty_results, *span, life="unreadable") == []
    for order in ("newest", "expiring"):
        pages = [
            forty_results.result_page(
                ResultQuery(
                    expires_from=span[0], expires_before=span[1],
                    offset=offset, limit=2, order=order,
                )
            )
            for offset in (0, 2, 4)
        ]  # fmt: skip
        found = [task_id for page in pages for task_id in ids(page.rows)]
        assert found == between[::-1]
        assert {page.total for page in pages} == {5}


def test_a_histogram_follows_what_another_instance_changes(backend: Backend):
    ours, other = backend.open(), backend.open()
    edges = [time.time(), time.time() + 1000, math.inf]
    other.save_result("a", {}, 500)
    eventually(lambda: ours.expiry_histogram(edges), [1, 0])
    other.save_result("a", {}, 5000)
    eventually(lambda: ours.expiry_histogram(edges), [0, 1])
    other.delete_result("a")
    eventually(lambda: ours.expiry_histogram(edges), [0, 0])


# Seconds from an hour ahead, as exact as a Redis keeps them; many of them are equal.
steps = st.integers(0, 12).map(lambda quarters: quarters / 4) | st.floats(0, 4).map(
    lambda seconds: round(seconds, 3)
)
LONG_EXPIRED = -1e6


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    expiries=st.lists(st.none() | st.just(LONG_EXPIRED) | steps, max_size=12),
    edges=st.lists(steps, max_size=6).map(sorted),
)
def test_a_histogram_counts_as_one_by_one_would(
    backend: Backend, expiries: list[float | None], edges: list[float]
):
    start = an_hour_ahead()
    ends = {
        f"task-{number:02}": None if step is None else round(start + step, 3)
        for number, step in enumerate(expiries)
    }
    places = [round(start + step, 3) for step in edges]
    expected = [
        [name for name, at in ends.items() if at is not None and low <= at < high]
        for low, high in pairwise(places)
    ]
    backend.put_results(ends)
    store = backend.open()
    settled(store)
    assert store.expiry_histogram(places) == list(map(len, expected))
    assert [expiring_between(store, *pair) for pair in pairwise(places)] == expected
    store.close()


def test_the_facets_are_what_results_hold(forty_results: Store):
    assert forty_results.result_facets() == {
        "agent": ["agent-0", "agent-1"],
        "topic": [f"topic-{number}" for number in range(5)],
        "status": ["completed", "failed"],
    }


def test_results_are_found_by_id(forty_results: Store):
    wanted = ["task-07", "absent", "task-07", "", "task-10", "\udcff", "../x"]
    found = forty_results.results_by_id(iter(wanted))
    assert set(found) == {"task-07", "task-10"}
    assert found["task-07"].topic == "topic-2"
    assert found["task-07"].expires_at is not None
    assert found["task-10"].expires_at is None
    assert len(forty_results.results_by_id(f"task-{n:02}" for n in range(100))) == 40


def test_one_result_has_its_body_and_its_raw_text(store: Store):
    store.save_result("a", {"number": 2**70, "text": "ü"})
    found = store.result("a")
    assert found.body == {"number": 2**70, "text": "ü"}
    assert str(2**70).encode() in found.raw
    assert found.size >= len(found.raw) - 2
    assert not found.truncated


def test_a_store_sees_what_another_instance_changes(backend: Backend):
    ours, other = backend.open(), backend.open()

    def counted() -> tuple[int | None, ...]:
        counts = ours.counts()
        return counts.agents, counts.results, counts.metrics, counts.config

    assert counted() == (0, 0, 0, 0)
    ours.save_result("a", envelope("a", "t"), 3600)
    ours.add_agent("t", agent_data("a"))
    eventually(counted, (1, 1, 0, 0))
    other.save_result("b", envelope("b", "u"))
    other.add_agent("u", agent_data("b"))
    other.save_config("key", 1)
    other.save_metric(event(1))
    # Asked for by name, all is there at once; what is counted and listed follows.
    assert ours.get_config("key") == 1
    assert ours.get_agent("u", "b") is not None
    assert ours.agent("u", "b").name == "b"
    assert ours.get_result("b") is not None
    assert ours.result("b").agent == "b"
    assert set(ours.results_by_id(["a", "b"])) == {"a", "b"}
    assert len(ours.metrics_after(None).events) == 1
    eventually(counted, (2, 2, 1, 1))
    eventually(lambda: set(ids(ours.result_page(ResultQuery()).rows)), {"a", "b"})
    eventually(lambda: [entry.key for entry in all_config(ours)], ["key"])
    other.delete_result("a")
    other.delete_agent("t", "a")
    other.clear_metrics()
    assert ours.get_result("a") is None
    assert ours.get_agent("t", "a") is None
    with pytest.raises(RecordNotFound):
        ours.result("a")
    with pytest.raises(RecordNotFound):
        ours.agent("t", "a")
    eventually(counted, (1, 1, 0, 1))
    eventually(lambda: ids(ours.result_page(ResultQuery()).rows), ["b"])
    eventually(lambda: ours.expiring(7200), 0)
    eventually(ours.topics, [("u", 1)])


# Metrics


def test_metrics_are_given_newest_first_up_to_the_limit(store: Store):
    for number in range(10):
        store.save_metric(event(number, topic=f"topic-{number % 2}"))

    def found(**arguments: Any) -> list[str]:
        return [metric["task_id"] for metric in store.get_metrics(**arguments)]

    assert found() == [f"task-{number}" for number in range(9, -1, -1)]
    assert found(limit=0) == []
    assert found(limit=1) == ["task-9"]
    assert found(limit=10_000) == found()
    assert found(topic="topic-0", limit=0) == []
    assert found(topic="absent") == []


def test_a_quiet_topic_is_not_hidden_by_a_busy_one(store: Store):
    store.save_metric(event(0, topic="quiet"))
    for number in range(1, 8):
        store.save_metric(event(number, topic="busy"))
    assert [metric["task_id"] for metric in store.get_metrics("quiet", 3)] == ["task-0"]
    assert [metric["task_id"] for metric in store.get_metrics("busy", 3)] == [
        "task-7",
        "task-6",
        "task-5",
    ]


@awkward
def test_a_metric_may_be_of_any_topic(store: Store, name: str):
    store.save_metric(event(1, topic=name, agent=name))
    store.save_metric(event(2))
    assert [metric["topic"] for metric in store.get_metrics(name)] == [name]
    first = store.metrics_after(None).events[0]
    assert (first.topic, first.agent) == (name, name)


def test_a_metric_says_when_it_was_saved(store: Store):
    before = time.time()
    store.save_metric(event(1))
    assert before <= store.get_metrics()[0]["saved_at"] <= time.time()


def test_metrics_after_a_cursor_come_oldest_first_and_exactly_once(store: Store):
    backend_events = [event(number) for number in range(25)]
    for found in backend_events:
        store.save_metric(found)
    expected = [found["task_id"] for found in backend_events]
    assert all_events(store) == expected
    assert all_events(store, limit=1) == expected
    assert all_events(store, limit=25) == expected
    assert all_events(store, limit=7) == expected
    batch = store.metrics_after(None, 10)
    assert (len(batch.events), batch.more, batch.stored, batch.gap) == (10, True, 25, False)
    rest = store.metrics_after(batch.cursor, 100)
    assert [metric.task_id for metric in rest.events] == expected[10:]
    assert (rest.more, rest.gap) == (False, False)
    assert len({metric.id for metric in batch.events + rest.events}) == 25


def test_a_cursor_at_the_end_waits_for_what_is_new(store: Store):
    empty = store.metrics_after(None)
    store.save_metric(event(1))
    first = store.metrics_after(empty.cursor)
    assert [metric.task_id for metric in first.events] == ["task-1"]
    assert not first.gap
    again = store.metrics_after(first.cursor)
    assert (again.events, again.more, again.gap, again.stored) == ([], False, False, 1)
    store.save_metric(event(2))
    second = store.metrics_after(again.cursor)
    assert [metric.task_id for metric in second.events] == ["task-2"]
    assert not second.gap


def test_events_that_are_equal_are_each_read_once(store: Store):
    for _ in range(6):
        store.save_metric(event(1))
    assert all_events(store, limit=2) == ["task-1"] * 6


def test_a_cursor_is_understood_by_another_instance(backend: Backend):
    store = backend.open()
    for number in range(6):
        store.save_metric(event(number))
    cursor = store.metrics_after(None, 3).cursor
    store.close()
    assert all_events(backend.open(), cursor) == ["task-3", "task-4", "task-5"]


def test_events_trimmed_unread_are_a_gap_and_those_left_are_read(backend: Backend):
    store = backend.open()
    backend.put_metrics([event(number) for number in range(20)])
    cursor = store.metrics_after(None, 5).cursor
    backend.trim_metrics(8)
    batch = store.metrics_after(cursor)
    assert batch.gap
    assert [metric.task_id for metric in batch.events] == [f"task-{n}" for n in range(12, 20)]
    assert not store.metrics_after(batch.cursor).gap


def test_events_trimmed_after_they_were_read_are_no_gap(backend: Backend):
    store = backend.open()
    backend.put_metrics([event(number) for number in range(20)])
    cursor = store.metrics_after(None, 15).cursor
    backend.trim_metrics(8)
    batch = store.metrics_after(cursor)
    assert not batch.gap
    assert [metric.task_id for metric in batch.events] == [f"task-{n}" for n in range(15, 20)]


def test_cleared_metrics_are_a_gap_and_what_follows_is_read(backend: Backend):
    store = backend.open()
    backend.put_metrics([event(number) for number in range(5)])
    cursor = store.metrics_after(None).cursor
    assert store.clear_metrics() == 5
    time.sleep(0.002)  # Redis numbers the events of a millisecond anew in an emptied stream
    store.save_metric(event(9))
    batch = store.metrics_after(cursor)
    assert batch.gap
    assert [metric.task_id for metric in batch.events] == ["task-9"]


def saved(numbers: range) -> list[dict[str, Any]]:
    return [{**event(number), "saved_at": 1000.0 + number} for number in numbers]


def test_emptied_metrics_are_no_gap_until_something_new_comes(backend: Backend):
    store = backend.open()
    backend.put_metrics(saved(range(5)))
    cursor = store.metrics_after(None).cursor
    backend.trim_metrics(0)
    empty = store.metrics_after(cursor)
    assert (empty.events, empty.gap, empty.aside, empty.stored) == ([], False, 0, 0)
    backend.put_metrics(saved(range(9, 10)))
    batch = store.metrics_after(empty.cursor)
    assert (batch.gap, [metric.task_id for metric in batch.events]) == (True, ["task-9"])


def test_metrics_put_back_to_an_older_state_are_set_aside_and_not_read_again(backend: Backend):
    store = backend.open()
    backend.put_metrics(saved(range(4)))
    older = backend.metrics_photograph()
    backend.put_metrics(saved(range(4, 6)))
    cursor = store.metrics_after(None).cursor
    backend.put_back_metrics(older)
    batch = store.metrics_after(cursor)
    assert (batch.events, batch.gap, batch.aside, batch.cursor) == ([], False, 4, cursor)
    backend.put_metrics(saved(range(7, 8)))
    batch = store.metrics_after(cursor)
    assert [metric.task_id for metric in batch.events] == ["task-7"]
    assert (batch.gap, batch.aside) == (False, 0)


@pytest.mark.parametrize("cursor", ["", "nonsense", "\0", "5-5-5", "-", "+", "$", "{}", "[1"])
def test_a_cursor_that_nobody_gave_starts_anew(backend: Backend, cursor: str):
    backend.put_metrics([event(number) for number in range(3)])
    batch = backend.open().metrics_after(cursor)
    assert [metric.task_id for metric in batch.events] == ["task-0", "task-1", "task-2"]


def test_the_oldest_metrics_fall_out_at_the_cap(backend: Backend):
    cap = {"json": 10_000, "redis": 100_000}[backend.name]
    slack = {"json": 0, "redis": 1_000}[backend.name]  # Redis trims whole nodes
    store = backend.open()
    backend.put_metrics([{"event": "e", "task_id": str(number)} for number in range(cap + 50)])
    store.save_metric(event(1))
    assert store.counts().metrics_cap == cap
    assert cap <= backend.metrics_stored() <= cap + slack
    assert store.counts().metrics == backend.metrics_stored()
    assert store.get_metrics(limit=1)[0]["task_id"] == "task-1"
    if backend.name == "json":
        assert store.metrics_after(None, 1).events[0].task_id == "51"


# Configuration


def test_a_value_that_is_false_or_null_is_a_value(store: Store):
    for value in (None, False, 0, "", [], {}):
        store.save_config("a", value)
        assert store.get_config("a", "default") == value
        [entry] = all_config(store)
        assert (entry.key, entry.value, entry.problem) == ("a", value, "")


def test_a_missing_key_has_the_default(store: Store):
    assert store.get_config("a") is None
    assert store.get_config("a", 7) == 7


@pytest.mark.parametrize("key", ["", *AWKWARD.values()], ids=["empty", *AWKWARD])
def test_a_key_may_be_anything(store: Store, key: str):
    store.save_config(key, [1])
    store.save_config("neighbour", 2)
    assert store.get_config(key) == [1]
    assert {to_bytes(entry.key) for entry in all_config(store)} == {to_bytes(key), b"neighbour"}
    assert settled(store).config == 2


def test_the_listing_sees_every_key_in_order(store: Store):
    keys = [f"key:{number:03}" for number in range(150)]
    for key in reversed(keys):
        store.save_config(key, {"key": key})
    entries = all_config(store)
    assert [entry.key for entry in entries] == keys
    assert all(entry.value == {"key": entry.key} for entry in entries)
    assert all(json.loads(entry.raw) == entry.value for entry in entries)
    assert all(entry.size >= len(entry.raw) - 2 for entry in entries)


def test_the_runner_is_read_from_the_configuration(backend: Backend):
    if isinstance(backend, JsonBackend):
        backend.write("config.json", {"_omnidaemon_start_time": 5.5, "_omnidaemon_runner_id": "r"})
    else:
        assert isinstance(backend, RedisBackend)
        backend.client.set("omni:config:_omnidaemon_start_time", "5.5")
        backend.client.set("omni:config:_omnidaemon_runner_id", '"r"')
    runner = backend.open().runner()
    assert (runner.start_time, runner.runner_id) == (5.5, "r")


def test_a_runner_that_was_stopped_cleanly_has_no_start_time(backend: Backend):
    store = backend.open()
    store.save_config("_omnidaemon_start_time", None)
    store.save_config("_omnidaemon_runner_id", None)
    assert (store.runner().start_time, store.runner().runner_id) == (None, "")


# Arguments


def test_arguments_are_not_changed(store: Store):
    agent, body = agent_data("a"), envelope("a", "t", when=datetime(2026, 1, 1, tzinfo=UTC))
    metric, value = event(1), {"a": [1, {"b": (1, 2)}]}
    given = [agent, body, metric, value]
    before = copy.deepcopy(given)
    store.add_agent("t", agent)
    store.save_result("a", body, 60)
    store.save_metric(metric)
    store.save_config("a", value)
    assert given == before


def test_what_was_saved_does_not_follow_its_argument(store: Store):
    agent, body, metric, value = agent_data("a"), {"list": [1]}, event(1), {"list": [1]}
    store.add_agent("t", agent)
    store.save_result("a", body)
    store.save_metric(metric)
    store.save_config("a", value)
    agent["tools"].append("later")
    agent["description"] = "later"
    body["list"].append(2)
    value["list"].append(2)
    metric["agent"] = "later"
    assert store.agent("t", "a").tools == ["search", "read"]
    assert store.agent("t", "a").description == "does it"
    assert store.get_result("a") == {"list": [1]}
    assert store.get_config("a") == {"list": [1]}
    assert store.get_metrics()[0]["agent"] == "a"


# Clearing


def filled(store: Store) -> Store:
    for topic, name in (("t", "a"), ("t", "b"), ("t:a", "c"), ("[x]*", "d?")):
        store.add_agent(topic, agent_data(name))
    for number in range(5):
        store.save_result(f"task:{number}*", envelope("a", "t"), 3600 if number % 2 else None)
    for number in range(6):
        store.save_metric(event(number))
    for number in range(7):
        store.save_config(f"key:{number}", number)
    return store


def left(store: Store) -> tuple[int | None, ...]:
    counts = settled(store)
    return counts.agents, counts.results, counts.metrics, counts.config


@pytest.mark.parametrize(
    ("clear", "cleared", "rest"),
    [
        ("clear_agents", 4, (0, 5, 6, 7)),
        ("clear_results", 5, (4, 0, 6, 7)),
        ("clear_metrics", 6, (4, 5, 0, 7)),
        (
            "clear_all",
            {"agents": 4, "results": 5, "metrics": 6, "config": 7},
            (0, 0, 0, 0),
        ),
    ],
)
def test_clearing_counts_what_it_deletes_and_leaves_the_rest(store, clear, cleared, rest):
    filled(store)
    assert left(store) == (4, 5, 6, 7)
    assert getattr(store, clear)() == cleared
    assert left(store) == rest
    filled(store)
    assert left(store) == (4, 5, max(6, (rest[2] or 0) + 6), 7)


PREFIXES = [
    "omni",
    "omni2",
    "omn",
    "omni:agent",
    "omni*",
    "p[1]*",
    "p1",
    "p1x",
    "a\\*",
    "a*",
    "?mni",
]


def test_long_names_are_found_by_their_length(store: Store):
    store.add_agent("t" * 100, agent_data("n" * 50))
    store.add_agent("", agent_data("ü" * 151))
    store.add_agent("🚀" * 151, agent_data("a"))
    store.add_agent("t" * 100, agent_data("n" * 51))
    for task_id in ("r" * 150, "ü" * 100, "r" * 151, "🚀" * 151):
        store.save_result(task_id, 1)
    settled(store)
    assert sorted(store.long_agents(150)) == [
        ("", "ü" * 151), ("t" * 100, "n" * 51), ("🚀" * 151, "a")
    ]  # fmt: skip
    assert sorted(store.long_results(150)) == ["r" * 151, "🚀" * 151]
    store.delete_result("r" * 151)
    store.delete_topic("")
    assert sorted(store.long_results(150)) == ["🚀" * 151]
    assert len(store.long_agents(150)) == 2


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("clear", ["clear_agents", "clear_results", "clear_metrics", "clear_all"])
def test_clearing_touches_no_neighbour(redis_url: str, prefix: str, clear: str):
    backends = {name: RedisBackend(redis_url, name) for name in PREFIXES}
    try:
        for name, backend in backends.items():
            if name != prefix:
                filled(backend.open())
        client = backends[prefix].client
        client.xadd("omni-stream:t", {"data": "{}"})
        client.xadd("omni-dlq:group:t:a", {"data": "{}"})
        client.set("omniagent:x", 1)
        client.set("foreign", 1, ex=3600)
        before = backends[prefix].photograph()
        store = filled(backends[prefix].open())
        assert left(store) == (4, 5, 6, 7)
        getattr(store, clear)()
        if clear != "clear_all":
            store.clear_all()
        assert backends[prefix].photograph() == before
    finally:
        for backend in backends.values():
            backend.close()


def test_clearing_a_json_store_leaves_foreign_files(json_backend: JsonBackend):
    foreign = {
        "notes.txt": b"mine",
        "agents.tmp": b"{half",
        ".hidden": b"",
        "results.json.bak": b"x",
    }
    for name, content in foreign.items():
        (json_backend.folder / name).write_bytes(content)
    store = filled(json_backend.open())
    store.clear_all()
    for name, content in foreign.items():
        assert (json_backend.folder / name).read_bytes() == content


# Many at once


def at_once(number: int, work: Callable[[int], object]) -> None:
    """Run `work(0)` … `work(number - 1)` in threads that start together."""
    barrier = threading.Barrier(number)

    def run(index: int) -> None:
        barrier.wait()
        work(index)

    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(run, index) for index in range(number)]:
            future.result()


def test_many_threads_lose_nothing(backend: Backend):
    store = backend.open()

    def work(index: int) -> None:
        for number in range(8):
            store.save_result(f"{index}-{number}", {"is": [index, number]}, 3600)
            store.add_agent(f"topic-{number}", agent_data(f"agent-{index}"))
            store.add_agent("same", agent_data("same", description=str(index)))
            store.save_config(f"{index}-{number}", index)
            store.save_metric(event(index * 100 + number))

    at_once(6, work)
    counts = settled(store)
    assert (counts.results, counts.agents, counts.config, counts.metrics) == (48, 49, 48, 48)
    assert len(store.get_agents_by_topic("same")) == 1
    found = {result["task_id"]: result["result"] for result in store.list_results(1000)}
    assert found == {f"{i}-{n}": {"is": [i, n]} for i in range(6) for n in range(8)}
    assert sorted(all_events(store)) == sorted(
        f"task-{i * 100 + n}" for i in range(6) for n in range(8)
    )


def test_many_processes_lose_nothing(backend: Backend):
    code = """
me = arguments[0]
for number in range(20):
    store.save_result(f"{me}-{number}", {"is": [me, number]}, 3600)
    store.add_agent(f"topic-{number % 4}", {"name": f"agent-{me}"})
    store.save_config(f"{me}-{number}", number)
    store.save_metric({"event": "e", "task_id": f"{me}-{number}"})
"""
    processes = [backend.python(code, str(index)) for index in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    store = backend.open()
    expected = {f"{i}-{n}" for i in range(3) for n in range(20)}
    assert {result["task_id"] for result in store.list_results(1000)} == expected
    assert {entry.key for entry in all_config(store)} == expected
    assert sorted(all_events(store)) == sorted(expected)
    assert settled(store).agents == 12


def test_a_reader_during_writes_sees_whole_records(backend: Backend):
    code = """
for number in range(60):
    text = str(number) * 2000
    store.save_result("growing", {"text": text, "number": number, "length": len(text)}, 3600)
    store.save_result(f"task-{number}", {"text": text, "number": number, "length": len(text)})
    store.add_agent("t", {"name": "a", "description": text, "tools": [text]})
    store.save_config("key", [text, text])
"""
    writer = backend.python(code)
    store = backend.open()
    seen = 0
    try:
        while writer.poll() is None:
            for found in store.list_results(1000):
                body = found["result"]
                assert body["text"] == str(body["number"]) * 2000
                assert len(body["text"]) == body["length"]
                seen += 1
            one, two = store.get_config("key", ["", ""])
            assert one == two
            found_agent = store.get_agent("t", "a")
            if found_agent:
                assert found_agent["tools"] == [found_agent["description"]]
            page = store.result_page(ResultQuery(limit=100))
            assert not [row.problem for row in page.rows if row.problem]
            assert not [row.problem for row in store.agent_page(AgentQuery()).rows if row.problem]
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode in (0, -9)
    assert len(store.list_results(1000)) == 61
    assert seen


def test_events_read_while_others_append_come_exactly_once(backend: Backend):
    code = """
for number in range(120):
    store.save_metric({"event": "e", "task_id": str(number)})
"""
    writer = backend.python(code)
    store = backend.open()
    cursor: str | None = None
    seen: list[str] = []
    ended = False
    try:
        while True:
            batch = store.metrics_after(cursor, 7)
            assert not batch.gap
            seen += [metric.task_id for metric in batch.events]
            cursor = batch.cursor
            if ended and not batch.more:
                break
            ended = writer.poll() is not None
    finally:
        writer.kill()
        writer.wait()
    assert seen == [str(number) for number in range(120)]


def test_one_instance_answers_many_threads(backend: Backend):
    store = filled(backend.open())
    expected = (store.topics(), sorted(store.results_by_id([f"task:{n}*" for n in range(9)])))
    settled(store)

    def work(index: int) -> None:
        for _ in range(10):
            assert store.topics() == expected[0]
            assert sorted(store.results_by_id([f"task:{n}*" for n in range(9)])) == expected[1]
            assert store.get_config(f"key:{index}") == index
            assert len(store.result_page(ResultQuery()).rows) == 5

    at_once(6, work)


# Reading


def every_question(store: Store) -> Iterator[Callable[[], object]]:
    """All that can be asked, of what is there and of what is not."""
    for topic, name in (("t", "a"), ("t", "absent"), ("absent", "a"), ("", "")):
        yield lambda topic=topic, name=name: store.get_agent(topic, name)
        yield lambda topic=topic, name=name: store.agent(topic, name)
        yield lambda topic=topic: store.get_agents_by_topic(topic)
    for task_id in ("task:1*", "absent", "orphan", "expired", ""):
        yield lambda task_id=task_id: store.get_result(task_id)
        yield lambda task_id=task_id: store.result(task_id)
    yield store.connect
    yield store.health_check
    yield store.list_all_agents
    yield store.list_results
    yield lambda: store.list_results(1)
    yield store.get_metrics
    yield lambda: store.get_metrics("t", 3)
    yield lambda: store.get_config("key:1")
    yield lambda: store.get_config("absent")
    yield store.counts
    yield lambda: settled(store)
    yield store.topics
    yield lambda: store.agent_page(AgentQuery(), lambda agent: True)
    for order in ("newest", "expiring"):
        for life in ("", "forever", "expired", "unreadable"):
            yield lambda order=order, life=life: store.result_page(
                ResultQuery(order=order, life=life, text="a", within=60)
            )
            yield lambda order=order, life=life: store.result_page(
                ResultQuery(order=order, life=life, expires_from=1, expires_before=2e9)
            )
    yield lambda: store.agents_by_name([("t", "a"), ("t", "absent")])
    yield lambda: store.results_by_id(["task:1*", "orphan", "expired"])
    yield lambda: store.expiring(60)
    yield lambda: store.expiry_histogram([0, 1, math.inf])
    yield store.result_facets
    yield lambda: store.metrics_after(None)
    yield lambda: store.metrics_after(None, 1)
    yield store.config_listing
    yield store.supervisors
    yield store.runner
    yield store.inspect
    yield store.close
    yield store.counts


def ask_everything(store: Store) -> None:
    for question in every_question(store):
        with contextlib.suppress(RecordNotFound):
            question()


def test_reading_never_changes_a_json_folder(json_backend: JsonBackend):
    filled(json_backend.open())
    results = json_backend.read("results.json")
    results["expired"] = {"task_id": "expired", "result": 1, "saved_at": 1.0, "expires_at": 2.0}
    json_backend.write("results.json", results)
    (json_backend.folder / "agents.tmp").write_bytes(b"{half")
    before = json_backend.photograph()
    for _ in range(2):
        ask_everything(json_backend.open())
        assert json_backend.photograph() == before


def test_reading_never_changes_an_empty_json_folder(json_backend: JsonBackend):
    before = json_backend.photograph()
    ask_everything(json_backend.open())
    assert json_backend.photograph() == before


def test_reading_never_changes_a_redis(redis_backend: RedisBackend):
    filled(redis_backend.open())
    redis_backend.client.zadd("omni:results:index", {"orphan": 1.0, "expired": 2.0})
    redis_backend.client.sadd("omni:agents:topic:t", "phantom")
    before, changes = redis_backend.photograph(), redis_backend.changes()
    for _ in range(2):
        ask_everything(redis_backend.open())
        assert redis_backend.photograph() == before
    assert redis_backend.changes() == changes


def test_reading_never_changes_an_empty_redis(redis_backend: RedisBackend):
    changes = redis_backend.changes()
    ask_everything(redis_backend.open())
    assert redis_backend.photograph() == {}
    assert redis_backend.changes() == changes


def test_an_inspection_names_what_is_wrong_and_no_secret(backend: Backend):
    store = filled(backend.open())
    if isinstance(backend, RedisBackend):
        backend.client.lpush("omni:result:list", "x")
        backend.client.zadd("omni:results:index", {"list": 1.0})
        wrong = "omni:result:list"
    else:
        assert isinstance(backend, JsonBackend)
        (backend.folder / "results.json").write_text("[1", "utf-8")
        wrong = "results.json"
    found = inspected(store)
    assert found.backend == backend.name
    assert found.address == store.address
    assert wrong in " ".join([*(item.key for item in found.broken), *found.troubles])
    assert store.topics()[0][1] == 1, "the other kinds still answer"
