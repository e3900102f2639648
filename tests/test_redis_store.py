"""Agents, configuration, metrics and keys in Redis: what lies there is never what it should be."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis

from storage import open_store
from storage.base import AgentQuery, RecordNotFound, ResultQuery, Store, StoreError
from storage.records import RAW_LIMIT, to_text
from storage.redis_store import RedisStore, client, config, known_config
from tests.stores import RedisBackend, all_config, eventually, inspected, settled

pytest_plugins = ["tests.store_fixtures"]


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    found = redis_backend.open()
    assert isinstance(found, RedisStore)
    return found


def broken(store: Store) -> dict[str, str]:
    return {found.key: found.reason for found in inspected(store).broken}


def fill(store: Store) -> None:
    store.add_agent("topic", {"name": "agent", "tools": ["a"]})
    store.save_result("task", {"agent": "agent", "topic": "topic"}, 3600)
    store.save_metric({"event": "task_received", "topic": "topic"})
    store.save_config("key", {"a": 1})
    store.save_config("supervisor:agent", {"state": "running"})
    store.save_config("_supervisor_registry", ["agent"])
    store.save_config("_subscription_active:group:topic:agent", True)


KEYS = {
    "omni:topics": "set",
    "omni:agents:topic:topic": "set",
    "omni:agent:topic:agent": "hash",
    "omni:result:task": "string",
    "omni:results:index": "zset",
    "omni:metrics:stream": "stream",
    "omni:config:key": "string",
    "omni:config:supervisor:agent": "string",
    "omni:config:_supervisor_registry": "string",
    "omni:config:_subscription_active:group:topic:agent": "string",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_another_type_is_named_and_spoils_nothing_else(
    redis_backend: RedisBackend, store: RedisStore, key: str
):
    fill(store)
    store.add_agent("other", {"name": "other"})
    store.save_result("other", 1)
    redis_backend.client.delete(key)
    if KEYS[key] == "string":
        redis_backend.client.rpush(key, "x")
    else:
        redis_backend.client.set(key, "x")
    fresh = redis_backend.open()
    for asked in (store, fresh):
        reasons = broken(asked)
        assert reasons[key] == f"expected {KEYS[key]}, is " + (
            "list" if KEYS[key] == "string" else "string"
        )
        rows = asked.agent_page(AgentQuery()).rows
        assert ("other", "other") in {(row.topic, row.name) for row in rows}
        assert "other" in {row.task_id for row in asked.result_page(ResultQuery()).rows}
        assert "key" in {entry.key for entry in all_config(asked)}
        for cursor in (None, "1-0", "empty/0", "odd"):
            if KEYS[key] == "stream":
                with pytest.raises(StoreError, match=f"{key}: expected stream, is string"):
                    asked.metrics_after(cursor)
            else:
                asked.metrics_after(cursor)
        asked.get_metrics()
        asked.list_all_agents()
        asked.list_results()
        asked.supervisors()
        asked.runner()
        settled(asked)


def test_agents_under_one_key_name_each_other(store: RedisStore):
    store.add_agent("tenant:acme", {"name": "invoices"})
    store.add_agent("tenant", {"name": "acme:invoices"})
    rows = {(row.topic, row.name): row for row in store.agent_page(AgentQuery()).rows}
    assert rows["tenant:acme", "invoices"].shares_record_with == [("tenant", "acme:invoices")]
    assert rows["tenant", "acme:invoices"].shares_record_with == [("tenant:acme", "invoices")]
    assert "shares this one record" in broken(store)["omni:agent:tenant:acme:invoices"]


@pytest.mark.parametrize("how", ["agent", "topic"])
def test_deleting_an_agent_leaves_the_record_of_another_under_the_same_key(
    store: RedisStore, how: str
):
    store.add_agent("tenant:acme", {"name": "invoices"})
    store.add_agent("tenant", {"name": "acme:invoices", "description": "the later one"})
    if how == "agent":
        assert store.delete_agent("tenant:acme", "invoices")
    else:
        store.delete_topic("tenant:acme")
    (left,) = store.agent_page(AgentQuery()).rows
    assert (left.topic, left.name) == ("tenant", "acme:invoices")
    assert (left.description, left.problem) == ("the later one", "")
    assert store.delete_agent("tenant", "acme:invoices")
    assert store.topics() == []


def test_a_topic_is_never_lost_to_a_deletion_beside_it(
    redis_backend: RedisBackend, store: RedisStore
):
    other = redis_backend.open()
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            other.delete_agent("topic", "a")

    thread = threading.Thread(target=delete)
    thread.start()
    for _ in range(300):
        store.add_agent("topic", {"name": "a"})
        store.add_agent("topic", {"name": "b"})
        assert redis_backend.client.sismember("omni:topics", "topic")
        store.delete_agent("topic", "b")
    stop.set()
    thread.join()
    store.delete_agent("topic", "a")
    assert redis_backend.client.dbsize() == 0


def test_what_the_sets_of_agents_lack_or_invent_is_told(
    redis_backend: RedisBackend, store: RedisStore
):
    fill(store)
    redis_backend.client.sadd("omni:agents:topic:topic", "phantom")
    redis_backend.client.sadd("omni:agents:topic:hidden", "agent")
    redis_backend.client.hset("omni:agent:hidden:agent", mapping={"name": "agent"})
    lost = {"topic": "lost", "name": "agent", "description": "still here"}
    redis_backend.client.hset("omni:agent:lost:agent", mapping=lost)
    reasons = broken(store)
    assert "no record" in reasons["omni:agent:topic:phantom"]
    assert "inconsistent index" in reasons["omni:agents:topic:hidden"]
    assert "inconsistent index" in reasons["omni:agent:lost:agent"]
    rows = {(row.topic, row.name): row for row in store.agent_page(AgentQuery()).rows}
    assert rows.keys() == {("topic", "agent"), ("topic", "phantom"), ("hidden", "agent")}
    assert "no record" in rows["topic", "phantom"].problem
    assert store.agent("lost", "agent").description == "still here"
    assert "inconsistent index" in store.agent("lost", "agent").problem
    with pytest.raises(RecordNotFound):
        store.agent("lost", "nobody")


def test_bytes_that_are_not_utf_8_stay_addressable(redis_backend: RedisBackend, store: RedisStore):
    raw = redis_backend.client
    raw.sadd("omni:topics", b"t\xff")
    raw.sadd(b"omni:agents:topic:t\xff", b"n\xfe", "other")
    raw.hset(
        b"omni:agent:t\xff:n\xfe",
        mapping={b"name": b"n\xfe", b"topic": b"t\xff", b"x\xfd": b"\xfc"},
    )
    raw.set(b"omni:result:r\xff", b'{"result": 1}')
    raw.zadd("omni:results:index", {b"r\xff": 1})
    raw.set(b"omni:config:c\xff", b'"\xff"')
    topic, name = to_text(b"t\xff"), to_text(b"n\xfe")
    assert store.topics() == [(topic, 2)]
    assert store.agent(topic, name).problem == ""
    assert store.list_all_agents()[topic][0]["name"] == name
    (row,) = store.result_page(ResultQuery()).rows
    assert store.result(row.task_id).size == 13
    (entry,) = all_config(store)
    assert entry.problem.startswith("not UTF-8")
    assert store.delete_result(row.task_id)
    assert store.delete_agent(topic, name)
    assert not raw.exists(b"omni:result:r\xff", b"omni:agent:t\xff:n\xfe")
    assert raw.sismember(b"omni:agents:topic:t\xff", "other")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("tools", "[", "tools: not JSON"),
        ("tools", "{}", "tools: expected a list"),
        ("config", "[]", "config: expected an object"),
        ("config", "\ud800", "config: not UTF-8"),
    ],
)
def test_a_field_that_cannot_be_read_marks_its_row_alone(
    redis_backend: RedisBackend, store: RedisStore, field: str, value: str, problem: str
):
    store.add_agent("topic", {"name": "good"})
    store.add_agent("topic", {"name": "bad", "description": "readable"})
    written = value.encode("utf-8", "surrogatepass")
    redis_backend.client.hset("omni:agent:topic:bad", field, written)
    bad, good = store.agent_page(AgentQuery()).rows
    assert bad.problem.startswith(problem)
    assert (bad.description, good.problem) == ("readable", "")
    assert "good" in [agent["name"] for agent in store.list_all_agents()["topic"]]


@pytest.mark.parametrize("created_at", ["", "nan", "soon", "1e18", "-5"])
def test_a_registration_time_that_is_none_is_no_error(
    redis_backend: RedisBackend, store: RedisStore, created_at: str
):
    store.add_agent("topic", {"name": "agent"})
    redis_backend.client.hset("omni:agent:topic:agent", "created_at", created_at)
    assert not isinstance(store.agent("topic", "agent").created_at, float)
    assert store.agent_page(AgentQuery(order="newest")).total == 1
    store.list_all_agents()


def test_a_warm_page_of_agents_asks_for_what_it_shows(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    pipeline = redis_backend.client.pipeline(transaction=False)
    for number in range(3000):
        topic, name = f"topic-{number % 20}", f"agent-{number}"
        pipeline.sadd("omni:topics", topic)
        pipeline.sadd(f"omni:agents:topic:{topic}", name)
        pipeline.hset(f"omni:agent:{topic}:{name}", mapping={"name": name, "topic": topic})
    pipeline.execute()
    assert store.agent_page(AgentQuery()).total == 3000
    time.sleep(1)
    asked: list[int] = []
    exchange = client.exchange

    def counted(link: Any, commands: Any) -> list[Any]:
        asked.append(len(commands))
        return exchange(link, commands)

    monkeypatch.setattr(client, "exchange", counted)
    page = store.agent_page(AgentQuery(order="newest", text="7", limit=20))
    assert len(page.rows) == 20
    assert len(asked) <= 10
    assert sum(asked) <= 600


def test_configuration_is_found_among_many_foreign_keys(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    redis_backend.client.mset({f"foreign:{number}": 1 for number in range(40_000)})
    fill(store)
    store.close()
    monkeypatch.setattr(config, "_SEARCH", 0.0)
    listing = store.config_listing()
    assert not listing.complete
    known = {entry.key for entry in listing.entries}
    assert known >= {"_supervisor_registry", "supervisor:agent"}
    assert "_subscription_active:group:topic:agent" in known
    assert len(all_config(store)) == 4
    assert settled(store).config == 4


def test_configuration_follows_what_others_write_and_delete(
    redis_backend: RedisBackend, store: RedisStore
):
    raw = redis_backend.client
    raw.mset({f"omni:config:{number}": number for number in range(700)})
    assert len(all_config(store)) == 700
    raw.delete("omni:config:0")
    raw.set("omni:config:1", "null")
    raw.set("omni:config:new", "x" * (RAW_LIMIT + 1))
    entries = {entry.key: entry for entry in all_config(store)}
    assert len(entries) == 700
    assert "0" not in entries
    assert entries["1"].value is None
    new = entries["new"]
    assert (new.size, len(new.raw), new.truncated) == (RAW_LIMIT + 1, RAW_LIMIT, True)
    raw.delete("omni:config:2")
    raw.rpush("omni:config:2", "x")
    entries = {entry.key: entry for entry in all_config(store)}
    assert entries["2"].problem == "expected string, is list"


KINDS = ("agent", "agents:topic", "result", "config")


def test_no_more_values_are_kept_than_a_limit_and_all_are_shown(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(known_config, "_KEPT", 1000)
    raw = redis_backend.client
    for number in range(50):
        store.save_config(f"{number:02}", f"{number:02}" * 45)
    raw.set("omni:config:99", "{" * 90)
    assert list(broken(store)) == ["omni:config:99"]

    def kept() -> int:
        return sum(len(entry.raw) for entry in store._config.entries.values())

    for _ in range(2):
        entries = {entry.key: entry for entry in all_config(store)}
        assert len(entries) == 51
        assert all(entries[f"{n:02}"].value == f"{n:02}" * 45 for n in range(50))
        assert 900 < kept() <= 1000
    for number in range(50):
        raw.set(f"omni:config:{number:02}", number)
    assert [entry.value for entry in all_config(store)][:50] == list(range(50))
    assert len(store._config.entries) == 51, "there is room again"
    raw.delete("omni:config:99")
    assert broken(store) == {}
    for number in range(50):
        raw.delete(f"omni:config:{number:02}")
    eventually(lambda: (len(all_config(store)), kept(), store._config._size), (0, 0, 0))


NEIGHBOURS = [
    *(f"omni:{kind}{deeper}" for kind in KINDS for deeper in ("", ":eu", ":eu:west", "::")),
    "omni:results:index",
    "omni:metrics:stream",
    "omni:topics",
    "omni:x",
    "omn",
]


def fill_oddly(raw: redis.Redis, prefix: str) -> None:
    """What lies beside the usual: what no index names, and what cannot be read."""
    raw.set(f"{prefix}:result:loose", '{"task_id": "loose", "result": 1, "saved_at": 1.0}')
    raw.hset(f"{prefix}:agent:topic:orphan", mapping={"topic": "topic", "name": "orphan"})
    raw.sadd(f"{prefix}:agents:topic:stray", "nobody")
    raw.set(f"{prefix}:config:bad", "{")
    raw.rpush(f"{prefix}:config:list", "x")
    raw.set(f"{prefix}:result:bad", "{")


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_a_store_whose_prefix_begins_with_ours_is_neither_shown_nor_cleared(
    redis_url: str, redis_backend: RedisBackend, store: RedisStore, neighbour: str
):
    other = open_store(f"{redis_url}?prefix={neighbour}")
    fill(other)
    fill_oddly(redis_backend.client, neighbour)
    other.close()
    before = redis_backend.photograph()
    fill(store)
    counts = settled(store)
    assert broken(store) == {}
    assert (counts.agents, counts.topics, counts.results, counts.metrics) == (1, 1, 1, 1)
    assert store.topics() == [("topic", 1)]
    assert store.agent_page(AgentQuery()).total == 1
    assert [row.task_id for row in store.result_page(ResultQuery()).rows] == ["task"]
    assert len(all_config(store)) == 4
    assert settled(store).config == 4
    assert store.clear_agents() == 1
    assert store.clear_results() == 1
    assert store.clear_metrics() == 1
    assert store.clear_all() == {"agents": 0, "results": 0, "metrics": 0, "config": 4}
    assert redis_backend.photograph() == before


def test_what_is_ours_and_looks_like_a_neighbours_is_shown_and_cleared(
    redis_backend: RedisBackend, store: RedisStore
):
    raw = redis_backend.client
    for name in ("agent:x", "topics", "eu:results:index"):
        store.add_agent(name, {"name": name})
    raw.srem("omni:topics", "agent:x")  # its set is found by the walk alone
    ids = ["task:result:1", "eu:config:" + "\0ü🚀" * 3000, "topics"]
    for task_id in ids:
        store.save_result(task_id, {"text": "x" * 100_000})
    raw.delete("omni:results:index")
    fill(store)
    known = RedisStore(store._where)
    assert inspected(known).scan_complete
    assert settled(known).results == 4
    found = {row.task_id for row in known.result_page(ResultQuery()).rows}
    assert found == {"task", *ids}
    assert known.topics() == [
        ("agent:x", 1), ("eu:results:index", 1), ("topic", 1), ("topics", 1)
    ]  # fmt: skip
    assert len(broken(known)) == 4, "three results are not indexed, and one topic is not named"
    for key in ("_subscription_active:group:agent:x:agent:x", "supervisor:agent:x"):
        known.save_config(key, True)
    assert known.clear_all() == {"agents": 4, "results": 4, "metrics": 1, "config": 6}
    assert raw.dbsize() == 0


def test_configuration_that_could_be_a_neighbours_is_shown_and_left_by_clearing(
    redis_backend: RedisBackend, store: RedisStore, caplog: pytest.LogCaptureFixture
):
    keys = ["my:config:key", "agent:x", "my:topics", "results:index", "plain"]
    for key in keys:
        store.save_config(key, 1)
    assert sorted(entry.key for entry in all_config(store)) == sorted(keys)
    assert settled(store).config == 5
    assert store.clear_all()["config"] == 1
    assert "left 4 keys alone" in caplog.text
    assert sorted(entry.key for entry in all_config(store)) == sorted({*keys} - {"plain"})
    redis_backend.client.delete("omni:config:my:topics")
    redis_backend.client.sadd("omni:config:my:topics", "t")  # now there is one, by its mark
    eventually(lambda: [entry.key for entry in all_config(store)], ["agent:x", "results:index"])
    redis_backend.client.delete("omni:config:my:topics")
    eventually(lambda: len(all_config(store)), 3)


def test_a_neighbours_records_are_not_read_again_at_each_look(
    redis_url: str, redis_backend: RedisBackend, store: RedisStore
):
    for kind in KINDS:
        other = open_store(f"{redis_url}?prefix=omni:{kind}:eu")
        for number in range(50):
            other.add_agent(f"topic-{number}", {"name": "agent"})
            other.save_result(str(number), number)
            other.save_config(str(number), number)
        other.close()
    fill(store)
    inspected(store)
    inspected(store)
    raw = redis_backend.client
    raw.config_resetstat()
    store.topics()
    store.result_page(ResultQuery())
    store.config_listing()
    store.inspect()
    used = {name.removeprefix("cmdstat_"): found["calls"]
            for name, found in raw.info("commandstats").items()}  # fmt: skip
    reads = ("getrange", "hmget", "zscore", "srandmember", "strlen", "hgetall")
    assert sum(used.get(name, 0) for name in reads) < 30


@pytest.mark.parametrize("prefix", ["prod*", "a[1]", "?", "back\\slash", "*"])
def test_a_prefix_is_taken_as_it_is_written(redis_url: str, prefix: str):
    with redis.Redis.from_url(redis_url) as raw:
        for name in ("prod-eu", "a1", "x", "backslash", "prod"):
            fill(open_store(f"{redis_url}?prefix={name}"))
        foreign = raw.dbsize()
        store = RedisBackend(redis_url, prefix).open()
        fill(store)
        assert len(all_config(store)) == 4
        assert settled(store).results == 1
        assert store.clear_all() == {"agents": 1, "results": 1, "metrics": 1, "config": 4}
        assert raw.dbsize() == foreign


def test_no_command_is_used_that_stops_a_server(redis_backend: RedisBackend, store: RedisStore):
    raw = redis_backend.client
    raw.config_resetstat()
    fill(store)
    store.agent_page(AgentQuery(), keep=lambda agent: True)
    store.result_page(ResultQuery(text="x"))
    inspected(store)
    all_config(store)
    store.metrics_after("1-1")
    store.delete_topic("topic")
    store.clear_all()
    used = {name.removeprefix("cmdstat_").partition("|")[0] for name in raw.info("commandstats")}
    forbidden = {
        "keys",
        "flushdb",
        "flushall",
        "eval",
        "evalsha",
        "fcall",
        "sort",
        "debug",
        "monitor",
    }
    assert not used & forbidden


def test_an_eviction_policy_that_loses_records_is_a_risk(
    redis_backend: RedisBackend, store: RedisStore
):
    raw = redis_backend.client
    raw.config_set("maxmemory", "100mb")
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert any("may evict" in risk for risk in store.inspect().risks)
    finally:
        raw.config_set("maxmemory", "0")
        raw.config_set("maxmemory-policy", "noeviction")
