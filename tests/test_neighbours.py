"""Every action on one store beside others on the same Redis, and beside a real OmniDaemon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from conftest import make_user
from django.contrib.auth.models import User

from omnidash import runs
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.cleanup import LINES
from omnidash.models import Run
from omnidash.stores import Entry, registry
from storage import open_store
from tests.pages import serving
from tests.stores import RedisBackend, settled
from tests.test_live_runner import Runner

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

NEIGHBOURS = [
    "omni2", "omn", "omni:agent", "omni:agents", "omni:result", "omni:results", "omni:config",
    "omni:result:eu", "omni:metrics", "p[1]*", "omni*", "*", "?mni",
]  # fmt: skip
LIMITS = {"days": 0.0, "megabytes": 0.0, "metric_days": 0.0, "newest": 0}


def fill(url: str) -> None:
    store = open_store(url)
    for name in ("a", "b:c"):
        store.add_agent("t:x", {"name": name, "tools": []})
    for task_id in ("task", "eu:config:x"):
        store.save_result(task_id, {"agent": "gone", "topic": "t"}, 3600)
    store.save_metric({"event": "task_received", "topic": "t"})
    store.save_config("key", 1)
    store.save_config("supervisor:gone", {"state": "running"})
    store.save_config("_subscription_active:group:t:gone", True)
    store.close()


def litter(client: redis.Redis, prefix: str) -> None:
    """What every line of the cleanup looks for."""
    client.zadd(f"{prefix}:results:index", {"orphan": time.time()})
    client.sadd(f"{prefix}:agents:topic:t:x", "phantom")
    client.hset(f"{prefix}:agent:t:lost", mapping={"topic": "t", "name": "lost"})


def photograph(client: redis.Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.scan_iter(count=1000)}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "agents": ("delete-agents", {"agents": [["t:x", "a"]]}),
    "topic": ("delete-topic", {"topic": "t:x"}),
    "results": ("delete-results", {"ids": ["task", "eu:config:x"]}),
    "matching": ("delete-matching-results", {"query": {"agent": "gone"}}),
    "extend": ("extend-results", {"query": {}, "more": 60.0}),
    "config": ("delete-config", {"keys": ["key"]}),
    "set": ("set-config", {"keys": ["key"], "text": "2"}),
    "cleanup": ("clean-up", {"lines": [line.name for line in LINES], **LIMITS}),
    **{f"clear {what}": ("clear", {"what": what})
       for what in ("agents", "results", "metrics", "config", "everything")},
}  # fmt: skip


@pytest.fixture
def administrator() -> User:
    return make_user("administrator")


def done(user: User, entry: Entry, name: str, params: dict[str, Any]) -> Run:
    run = runs.start(runs.plan(user, ACTIONS[name], entry, params), user, "")
    runs.execute.call(run.pk)
    run.refresh_from_db()
    return run


@pytest.mark.parametrize("case", CASES)
def test_no_action_touches_a_neighbour(
    redis_url: str, redis_backend: RedisBackend, administrator: User, case: str
) -> None:
    raw = redis_backend.client
    for prefix in NEIGHBOURS:
        fill(f"{redis_url}?prefix={prefix.replace('?', '%3F')}")
        litter(raw, prefix)
    before = photograph(raw)
    fill(redis_backend.url)
    litter(raw, "omni")
    with serving(prod=redis_backend.url):
        entry = registry()["prod"]
        settled(entry.store)
        name, params = CASES[case]
        run = done(administrator, entry, name, params)
        assert run.state == "done", run.message
        assert run.done > 0
        if run.bin:
            undo = done(
                administrator,
                entry,
                "put-back",
                {"run": run.pk, "bin": run.bin, "removed": run.done},
            )
            assert undo.state == "done", undo.message
    after = photograph(raw)
    assert {key: after.get(key) for key in before} == before


def test_cleanup_finds_what_belongs_to_nothing_and_leaves_the_rest(
    redis_backend: RedisBackend, administrator: User
) -> None:
    fill(redis_backend.url)
    before = photograph(redis_backend.client)
    litter(redis_backend.client, "omni")
    with serving(prod=redis_backend.url):
        entry = registry()["prod"]
        settled(entry.store)
        run = done(administrator, entry, "clean-up", {"lines": ["index", "members"]})
    assert (run.state, run.done) == ("done", 3), run.message
    after = photograph(redis_backend.client)
    assert after.keys() == before.keys()
    # The set is the same, though Redis may keep it otherwise now.
    assert redis_backend.client.smembers("omni:agents:topic:t:x") == {b"a", b"b:c"}


@pytest.fixture
def live(redis_url: str, redis_backend: RedisBackend) -> Iterator[Runner]:
    runner = Runner(redis_url, STORAGE_BACKEND="redis")
    yield runner
    runner.kill()


def processed(backend: RedisBackend) -> int:
    events = backend.client.xrange("omni:metrics:stream")
    found = [json.loads(fields[b"data"]) for _, fields in events]
    return sum(event["event"] == "task_processed" for event in found)


def test_a_consumer_survives_every_cleanup_even_of_an_agent_that_was_deleted(
    live: Runner, redis_backend: RedisBackend, administrator: User
) -> None:
    live.publish(2)
    until(lambda: processed(redis_backend) >= 2)
    with serving(prod=redis_backend.url):
        entry = registry()["prod"]
        settled(entry.store)
        done(administrator, entry, "delete-agents", {"agents": [["live.echo", "echo"]]})
        for line in [*LINES, None]:
            lines = [line.name] if line else [one.name for one in LINES]
            run = done(administrator, entry, "clean-up", {"lines": lines, **LIMITS})
            assert run.state == "done", run.message
            before = processed(redis_backend)
            live.publish(1)
            until(lambda before=before: processed(redis_backend) > before)
        run = done(administrator, entry, "clear", {"what": "config"})
        before = processed(redis_backend)
        live.publish(1)
        until(lambda: processed(redis_backend) > before)


def test_deleting_an_agent_tells_how_many_messages_stay(
    redis_backend: RedisBackend, administrator: User
) -> None:
    raw = redis_backend.client
    fill(redis_backend.url)
    stream, group = "omni-stream:t:x", "group:t:x:a"
    raw.xgroup_create(stream, group, mkstream=True)
    for number in range(5):
        raw.xadd(stream, {"data": number})
    raw.xreadgroup(group, "consumer", {stream: ">"}, count=2)
    with serving(prod=redis_backend.url):
        store = registry()["prod"].store
        assert store.waiting("t:x", "a") == (2, 3)
        assert store.waiting("t:x", "b:c") is None
        assert store.waiting("t", "a") is None
        params = {"agents": [["t:x", "a"]]}
        action = ACTIONS["delete-agents"]
        said = action.warns(store, params, action.look(store, params))
    assert any("3 not delivered, 2 not finished" in line for line in said)


def until(question: Any) -> None:
    deadline = time.monotonic() + 30
    while not question():
        assert time.monotonic() < deadline, "the consumer works no more"
        time.sleep(0.05)
