"""What the real OmniDaemon writes we read, and what we write it reads, in both backends."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.base import AgentQuery, RecordNotFound, ResultQuery, Store
from tests.stores import (
    AWKWARD,
    Backend,
    JsonBackend,
    RedisBackend,
    all_config,
    eventually,
    settled,
)
from tests.upstream import Upstream

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:omnidaemon")

AGENT = {
    "name": "翻訳/agent?v=2#β 🚀",
    "callback_name": "module.callback",
    "tools": ["search", "読む", {"name": "odd", "args": [1, None]}],
    "description": 'line one\nline "two"',
    "config": {"reclaim_idle_ms": 60_000, "dlq_retry_limit": 3, "consumer_count": 2},
}
BARE = {"name": "bare"}
TOPICS = ["t", "tenant:acme:invoices", "alerts.[prod]*", "docs/翻訳?x=1#y", ""]
BODIES: list[Any] = [
    {"agent": "a", "topic": "t", "status": "completed", "result": {"n": 1}},
    {"big": 2**80, "small": -(2**63), "float": 0.1, "exp": 1e300},
    {"text": "ü🚀\n\0\u2028", "surrogate": "\ud800", "": None},
    {"when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
    {"infinite": [math.inf, -math.inf]},
    {},
    [],
    [1, [2, {"three": 3}]],
    "text",
    0,
    False,
    None,
]
CONFIG: dict[str, Any] = {
    "null": None,
    "false": False,
    "true": True,
    "zero": 0,
    "empty": "",
    "text": "ü",
    "list": [1, 2],
    "object": {"a": {"b": None}},
    "big": 2**70,
    "operator note": 'line 1\n"line 2"',
    "_subscription_active:group:t:a": False,
}
EVENTS: list[dict[str, Any]] = [
    {"topic": "t", "agent": "a", "event": "task_received", "task_id": "1", "timestamp": 1.5e9},
    {
        "topic": "t",
        "agent": "a",
        "event": "task_processed",
        "task_id": "1",
        "timestamp": 1.5e9 + 1,
        "processing_time_sec": 0.0011,
    },
    {
        "topic": "u:[x]*",
        "agent": "b ü",
        "event": "task_failed",
        "task_id": "2",
        "msg_id": None,
        "error": "no ü\nway",
        "error_type": "PermissionError",
        "timestamp": 1.5e9 + 2,
    },
    {"event": "agent_state_change", "agent_name": "a", "old_state": "idle", "new_state": "running"},
    {"topic": "t", "agent": "a", "event": "task_received", "task_id": "3", "timestamp": 1.5e9 + 3},
]

# Names that OmniDaemon itself can store: its Redis client refuses lone surrogates.
NAMES = {
    title: name
    for title, name in AWKWARD.items()
    if title not in ("lone surrogate", "bytes that are not UTF-8")
}
awkward = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


@pytest.fixture
def theirs(backend: Backend) -> Upstream:
    return Upstream(backend)


def plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


def comparable(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in ("created_at", "saved_at")}


# Agents


def test_we_read_the_agents_that_omnidaemon_writes(backend, theirs):
    for topic in TOPICS:
        theirs.add_agent(topic, dict(AGENT))
        theirs.add_agent(topic, dict(BARE))
    store = backend.open()
    listed = theirs.list_all_agents()
    ours = store.list_all_agents()
    assert set(ours) == set(listed) == set(TOPICS)
    for topic in TOPICS:
        for agents in (ours[topic], store.get_agents_by_topic(topic)):
            assert sorted(agents, key=str) == sorted(listed[topic], key=str)
        for name in (AGENT["name"], BARE["name"]):
            assert store.get_agent(topic, name) == theirs.get_agent(topic, name)
        found = store.agent(topic, AGENT["name"])
        assert (found.tools, found.config) == (AGENT["tools"], AGENT["config"])
        assert (found.description, found.callback_name, found.problem, found.extra) == (
            AGENT["description"],
            AGENT["callback_name"],
            "",
            {},
        )
    assert store.topics() == [(topic, 2) for topic in sorted(TOPICS)]


def test_omnidaemon_reads_the_agents_that_we_write(backend, theirs):
    store = backend.open()
    for topic in TOPICS:
        store.add_agent(topic, dict(AGENT))
        store.add_agent(topic, dict(BARE))
    listed = theirs.list_all_agents()
    assert set(listed) == set(TOPICS)
    for topic in TOPICS:
        assert len(listed[topic]) == 2
        found = theirs.get_agent(topic, AGENT["name"])
        assert {key: found[key] for key in AGENT} == AGENT
        assert found == store.get_agent(topic, AGENT["name"])
        assert theirs.get_agent(topic, "bare") == store.get_agent(topic, "bare")


def test_both_write_an_agent_alike(backend, theirs):
    """Down to the stored bytes, but for the time."""
    backend.open().add_agent("t", dict(AGENT))
    ours = stored_agents(backend)
    theirs.delete_topic("t")
    theirs.add_agent("t", dict(AGENT))
    assert stored_agents(backend) == ours


def stored_agents(backend: Backend) -> Any:
    if isinstance(backend, JsonBackend):
        return backend.read("agents.json")
    assert isinstance(backend, RedisBackend)
    client = backend.client
    found = client.hgetall(backend.key("agent", "t", AGENT["name"]))
    assert abs(float(found.pop(b"created_at")) - time.time()) < 60
    return found, client.smembers("omni:agents:topic:t"), client.smembers("omni:topics")


@awkward
def test_both_mean_the_same_agent_by_a_name(backend, theirs, name):
    store = backend.open()
    store.add_agent(name, {"name": name, "description": "ours"})
    assert theirs.get_agent(name, name)["description"] == "ours"
    theirs.add_agent(name, {"name": name, "description": "theirs"})
    assert len(store.get_agents_by_topic(name)) == 1
    assert store.agent(name, name).description == "theirs"
    store.add_agent(name, {"name": name, "description": "ours again"})
    assert [agent["description"] for agent in theirs.get_agents_by_topic(name)] == ["ours again"]
    assert theirs.delete_agent(name, name) is True
    assert store.get_agent(name, name) is None
    with pytest.raises(RecordNotFound):
        store.agent(name, name)
    assert store.topics() == []


def test_omnidaemon_no_longer_finds_what_we_deleted(backend, theirs):
    theirs.add_agent("t", dict(AGENT))
    theirs.add_agent("t", dict(BARE))
    theirs.add_agent("u", dict(BARE))
    store = backend.open()
    assert store.delete_agent("t", "bare") is True
    assert [agent["name"] for agent in theirs.get_agents_by_topic("t")] == [AGENT["name"]]
    assert store.delete_topic("t") == 1
    assert set(theirs.list_all_agents()) == {"u"}
    assert store.clear_agents() == 1
    assert theirs.list_all_agents() == {}


def test_we_no_longer_find_what_omnidaemon_deleted(backend, theirs):
    store = backend.open()
    for topic in ("t", "u", "v"):
        store.add_agent(topic, dict(BARE))
    assert theirs.delete_agent("t", "bare") is True
    assert theirs.delete_topic("u") == 1
    assert store.topics() == [("v", 1)]
    assert theirs.clear_agents() == 1
    assert store.agent_page(AgentQuery()).total == 0


# Results


@pytest.mark.parametrize("ttl", [None, 3600])
def test_we_read_the_results_that_omnidaemon_writes(backend, theirs, ttl):
    def work(store):
        async def save():
            for number, body in enumerate(BODIES):
                await store.save_result(f"task-{number}", body, ttl)

        return save()

    theirs.run(work)
    store = backend.open()
    settled(store)
    found = {row.task_id: row for row in store.result_page(ResultQuery()).rows}
    for number, body in enumerate(BODIES):
        task_id = f"task-{number}"
        assert store.get_result(task_id) == plain(body)
        assert store.result(task_id).body == plain(body)
        assert found[task_id].problem == ""
        expires_at = found[task_id].expires_at
        if ttl is None:
            assert expires_at is None
        else:
            assert expires_at == pytest.approx(time.time() + ttl, abs=60)
    listed = theirs.list_results()
    ours = store.list_results()
    assert [entry["task_id"] for entry in ours] == [entry["task_id"] for entry in listed]
    assert ours == listed


@pytest.mark.parametrize("ttl", [None, 0, 3600])
def test_omnidaemon_reads_the_results_that_we_write(backend, theirs, ttl):
    store = backend.open()
    for number, body in enumerate(BODIES):
        store.save_result(f"task-{number}", body, ttl)
        time.sleep(0.001)
    for number, body in enumerate(BODIES):
        assert theirs.get_result(f"task-{number}") == plain(body)
    assert theirs.list_results() == store.list_results()
    assert len(theirs.list_results()) == len(BODIES)
    assert len(theirs.list_results(1)) == len(store.list_results(1)) == 1


def test_nan_crosses_both_ways(backend, theirs):
    store = backend.open()
    store.save_result("ours", [math.nan])
    theirs.save_result("theirs", [math.nan])
    assert math.isnan(theirs.get_result("ours")[0])
    assert math.isnan(store.get_result("theirs")[0])


@awkward
def test_both_mean_the_same_result_by_an_id(backend, theirs, name):
    store = backend.open()
    store.save_result(name, {"by": "us"})
    assert theirs.get_result(name) == {"by": "us"}
    theirs.save_result(name, {"by": "them"}, 3600)
    assert store.get_result(name) == {"by": "them"}
    assert store.result(name).expires_at is not None
    assert len(store.list_results()) == len(theirs.list_results()) == 1
    assert theirs.delete_result(name) is True
    with pytest.raises(RecordNotFound):
        store.result(name)
    theirs.save_result(name, {"by": "them"})
    assert store.delete_result(name) is True
    assert theirs.get_result(name) is None
    assert theirs.delete_result(name) is False


def test_a_result_of_ours_expires_for_omnidaemon_too(backend, theirs):
    store = backend.open()
    store.save_result("short", {"a": 1}, 1)
    store.save_result("long", {"a": 1}, 3600)
    theirs.save_result("theirs", {"a": 1}, 1)
    time.sleep(1.1)
    assert store.get_result("theirs") is None
    assert [entry["task_id"] for entry in store.list_results()] == ["long"]
    assert theirs.get_result("short") is None
    assert theirs.get_result("long") == {"a": 1}


def test_a_result_that_omnidaemon_expired_leaves_no_trace_with_us(backend, theirs):
    store = backend.open()
    store.save_result("short", {"a": 1}, 1)
    time.sleep(1.1)
    assert theirs.get_result("short") is None  # which tidies up
    counts = settled(store)
    assert (counts.results, counts.expired) == (0, 0)
    assert counts.orphans in (0, None)


def test_saving_again_without_a_time_to_live_drops_it_for_both(backend, theirs):
    store = backend.open()
    store.save_result("a", 1, 3600)
    theirs.save_result("a", 2)
    settled(store)
    assert store.result("a").expires_at is None
    theirs.save_result("b", 1, 3600)
    store.save_result("b", 2)
    assert store.result("b").expires_at is None
    assert theirs.get_result("b") == 2
    assert settled(store).forever == 2


def test_clearing_results_counts_alike(backend, theirs):
    store = backend.open()
    for clear in (store.clear_results, theirs.clear_results):
        store.save_result("a", 1)
        theirs.save_result("b*", 1, 3600)
        assert clear() == 2
        assert store.list_results() == theirs.list_results() == []


# Metrics


def written_by(theirs: Upstream, events: list[dict[str, Any]]) -> None:
    def work(store):
        async def save():
            for event in events:
                await store.save_metric(dict(event))

        return save()

    theirs.run(work)


def test_we_read_the_metrics_that_omnidaemon_writes(backend, theirs):
    written_by(theirs, EVENTS)
    store = backend.open()
    for arguments in ({}, {"limit": 2}, {"topic": "u:[x]*"}, {"topic": "absent"}):
        assert store.get_metrics(**arguments) == theirs.get_metrics(**arguments)
    assert [comparable(event) for event in without_ids(store.get_metrics())] == EVENTS[::-1]
    batch = store.metrics_after(None)
    assert [(metric.event, metric.task_id) for metric in batch.events] == [
        (event["event"], event.get("task_id", "")) for event in EVENTS
    ]
    assert batch.events[1].seconds == 0.0011
    assert (batch.events[2].error, batch.events[2].error_type) == ("no ü\nway", "PermissionError")
    assert (batch.events[3].agent, batch.events[3].new_state) == ("a", "running")
    assert not any(metric.problem for metric in batch.events)


def test_omnidaemon_reads_the_metrics_that_we_write(backend, theirs):
    store = backend.open()
    for event in EVENTS:
        store.save_metric(event)
    assert [comparable(event) for event in without_ids(theirs.get_metrics())] == EVENTS[::-1]
    for arguments in ({}, {"limit": 2}, {"topic": "u:[x]*"}):
        assert theirs.get_metrics(**arguments) == store.get_metrics(**arguments)
    assert len(theirs.get_metrics(topic="t", limit=1000)) == 3


def without_ids(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: event[key] for key in event if key != "stream_id"} for event in events]


def test_metrics_of_both_are_one_sequence(backend, theirs):
    store = backend.open()
    cursor, seen = None, []
    for number in range(0, 12, 2):
        written_by(theirs, [{"event": "e", "task_id": str(number)}])
        store.save_metric({"event": "e", "task_id": str(number + 1)})
        batch = store.metrics_after(cursor)
        assert not batch.gap
        cursor = batch.cursor
        seen += [metric.task_id for metric in batch.events]
    assert seen == [str(number) for number in range(12)]
    assert [event["task_id"] for event in theirs.get_metrics()] == seen[::-1]


def test_both_cut_metrics_at_the_same_number(backend, theirs):
    cap = {"json": 10_000, "redis": 100_000}[backend.name]
    slack = {"json": 0, "redis": 1_000}[backend.name]
    backend.put_metrics([{"event": "e", "task_id": str(number)} for number in range(cap)])
    for number in range(3):
        backend.open().save_metric({"event": "ours", "task_id": str(number)})
        written_by(theirs, [{"event": "theirs", "task_id": str(number)}])
    assert cap <= backend.metrics_stored() <= cap + slack
    newest = [event["event"] for event in backend.open().get_metrics(limit=6)]
    assert newest == ["theirs", "ours"] * 3


def test_clearing_metrics_counts_alike(backend, theirs):
    store = backend.open()
    for clear in (store.clear_metrics, theirs.clear_metrics):
        for event in EVENTS:
            store.save_metric(event)
        assert clear() == len(EVENTS)
        assert store.get_metrics() == theirs.get_metrics() == []


# Configuration


def test_we_read_the_configuration_that_omnidaemon_writes(backend, theirs):
    for key, value in CONFIG.items():
        theirs.save_config(key, value)
    store = backend.open()
    for key, value in CONFIG.items():
        assert store.get_config(key, "default") == value
        assert type(store.get_config(key, "default")) is type(value)
    assert {entry.key: entry.value for entry in all_config(store)} == CONFIG


def test_omnidaemon_reads_the_configuration_that_we_write(backend, theirs):
    store = backend.open()
    for key, value in CONFIG.items():
        store.save_config(key, value)
    for key, value in CONFIG.items():
        assert theirs.get_config(key, "default") == value
        assert type(theirs.get_config(key, "default")) is type(value)
    assert theirs.get_config("absent", "default") == "default"


@awkward
def test_both_mean_the_same_configuration_by_a_key(backend, theirs, name):
    store = backend.open()
    store.save_config(name, "ours")
    assert theirs.get_config(name) == "ours"
    theirs.save_config(name, {"by": "them"})
    assert store.get_config(name) == {"by": "them"}
    assert [entry.key for entry in all_config(store)] == [name]


def test_clearing_all_counts_alike(backend, theirs):
    store = backend.open()
    for clear in (store.clear_all, theirs.clear_all):
        store.add_agent("t", dict(AGENT))
        theirs.add_agent("t:u", dict(BARE))
        store.save_result("a", 1)
        theirs.save_result("b", 1, 3600)
        written_by(theirs, EVENTS)
        for key, value in CONFIG.items():
            store.save_config(key, value)
        assert clear() == {
            "agents": 2,
            "results": 2,
            "metrics": len(EVENTS),
            "config": len(CONFIG),
        }
        eventually(lambda: stored(store), (0, 0, 0, 0))
        assert theirs.list_all_agents() == {}
        assert theirs.get_config("text") is None


def stored(store: Store) -> tuple[int | None, ...]:
    counts = settled(store)
    return counts.agents, counts.results, counts.metrics, counts.config
