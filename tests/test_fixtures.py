"""OmniDaemon's own data, every figure counted again from the files themselves."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
import pytest

from storage.base import AgentQuery, ResultQuery, Store
from storage.records import Agent
from tests.stores import DATA, Backend, all_config, inspected, settled

pytest_plugins = ["tests.store_fixtures"]

PARTS = {"task_received": 0, "task_processed": 1, "task_failed": 2}


@dataclass
class Truth:
    """What the files hold, by the shortest reading of them that could be written."""

    agents: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)
    forever: set[str] = field(default_factory=set)
    index: dict[str, float] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    strict: dict[str, str] = field(default_factory=dict)
    hashes: int = 0

    @property
    def live(self) -> set[str]:
        return set(self.results) - self.expired

    @property
    def topics(self) -> list[tuple[str, int]]:
        return sorted(Counter(topic for topic, _ in self.agents).items())

    def totals(self) -> dict[tuple[str, str], list[int]]:
        """(topic, agent): received, processed, failed."""
        found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for event in self.metrics:
            if event["event"] in PARTS:
                found[event["topic"], event["agent"]][PARTS[event["event"]]] += 1
        return dict(found)


def strictly_read(text: str) -> str:
    """What a strict parser makes of what Python's json wrote."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "refused"
    return "right" if found == json.loads(text) else "wrong"


@cache
def json_truth() -> Truth:
    def load(name: str) -> Any:
        return json.loads((DATA / "json-small" / name).read_text("utf-8"))

    config = load("config.json")
    captured = max(value["last_updated"] for key, value in config.items() if "supervisor:" in key)
    results = load("results.json")
    return Truth(
        agents={
            (topic, agent["name"]): agent
            for topic, agents in load("agents.json").items()
            for agent in agents
        },
        results=results,
        expired={name for name, data in results.items() if data.get("expires_at", 9e99) < captured},
        forever={name for name, data in results.items() if "expires_at" not in data},
        metrics=load("metrics.json"),
        config=config,
        strict={name: strictly_read(json.dumps(results[name])) for name in results},
    )


