"""A snapshot of a whole Redis store: all of it, nothing of anybody else's, and no harm done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import groupby

import pytest
import redis

from storage import open_store
from storage.base import StoreError
from storage.changes import Record
from storage.redis_store import RedisStore, agent_reading, snapshot
from storage.redis_store.stored import unpack_fields
from tests.redis_stores import all_records, fill_with_anything, named
from tests.servers import RedisServer
from tests.stores import RedisBackend
from tests.test_redis_store import NEIGHBOURS, fill, fill_oddly

pytest_plugins = ["tests.store_fixtures"]

ORDER = ["agent", "member", "hash", "topic", "result", "entry", "metrics", "config"]
READS = {
    "SCAN", "SSCAN", "ZSCAN", "SMEMBERS", "SRANDMEMBER", "SISMEMBER", "HGETALL", "HMGET", "MEMORY",
    "GETRANGE", "STRLEN", "PEXPIRETIME", "ZMSCORE", "ZCARD", "XLEN", "XRANGE", "XREVRANGE", "DUMP",
    "EXISTS", "TYPE", "MULTI", "EXEC", "WATCH", "SELECT",
}  # fmt: skip


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    found = redis_backend.open()
    assert isinstance(found, RedisStore)
    return found


@pytest.fixture
def raw(redis_backend: RedisBackend) -> redis.Redis:
    return redis_backend.client


def consistency(store: RedisStore) -> dict[str, str]:
    found = store.snapshot()
    for _ in found:
        pass
    return {section.kind: section.consistency for section in found.sections()}


# What is in it


def test_an_empty_store_has_no_record_and_a_section_for_each_kind(store: RedisStore):
    found = store.snapshot()
    assert list(found) == []
    assert [section.kind for section in found.sections()] == ORDER


def test_omnidaemons_own_data_is_all_in_it(redis_fixture: RedisBackend):
    raw, store = redis_fixture.client, redis_fixture.open()
    records = all_records(store)
    kinds = [kind for kind, _ in groupby(record.kind for record in records)]
    assert kinds == [kind for kind in ORDER if kind in kinds]
    found = named(records)
    assert len(found["agent"]) == 18
    assert len(found["result"]) == 3206
    assert len(found["entry"]) == 3
    assert len(found["metrics"]) == 8160
    for record in records:
        if record.kind == "result":
            assert raw.get(b"omni:result:" + record.names[0].encode()) == record.raw
    ids = [record.stream_id for record in records if record.kind == "metrics"]
    assert ids == [name.decode() for name, _ in raw.xrange("omni:metrics:stream")]


def test_what_omnidaemon_would_never_write_is_in_it_too(store: RedisStore, raw: redis.Redis):
    fill_with_anything(raw)
    found = named(all_records(store))
    assert len(found.pop("metrics")) == 6
    assert found == {
        "agent": [
            ("", ""), ("a", "b:c"), ("a:b", "c"), ("t", "list"), ("t", "plain"),
            ("unlisted", "stray"), ("\udcff\0", "\udcfe\r\n"),
        ],
        "member": [("t", "phantom"), ("unlisted", "ghost")],
        "hash": [("t", "orphan"), ("t", "string"), ("who", "knows")],
        "topic": [("empty",), ("odd",), ("unlisted",)],
        "result": sorted((name,) for name in (
            "", "r0", "r1", "r2", "r3", "r4", "loose", "list", "\udc80\udcff"
        )),
        "entry": [("gone",), ("gone too",)],
        "config": [("",), ("big",), ("key",), ("set",), ("supervisor:x",)],
    }  # fmt: skip


def test_values_expiries_and_scores_are_as_they_are_stored(store: RedisStore, raw: redis.Redis):
    fill_with_anything(raw)
    for record in all_records(store):
        if record.kind not in ("result", "config"):
            continue
        name = record.names[0].encode("utf-8", "surrogateescape")
        key = f"omni:{record.kind}:".encode() + name
        stored = raw.dump(key) if record.form == "dump" else raw.get(key)
        assert record.raw == stored
        expires = raw.execute_command("PEXPIRETIME", key)
        assert record.expires_at_ms == (expires if expires > 0 else None)
        if record.kind == "result":
            score = raw.zscore("omni:results:index", name)
            assert score == (None if record.score is None else float(record.score))


@pytest.mark.parametrize("size", [0, 16_383, 16_384, 16_385, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_a_value_of_any_size_is_whole(store: RedisStore, raw: redis.Redis, size: int):
    raw.set("omni:result:x", bytes(range(256)) * (size // 256) + b"!" * (size % 256))
    assert [record.raw for record in all_records(store)] == [raw.get("omni:result:x")]


@pytest.mark.parametrize(
    ("key", "kind"),
    [("topics", "topic"), ("results:index", "entry"), ("metrics:stream", "metrics")],
)
def test_what_lies_in_the_place_of_an_index_has_no_names(
    store: RedisStore, raw: redis.Redis, key: str, kind: str
):
    fill(store)
    raw.delete(f"omni:{key}")
    raw.rpush(f"omni:{key}", "x")
    odd = [record for record in all_records(store) if record.names == ()]
    assert odd == [Record(kind, (), raw.dump(f"omni:{key}"), "dump")]
    found = named(all_records(store))
    assert found["agent"] == [("topic", "agent")]
    assert found["result"] == [("task",)]


# What is not


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_nothing_of_a_store_whose_prefix_begins_with_ours_is_in_it(
    redis_url: str, redis_backend: RedisBackend, store: RedisStore, neighbour: str
):
    fill(store)
    alone = all_records(store)
    other = open_store(f"{redis_url}?prefix={neighbour}")
    fill(other)
    fill_oddly(redis_backend.client, neighbour)
    other.close()
    assert all_records(store) == alone


def test_a_prefix_is_no_pattern(redis_url: str, redis_backend: RedisBackend):
    other = open_store(f"{redis_url}?prefix=p1x")
    fill(other)
    assert all_records(open_store(f"{redis_url}?prefix=p[1]*")) == []


# While others write


def test_a_value_and_its_expiry_are_of_one_moment_while_others_write(
    store: RedisStore, redis_url: str
):
    """Each value says when it expires."""
    base, stop = round(time.time() * 1000) + 3_600_000, threading.Event()
    begun = threading.Event()

    def write() -> None:
        with redis.Redis.from_url(redis_url) as client:
            number = 0
            while not stop.is_set():
                pipe = client.pipeline(transaction=False)
                for one in range(100):
                    number += 1
                    filler = b" " * (20_000 if one == 50 else 100)
                    pipe.set(f"omni:result:{one}", b"%d" % (base + number) + filler,
                             pxat=base + number)  # fmt: skip
                    pipe.hset("omni:agent:t:a", mapping={"one": number, "two": number})
                pipe.sadd("omni:agents:topic:t", "a")
                pipe.sadd("omni:topics", "t")
                pipe.execute()
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(60)
        for _ in range(10):
            records = all_records(store)
            for record in records:
                if record.kind == "result":
                    assert int(record.raw) == record.expires_at_ms
                else:
                    assert record.kind == "agent"
                    _, one, _, two = unpack_fields(record.raw)
                    assert one == two
            assert len(records) == 101
    finally:
        stop.set()
        writer.join()


def test_events_are_those_that_were_there_in_the_beginning(store: RedisStore, raw: redis.Redis):
    for number in range(1, 301):
        raw.xadd("omni:metrics:stream", {"data": "x"}, id=f"{number}-0")
    found = store.snapshot()
    events = 0
    for batch in found:
        events += len(batch)
        raw.xadd("omni:metrics:stream", {"data": "later"})
    assert events == 300
    assert _section(found.sections(), "metrics") == "point-in-time"


def test_events_that_are_trimmed_meanwhile_make_it_fuzzy(store: RedisStore, raw: redis.Redis):
    for number in range(1, 301):
        raw.xadd("omni:metrics:stream", {"data": "x"}, id=f"{number}-0")
    found = store.snapshot()
    for _ in found:
        raw.xtrim("omni:metrics:stream", maxlen=50, approximate=False)
    assert _section(found.sections(), "metrics") == "fuzzy"


def _section(sections: list, kind: str) -> str:
    return next(section.consistency for section in sections if section.kind == kind)


def test_agents_are_as_of_one_moment_unless_there_are_too_many(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    fill_with_anything(raw)
    raw.delete("omni:agents:topic:odd", "omni:agent:t:list", "omni:agent:t:string")
    together = all_records(store)
    assert consistency(store)["agent"] == "point-in-time"
    monkeypatch.setattr(agent_reading, "_TOGETHER", 3)
    monkeypatch.setattr(agent_reading, "_READ", 2)
    assert all_records(store) == together
    assert consistency(store)["agent"] == "fuzzy"


def test_results_that_a_walk_names_twice_are_in_it_once(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    fill_with_anything(raw)
    before = all_records(store)
    walk = snapshot.walk

    def again(client: object, head: bytes) -> Iterator[list[bytes]]:
        for keys in walk(client, head):
            yield keys + keys
        yield keys

    monkeypatch.setattr(snapshot, "walk", again)
    assert all_records(store) == before


def test_results_that_only_the_index_tells_of_are_in_it(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    """As those that were saved behind a walk's back."""
    raw.set("omni:result:new", "{}")
    raw.zadd("omni:results:index", {"new": 1})
    monkeypatch.setattr(snapshot, "walk", lambda client, head: iter(()))
    assert all_records(store) == [Record("result", ("new",), b"{}", score="1.0")]


