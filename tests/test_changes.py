"""The contract of changes over every backend: what is meant, as it was seen, and nothing else."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.archive import ArchiveReader, ArchiveWriter, Header
from storage.base import ResultQuery, Store
from storage.changes import CHANGED, EXPIRED, GONE, THERE, Change, Expiry, Kind, Record, Target
from storage.records import to_bytes
from tests.stores import AWKWARD, Backend, JsonBackend, RedisBackend, let_it_rest, settled

pytest_plugins = ["tests.store_fixtures"]

KINDS: list[Kind] = ["agent", "result", "config", "metrics"]
kinds = pytest.mark.parametrize("kind", KINDS)
keyed = pytest.mark.parametrize("kind", ["agent", "result", "config"])


def nothing_kept(records: Sequence[Record]) -> None:
    """For tests that put nothing back."""


def stored(backend: Backend) -> dict[str, Any]:
    """All that is stored, in whatever order it lies there."""
    if isinstance(backend, JsonBackend):
        names = ("agents.json", "results.json", "metrics.json", "config.json")
        return {
            name: backend.read(name) for name in names if (backend.folder / name).exists()
        }  # fmt: skip
    assert isinstance(backend, RedisBackend)
    client = backend.client
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    return {
        repr(key): (read[client.type(key)](key), client.execute_command("PEXPIRETIME", key))
        for key in client.scan_iter()
    }


def fill(store: Store) -> None:
    """Something of each kind, and something beside it that no test means."""
    for topic, name in (("t", "a"), ("t", "b"), ("u", "a")):
        store.add_agent(topic, {"name": name, "tools": ["x"], "config": {"n": 1}})
    for number in range(4):
        answer = {"agent": "a", "topic": "t", "status": "completed", "n": number}
        store.save_result(f"task-{number}", answer, 3600 if number % 2 else None)
    store.save_config("one", {"secret": [1, 2.5]})
    store.save_config("two", None)
    for number in range(5):
        store.save_metric({"event": "task_received", "topic": "t", "task_id": f"e-{number}"})
    settled(store)


def targets_of(store: Store, kind: Kind) -> list[Target]:
    """A part of what `fill` has stored."""
    if kind == "agent":
        return store.agent_targets([("t", "a"), ("u", "a")])
    if kind == "result":
        return store.result_targets(task_ids=["task-1", "task-2"])
    if kind == "config":
        return store.config_targets(["one"])
    return store.metric_targets(keep=2)


def removed(store: Store, targets: Sequence[Target]) -> list[Record]:
    """All of them, which then are kept."""
    kept: list[Record] = []
    change = store.remove(targets, kept.extend)
    assert change.skipped == []
    assert change.done == sum(target.count for target in targets) == len(kept)
    return kept


def reasons(change: Change) -> dict[tuple[str, ...], str]:
    return dict(change.skipped)


def task_ids(store: Store, **query: Any) -> set[str]:
    settled(store)
    return {row.task_id for row in store.result_page(ResultQuery(**query)).rows}


def targeted(store: Store, **query: Any) -> set[str]:
    settled(store)
    return {target.names[0] for target in store.result_targets(ResultQuery(**query))}


# What is meant


def test_of_an_empty_store_nothing_is_meant(store: Store):
    settled(store)
    assert store.agent_targets() == store.agent_targets([("t", "a")]) == []
    assert store.result_targets() == store.result_targets(task_ids=["x"]) == []
    assert store.result_targets(ResultQuery()) == []
    assert store.config_targets(["x"]) == store.metric_targets() == store.loose_ends() == []
    assert store.remove([], nothing_kept) == store.put_back([]) == Change()
    assert store.set_expiry([], Expiry()) == Change()


def test_only_what_is_there_is_meant_and_once(store: Store):
    fill(store)
    pairs = [("t", "a"), ("t", "zzz"), ("zzz", "a"), ("t", "a")]
    assert [one.names for one in store.agent_targets(pairs)] == [("t", "a")]
    ids = ["task-1", "zzz", "task-1"]
    assert [one.names for one in store.result_targets(task_ids=ids)] == [("task-1",)]
    assert [one.names for one in store.config_targets(["zzz", "one"])] == [("one",)]


def test_all_agents_are_meant_by_topic_and_name(store: Store):
    fill(store)
    names = [("t", "a"), ("t", "b"), ("u", "a")]
    assert [target.names for target in store.agent_targets()] == names
    assert all(
        one.kind == "agent" and one.size > 0 and not one.note for one in store.agent_targets()
    )


def test_all_results_are_meant_whatever_their_state(backend: Backend):
    store = backend.open()
    backend.put_results({"forever": None, "later": time.time() + 3600})
    spoil(backend, "later")
    if isinstance(backend, JsonBackend):  # Redis removes it by itself
        results = backend.read("results.json")
        results["expired"] = {
            "task_id": "expired",
            "result": 1,
            "saved_at": 1e9,
            "expires_at": 1.1e9,
        }
        backend.write("results.json", results)
    settled(store)
    found = {target.names[0] for target in store.result_targets()}
    assert found == {"forever", "later"} | ({"expired"} if backend.name == "json" else set())
    assert {target.names[0] for target in store.result_targets(ResultQuery())} == {
        "forever",
        "later",
    }
    assert targeted(store, life="unreadable") == {"later"}


def spoil(backend: Backend, task_id: str) -> None:
    """Make a result unreadable."""
    if isinstance(backend, JsonBackend):
        results = backend.read("results.json")
        backend.write("results.json", {**results, task_id: [1]})
        let_it_rest(backend.folder)
    else:
        assert isinstance(backend, RedisBackend)
        backend.client.set(backend.key("result", task_id), b"[1", keepttl=True)


def test_sizes_are_those_of_the_listing(store: Store):
    fill(store)
    sizes = {row.task_id: row.size for row in store.result_page(ResultQuery()).rows}
    assert {one.names[0]: one.size for one in store.result_targets(ResultQuery())} == sizes


def test_the_part_of_a_listing_that_is_shown_does_not_limit_what_is_meant(store: Store):
    fill(store)
    everything = {f"task-{number}" for number in range(4)}
    assert targeted(store, limit=1, offset=2) == everything
    assert targeted(store, order="expiring", limit=0) == everything
    assert targeted(store, text='"n": 2') | targeted(store, text='"n":2') == {"task-2"}
    assert targeted(store, life="forever") == {"task-0", "task-2"}
    assert targeted(store, within=7200) == {"task-1", "task-3"}


def test_old_results_are_those_saved_earlier(store: Store):
    store.save_result("old", 1)
    time.sleep(0.02)
    between = time.time()
    time.sleep(0.02)
    store.save_result("new", 1, 3600)
    assert task_ids(store, saved_before=between) == targeted(store, saved_before=between) == {"old"}
    assert task_ids(store, saved_before=0.0) == set()
    assert task_ids(store, saved_before=math.inf) == {"old", "new"}
    assert task_ids(store, saved_before=math.inf, life="forever") == {"old"}
    assert store.result_page(ResultQuery(saved_before=between)).total == 1


def test_large_results_are_those_of_more_bytes(store: Store):
    store.save_result("small", "x")
    store.save_result("large", "x" * 1000)
    sizes = {row.task_id: row.size for row in store.results_by_id(["small", "large"]).values()}
    assert task_ids(store, larger=sizes["small"]) == {"large"}
    assert task_ids(store, larger=sizes["small"] - 1) == {"small", "large"}
    assert targeted(store, larger=sizes["large"]) == set()
    assert targeted(store, larger=0) == {"small", "large"}


def test_results_of_agents_no_longer_registered(store: Store):
    store.add_agent("t", {"name": "here"})
    store.add_agent("other", {"name": "moved"})
    for name, agent in (("1", "here"), ("2", "gone"), ("3", "moved")):
        store.save_result(name, {"agent": agent, "topic": "t", "status": "completed"})
    store.save_result("4", "of nobody knows whom")
    assert task_ids(store, unregistered=True) == targeted(store, unregistered=True) == {"2", "3"}
    assert store.result_page(ResultQuery(unregistered=True, limit=1)).total == 2
    assert task_ids(store, unregistered=True, agent="moved") == {"3"}
    store.delete_agent("t", "here")
    assert task_ids(store, unregistered=True) == {"1", "2", "3"}


# Deleting


@kinds
def test_exactly_what_is_meant_is_removed(store: Store, kind: Kind):
    fill(store)
    meant = targets_of(store, kind)
    change = store.remove(meant, nothing_kept)
    assert change.done == sum(target.count for target in meant)
    assert change.bytes > 0
    assert targets_of(store, kind) == []
    assert {agent.name for agent in store.agents_by_name([("t", "a"), ("t", "b")])} == (
        {"b"} if kind == "agent" else {"a", "b"}
    )
    ids = {f"task-{number}" for number in range(4)}
    assert task_ids(store) == ids - ({"task-1", "task-2"} if kind == "result" else set())
    assert store.get_config("one") == (None if kind == "config" else {"secret": [1, 2.5]})
    assert [event["task_id"] for event in store.get_metrics()][::-1] == [
        f"e-{number}" for number in range(3 if kind == "metrics" else 0, 5)
    ]


@kinds
def test_what_is_put_back_is_what_was_there(backend: Backend, store: Store, kind: Kind):
    fill(store)
    before = stored(backend)
    kept = removed(store, targets_of(store, kind))
    assert stored(backend) != before
    assert all(record.kind == kind and record.raw for record in kept)
    assert store.put_back(kept) == Change(done=len(kept))
    assert stored(backend) == before
    if kind == "result":
        assert sorted(record.expires_at_ms is None for record in kept) == [False, True]
        assert task_ids(store) == {f"task-{number}" for number in range(4)}


@kinds
def test_what_was_put_back_can_be_removed_again(backend: Backend, store: Store, kind: Kind):
    fill(store)
    before = stored(backend)
    store.put_back(removed(store, targets_of(store, kind)))
    store.put_back(removed(store, targets_of(store, kind)))
    assert stored(backend) == before


@kinds
def test_to_put_back_twice_changes_nothing(backend: Backend, store: Store, kind: Kind):
    fill(store)
    kept = removed(store, targets_of(store, kind))
    store.put_back(kept)
    before = stored(backend)
    change = store.put_back(kept)
    assert change.done == 0
    assert sorted(change.skipped) == sorted((record.names, THERE) for record in kept)
    assert stored(backend) == before


@kinds
def test_another_process_sees_what_is_removed_and_put_back(backend: Backend, kind: Kind):
    here, there = backend.open(), backend.open()
    fill(here)
    settled(there)
    meant = targets_of(there, kind)
    kept = removed(here, meant)
    change = there.remove(meant, nothing_kept)
    assert change.done == 0
    assert [reason for _, reason in change.skipped] == [GONE] * len(meant)
    here.put_back(kept)
    assert len(targets_of(there, kind)) == len(meant)


@kinds
def test_all_of_a_kind_can_be_removed_and_put_back(backend: Backend, store: Store, kind: Kind):
    fill(store)
    before = stored(backend)
    meant = {
        "agent": store.agent_targets,
        "result": store.result_targets,
        "config": lambda: store.config_targets(store.config_keys().keys),
        "metrics": store.metric_targets,
    }[kind]()
    kept = removed(store, meant)
    assert targets_of(store, kind) == []
    store.put_back(kept)
    assert stored(backend) == before


def test_what_is_kept_cannot_stop_half_way(backend: Backend, store: Store):
    fill(store)
    before = stored(backend)

    def full(records: Sequence[Record]) -> None:
        raise OSError("no space left")

    for kind in KINDS:
        with pytest.raises(OSError, match="no space left"):
            store.remove(targets_of(store, kind), full)
    assert stored(backend) == before


@keyed
def test_what_has_changed_stays_and_the_rest_goes(store: Store, kind: Kind):
    fill(store)
    store.save_config("three", 3)
    meant = {
        "agent": lambda: store.agent_targets(),
        "result": lambda: store.result_targets(task_ids=["task-0", "task-1", "task-2"]),
        "config": lambda: store.config_targets(["one", "two", "three"]),
    }[kind]()
    changed, gone, same = meant
    if kind == "agent":
        store.add_agent(changed.names[0], {"name": changed.names[1], "tools": ["other"]})
        store.delete_agent(*gone.names)
    elif kind == "result":
        store.save_result(changed.names[0], "other")
        store.delete_result(gone.names[0])
    else:
        store.save_config(changed.names[0], "other")
        store.remove([gone], nothing_kept)
    kept: list[Record] = []
    change = store.remove(meant, kept.extend)
    assert change.done == 1
    assert reasons(change) == {changed.names: CHANGED, gone.names: GONE}
    assert [record.names for record in kept] == [same.names]


def test_a_result_saved_again_with_the_same_text_is_another_one(store: Store):
    store.save_result("x", 1)
    settled(store)
    meant = store.result_targets(task_ids=["x"])
    time.sleep(0.002)
    store.save_result("x", 1)
    assert reasons(store.remove(meant, nothing_kept)) == {("x",): CHANGED}


def test_a_result_whose_expiry_was_changed_is_another_one(store: Store):
    store.save_result("x", 1, 3600)
    settled(store)
    meant = store.result_targets(task_ids=["x"])
    assert store.set_expiry(meant, Expiry(more=60)).done == 1
    assert reasons(store.remove(meant, nothing_kept)) == {("x",): CHANGED}


MEANT = {
    "all": ResultQuery(),
    "of an agent": ResultQuery(agent="a"),
    "with a text": ResultQuery(text='"n": '),
    "that expire soon": ResultQuery(within=9_000),
    "that expire at a time": ResultQuery(expires_before=9_000_000_000.0),
}


@pytest.mark.parametrize("meant", MEANT)
def test_what_another_process_extended_before_the_look_is_as_it_was_seen(
    backend: Backend, meant: str
):
    ours, others = backend.open(), backend.open()
    for number in range(300):  # more than one look reads again
        ours.save_result(f"task-{number}", {"agent": "a", "topic": "t", "n": number}, 3600)
    settled(ours)
    settled(others)
    assert others.set_expiry(others.result_targets(), Expiry(more=3600)) == Change(done=300)
    targets = ours.result_targets(MEANT[meant])
    assert len(targets) == 300
    assert ours.set_expiry(targets, Expiry(more=60)).done == 300
    gone = others.remove(others.result_targets(MEANT[meant]), nothing_kept)
    assert (gone.done, gone.skipped) == (300, [])


def test_if_nothing_is_as_it_was_seen_nothing_is_kept_or_written(backend: Backend, store: Store):
    fill(store)
    wrong = [replace(one, mark="0-0 wrong") for one in targets_of(store, "result")]
    before = backend.photograph()
    kept: list[Record] = []
    assert store.remove(wrong, kept.extend).done == 0
    assert kept == []
    assert backend.photograph() == before


@keyed
def test_nothing_is_put_back_over_what_is_newer(backend: Backend, store: Store, kind: Kind):
    fill(store)
    kept = removed(store, targets_of(store, kind))
    store.add_agent("t", {"name": "a", "description": "newer"})
    store.save_result("task-1", "newer")
    store.save_config("one", "newer")
    newer = {record.names for record in kept} - {("u", "a"), ("task-2",)}
    change = store.put_back(kept)
    assert reasons(change) == dict.fromkeys(newer, THERE)
    assert change.done == len(kept) - 1
    agent = store.get_agent("t", "a")
    assert agent
    assert agent["description"] == "newer"
    assert store.get_result("task-1") == store.get_config("one") == "newer"


def test_what_has_expired_since_is_not_put_back(store: Store):
    store.save_result("short", 1, 1)
    store.save_result("long", 1, 3600)
    settled(store)
    kept = removed(store, store.result_targets(task_ids=["short", "long"]))
    past = [
        replace(record, expires_at_ms=int(time.time() * 1000) - 1)
        if record.names == ("short",)
        else record
        for record in kept
    ]
    change = store.put_back(past)
    assert change.done == 1
    assert reasons(change) == {("short",): EXPIRED}
    assert task_ids(store) == {"long"}


@pytest.mark.parametrize("name", AWKWARD.values(), ids=AWKWARD)
def test_awkward_names_are_removed_and_put_back(backend: Backend, store: Store, name: str):
    if name == AWKWARD["lone surrogate"] and backend.name == "redis":
        name = to_bytes(name).decode("utf-8", "surrogateescape")  # as it comes back
    store.add_agent(name, {"name": name})
    store.save_result(name, {"answer": name}, 3600)
    store.save_config(name, name)
    store.add_agent("other", {"name": "other"})
    settled(store)
    before = stored(backend)
    for targets in (
        store.agent_targets([(name, name)]),
        store.result_targets(task_ids=[name]),
        store.config_targets([name]),
    ):
        assert len(targets) == 1
        if targets[0].note:  # a name that may be another OmniDaemon's is left alone
            continue
        kept: list[Record] = []
        change = store.remove(targets, kept.extend)
        assert change.done + len(change.skipped) == 1
        assert store.put_back(kept).done == change.done
    assert stored(backend) == before


def test_records_of_two_kinds_are_refused(backend: Backend, store: Store):
    fill(store)
    before = stored(backend)
    mixed = targets_of(store, "agent") + targets_of(store, "result")
    with pytest.raises(ValueError, match="kind"):
        store.remove(mixed, nothing_kept)
    many = targets_of(store, "result") * (store.largest_change // 2 + 1)
    with pytest.raises(ValueError, match="at most"):
        store.remove(many, nothing_kept)
    assert stored(backend) == before


def test_of_two_who_remove_the_same_each_record_is_removed_by_one(backend: Backend):
    stores = [backend.open(), backend.open()]
    for number in range(40):
        stores[0].save_config(f"key-{number}", number)
    meant = stores[0].config_targets([f"key-{number}" for number in range(40)])
    start = threading.Barrier(2)

    def one_by_one(store: Store) -> tuple[int, int]:
        start.wait()
        changes = [store.remove([target], nothing_kept) for target in meant]
        return sum(one.done for one in changes), sum(len(one.skipped) for one in changes)

    with ThreadPoolExecutor(2) as pool:
        (one, not_one), (other, not_other) = pool.map(one_by_one, stores)
    assert one + other == not_one + not_other == 40


def test_a_recycle_bin_holds_exactly_what_was_removed(
    backend: Backend, store: Store, tmp_path: Path
):
    fill(store)
    before = stored(backend)
    path = str(tmp_path / "bin" / "run")
    with ArchiveWriter(path, Header("bin", store.backend, store.address, time.time())) as writer:
        for kind in KINDS:
            meant = targets_of(store, kind)
            if kind == "result":
                store.delete_result("task-1")
            writer.done(store.remove(meant, writer.keep))
    assert writer.counts == {"agent": 2, "result": 1, "config": 1, "metrics": 3}
    store.save_result("task-1", 1)
    with ArchiveReader(path) as reader:
        assert [store.put_back(batch.records).done for batch in reader] == [2, 1, 1, 3]
        assert reader.complete
    after = stored(backend)
    assert after.keys() == before.keys()
    assert task_ids(store) == {f"task-{number}" for number in range(4)}
    assert [targets_of(store, kind)[0].count for kind in KINDS] == [1, 1, 1, 3]


# Metrics


def event(number: int) -> dict[str, Any]:
    return {"event": "task_received", "topic": "t", "task_id": f"e-{number}"}


def numbers(store: Store) -> list[int]:
    return [int(one["task_id"][2:]) for one in reversed(store.get_metrics(limit=100_000))]


def test_events_beyond_the_newest_so_many(store: Store):
    fill(store)
    assert store.metric_targets(keep=5) == store.metric_targets(keep=100) == []
    (target,) = store.metric_targets(keep=2)
    assert (target.kind, target.count) == ("metrics", 3)
    assert target.size > 0
    assert store.remove([target], nothing_kept).done == 3
    assert numbers(store) == [3, 4]
    (target,) = store.metric_targets(keep=0)
    assert target.count == 2


def test_events_stored_before_a_moment(store: Store):
    store.save_metric(event(0))
    time.sleep(0.02)
    between = time.time()
    time.sleep(0.02)
    store.save_metric(event(1))
    (target,) = store.metric_targets(before=between)
    assert target.count == 1
    assert store.metric_targets(before=0.0) == []
    assert store.remove([target], nothing_kept).done == 1
    assert numbers(store) == [1]
    assert store.metric_targets(before=between) == []


def test_events_that_come_while_others_are_removed_stay(store: Store):
    fill(store)
    (target,) = store.metric_targets()
    assert target.count == 5
    store.save_metric(event(5))
    assert store.remove([target], nothing_kept).done == 5
    assert numbers(store) == [5]
    assert reasons(store.remove([target], nothing_kept)) == {target.names: GONE}


def test_events_are_put_back_before_all_that_are_there(store: Store):
    fill(store)
    kept = removed(store, store.metric_targets(keep=2))
    store.save_metric(event(5))
    assert store.put_back(kept).done == 3
    assert numbers(store) == [0, 1, 2, 3, 4, 5]
    store.save_metric(event(6))
    assert numbers(store)[-1] == 6


def test_of_events_trimmed_meanwhile_the_rest_goes(backend: Backend):
    store = backend.open()
    backend.put_metrics([event(number) | {"saved_at": 1e9 + number} for number in range(10)])
    (target,) = store.metric_targets(keep=3)
    backend.trim_metrics(6)
    rest(backend)
    kept: list[Record] = []
    change = store.remove([target], kept.extend)
    assert (change.done, len(kept)) == (3, 3)
    assert numbers(store) == [7, 8, 9]


def test_events_put_back_before_what_was_seen_are_not_removed_unseen(store: Store):
    fill(store)
    kept = removed(store, store.metric_targets(keep=3))
    (target,) = store.metric_targets(keep=1)
    store.put_back(kept)
    assert reasons(store.remove([target], nothing_kept)) == {target.names: CHANGED}
    assert numbers(store) == [0, 1, 2, 3, 4]


def rest(backend: Backend) -> None:
    """Nobody but us writes now."""
    if isinstance(backend, JsonBackend):
        let_it_rest(backend.folder)


# Expiry


def expiries(store: Store) -> dict[str, float | None]:
    settled(store)
    ids = [f"task-{number}" for number in range(4)]
    return {name: row.expires_at for name, row in store.results_by_id(ids).items()}


def test_results_are_kept_for_ever(store: Store):
    fill(store)
    before = store.get_result("task-1")
    change = store.set_expiry(store.result_targets(), Expiry())
    assert change == Change(done=4)
    assert set(expiries(store).values()) == {None}
    assert store.get_result("task-1") == before
    assert targeted(store, life="forever") == {f"task-{number}" for number in range(4)}


def test_results_expire_at_a_moment(store: Store):
    fill(store)
    saved = {row.task_id: row.saved_at for row in store.result_page(ResultQuery()).rows}
    at = time.time() + 5000
    assert store.set_expiry(store.result_targets(), Expiry(at=at)) == Change(done=4)
    assert all(found == pytest.approx(at, abs=0.05) for found in expiries(store).values())
    assert store.expiring(5100) == 4
    assert store.expiring(4900) == 0
    assert {row.task_id: row.saved_at for row in store.result_page(ResultQuery()).rows} == saved


def test_results_expire_later_than_they_would(store: Store):
    fill(store)
    before = expiries(store)
    now = time.time()
    assert store.set_expiry(store.result_targets(), Expiry(more=100)) == Change(done=4)
    for name, found in expiries(store).items():
        assert found == pytest.approx((before[name] or now) + 100, abs=5)


def test_only_results_as_they_were_seen_expire_otherwise(store: Store):
    fill(store)
    meant = store.result_targets(task_ids=["task-0", "task-1", "task-2"])
    store.save_result("task-0", "newer")
    store.delete_result("task-1")
    change = store.set_expiry(meant, Expiry(at=time.time() + 100))
    assert change.done == 1
    assert reasons(change) == {("task-0",): CHANGED, ("task-1",): GONE}
    found = expiries(store)
    assert found["task-0"] is None
    assert found["task-2"] is not None


@pytest.mark.parametrize(
    "expiry",
    [
        Expiry(at=0.0),
        Expiry(at=1_700_000_000.0),
        Expiry(at=-1.0),
        Expiry(at=math.nan),
        Expiry(at=math.inf),
        Expiry(more=-1e9),
        Expiry(more=math.nan),
        Expiry(more=math.inf),
    ],
    ids=str,
)
def test_a_time_that_has_passed_or_is_none_is_refused(
    backend: Backend, store: Store, expiry: Expiry
):
    fill(store)
    before = backend.photograph()
    with pytest.raises(ValueError, match=r"passed|no time|none"):
        store.set_expiry(store.result_targets(), expiry)
    assert backend.photograph() == before


def test_an_expiry_that_was_changed_comes_back_with_its_result(backend: Backend, store: Store):
    fill(store)
    store.set_expiry(store.result_targets(), Expiry(more=100))
    before = stored(backend)
    store.put_back(removed(store, store.result_targets()))
    assert stored(backend) == before


# Configuration


def test_a_value_is_replaced_if_it_is_as_it_was_seen(store: Store):
    fill(store)
    (seen,) = store.config_targets(["one"])
    assert store.replace_config("one", b'{"new": [1, "\xc3\xbc"]}', seen.mark) == Change(done=1)
    assert store.get_config("one") == {"new": [1, "ü"]}
    assert reasons(store.replace_config("one", b"2", seen.mark)) == {("one",): CHANGED}
    (seen,) = store.config_targets(["one"])
    store.remove([seen], nothing_kept)
    assert reasons(store.replace_config("one", b"2", seen.mark)) == {("one",): GONE}
    assert store.get_config("one") is None


def test_a_key_is_added_only_where_there_is_none(store: Store):
    fill(store)
    assert store.replace_config("new", b" [1, null]\n", None) == Change(done=1)
    assert store.get_config("new") == [1, None]
    assert "new" in store.config_keys().keys
    assert reasons(store.replace_config("one", b"2", None)) == {("one",): THERE}
    assert reasons(store.replace_config("two", b"2", None)) == {("two",): THERE}


@pytest.mark.parametrize("text", [b"", b" ", b"{", b"{'a': 1}", b"undefined", b"1 2", b"\xff"])
def test_what_is_no_json_is_no_configuration(backend: Backend, store: Store, text: bytes):
    fill(store)
    before = stored(backend)
    (seen,) = store.config_targets(["one"])
    for mark in (None, seen.mark):
        with pytest.raises(ValueError, match=r"."):
            store.replace_config("one", text, mark)
    assert stored(backend) == before


def test_a_value_of_any_layout_reads_as_it_was_typed(store: Store):
    value = {"a": [1, {"b": '  \n  "c": 2'}], "long": 12345678901234567890123, "x": 1.5}
    text = json.dumps(value, indent=1).replace("\n", "\n  ").encode()
    assert store.replace_config("key", text, None).done == 1
    store.save_config("other", 1)
    assert store.get_config("key") == value
    assert store.get_config("other") == 1
    assert {entry.key for entry in store.config_entries(["key", "other"])} == {"key", "other"}


# Who else is at work


def test_nobody_owns_a_store_that_nobody_uses(store: Store):
    fill(store)
    assert store.owned_by() == store.owner_unproven() == ""
    with store.owner_stated_stopped():
        assert removed(store, targets_of(store, "agent"))


def test_an_agent_that_was_never_there_is_not_known_to_consume(store: Store):
    assert store.consuming("t", "a") is not True
