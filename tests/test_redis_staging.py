"""A whole Redis store changed at once: all of it or nothing, whatever fails in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import open_store
from storage.base import StoreChanged, StoreError
from storage.changes import EXPIRED, Kind, Names, Record
from storage.redis_store import RedisStore, staging
from storage.redis_store.changing import UNFIT
from storage.redis_store.scratch import FUTURE, UNORDERED, UNSCORED
from tests.redis_stores import (
    all_records,
    fill_with_anything,
    held,
    make_it,
    new_token,
    put_all,
    staged_keys,
    wipe,
)
from tests.servers import RedisServer
from tests.stores import RedisBackend, settled
from tests.test_redis_store import NEIGHBOURS, fill, fill_oddly

pytest_plugins = ["tests.store_fixtures"]

Deleted = list[tuple[Kind, Names]]


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    found = redis_backend.open()
    assert isinstance(found, RedisStore)
    return found


@pytest.fixture
def raw(redis_backend: RedisBackend) -> redis.Redis:
    return redis_backend.client


def ordered(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda one: (one.kind, one.names))


# Identity


def test_omnidaemons_own_data_comes_back_as_it_was(redis_fixture: RedisBackend):
    raw, store = redis_fixture.client, redis_fixture.open()
    before, records = held(redis_fixture), all_records(store)
    wipe(raw)
    assert make_it(store, records) == []
    assert held(redis_fixture) == before


def test_what_omnidaemon_would_never_write_comes_back_as_it_was(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill_with_anything(raw)
    before, records = held(redis_backend), all_records(store)
    wipe(raw)
    assert make_it(store, records) == []
    assert held(redis_backend) == before
    assert make_it(store, records) == []  # nor does anything change where nothing differs
    assert held(redis_backend) == before


@pytest.mark.parametrize("key", ["topics", "results:index", "metrics:stream"])
def test_an_index_of_another_type_comes_back_and_goes_again(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis, key: str
):
    fill_with_anything(raw)
    raw.delete("omni:agents:topic:odd")  # nothing would tell any more that it is a topic
    whole, sound = held(redis_backend), all_records(store)
    raw.delete(f"omni:{key}")
    raw.rpush(f"omni:{key}", "x")
    broken, records = held(redis_backend), all_records(store)
    wipe(raw)
    assert make_it(store, records) == []
    assert held(redis_backend) == broken
    assert make_it(store, sound) == []
    assert held(redis_backend) == whole


def test_an_empty_store_replaces_everything(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill_with_anything(raw)
    raw.set("other", 1)
    make_it(store, [])
    assert set(held(redis_backend)) == {b"other"}


def test_a_store_is_replaced_by_a_different_one(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill(store)
    other = held(redis_backend)
    records = all_records(store)
    wipe(raw)
    fill_with_anything(raw)
    make_it(store, records)
    assert held(redis_backend) == other


NAMES = st.sampled_from(["", "a", "b", "a:b", "b:a", ":"])
AGENTS = st.tuples(st.just("agent"), NAMES, NAMES)
WRITES = st.lists(st.one_of(
    AGENTS,
    st.tuples(st.sampled_from(["member", "hash"]), NAMES, NAMES),
    st.tuples(st.sampled_from(["topic", "set", "result", "loose", "entry", "config"]), NAMES,
              st.binary(max_size=3)),
    st.tuples(st.just("event"), st.integers(1, 9), st.binary(max_size=3)),
), max_size=14)  # fmt: skip


def write(raw: redis.Redis, one: tuple[str, Any, Any]) -> None:
    kind, name, value = one
    if kind in ("agent", "hash"):
        raw.hset(f"omni:agent:{name}:{value}", mapping={"topic": name, "name": value, "x": kind})
    if kind in ("agent", "member"):
        raw.sadd(f"omni:agents:topic:{name}", value)
    if kind in ("agent", "member", "topic"):
        raw.sadd("omni:topics", name)
    if kind == "set":
        raw.sadd(f"omni:agents:topic:{name}", value)
    if kind in ("result", "loose"):
        raw.set(f"omni:result:{name}", value, px=10_000_000 if value else None)
    if kind in ("result", "entry"):
        raw.zadd("omni:results:index", {name: len(value) / 3})
    if kind == "config":
        raw.set(f"omni:config:{name}", value)
    if kind == "event":
        raw.xadd("omni:metrics:stream", {"data": value}, id=f"{name}-*")


def write_all(raw: redis.Redis, writes: list[tuple[str, Any, Any]]) -> None:
    events = sorted(one for one in writes if one[0] == "event")
    for one in [one for one in writes if one[0] != "event"] + events:
        write(raw, one)


@settings(max_examples=60)
@given(WRITES, WRITES)
def test_any_store_becomes_any_other(
    redis_server: str, first: list[tuple[str, Any, Any]], second: list[tuple[str, Any, Any]]
):
    backend = RedisBackend(redis_server)
    backend.client.flushdb()
    write_all(backend.client, first)
    store = backend.open()
    wanted, records = held(backend), all_records(store)
    backend.client.flushdb()
    write_all(backend.client, second)
    before = all_records(store)
    assert make_it(store, records) == []
    assert held(backend) == wanted
    make_it(store, before)
    assert ordered(all_records(store)) == ordered(before)
    backend.close()


# What is touched, and what is not


@pytest.mark.parametrize("neighbour", [*NEIGHBOURS, "omni2", "*"])
def test_a_store_whose_prefix_begins_with_ours_stays_as_it_is(
    redis_url: str, redis_backend: RedisBackend, store: RedisStore, neighbour: str
):
    other = open_store(f"{redis_url}?prefix={neighbour}")
    fill(other)
    fill_oddly(redis_backend.client, neighbour)
    before = held(redis_backend)
    fill(store)
    records = all_records(store)
    make_it(store, [])
    assert held(redis_backend) == before
    make_it(store, records)
    make_it(store, [])
    assert held(redis_backend) == before


def test_configuration_that_may_be_anothers_is_not_deleted(store: RedisStore, raw: redis.Redis):
    store.save_config("eu:config:key", 1)
    make_it(store, [])
    assert raw.keys("omni:*") == [b"omni:config:eu:config:key"]


def test_what_is_neither_put_nor_deleted_stays(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill_with_anything(raw)
    before = held(redis_backend)
    with store.stage(new_token()) as change:
        change.put([Record("result", ("new",), b"{}", score="5")])
        change.commit([("result", ("r0",)), ("entry", ("gone",))], keep_events=True)
    after = held(redis_backend)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {b"omni:result:new", b"omni:result:r0", b"omni:results:index"}
    assert raw.zscore("omni:results:index", "new") == 5
    assert (
        raw.zscore("omni:results:index", "r0") is raw.zscore("omni:results:index", "gone") is None
    )


def test_a_change_of_nothing_changes_nothing(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill_with_anything(raw)
    before = redis_backend.photograph()
    token = new_token()
    with store.stage(token) as change:
        change.commit([], keep_events=True)
    raw.delete(f"omnidash:restore:done:{token}")
    assert redis_backend.photograph() == before


def test_of_two_agents_that_share_a_record_one_can_go(store: RedisStore, raw: redis.Redis):
    fill_with_anything(raw)
    with store.stage(new_token()) as change:
        change.commit([("agent", ("a:b", "c"))], keep_events=True)
    assert raw.hget("omni:agent:a:b:c", "name") == b"b:c"
    assert not raw.exists("omni:agents:topic:a:b")
    assert not raw.sismember("omni:topics", "a:b")
    with store.stage(new_token()) as change:
        change.commit([("agent", ("a", "b:c"))], keep_events=True)
    assert not raw.exists("omni:agent:a:b:c")


def test_a_result_without_a_place_in_the_index_gets_none(store: RedisStore, raw: redis.Redis):
    raw.zadd("omni:results:index", {"x": 1})
    with store.stage(new_token()) as change:
        change.put([Record("result", ("x",), b"1")])
        change.commit([], keep_events=True)
    assert raw.get("omni:result:x") == b"1"
    assert not raw.exists("omni:results:index")


def test_pages_show_the_new_store_at_once(store: RedisStore):
    fill(store)
    records = all_records(store)
    make_it(store, [])
    assert (settled(store).results, settled(store).agents) == (0, 0)
    make_it(store, records)
    assert (settled(store).results, settled(store).agents) == (1, 1)


# Metrics


def event(name: str, data: bytes = b"{}") -> Record:
    return Record("metrics", (name,), data, stream_id=name)


def ids(raw: redis.Redis) -> list[str]:
    return [name.decode() for name, _ in raw.xrange("omni:metrics:stream")]


def test_events_stand_between_those_that_are_there(store: RedisStore, raw: redis.Redis):
    for name in ("2-0", "4-0", "6-0"):
        raw.xadd("omni:metrics:stream", {"data": "old"}, id=name)
    raw.xdel("omni:metrics:stream", "6-0")
    with store.stage(new_token()) as change:
        change.put([event("1-0"), event("3-5")])
        change.put([event("4-0", b"new"), event("5-0")])
        change.commit([], keep_events=True)
    assert ids(raw) == ["1-0", "2-0", "3-5", "4-0", "5-0"]
    assert raw.xrange("omni:metrics:stream", "4-0", "4-0")[0][1] == {b"data": b"new"}
    assert raw.xinfo_stream("omni:metrics:stream")["last-generated-id"] == b"6-0"
    assert raw.ttl("omni:metrics:stream") == -1


def test_events_stand_in_the_place_of_all(store: RedisStore, raw: redis.Redis):
    raw.xadd("omni:metrics:stream", {"data": "old"}, id="5-0")
    with store.stage(new_token()) as change:
        change.put([event("1-0")])
        change.commit([], keep_events=False)
    assert ids(raw) == ["1-0"]
    assert raw.xinfo_stream("omni:metrics:stream")["last-generated-id"] == b"5-0"


def test_after_a_restore_events_can_be_stored_even_if_the_last_id_lay_in_the_future(
    store: RedisStore, raw: redis.Redis
):
    raw.xadd("omni:metrics:stream", {"data": "old"}, id=f"{2**64 - 1}-{2**64 - 1}")
    with pytest.raises(redis.ResponseError):
        raw.xadd("omni:metrics:stream", {"data": "new"})
    with store.stage(new_token()) as change:
        change.put([event("1-0")])
        change.commit([], keep_events=False)
    store.save_metric({"event": "task_received"})
    assert len(ids(raw)) == 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{2**53}-0", FUTURE), (f"{2**64}-0", UNFIT), ("0-0", UNFIT), ("x", UNFIT), ("5-x", UNFIT),
        ("-5", UNFIT), ("²-0", UNFIT), ("", UNFIT), ("3-0", UNORDERED), ("2-9", UNORDERED),
    ],
)  # fmt: skip
def test_an_event_whose_id_would_do_harm_is_skipped(
    store: RedisStore, raw: redis.Redis, name: str, why: str
):
    with store.stage(new_token()) as change:
        change.put([event("3-0")])
        assert change.put([event(name)]).skipped == [((name,), why)]
        assert change.put([event("4-0")]).done == 1
        change.commit([], keep_events=True)
    assert ids(raw) == ["3-0", "4-0"]


def test_a_stream_that_a_group_reads_is_left_alone(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    raw.xgroup_create("omni:metrics:stream", "group", mkstream=True)
    before = held(redis_backend)
    with store.stage(new_token()) as change:
        change.put([event("1-0")])
        with pytest.raises(StoreError, match="consumer group"):
            change.commit([], keep_events=False)
    assert held(redis_backend) == before


# What cannot be stored


def test_what_has_expired_is_skipped(store: RedisStore, raw: redis.Redis):
    now = round(time.time() * 1000)
    with store.stage(new_token()) as change:
        put = change.put([
            Record("result", ("old",), b"1", expires_at_ms=now - 1, score="1"),
            Record("result", ("never",), b"1", expires_at_ms=-(2**62), score="1"),
            Record("result", ("new",), b"1", expires_at_ms=now + 3_600_000, score="1"),
        ])  # fmt: skip
        change.commit([], keep_events=True)
    assert put.skipped == [(("old",), EXPIRED), (("never",), EXPIRED)]
    assert put.done == 1
    assert raw.zrange("omni:results:index", 0, -1) == [b"new"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record("result", ("x",), b"1", score="nan"), UNSCORED),
        (Record("result", ("x",), b"1", score=""), UNSCORED),
        (Record("entry", ("x",), form="none", score="high"), UNSCORED),
        (Record("config", ("x",), b"1", score="1"), UNFIT),
        (Record("agent", ("t", "x"), b'[["YQ=="]]', "hash"), UNFIT),
        (Record("agent", ("t", "x"), b'[["YQ==", "YQ==", "YQ=="]]', "hash"), UNFIT),
        (Record("result", ("x",), b"1", expires_at_ms=2**62), UNFIT),
        (Record("result", ("x",), b"no dump", "dump"), UNFIT),
        (Record("result", ("x", "y"), b"1"), UNFIT),
        (Record("result", ("x",), b"[]", "hash"), UNFIT),
        (Record("agent", ("t", "x"), b"[]", "hash"), UNFIT),
        (Record("agent", ("t", "x"), b"[[1]]", "hash"), UNFIT),
        (Record("agent", ("t", "x"), b"{}", "text"), UNFIT),
        (Record("agent", ("t",), b'[["", ""]]', "hash"), UNFIT),
        (Record("agent", (), b"x", "dump"), UNFIT),
        (Record("entry", (), form="none", score="1"), UNFIT),
        (Record("topic", (), form="none"), UNFIT),
        (Record("file", ("x",), b"1"), UNFIT),
    ],
)  # fmt: skip
def test_a_record_that_is_no_such_thing_is_skipped(
    store: RedisStore, redis_backend: RedisBackend, record: Record, why: str
):
    sound = replace(event("1-0"), kind="config", names=("sound",), stream_id=None)
    with store.stage(new_token()) as change:
        assert change.put([record]).skipped == [(record.names, why)]
        change.put([sound])
        change.commit([], keep_events=True)
    assert set(held(redis_backend)) == {b"omni:config:sound"}


def test_more_than_one_transaction_can_hold_is_refused(
    store: RedisStore, redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
):
    fill(store)
    records, before = all_records(store), held(redis_backend)
    monkeypatch.setattr(staging, "MOST_COMMANDS", 5)
    with store.stage(new_token()) as change:
        put_all(change, records)
        with pytest.raises(StoreError, match="all or nothing"):
            change.commit([], keep_events=False)
    assert held(redis_backend) == before


def test_the_user_that_the_documentation_names_may_do_all_of_it(server: RedisServer):
    backend = RedisBackend(server.url)
    fill_with_anything(backend.client)
    records, before = all_records(backend.open()), held(backend)
    wipe(backend.client)
    rights = (
        "~omni:* ~omnidash:restore:* %R~omni-stream:*"
        " +@read +@write +@connection +@transaction +info +time"
    )
    backend.client.execute_command("ACL", "SETUSER", "ada", "on", ">p", *rights.split())
    store, token = open_store(server.url.replace("redis://", "redis://ada:p@")), new_token()
    assert make_it(store, records, token) == []
    assert held(backend) == before
    assert ordered(all_records(store)) == ordered(records)
    assert store.committed(token) is True
    backend.close()


# A trial


def test_a_trial_holds_what_was_put_and_touches_nothing(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill_with_anything(raw)
    records = all_records(store)
    wipe(raw)
    fill(store)
    before = redis_backend.photograph()
    with store.stage(new_token(), trial=True) as change:
        put_all(change, records)
        assert ordered(one for batch in change.staged() for one in batch) == ordered(records)
        assert all(0 < raw.ttl(key) <= 3600 for key in raw.scan_iter("omnidash:*"))
        with pytest.raises(ValueError, match="never committed"):
            change.commit([], keep_events=True)
    assert redis_backend.photograph() == before


def test_what_is_staged_for_a_change_can_be_read_back(store: RedisStore, redis_fixture):
    records = all_records(store)
    with store.stage(new_token()) as change:
        put_all(change, records)
        assert ordered(one for batch in change.staged() for one in batch) == ordered(records)


# Somebody else

MEANWHILE: dict[str, Callable[[RedisStore, redis.Redis], object]] = {
    "a result is saved": lambda store, raw: store.save_result("late", 1, 60),
    "a result is saved again": lambda store, raw: store.save_result("task", 1, 60),
    "a result is deleted": lambda store, raw: store.delete_result("task"),
    "an agent comes": lambda store, raw: store.add_agent("topic", {"name": "late"}),
    "an agent comes again": lambda store, raw: store.add_agent("topic", {"name": "agent"}),
    "an agent goes": lambda store, raw: store.delete_agent("topic", "agent"),
    "a topic comes": lambda store, raw: store.add_agent("late", {"name": "late"}),
    "a topic comes unlisted": lambda store, raw: raw.sadd("omni:agents:topic:new", "x"),
    "a topic goes": lambda store, raw: store.delete_topic("topic"),
    "an event is stored": lambda store, raw: store.save_metric({"event": "late"}),
    "a setting changes": lambda store, raw: store.save_config("key", "later"),
    "a setting goes": lambda store, raw: raw.delete("omni:config:key"),
    "a setting comes that is to be restored": lambda store, raw: store.save_config("new", 2),
    "the store is emptied": lambda store, raw: store.clear_all(),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("before_put", [True, False])
def test_a_change_by_somebody_else_stops_it(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis, meanwhile: str,
    before_put: bool,
):  # fmt: skip
    fill(store)
    token = new_token()
    records = [*all_records(store), Record("config", ("new",), b"1")]
    records.insert(0, Record("agent", ("new", "x"), b'[["", ""]]', "hash"))
    theirs = redis_backend.open()
    assert isinstance(theirs, RedisStore)
    with store.stage(token) as change:
        if before_put:
            MEANWHILE[meanwhile](theirs, raw)
        put_all(change, [one for one in records if one.kind != "metrics"])
        if not before_put:
            MEANWHILE[meanwhile](theirs, raw)
        after = {key: one for key, one in held(redis_backend).items() if key.startswith(b"omni:")}
        with pytest.raises(StoreChanged):
            change.commit([("result", ("task",))], keep_events=True)
    assert held(redis_backend) == after
    assert store.committed(token) is False


def test_a_writer_whose_change_was_given_up_cannot_make_it_any_more(
    store: RedisStore, redis_backend: RedisBackend
):
    fill(store)
    before, token = held(redis_backend), new_token()
    with store.stage(token) as change:
        change.put([Record("result", ("new",), b"1", score="1")])
        assert store.committed(token) is False
        with pytest.raises(StoreError):
            change.commit([], keep_events=True)
    assert held(redis_backend) == before
    assert store.committed(token) is False


def test_it_is_known_for_a_day_whether_a_change_was_made(store: RedisStore, raw: redis.Redis):
    token = new_token()
    assert store.committed(token) is None
    with store.stage(token) as change:
        change.put([Record("config", ("x",), b"1")])
        change.commit([], keep_events=True)
    assert store.committed(token) is True
    assert store.committed(token) is True
    assert 86_000 < raw.ttl(f"omnidash:restore:done:{token}") <= 86_400
    assert staged_keys(raw) == []


@pytest.mark.parametrize("token", ["", "x", "A" * 32, "0" * 31 + "*", "0" * 33])
def test_a_token_is_hexadecimal(store: RedisStore, token: str):
    with pytest.raises(ValueError, match="hexadecimal"):
        store.committed(token)
    with pytest.raises(ValueError, match="hexadecimal"):
        store.stage(token)
