"""Changes of many records in Redis: what is deleted, what is left alone, and what comes back."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import redis

from storage import open_store
from storage.base import (
    ResultQuery,
    Store,
    StoreDenied,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from storage.changes import CHANGED, EXPIRED, GONE, SHARED, THERE, Change, Expiry, Record, Target
from storage.redis_store import RedisStore, events, metric_changes, result_changes, stored
from storage.redis_store.changing import FOREIGN, UNFIT
from storage.redis_store.result_shelf import Entry, Filter, Shelf
from tests.servers import RedisServer
from tests.stores import RedisBackend, settled
from tests.test_redis_store import NEIGHBOURS, fill, fill_oddly
from tests.upstream import Upstream

pytest_plugins = ["tests.store_fixtures"]

Kept = list[Record]
MEGABYTE = 1024 * 1024


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    found = redis_backend.open()
    assert isinstance(found, RedisStore)
    return found


@pytest.fixture
def raw(redis_backend: RedisBackend) -> redis.Redis:
    return redis_backend.client


def removed(store: Store, targets: Sequence[Target]) -> Kept:
    kept: Kept = []
    change = store.remove(targets, kept.extend)
    assert change == Change(done=len(targets), bytes=change.bytes)
    assert [record.names for record in kept] == [target.names for target in targets]
    return kept


def unkept(records: Sequence[Record]) -> None:
    pass


def loose(store: Store, kind: str) -> list[Target]:
    return [target for target in store.loose_ends() if target.kind == kind]


def all_targets(store: Store) -> dict[str, list[Target]]:
    """Everything that a change could mean, by kind."""
    settled(store)
    found: dict[str, list[Target]] = {
        "agent": store.agent_targets(),
        "result": store.result_targets(),
        "metrics": store.metric_targets(),
        "config": store.config_targets(store.config_keys().keys),
    }
    for target in store.loose_ends():
        found.setdefault(target.kind, []).append(target)
    return {kind: targets for kind, targets in found.items() if targets}


# Neighbours


@pytest.mark.parametrize("neighbour", [*NEIGHBOURS, "omni2", "omn?", "*"])
def test_no_change_touches_a_store_whose_prefix_begins_with_ours(
    redis_url: str, redis_backend: RedisBackend, store: RedisStore, neighbour: str
):
    other = open_store(f"{redis_url}?prefix={neighbour.replace('?', '%3F')}")
    fill(other)
    fill_oddly(redis_backend.client, neighbour)
    other.close()
    before = redis_backend.photograph()
    fill(store)
    fill_oddly(redis_backend.client, "omni")
    redis_backend.client.zadd("omni:results:index", {"orphan": 1})
    meant = all_targets(store)
    assert set(meant) == {"agent", "result", "metrics", "config", "entry", "member", "hash"}
    for kind in ("member", "hash", "entry", "agent", "result", "metrics", "config"):
        kept: Kept = []
        targets = [one for one in meant[kind] if kind != "agent" or one not in meant["member"]]
        change = store.remove(targets, kept.extend)
        assert {why for _, why in change.skipped} <= {FOREIGN, GONE}
    store.set_expiry(store.result_targets(), Expiry(more=60))
    redis_backend.client.delete("omni:metrics:stream")
    assert redis_backend.photograph() == before


def test_a_prefix_is_no_pattern(redis_url: str, redis_backend: RedisBackend):
    ours, other = open_store(f"{redis_url}?prefix=p[1]*"), open_store(f"{redis_url}?prefix=p1x")
    fill(other)
    fill_oddly(redis_backend.client, "p1x")
    before = redis_backend.photograph()
    fill(ours)
    fill_oddly(redis_backend.client, "p[1]*")
    for targets in all_targets(ours).values():
        ours.remove(targets, unkept)
    redis_backend.client.delete("p[1]*:metrics:stream")
    assert redis_backend.photograph() == before


def test_a_result_under_a_neighbours_key_must_prove_to_be_ours(store: RedisStore, raw: redis.Redis):
    raw.set("omni:result:eu:config:x", '{"task_id": "x", "result": 1}')
    raw.set("omni:result:eu:config:y", '{"task_id": "eu:config:y", "result": 1}')
    ours, theirs = "eu:config:y", "eu:config:x"
    targets = store.result_targets(task_ids=[ours, theirs])
    change = store.remove(targets, unkept)
    assert change.done == 1
    assert change.skipped == [((theirs,), FOREIGN)]
    assert raw.keys() == [b"omni:result:eu:config:x"]


def test_an_agents_record_under_a_neighbours_key_must_prove_to_be_ours(
    redis_url: str, store: RedisStore, raw: redis.Redis
):
    open_store(f"{redis_url}?prefix=omni:agent").add_agent("t", {"name": "n"})
    theirs = raw.dump("omni:agent:agent:t:n")
    raw.sadd("omni:topics", "agent")
    raw.sadd("omni:agents:topic:agent", "t:n")  # as if an agent of ours had that key
    (agent,) = store.agent_targets()
    assert store.remove([agent], unkept).skipped == [(("agent", "t:n"), FOREIGN)]
    raw.srem("omni:agents:topic:agent", "t:n")
    forged = replace(agent, kind="hash")
    assert store.remove([forged], unkept).skipped == [(("agent", "t:n"), FOREIGN)]
    assert raw.dump("omni:agent:agent:t:n") == theirs


def test_configuration_that_could_be_a_neighbours_is_left_and_the_preview_says_so(
    store: RedisStore, raw: redis.Redis
):
    store.save_config("eu:config:key", 1)
    (target,) = store.config_targets(["eu:config:key"])
    assert "another OmniDaemon" in target.note
    assert store.remove([target], unkept).skipped == [(target.names, FOREIGN)]
    assert store.replace_config("eu:config:key", b"2", target.mark).skipped
    assert store.replace_config("eu:config:new", b"2", None).skipped
    assert raw.get("omni:config:eu:config:key") == b"1"


# Agents


def test_agents_that_share_a_record_go_together_or_not_at_all(store: RedisStore, raw: redis.Redis):
    for topic, name in (("a:b", "c"), ("a", "b:c"), ("a", "other")):
        store.add_agent(topic, {"name": name})
    alone = store.agent_targets([("a", "b:c"), ("a", "other")])
    assert "c of topic a:b" in alone[0].note
    assert "it stays" in alone[0].note
    assert alone[1].note == ""
    kept: Kept = []
    change = store.remove(alone, kept.extend)
    assert change.done == 1
    assert change.skipped == [(("a", "b:c"), SHARED)]
    assert [record.names for record in kept] == [("a", "other")]
    together = store.agent_targets()
    assert all("deleted together" in target.note for target in together)
    before = raw.hgetall("omni:agent:a:b:c")
    kept = removed(store, together)
    assert raw.dbsize() == 0
    assert kept[0].raw == kept[1].raw
    for records in ([kept[0]], [kept[1]]):  # put back one after the other, they share again
        assert store.put_back(records) == Change(done=1)
    assert raw.hgetall("omni:agent:a:b:c") == before
    assert [target.names for target in store.agent_targets()] == [("a", "b:c"), ("a:b", "c")]


def test_an_agent_registered_meanwhile_that_shares_the_record_saves_it(
    store: RedisStore, raw: redis.Redis
):
    store.add_agent("a", {"name": "b:c"})
    target = store.agent_targets()

    def register(records: Sequence[Record]) -> None:
        if not raw.sismember("omni:topics", "a:b"):
            open_store_again(store).add_agent("a:b", {"name": "c"})

    assert store.remove(target, register).skipped == [(("a", "b:c"), CHANGED)]
    assert store.get_agent("a:b", "c") is not None


def open_store_again(store: RedisStore) -> RedisStore:
    return RedisStore(store._where)


def test_the_last_agent_takes_its_topic_along_and_brings_it_back(
    redis_backend: RedisBackend, store: RedisStore, raw: redis.Redis
):
    for name in ("one", "two", "three"):
        store.add_agent("topic", {"name": name, "tools": ["t"], "config": {"ü": 1}})
    raw.hset("omni:agent:topic:one", "extra\xff".encode("latin-1"), b"\x00\xff")
    raw.pexpireat("omni:agent:topic:one", 9_999_999_999_123)
    before = redis_backend.photograph()
    first, *rest = store.agent_targets()
    kept = removed(store, [first])
    assert raw.smembers("omni:topics") == {b"topic"}
    kept += removed(store, rest)
    assert raw.dbsize() == 0
    assert store.topics() == []
    assert store.put_back(kept) == Change(done=3)
    assert set(redis_backend.photograph()) == set(before)
    assert raw.hgetall("omni:agent:topic:one")[b"extra\xff"] == b"\x00\xff"
    assert raw.execute_command("PEXPIRETIME", "omni:agent:topic:one") == 9_999_999_999_123


def test_an_agent_of_the_wrong_type_or_without_a_record_is_deleted_and_put_back(
    store: RedisStore, raw: redis.Redis
):
    raw.sadd("omni:topics", "t")
    raw.sadd("omni:agents:topic:t", "phantom", "list")
    raw.rpush("omni:agent:t:list", "x", "y")
    kept = removed(store, store.agent_targets())
    assert [record.form for record in kept] == ["dump", "none"]
    assert raw.dbsize() == 0
    assert store.put_back(kept) == Change(done=2)
    assert raw.lrange("omni:agent:t:list", 0, -1) == [b"x", b"y"]
    assert raw.smembers("omni:agents:topic:t") == {b"phantom", b"list"}
    assert not raw.exists("omni:agent:t:phantom")


# Loose ends


def test_loose_ends_are_removed_only_while_they_are_loose(store: RedisStore, raw: redis.Redis):
    fill(store)
    raw.zadd("omni:results:index", {"orphan": 1.5, "back": 2})
    raw.sadd("omni:agents:topic:topic", "phantom", "returned")
    raw.sadd("omni:agents:topic:ghosts", "one")
    raw.sadd("omni:topics", "ghosts")
    for name in ("lost", "found"):
        raw.hset(f"omni:agent:topic:{name}", mapping={"topic": "topic", "name": name})
    assert sorted((one.kind, *one.names) for one in store.loose_ends()) == [
        ("entry", "back"), ("entry", "orphan"), ("hash", "topic", "found"),
        ("hash", "topic", "lost"), ("member", "ghosts", "one"), ("member", "topic", "phantom"),
        ("member", "topic", "returned"),
    ]  # fmt: skip
    entries, members, hashes = (loose(store, kind) for kind in ("entry", "member", "hash"))
    raw.set("omni:result:back", "{}")
    raw.hset("omni:agent:topic:returned", "name", "returned")
    raw.sadd("omni:agents:topic:topic", "found")
    assert store.remove(entries, unkept).skipped == [(("back",), CHANGED)]
    assert store.remove(members, unkept).skipped == [(("topic", "returned"), CHANGED)]
    assert store.remove(hashes, unkept).skipped == [(("topic", "found"), CHANGED)]
    assert raw.zrange("omni:results:index", 0, -1) == [b"back", b"task"]
    assert raw.smembers("omni:topics") == {b"topic"}
    assert raw.smembers("omni:agents:topic:topic") == {b"agent", b"returned", b"found"}
    assert not raw.exists("omni:agent:topic:lost", "omni:agents:topic:ghosts")
    assert store.loose_ends() == []
    gone = next(one for one in entries if one.names == ("orphan",))
    assert store.remove([gone], unkept).skipped == [(("orphan",), GONE)]


def test_loose_ends_come_back_as_they_were(redis_backend: RedisBackend, store: RedisStore):
    raw = redis_backend.client
    raw.zadd("omni:results:index", {"orphan": 1795596748.7444613})
    raw.sadd("omni:topics", "ghosts")
    raw.sadd("omni:agents:topic:ghosts", "one")
    raw.hset("omni:agent:topic:lost", mapping={"topic": "topic", "name": "lost"})
    before = redis_backend.photograph()
    kept = [removed(store, loose(store, kind)) for kind in ("entry", "member", "hash")]
    assert raw.dbsize() == 0
    for records in kept:
        assert store.put_back(records) == Change(done=1)
        assert store.put_back(records).skipped == [(records[0].names, THERE)]
    assert redis_backend.photograph() == before


def test_entries_of_twenty_thousand_lost_results_are_found_and_removed(
    store: RedisStore, raw: redis.Redis
):
    fill(store)
    raw.zadd("omni:results:index", {f"lost-{number}": number for number in range(20_000)})
    entries = loose(store, "entry")
    assert len(entries) == 20_000
    for start in range(0, len(entries), store.largest_change):
        store.remove(entries[start : start + store.largest_change], unkept)
    assert raw.zrange("omni:results:index", 0, -1) == [b"task"]
    assert settled(store).orphans == 0


# Results


def put_oddly(raw: redis.Redis) -> None:
    """One of each state that a result can be in."""
    raw.set("omni:result:raw", b"\xff{not json", pxat=9_999_999_999_123)
    raw.zadd("omni:results:index", {"raw": 1795596748.7444613})
    raw.set(
        "omni:result:loose", '{"task_id": "loose", "result": 1, "saved_at": 5.5}', px=77_777_777
    )
    raw.rpush("omni:result:list", "a", "b")
    raw.pexpireat("omni:result:list", 9_999_999_999_124)
    raw.zadd("omni:results:index", {"list": 2})
    raw.sadd("omni:result:loose set", "a")
    raw.set("omni:result:empty", "")
    raw.zadd("omni:results:index", {"empty": 1e300})


def test_results_of_every_state_are_meant_removed_and_put_back_exactly(
    redis_backend: RedisBackend, store: RedisStore
):
    raw = redis_backend.client
    put_oddly(raw)
    raw.set("omni:result:large", b"x" * (stored.PORTION + 1))
    raw.zadd("omni:results:index", {"large": 3})
    before = redis_backend.photograph()
    settled(store)
    targets = store.result_targets()
    assert {target.names[0] for target in targets} == {
        "raw", "loose", "list", "loose set", "empty", "large"
    }  # fmt: skip
    assert sorted(targets, key=str) == sorted(
        store.result_targets(task_ids=[target.names[0] for target in targets]), key=str
    )
    kept = removed(store, targets)
    assert raw.dbsize() == 0
    assert {record.names[0] for record in kept if record.form == "dump"} == {"list", "loose set"}
    assert store.put_back(kept) == Change(done=6)
    assert redis_backend.photograph() == before
    assert settled(store).results == 6
    assert removed(store, store.result_targets())


@pytest.mark.parametrize("size", [MEGABYTE, MEGABYTE + 1, 2 * stored.PORTION, 9_000_001])
def test_large_values_are_read_in_portions(store: RedisStore, raw: redis.Redis, size: int):
    value = os.urandom(size)
    raw.mset({"omni:result:one": value, "omni:result:two": value[::-1]})
    targets = store.result_targets(task_ids=["one", "two"])
    assert [target.size for target in targets] == [size, size]
    kept = removed(store, targets)
    assert [record.raw for record in kept] == [value, value[::-1]]


OTHERS: dict[str, Callable[[redis.Redis], Any]] = {
    "value": lambda raw: raw.set("omni:result:x", "other", keepttl=True),
    "one byte": lambda raw: raw.setrange("omni:result:x", 5, "X"),
    "longer": lambda raw: raw.append("omni:result:x", "X" * 100),
    "for ever": lambda raw: raw.persist("omni:result:x"),
    "expiry": lambda raw: raw.pexpireat("omni:result:x", 9_999_999_999_999),
    "type": lambda raw: (raw.delete("omni:result:x"), raw.rpush("omni:result:x", "a")),
}
UNWATCHED: dict[str, Callable[[redis.Redis], Any]] = {
    "score": lambda raw: raw.zincrby("omni:results:index", 0.001, "x"),
    "index": lambda raw: raw.zrem("omni:results:index", "x"),
}


def two_results(store: Store) -> list[Target]:
    for name in ("x", "y"):
        store.save_result(name, "text", 3600)
    settled(store)
    return store.result_targets(task_ids=["x", "y"])


@pytest.mark.parametrize("other", OTHERS | UNWATCHED)
def test_any_other_version_of_a_result_stays_until_it_is_seen(
    store: RedisStore, raw: redis.Redis, other: str
):
    targets = two_results(store)
    (OTHERS | UNWATCHED)[other](raw)
    kept: Kept = []
    change = store.remove(targets, kept.extend)
    assert (change.done, change.skipped) == (1, [(("x",), CHANGED)])
    assert [record.names for record in kept] == [("y",)]
    assert store.set_expiry(targets, Expiry()).skipped == [(("x",), CHANGED), (("y",), GONE)]
    (seen,) = store.result_targets()
    assert seen == store.result_targets(task_ids=["x"])[0]
    assert seen.mark != targets[0].mark
    assert removed(store, [seen])
    assert raw.dbsize() == 0


@pytest.mark.parametrize("other", OTHERS)
def test_a_result_that_changes_while_it_is_kept_stays(
    store: RedisStore, raw: redis.Redis, other: str
):
    targets = two_results(store)
    kept: Kept = []

    def keep(records: Sequence[Record]) -> None:
        kept[:] = records
        if len(records) == 2:
            OTHERS[other](raw)

    change = store.remove(targets, keep)
    assert (change.done, change.skipped) == (1, [(("x",), CHANGED)])
    assert [record.names for record in kept] == [("y",)], "the last that was kept is what went"
    assert raw.exists("omni:result:x", "omni:result:y") == 1


def test_a_result_put_back_keeps_the_place_that_it_has_meanwhile(
    store: RedisStore, raw: redis.Redis
):
    kept = removed(store, two_results(store))
    raw.zadd("omni:results:index", {"x": 5.5})
    assert store.put_back(kept) == Change(done=2)
    assert raw.zscore("omni:results:index", "x") == 5.5
    settled(store)
    assert removed(store, store.result_targets())


def test_what_was_removed_is_forgotten_at_once_and_nothing_else_is_read_again(
    store: RedisStore, raw: redis.Redis
):
    for number in range(900):
        store.save_result(f"task-{number}", {"agent": f"agent-{number % 3}"}, 3600)
    settled(store)
    store.result_page(ResultQuery(agent="agent-1"))  # a view of its own
    targets = store.result_targets()
    raw.config_resetstat()
    removed(store, targets[:500])
    reads = raw.info("commandstats")
    assert reads["cmdstat_getrange"]["calls"] == 500
    assert reads["cmdstat_watch"]["calls"] == reads["cmdstat_exec"]["calls"] == 1
    page = store.result_page(ResultQuery(limit=1000))
    assert (page.total, page.complete, len(page.rows)) == (400, True, 400)
    assert store.result_page(ResultQuery(agent="agent-1", limit=1000)).total == 133
    counts = store.counts()
    assert (counts.results, counts.results_indexed, counts.orphans) == (400, 400, 0)
    assert raw.info("commandstats")["cmdstat_getrange"]["calls"] == 500
    store.put_back(removed(store, store.result_targets()))
    assert store.result_page(ResultQuery(agent="agent-1")).total == 133


@pytest.mark.parametrize("query", [ResultQuery(), ResultQuery(within=9e6)])
def test_what_another_process_kept_from_expiring_is_meant(store: RedisStore, query: ResultQuery):
    for number in range(900):  # more than one look reads again
        store.save_result(f"task-{number}", {"agent": "a"}, 3600)
    settled(store)
    other = open_store_again(store)
    settled(other)
    assert other.set_expiry(other.result_targets()[:500], Expiry(more=7200)).done == 500
    with store._index.lock:
        store._index.shelf.sweep(time.time() + 4000)  # as when the time has come that was known
    assert len(store.result_targets(query)) == 900


def test_what_is_still_being_learnt_or_searched_is_not_taken_for_nothing(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    raw.zadd("omni:results:index", {f"task-{number}": number for number in range(5000)})
    raw.mset({f"omni:result:task-{number}": "{}" for number in range(5000)})
    monkeypatch.setattr(store._index, "_learn_on", lambda: None)
    monkeypatch.setattr(store._index, "_learn_some", lambda: False)
    with pytest.raises(StoreError, match=r"still being learnt: \d"):
        store.result_targets()
    assert len(store.result_targets(task_ids=["task-1", "none"])) == 1
    monkeypatch.undo()
    monkeypatch.setattr(result_changes, "_SEARCH", 0.0)
    again = open_store_again(store)
    settled(again)
    again._survey.reset()
    with pytest.raises(StoreError, match="still being searched"):
        again.result_targets()
    monkeypatch.undo()
    assert len(again.result_targets()) == 5000


def test_a_text_that_cannot_be_searched_in_time_means_nothing(store: RedisStore):
    for number in range(1500):
        store.save_result(f"task-{number}", "needle" if number == 7 else "hay")
    settled(store)
    with pytest.raises(StoreError, match=r"500 of 1,500"):
        store.result_targets(ResultQuery(text="needle", budget=0.0))
    found = store.result_targets(ResultQuery(text="needle", budget=10.0))
    assert [target.names for target in found] == [("task-7",)]


def test_ten_thousand_expiries_are_moved_to_the_millisecond(store: RedisStore, raw: redis.Redis):
    pipeline = raw.pipeline(transaction=False)
    for number in range(10_000):
        pipeline.set(f"omni:result:{number}", "{}", pxat=9_000_000_000_000 + number)
        pipeline.zadd("omni:results:index", {str(number): number})
    pipeline.execute()
    settled(store)
    targets = store.result_targets()
    for start in range(0, len(targets), 500):
        some = targets[start : start + 500]
        assert store.set_expiry(some, Expiry(more=3600)) == Change(done=500)
    for number in (0, 1, 9999):
        expires = raw.execute_command("PEXPIRETIME", f"omni:result:{number}")
        assert expires == 9_000_000_000_000 + number + 3_600_000
    learnt = {target.names: target.mark for target in store.result_targets()}
    fresh = store.result_targets(task_ids=["0", "1", "9999"])
    assert all(learnt[target.names] == target.mark for target in fresh)


def test_a_time_that_would_be_over_moves_no_expiry(redis_backend: RedisBackend, store: RedisStore):
    store.save_result("x", 1, 100)
    store.save_result("y", 1, 9999)
    settled(store)
    targets, before = store.result_targets(), redis_backend.photograph()
    with pytest.raises(ValueError, match="passed"):
        store.set_expiry(targets, Expiry(more=-200))
    assert redis_backend.photograph() == before
    at = time.time() + 50.1234
    store.set_expiry(targets, Expiry(at=at))
    raw = redis_backend.client
    assert raw.execute_command("PEXPIRETIME", "omni:result:x") == round(at * 1000)


def test_a_large_result_is_kept_for_longer_without_being_read(store: RedisStore, raw: redis.Redis):
    raw.set("omni:result:large", b"x" * 9_000_000)
    targets = store.result_targets(task_ids=["large"])
    raw.config_resetstat()
    before = time.time()
    assert store.set_expiry(targets, Expiry(more=60)) == Change(done=1)
    assert "cmdstat_getrange" not in raw.info("commandstats")
    expires = raw.execute_command("PEXPIRETIME", "omni:result:large") / 1000
    assert before + 60 <= expires + 0.001 <= time.time() + 60.002
    assert store.set_expiry(targets, Expiry()).skipped == [(("large",), CHANGED)]


def test_many_entries_taken_together_are_taken_as_one_by_one():
    chance = random.Random(7)
    entries = [
        Entry(
            b"%d" % number, float(chance.randrange(50)), chance.choice([None, 1.0, 2.0]), number,
            agent=chance.choice(["", "a", "b"]), problem=chance.choice(["", "", "bad"]),
        )
        for number in range(400)
    ]  # fmt: skip
    shelves = [Shelf(), Shelf()]
    for shelf in shelves:
        for entry in entries[:300]:
            shelf.put(entry)
        shelf.view(Filter(agent="a")).newest.items()  # some are in order, and some still wait
        for entry in entries[300:]:
            shelf.put(entry)
    gone = [b"%d" % number for number in chance.sample(range(500), 350)]
    together, single = shelves
    together.take_all(gone)
    for task_id in gone:
        single.take(task_id)

    def picture(shelf: Shelf) -> object:
        views = [shelf.view(Filter()), shelf.view(Filter(agent="a"))]
        orders = [(view.newest.items(), view.expiring.items()) for view in views]
        return orders, shelf.facets, shelf.forever, shelf.broken, shelf.entries

    assert picture(together) == picture(single)


def test_a_dump_that_redis_cannot_read_is_skipped_and_the_rest_comes_back(
    store: RedisStore, raw: redis.Redis
):
    put_oddly(raw)
    settled(store)
    kept = removed(store, store.result_targets())
    spoilt = [
        replace(record, raw=record.raw[:-1] + b"!") if record.names == ("list",) else record
        for record in kept
    ]
    assert store.put_back(spoilt).skipped == [(("list",), UNFIT)]
    assert not raw.exists("omni:result:list")
    assert raw.exists("omni:result:loose set", "omni:result:raw", "omni:result:empty") == 3
    assert raw.zscore("omni:results:index", "list") is None


def test_an_expired_record_of_any_form_is_not_put_back(store: RedisStore, raw: redis.Redis):
    put_oddly(raw)
    settled(store)
    kept = removed(store, store.result_targets())
    change = store.put_back([replace(record, expires_at_ms=1) for record in kept])
    assert change.done == 0
    assert sorted(change.skipped) == sorted((record.names, EXPIRED) for record in kept)
    assert raw.dbsize() == 0


# Metrics


def put_events(raw: redis.Redis, count: int, start: int = 1) -> None:
    pipeline = raw.pipeline(transaction=False)
    for number in range(start, start + count):
        pipeline.xadd("omni:metrics:stream", {"data": f'{{"n": {number}}}'}, id=f"{number}-1")
    pipeline.execute()


def test_a_stream_without_events_is_not_deleted_and_its_ids_go_on(
    store: RedisStore, raw: redis.Redis
):
    future = int(time.time() * 1000) + 60_000
    raw.xadd("omni:metrics:stream", {"data": "{}"}, id=f"{future}-0")
    assert store.remove(store.metric_targets(), unkept).done == 1
    assert raw.xlen("omni:metrics:stream") == 0
    assert int(raw.xadd("omni:metrics:stream", {"data": "{}"}).partition(b"-")[0]) >= future


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_older_events_that_were_not_seen_are_not_trimmed(
    store: RedisStore, raw: redis.Redis, when: str
):
    put_events(raw, 5)
    older = raw.dump("omni:metrics:stream")
    raw.xtrim("omni:metrics:stream", minid="3-0", approximate=False)
    targets = store.metric_targets(keep=1)

    def put_older(_: Sequence[Record]) -> None:
        raw.restore("omni:metrics:stream", 0, older, replace=True)

    if when == "before":
        put_older([])
    change = store.remove(targets, put_older if when == "meanwhile" else unkept)
    assert change == Change(skipped=[(targets[0].names, CHANGED)])
    assert raw.xlen("omni:metrics:stream") == 5


def test_odd_events_and_gaps_come_back_in_their_places(
    redis_backend: RedisBackend, store: RedisStore
):
    raw = redis_backend.client
    put_events(raw, 5000)
    raw.xadd("omni:metrics:stream", {"no": "data", b"\xff": b"\x00"}, id="6000-0")
    raw.xadd(
        "omni:metrics:stream",
        {"data": "1", "more": "2"},
        id="18446744073709551614-18446744073709551615",
    )
    before = raw.xrange("omni:metrics:stream")
    kept: Kept = []
    assert store.remove(store.metric_targets(), kept.extend).done == 5002
    assert store.put_back(kept[100:200] + kept[4000:]).done == 100 + 1002
    change = store.put_back(kept)
    assert change.done == 3900
    assert {why for _, why in change.skipped} == {THERE}
    assert raw.xrange("omni:metrics:stream") == before
    assert raw.ttl("omni:metrics:stream") == -1
    assert raw.keys() == [b"omni:metrics:stream"]


def test_boundaries_hold_whatever_is_asked(store: RedisStore, raw: redis.Redis):
    put_events(raw, 5000)
    for keep, count in ((0, 5000), (1, 4999), (2000, 3000), (2001, 2999), (4999, 1), (-3, 5000)):
        (target,) = store.metric_targets(keep=keep)
        assert target.count == count
        assert len(list(store._events("-", events.id_of(target.names[0])))) == count
    for before, count in ((0.0015, 1), (0.002, 1), (3.0, 2999), (1e300, 5000), (9.0, 5000)):
        (target,) = store.metric_targets(before=before)
        assert target.count == count
    assert store.metric_targets(before=-1) == store.metric_targets(before=0.001) == []


def test_events_that_come_while_others_are_put_back_are_all_there(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    put_events(raw, 3000)
    kept: Kept = []
    store.remove(store.metric_targets(keep=1000), kept.extend)
    facts = metric_changes.stream_facts
    late: list[bytes] = []

    def facts_and_an_event(read: Any, key: bytes) -> dict[bytes, Any]:
        found = facts(read, key)
        if len(late) < 3:  # in the very moment, three times: before staging, and twice after
            late.append(raw.xadd("omni:metrics:stream", {"data": "late"}))
        return found

    monkeypatch.setattr(metric_changes, "stream_facts", facts_and_an_event)
    assert store.put_back(kept).done == 2000
    found = [entry_id for entry_id, _ in raw.xrange("omni:metrics:stream")]
    assert found == [b"%d-1" % number for number in range(1, 3001)] + late
    assert len(late) == 3
    assert raw.keys() == [b"omni:metrics:stream"]


def test_what_was_staged_expires_if_the_worker_dies(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    put_events(raw, 10)
    kept: Kept = []
    store.remove(store.metric_targets(), kept.extend)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    write = store._client.write
    monkeypatch.setattr(store, "_swap", die)
    monkeypatch.setattr(
        store._client, "write",
        lambda commands, **named: None if commands[0][0] == "UNLINK" else write(commands, **named),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        store.put_back(kept)
    (staged,) = raw.keys("omnidash:*")
    assert staged.startswith(b"omnidash:restore:")
    assert 3500 < raw.ttl(staged) <= 3600
    assert raw.xlen("omni:metrics:stream") == 0


def test_a_group_that_reads_the_metrics_is_not_lost(store: RedisStore, raw: redis.Redis):
    put_events(raw, 10)
    kept: Kept = []
    store.remove(store.metric_targets(keep=5), kept.extend)
    raw.xgroup_create("omni:metrics:stream", "group", id="0")
    with pytest.raises(StoreError, match="consumer group"):
        store.put_back(kept)
    assert raw.xinfo_groups("omni:metrics:stream")
    assert raw.xlen("omni:metrics:stream") == 5


def test_what_is_no_stream_is_left_alone(store: RedisStore, raw: redis.Redis):
    raw.set("omni:metrics:stream", "x")
    assert store.metric_targets() == store.metric_targets(before=1e9) == []
    with pytest.raises(StoreError, match="no stream"):
        store.put_back([Record("metrics", ("1-1",), b"{}", stream_id="1-1")])
    assert raw.get("omni:metrics:stream") == b"x"


# A server in trouble


def filled(server: RedisServer) -> Store:
    store = open_store(server.url)
    fill(store)
    fill_oddly(server.client(), "omni")
    server.client().zadd("omni:results:index", {"orphan": 1})
    settled(store)
    return store


def state(server: RedisServer) -> dict[bytes, bytes]:
    client = server.client()
    return {key: client.dump(key) for key in sorted(client.keys())}


def test_a_full_memory_takes_no_record_back_and_gives_all_away(server: RedisServer):
    store = filled(server)
    meant = all_targets(store)
    server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreReadOnly, match="out of memory"):
        store.replace_config("new", b"1", None)
    assert store.set_expiry(meant["result"], Expiry()).done == len(meant["result"])
    meant["result"] = store.result_targets()
    for kind in ("member", "hash", "entry", "agent", "result", "metrics", "config"):
        kept: Kept = []
        store.remove(meant[kind], kept.extend)
        assert kept, kind
        before = state(server)
        with pytest.raises(StoreReadOnly, match="out of memory"):
            store.put_back(kept)
        assert state(server) == before
    assert server.client().keys() == [b"omni:metrics:stream"]


def test_a_dump_that_a_full_memory_refuses_is_not_called_unreadable(server: RedisServer):
    store = filled(server)
    kept = removed(store, store.config_targets(["list"]))
    assert kept[0].form == "dump"
    server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreReadOnly, match="out of memory"):
        store.put_back(kept)


@contextmanager
def unsaved(server: RedisServer) -> Iterator[None]:
    client = server.client()
    shutil.rmtree(f"{server.folder}/gone")
    client.bgsave()
    deadline = time.monotonic() + 20
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield


@contextmanager
def denied(server: RedisServer) -> Iterator[None]:
    rules = ("-unlink", "-zrem", "-srem", "-xtrim", "-pexpireat", "-persist", "-set", "-hset")
    server.client().execute_command("ACL", "SETUSER", "default", *rules)
    yield


TROUBLES = {
    "MISCONF": (unsaved, StoreReadOnly, "cannot save to disk"),
    "NOPERM": (denied, StoreDenied, "does not let"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_where_redis_refuses_a_change_nothing_is_changed(server: RedisServer, trouble: str):
    refusing, error, words = TROUBLES[trouble]
    server.stop()
    os.mkdir(f"{server.folder}/gone")
    server.start("--save", "3600 1", "--dir", f"{server.folder}/gone")
    store = filled(server)
    meant = all_targets(store)
    records = removed(store, store.config_targets(["key"]))
    (config,) = store.config_targets(["supervisor:agent"])
    before = state(server)
    with refusing(server):
        for targets in meant.values():
            with pytest.raises(error, match=words):
                store.remove([one for one in targets if one.names != ("key",)][:500], unkept)
        for change in (
            lambda: store.set_expiry(meant["result"], Expiry()),
            lambda: store.put_back(records),
            lambda: store.replace_config("supervisor:agent", b"1", config.mark),
        ):
            with pytest.raises(error, match=words):
                change()
    assert state(server) == before


def test_a_replica_refuses_every_change(server: RedisServer):
    store = filled(server)
    meant = all_targets(store)
    server.client().execute_command("REPLICAOF", "127.0.0.1", "1")  # whose master is away
    before = state(server)
    for targets in meant.values():
        with pytest.raises(StoreReadOnly, match="read-only replica; nothing was changed"):
            store.remove(targets, unkept)
    assert state(server) == before


def test_a_connection_lost_in_the_middle_changes_nothing_and_all_can_be_done_again(
    server: RedisServer,
):
    store = filled(server)
    meant = all_targets(store)
    before = state(server)

    def cut(records: Sequence[Record]) -> None:
        server.client().client_kill_filter(_type="normal", skipme=True)

    del meant["metrics"]  # which are cut by another exchange, on a new connection
    for kind, targets in meant.items():
        with pytest.raises(StoreUnavailable):
            store.remove(targets, cut)
            pytest.fail(f"{kind} was removed on a dead connection")
        assert state(server) == before, kind
    kept: Kept = []
    assert store.remove(meant["result"], kept.extend).done == len(meant["result"])


def test_a_server_that_dies_in_the_middle_is_said(server: RedisServer):
    store = filled(server)
    targets = store.result_targets()

    def die(records: Sequence[Record]) -> None:
        server.stop()

    with pytest.raises(StoreUnavailable):
        store.remove(targets, die)


def test_what_cannot_be_kept_is_not_deleted_and_the_disk_is_blamed(server: RedisServer):
    store = filled(server)
    meant, before = all_targets(store), state(server)

    def full(records: Sequence[Record]) -> None:
        raise OSError(28, "No space left on device")

    for targets in meant.values():
        with pytest.raises(OSError, match="No space left"):
            store.remove(targets, full)
    assert state(server) == before


def test_an_older_redis_without_the_newer_commands_is_changed_too(server: RedisServer):
    """Redis 6.0 has neither; where only PTTL can tell an expiry, it may jitter."""
    server.stop()
    hidden = [
        part for name in ("PEXPIRETIME", "ZMSCORE") for part in ("--rename-command", name, "")
    ]
    server.start(*hidden)
    store = filled(server)
    client = server.client()
    store.set_expiry(store.result_targets(task_ids=["task"]), Expiry(more=3600))
    ttl = client.pttl("omni:result:task")
    targets = store.result_targets()
    time.sleep(0.05)
    kept = removed(store, targets)
    assert store.put_back(kept) == Change(done=len(kept))
    assert client.pttl("omni:result:task") == pytest.approx(ttl, abs=1000)
    meant = store.result_targets(task_ids=["task"])
    client.expire("omni:result:task", 60)
    assert store.remove(meant, unkept).skipped == [(("task",), CHANGED)]


def test_a_live_writer_neither_stops_a_cleanup_nor_loses_a_result(
    redis_backend: RedisBackend, store: RedisStore, raw: redis.Redis
):
    for number in range(1000):
        store.save_result(f"old-{number}", "x" * 100, 3600)
    settled(store)
    targets = store.result_targets()
    stop = threading.Event()
    written: list[str] = []

    def write() -> None:
        other = redis_backend.open()
        while not stop.is_set():
            name = f"new-{len(written)}"
            other.save_result(name, name)
            other.save_metric({"event": name})
            other.save_result(f"old-{len(written) % 1000}", "again")
            written.append(name)

    thread = threading.Thread(target=write)
    thread.start()
    kept: Kept = []
    changes = [store.remove(targets[at : at + 500], kept.extend) for at in (0, 500)]
    stop.set()
    thread.join()
    again = {f"old-{number % 1000}" for number in range(len(written))}
    assert (
        sum(change.done for change in changes) + sum(len(change.skipped) for change in changes)
        == 1000
    )
    for name in {*written, *again}:
        assert store.get_result(name) is not None


# The event bus


def reading(url: str, consumer: str) -> threading.Thread:
    def wait() -> None:
        with redis.Redis.from_url(url) as client:
            streams = {"omni-stream:topic": ">"}
            client.xreadgroup("group:topic:agent", consumer, streams, block=600)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_group_that_does_not_exist_is_not_consuming(store: RedisStore, raw: redis.Redis):
    assert store.consuming("topic", "agent") is False
    raw.xadd("omni-stream:topic", {"data": "{}"})
    assert store.consuming("topic", "agent") is False
    raw.xgroup_create("omni-stream:topic", "group:topic:agent", id="0")
    assert store.consuming("topic", "agent") is False, "nobody reads anything"
    assert store.consuming("topic", "other") is False
    raw.set("omni-stream:odd", "x")
    assert store.consuming("odd", "agent") is None


def test_a_consumer_that_just_read_is_consuming(store: RedisStore, raw: redis.Redis):
    raw.xadd("omni-stream:topic", {"data": "{}"})
    raw.xgroup_create("omni-stream:topic", "group:topic:agent", id="0")
    raw.xreadgroup("group:topic:agent", "consumer:agent-1", {"omni-stream:topic": ">"})
    assert store.consuming("topic", "agent") is True


def test_a_consumer_that_waits_in_silence_is_not_taken_for_dead(
    store: RedisStore, redis_url: str, raw: redis.Redis
):
    raw.xgroup_create("omni-stream:topic", "group:topic:agent", mkstream=True)
    thread = reading(redis_url, "consumer:agent-1")
    deadline = time.monotonic() + 5
    while store.consuming("topic", "agent") is False:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert store.consuming("topic", "agent") in (None, True)
    thread.join()


def test_who_may_not_ask_is_told_nothing(server: RedisServer):
    store = filled(server)
    server.client().xgroup_create("omni-stream:topic", "group:topic:agent", mkstream=True)
    server.client().execute_command("ACL", "SETUSER", "default", "-client|list")
    assert store.consuming("topic", "agent") is None
    server.client().execute_command("ACL", "SETUSER", "default", "-xinfo")
    assert store.consuming("topic", "agent") is None


# OmniDaemon's own data


def test_all_that_omnidaemon_wrote_is_removed_and_put_back_for_it_to_read(
    redis_fixture: RedisBackend,
):
    store, theirs = redis_fixture.open(), Upstream(redis_fixture)
    before = redis_fixture.photograph()
    events = redis_fixture.client.xrange("omni:metrics:stream")
    agents, results = theirs.list_all_agents(), theirs.list_results(10)
    everything: list[Kept] = []
    for kind, targets in all_targets(store).items():
        if kind in ("agent", "result", "config", "metrics"):
            for at in range(0, len(targets), 500):
                kept: Kept = []
                store.remove(targets[at : at + 500], kept.extend)
                everything.append(kept)
    assert theirs.list_all_agents() == {}
    assert theirs.list_results(10) == []
    for kept in everything:
        change = store.put_back(kept)
        assert {why for _, why in change.skipped} <= {EXPIRED}
    assert redis_fixture.client.xrange("omni:metrics:stream") == events
    assert theirs.list_all_agents().keys() == agents.keys()
    assert theirs.list_results(10) == results
    after = redis_fixture.photograph()
    different = {
        key for key in before.keys() | after.keys()
        if before.get(key) != after.get(key) and redis_fixture.client.type(key) == b"string"
    }  # fmt: skip
    assert different == set()