@cache
def redis_truth() -> Truth:
    with gzip.open(DATA / "redis-small.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    keys = {line["key"]: line for line in lines[1:]}
    truth = Truth()
    for topic in keys["omni:topics"]["value"]:
        for name in keys[f"omni:agents:topic:{topic}"]["value"]:
            truth.agents[topic, name] = keys[f"omni:agent:{topic}:{name}"]["value"]
    truth.hashes = sum(line["type"] == "hash" for key, line in keys.items() if "omni:agent:" in key)
    truth.index = dict(keys["omni:results:index"]["value"])
    for key, line in keys.items():
        kind, _, name = key.removeprefix("omni:").partition(":")
        if line["type"] != "string":
            continue
        value = json.loads(line["value"])
        if kind == "config":
            truth.config[name] = value
        elif kind == "result":
            truth.results[name] = value
            if line["pexpireat"] is None:
                truth.forever.add(name)
            truth.strict[name] = strictly_read(line["value"])
    entries = keys["omni:metrics:stream"]["value"]["entries"]
    truth.metrics = [json.loads(fields[1]) for _, fields in entries]
    return truth


@pytest.fixture(params=["json", "redis"])
def loaded(request: pytest.FixtureRequest) -> tuple[Backend, Store, Truth]:
    backend: Backend = request.getfixturevalue(f"{request.param}_fixture")
    truth = json_truth() if request.param == "json" else redis_truth()
    store = backend.open()
    settled(store)
    return backend, store, truth


def test_the_files_hold_what_their_description_says():
    told, redis = json_truth(), redis_truth()
    assert (len(told.agents), len(told.topics)) == (18, 16)
    assert (len(told.results), len(told.expired), len(told.forever)) == (764, 3, 1)
    assert (len(told.metrics), len(told.config)) == (1900, 27)
    assert (len(redis.agents), len(redis.topics), redis.hashes) == (18, 16, 17)
    assert (len(redis.results), len(redis.index)) == (3206, 3209)
    assert len(redis.metrics) == 8160
    for strict in (told.strict, redis.strict):
        assert Counter(strict.values())["refused"] == 4
        assert Counter(strict.values())["wrong"] == 2  # integers beyond 64 bits


def test_the_counts_are_those_of_the_files(loaded):
    backend, store, truth = loaded
    counts = settled(store)
    assert (counts.agents, counts.topics) == (len(truth.agents), len(truth.topics))
    assert counts.results == len(truth.live)
    assert (counts.expired, counts.forever) == (len(truth.expired), len(truth.forever))
    assert (counts.metrics, counts.config) == (len(truth.metrics), len(truth.config))
    assert counts.unreadable == 0
    if backend.name == "redis":
        assert counts.results_indexed == len(truth.index)
        assert counts.orphans == len(set(truth.index) - set(truth.results))


def test_every_topic_and_agent_is_listed(loaded):
    _, store, truth = loaded
    assert store.topics() == truth.topics
    page = store.agent_page(AgentQuery(limit=1000))
    assert page.total == len(truth.agents)
    assert {(row.topic, row.name) for row in page.rows} == set(truth.agents)
    # In Redis two agents share one hash, which can name only one of them.
    pair = {
        (topic, name)
        for topic in ("tenant:acme", "tenant:acme:invoices")
        for name in ("extractor", "invoices:extractor")
    }
    listed = store.list_all_agents()
    found = {(topic, agent["name"]) for topic in listed for agent in listed[topic]}
    assert found - pair == set(truth.agents) - pair
    assert sum(map(len, listed.values())) == len(truth.agents)


def test_each_listed_agent_is_opened_by_exactly_its_name(loaded):
    backend, store, truth = loaded
    for row in store.agent_page(AgentQuery(limit=1000)).rows:
        found = store.agent(row.topic, row.name)
        assert found == row
        told = truth.agents[row.topic, row.name]
        assert (found.callback_name, found.description, found.problem) == (
            told["callback_name"],
            told["description"],
            "",
        )
        tools, config = told["tools"], told["config"]
        if backend.name == "redis":
            tools, config = json.loads(tools), json.loads(config)
        assert (found.tools, found.config) == (tools, config)
        assert store.get_agent(row.topic, row.name) is not None
        [filtered] = [
            other
            for other in store.agent_page(AgentQuery(topic=row.topic, text=row.name)).rows
            if other.name == row.name
        ]
        assert filtered == row


def test_only_the_pair_in_one_redis_hash_shares_a_record(loaded):
    backend, store, truth = loaded
    by_key: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for topic, name in truth.agents:
        by_key[f"{topic}:{name}"].append((topic, name))
    for row in store.agent_page(AgentQuery(limit=1000)).rows:
        pair = by_key[f"{row.topic}:{row.name}"]
        others = [other for other in pair if other != (row.topic, row.name)]
        assert row.shares_record_with == (others if backend.name == "redis" else [])
    assert sum(len(pair) > 1 for pair in by_key.values()) == 1


def test_agents_know_their_subscription_and_supervisor(loaded):
    _, store, truth = loaded

    def told(row: Agent) -> tuple[Any, str | None]:
        supervisor = truth.config.get(f"supervisor:{row.name}")
        return (
            truth.config.get(f"_subscription_active:group:{row.topic}:{row.name}"),
            supervisor["state"] if supervisor else None,
        )

    rows = store.agent_page(AgentQuery(limit=1000)).rows
    for row in rows:
        assert (row.subscribed, row.supervisor.state if row.supervisor else None) == told(row)
    assert Counter(row.subscribed for row in rows)[False] >= 1
    assert sum(row.supervisor is not None for row in rows) == 2
    assert {supervisor.agent_name for supervisor in store.supervisors()} == set(
        truth.config["_supervisor_registry"]
    )


def test_the_runner_is_that_of_the_files(loaded):
    _, store, truth = loaded
    runner = store.runner()
    assert runner.runner_id == (truth.config["_omnidaemon_runner_id"] or "")
    assert (runner.start_time is None) == (truth.config["_omnidaemon_start_time"] is None)


@pytest.mark.parametrize("order", ["newest", "expiring"])
def test_every_live_result_is_listed_once(loaded, order):
    _, store, truth = loaded
    found: list[str] = []
    while True:
        page = store.result_page(ResultQuery(order=order, offset=len(found), limit=500))
        found += [row.task_id for row in page.rows]
        if not page.rows:
            break
    assert len(found) == len(set(found))
    missing = truth.live - set(found)
    assert set(found) <= truth.live
    assert missing <= (truth.forever if order == "expiring" else set())
    assert page.total == len(found)


def test_the_newest_results_are_the_newest(loaded):
    backend, store, truth = loaded
    rows = store.result_page(ResultQuery(limit=200)).rows
    if backend.name == "redis":
        at = {name: score for name, score in truth.index.items() if name in truth.results}
    else:
        at = {name: data["saved_at"] for name, data in truth.results.items() if name in truth.live}
    expected = sorted(at, key=lambda name: at[name], reverse=True)[:200]
    assert [at[row.task_id] for row in rows] == [at[name] for name in expected]
    assert {row.task_id for row in rows} == set(expected)


def test_each_result_is_opened_by_exactly_its_id(loaded):
    _, store, truth = loaded
    by_id = store.results_by_id(truth.live)
    assert set(by_id) == truth.live
    for name in truth.live:
        found = store.result(name)
        told = truth.results[name]["result"]
        assert found.task_id == name
        assert found.problem == ""
        assert (found.expires_at is None) == (name in truth.forever)
        assert not found.expired(time.time())
        if isinstance(told, dict):
            for part in ("agent", "topic", "status"):
                assert getattr(found, part) == (told.get(part) or "")
        listed = by_id[name]
        assert (listed.agent, listed.topic, listed.size) == (found.agent, found.topic, found.size)
        assert same_json(without_times(store.get_result(name)), without_times(told))
        assert found.truncated or same_json(without_times(found.body), without_times(told))


TIMES = ("timestamp", "created_at", "saved_at")


def without_times(body: Any) -> Any:
    """The loading scripts move the times of an envelope."""
    if not isinstance(body, dict):
        return body
    return {key: value for key, value in body.items() if key not in TIMES}


def same_json(left: Any, right: Any) -> bool:
    """Equal where NaN equals itself; integers exactly."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def test_what_expired_on_disk_is_listed_apart(loaded):
    _, store, truth = loaded
    page = store.result_page(ResultQuery(life="expired"))
    assert {row.task_id for row in page.rows} == truth.expired
    for name in truth.expired:
        assert store.get_result(name) is None
        assert store.result(name).expired(time.time())


def test_what_never_expires_is_found(loaded):
    _, store, truth = loaded
    page = store.result_page(ResultQuery(life="forever"))
    assert {row.task_id for row in page.rows} == truth.forever - truth.expired


def test_index_entries_without_a_result_are_no_rows(redis_fixture):
    store = redis_fixture.open()
    truth = redis_truth()
    orphans = set(truth.index) - set(truth.results)
    assert len(orphans) == 3
    assert store.results_by_id(orphans) == {}
    assert not orphans & {row.task_id for row in store.result_page(ResultQuery(limit=5000)).rows}
    assert len(store.list_results(5000)) == len(truth.live)


def test_results_that_strict_parsers_refuse_or_misread_are_read_exactly(loaded):
    _, store, truth = loaded
    for name in [name for name, how in truth.strict.items() if how != "right"]:
        told = truth.results[name]["result"]
        assert store.result(name).problem == ""
        assert same_json(without_times(store.get_result(name)), without_times(told))


@pytest.mark.parametrize("facet", ["agent", "topic", "status"])
def test_results_by_agent_topic_and_status_add_up(loaded, facet):
    _, store, truth = loaded
    told: Counter[str] = Counter()
    for name in truth.live:
        body = truth.results[name]["result"]
        told[(body.get(facet) or "") if isinstance(body, dict) else ""] += 1
    facets = store.result_facets()[facet]
    assert facets == sorted(set(told) - {""})
    for value in facets:
        page = store.result_page(ResultQuery(limit=5000, **{facet: value}))
        assert (len(page.rows), page.total) == (told[value], told[value])


def test_received_processed_and_failed_are_those_of_the_files(loaded):
    _, store, truth = loaded
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    cursor, seen = None, []
    while True:
        batch = store.metrics_after(cursor, 997)
        assert batch.stored == len(truth.metrics)
        assert not batch.gap
        for metric in batch.events:
            if metric.event in PARTS:
                found[metric.topic, metric.agent][PARTS[metric.event]] += 1
        seen += batch.events
        cursor = batch.cursor
        if not batch.more:
            break
    assert dict(found) == truth.totals()
    assert [(metric.event, metric.task_id) for metric in seen] == [
        (event["event"], event.get("task_id", "")) for event in truth.metrics
    ]
    assert [metric.seconds for metric in seen] == [
        event.get("processing_time_sec") for event in truth.metrics
    ]
    assert not [metric for metric in seen if metric.problem]


def test_the_newest_metrics_of_each_topic_are_found(loaded):
    _, store, truth = loaded
    topics = {event.get("topic") for event in truth.metrics} - {None}
    for topic in topics:
        told = [event["task_id"] for event in truth.metrics if event.get("topic") == topic]
        found = [event["task_id"] for event in store.get_metrics(topic, 20)]
        assert found == told[::-1][:20]


def test_every_configuration_key_is_listed(loaded):
    _, store, truth = loaded
    entries = all_config(store)
    assert [entry.key for entry in entries] == sorted(truth.config)
    for entry in entries:
        assert entry.problem == ""
        assert without_clock(entry.key, entry.value) == without_clock(
            entry.key, truth.config[entry.key]
        )
        assert store.get_config(entry.key) == entry.value


def without_clock(key: str, value: Any) -> Any:
    if key == "_omnidaemon_start_time":
        return None
    if key.startswith("supervisor:"):
        moved = ("start_time", "last_heartbeat", "last_updated")
        return {name: found for name, found in value.items() if name not in moved}
    return value


def test_an_inspection_of_real_data_finds_nothing_broken_but_the_shared_pair(loaded):
    backend, store, _ = loaded
    found = inspected(store)
    assert found.backend == backend.name
    assert found.latency_ms is not None
    assert found.denied == []
    readable = [item for item in found.broken if "invoices:extractor" not in item.key]
    assert readable == []


def test_a_stopped_store_has_no_runner(json_fixture):
    stopped = json.loads((DATA / "json-stopped-config.json").read_text("utf-8"))
    json_fixture.write("config.json", stopped)
    store = json_fixture.open()
    assert (store.runner().start_time, store.runner().runner_id) == (None, "")
    assert settled(store).config == len(stopped)
    assert not any(item.supervisor for item in store.agent_page(AgentQuery()).rows)