def test_an_older_redis_without_the_newer_commands_is_read_too(server: RedisServer):
    """Redis 6.0 has neither."""
    server.stop()
    server.start(
        *(part for name in ("PEXPIRETIME", "ZMSCORE") for part in ("--rename-command", name, ""))
    )
    fill_with_anything(server.client())
    store = open_store(server.url)
    assert isinstance(store, RedisStore)
    found = [record for record in all_records(store) if record.kind == "result"]
    ids = [record.names[0].encode("utf-8", "surrogateescape") for record in found]
    scores = [server.client().zscore("omni:results:index", one) for one in ids]
    assert any(scores)
    assert [one.score and float(one.score) for one in found] == scores
    store.close()


# No harm


def test_it_only_reads(store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis):
    fill_with_anything(raw)
    before, changes = redis_backend.photograph(), redis_backend.changes()
    with redis.Redis.from_url(redis_backend.server) as client, client.monitor() as monitor:
        records = all_records(store)
        raw.echo("end")
        seen = set()
        while (command := monitor.next_command()["command"]) != "ECHO end":
            seen.add(command.partition(" ")[0].upper())
    assert records
    assert seen <= READS
    assert redis_backend.changes() == changes
    assert redis_backend.photograph() == before


def test_a_user_that_may_only_read_can_take_it(server: RedisServer):
    raw = server.client()
    fill_with_anything(raw)
    rights = ["+@read", "+@connection", "+multi", "+exec", "+info", "~omni:*", "on", ">p"]
    raw.execute_command("ACL", "SETUSER", "reader", *rights)
    mine = open_store(server.url)
    theirs = open_store(server.url.replace("redis://", "redis://reader:p@"))
    assert all_records(theirs) == all_records(mine)


def test_a_server_whose_memory_is_full_is_read_all_the_same(server: RedisServer):
    raw, store = server.client(), open_store(server.url)
    fill_with_anything(raw)
    before = all_records(store)
    raw.config_set("maxmemory", 1)
    assert all_records(store) == before
    assert _as_of(store) == "fuzzy"


def _as_of(store: object) -> str:
    assert isinstance(store, RedisStore)
    return consistency(store)["agent"]


def test_a_server_that_dies_meanwhile_fails_it(server: RedisServer):
    store = open_store(server.url)
    pipe = server.client().pipeline(transaction=False)
    for number in range(3000):
        pipe.set(f"omni:result:{number}", "{}")
    pipe.execute()
    batches = iter(store.snapshot())
    next(batches)
    server.stop()
    with pytest.raises(StoreError):
        for _ in batches:
            pass
