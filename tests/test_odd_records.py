"""Records as they should not be, in a real Redis: each is one marked row with an address."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.test import Client

from omnidash.stores import registry
from omnidash.text import ref
from storage import open_store
from storage.base import Store
from tests.pages import PAGES, elements, links, serving, text_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def client_of_redis(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    with serving(prod=redis_url):
        yield client


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    found = open_store(redis_url)
    yield found
    found.close()


def put_result(client: redis.Redis, task_id: bytes | str, value: bytes | str) -> None:
    raw = task_id.encode() if isinstance(task_id, str) else task_id
    client.set(b"omni:result:" + raw, value)
    client.zadd("omni:results:index", {raw: time.time()})


def test_a_huge_value_is_shown_by_its_beginning_and_never_read_whole(
    viewer_client: Client, client_of_redis: redis.Redis
) -> None:
    client_of_redis.setrange("omni:result:big", 300_000_000, "x")
    client_of_redis.zadd("omni:results:index", {"big": time.time()})
    before = client_of_redis.info("stats")["total_net_output_bytes"]
    said = text_of(viewer_client.get("/prod/results/"))
    assert "286.1 MB" in said
    page = text_of(viewer_client.get(f"/prod/results/{ref('big')}/"))
    assert "the first 64 KB are shown" in page
    sent = client_of_redis.info("stats")["total_net_output_bytes"] - before
    assert sent < 2_000_000


def test_a_result_that_is_not_in_the_index_is_found_and_marked(
    viewer_client: Client, client_of_redis: redis.Redis
) -> None:
    client_of_redis.set("omni:result:loose", '{"task_id": "loose", "result": 1, "saved_at": 1}')
    viewer_client.get("/prod/storage/")
    page = viewer_client.get("/prod/results/")
    assert "loose" in links(page, "/prod/results/").values()
    assert "not indexed" in text_of(page)


def test_orphans_of_the_index_never_hide_a_live_result(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    store.save_result("alive", 1, 600)
    with client_of_redis.pipeline() as pipe:
        for number in range(5000):
            pipe.zadd("omni:results:index", {f"gone-{number}": time.time() + 100})
        pipe.execute()
    page = viewer_client.get("/prod/results/")
    assert list(links(page, "/prod/results/").values()) == ["alive"]
    assert "5,000 index entries without a result" in text_of(page)


def test_two_agents_that_share_one_record_are_both_flagged(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    store.add_agent("a:b", {"name": "c"})
    store.add_agent("a", {"name": "b:c"})
    page = viewer_client.get("/prod/agents/")
    assert text_of(page).count("shares one record") == 2
    detail = viewer_client.get(f"/prod/agents/{ref('a', 'b:c')}/")
    assert f"/prod/agents/{ref('a:b', 'c')}/" in links(detail, "/prod/agents/")


def test_a_registration_without_a_record_is_a_marked_row(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    store.add_agent("topic", {"name": "whole"})
    client_of_redis.sadd("omni:agents:topic:topic", "phantom")
    page = viewer_client.get("/prod/agents/")
    assert set(links(page, "/prod/agents/").values()) == {"whole", "phantom"}
    assert len([e for e in elements(page, "tr") if e.get("class") == "row-bad"]) == 1
    assert viewer_client.get(f"/prod/agents/{ref('topic', 'phantom')}/").status_code == 200


def test_a_hash_that_no_index_names_is_listed_as_inconsistent(
    viewer_client: Client, client_of_redis: redis.Redis
) -> None:
    client_of_redis.hset("omni:agent:topic:lost", mapping={"name": "lost", "topic": "topic"})
    said = text_of(viewer_client.get("/prod/storage/"))
    assert "omni:agent:topic:lost" in said
    assert "inconsistent index" in said


@pytest.mark.parametrize(
    "broken", ["", "nan", "inf", "1e18", "-5", "yesterday", "1795426603000", "9" * 400]
)
def test_a_time_that_is_no_time_breaks_no_page(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store, broken: str
) -> None:
    store.add_agent("topic", {"name": "agent"})
    client_of_redis.hset("omni:agent:topic:agent", "created_at", broken)
    store.save_config("supervisor:agent", {"state": "running", "last_heartbeat": broken})
    store.save_config("_supervisor_registry", ["agent"])
    client_of_redis.set("omni:config:_omnidaemon_start_time", json.dumps(broken))
    put_result(client_of_redis, "r", json.dumps({"task_id": "r", "result": 1, "saved_at": broken}))
    store.save_metric({"event": "task_received", "timestamp": broken, "topic": "t", "agent": "a"})
    for path in PAGES.values():
        response = viewer_client.get(f"/prod/{path}")
        assert response.status_code == 200, path
        assert "1970" not in text_of(response)
    detail = text_of(viewer_client.get(f"/prod/agents/{ref('topic', 'agent')}/"))
    assert ("never" in detail) if broken == "" else ("invalid" in detail)


def test_doubled_keys_are_marked_and_the_raw_text_has_them_all(
    viewer_client: Client, client_of_redis: redis.Redis
) -> None:
    put_result(client_of_redis, "d", '{"task_id": "d", "result": {"x": 1, "x": 2}, "saved_at": 1}')
    said = text_of(viewer_client.get(f"/prod/results/{ref('d')}/"))
    assert "Doubled keys" in said
    assert '{"x": 1, "x": 2}' in said


def test_names_that_are_not_utf8_are_shown_escaped_and_open(
    viewer_client: Client, client_of_redis: redis.Redis
) -> None:
    put_result(client_of_redis, b"\xff\xfe", b'{"task_id": "x", "result": "\xff"}')
    client_of_redis.sadd("omni:topics", b"t\xff")
    client_of_redis.sadd(b"omni:agents:topic:t\xff", b"n\xfe")
    client_of_redis.hset(b"omni:agent:t\xff:n\xfe", mapping={"name": b"n\xfe", "tools": b"[\xff"})
    for noun, shown in (("results", "\\xff\\xfe"), ("agents", "n\\xfe")):
        found = links(viewer_client.get(f"/prod/{noun}/"), f"/prod/{noun}/")
        assert list(found.values()) == [shown]
        assert viewer_client.get(next(iter(found))).status_code == 200


def test_a_name_of_a_megabyte_and_ten_thousand_tools_stay_readable(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    long = "n" * 1_000_000
    store.add_agent("topic", {"name": "many", "tools": [f"tool-{n}" for n in range(10_000)]})
    store.add_agent("topic", {"name": "wordy", "description": long})
    store.save_config(long[:1000], long)
    for path in PAGES.values():
        assert len(viewer_client.get(f"/prod/{path}").content) < 300_000
    detail = viewer_client.get(f"/prod/agents/{ref('topic', 'many')}/")
    assert "10,000 tools, show more" in text_of(detail)
    assert len(detail.content) < 300_000


def test_keys_of_the_wrong_type_are_listed_by_key_with_the_reason(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    store.add_agent("topic", {"name": "agent"})
    client_of_redis.lpush("omni:config:list", "x")
    client_of_redis.set("omni:agents:topic:other", "x")
    client_of_redis.sadd("omni:topics", "other")
    client_of_redis.set("omni:metrics:stream", "x")
    for path in PAGES.values():
        assert viewer_client.get(f"/prod/{path}").status_code in (200, 503), path
    assert viewer_client.get("/prod/agents/").status_code == 200
    said = text_of(viewer_client.get("/prod/storage/"))
    assert "omni:config:list" in said
    assert "expected string, is list" in said
    assert "omni:agents:topic:other" in said
    assert "omni:metrics:stream" in said


def test_a_metrics_key_of_the_wrong_type_is_said_and_is_not_a_store_without_events(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    store.add_agent("topic", {"name": "agent"})
    client_of_redis.set("omni:metrics:stream", "x")
    reason = "omni:metrics:stream: expected stream, is string"
    for known in (False, True):
        for path in ("metrics/", "metrics/numbers", "metrics/points", "errors/"):
            if known and path.endswith("points"):
                continue  # the charts stand still
            response = viewer_client.get(f"/prod/{path}")
            assert response.status_code == 503, path
            assert reason in text_of(response)
        for path in ("", "agents/", f"agents/{ref('topic', 'agent')}/"):
            response = viewer_client.get(f"/prod/{path}")
            assert response.status_code == 200, path
            assert reason in text_of(response)
        assert store.get_metrics() == []
        client_of_redis.delete("omni:metrics:stream")
        store.save_metric({"event": "task_received", "timestamp": time.time()})
        assert viewer_client.get("/prod/metrics/").status_code == 200
        client_of_redis.delete("omni:metrics:stream")
        client_of_redis.set("omni:metrics:stream", "x")
        registry()["prod"].history._read_at = -math.inf


@pytest.mark.parametrize(
    "deep",
    ["[" * 600 + "]" * 600, "[" * 1000 + "]" * 1000, '{"a":' * 1000 + "NaN" + "}" * 1000],
    ids=["600 lists", "1,000 lists", "1,000 objects with NaN"],
)
def test_what_is_nested_deep_breaks_no_page(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store, deep: str
) -> None:
    store.add_agent("topic", {"name": "agent"})
    client_of_redis.hset("omni:agent:topic:agent", mapping={"tools": f"[{deep}]", "config": "{}"})
    client_of_redis.set("omni:config:deep", deep)
    client_of_redis.set("omni:config:_omnidaemon_start_time", deep)
    client_of_redis.set("omni:config:_supervisor_registry", deep)
    put_result(client_of_redis, "r", '{"task_id": "r", "result": {"source": ' + deep + "}}")
    event = '{"event": "task_failed", "error": ' + deep + ', "saved_at": ' + deep + "}"
    client_of_redis.xadd("omni:metrics:stream", {"data": event})
    paths = [*PAGES.values(), f"agents/{ref('topic', 'agent')}/", f"results/{ref('r')}/"]
    for path in paths * 2:
        assert viewer_client.get(f"/prod/{path}").status_code == 200, path


def test_impossible_durations_and_expiries_break_no_page(
    viewer_client: Client, client_of_redis: redis.Redis, store: Store
) -> None:
    for seconds in (1e308, 1e308, 1e10, -1.0, 0.5):
        store.save_metric({"event": "task_processed", "topic": "t", "agent": "a",
                           "timestamp": time.time(), "processing_time_sec": seconds})  # fmt: skip
    store.save_result("late", 1, 10**11)
    client_of_redis.pexpireat("omni:result:late", 10**17)
    for path in [*PAGES.values(), f"results/{ref('late')}/"]:
        assert viewer_client.get(f"/prod/{path}").status_code == 200, path
    assert "500 ms" in text_of(viewer_client.get("/prod/metrics/"))
    assert "after the year 2100" in text_of(viewer_client.get("/prod/results/"))


def test_deep_values_in_json_files_break_no_page(viewer_client: Client, tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    (tmp_path / "agents.json").write_text('{"t": [{"name": "a", "tools": [' + deep + "]}]}")
    (tmp_path / "config.json").write_text('{"deep": ' + deep + ', "n": NaN}')
    (tmp_path / "results.json").write_text('{"r": {"task_id": "r", "result": ' + deep + "}}")
    (tmp_path / "metrics.json").write_text('[{"event": "x", "saved_at": ' + deep + "}]")
    with serving(prod=f"json://{tmp_path}"):
        paths = [*PAGES.values(), f"agents/{ref('t', 'a')}/", f"results/{ref('r')}/"]
        for path in paths * 2:
            assert viewer_client.get(f"/prod/{path}").status_code == 200, path
