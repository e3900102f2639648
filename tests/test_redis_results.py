"""Results in Redis: what the learnt index must notice, survive and never show."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from storage.base import RecordNotFound, ResultQuery
from storage.records import RAW_LIMIT
from storage.redis_store import RedisStore, client, result_index, result_reading, results
from storage.redis_store.result_shelf import Entry, Filter, Shelf
from tests.stores import RedisBackend, inspected, settled

pytest_plugins = ["tests.store_fixtures"]


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    found = redis_backend.open()
    assert isinstance(found, RedisStore)
    return found


def put(
    backend: RedisBackend, ids: Iterable[str], *, ttl: int | None = 3600, score: float | None = None
) -> None:
    """Many results, each a second younger than the one before."""
    pipeline = backend.client.pipeline(transaction=False)
    base = time.time() - 100_000
    for number, task_id in enumerate(ids):
        saved_at = base + number if score is None else score
        agent = f"agent-{number % 3}"
        body = {"agent": agent, "topic": f"topic-{number % 2}", "status": "completed"}
        record = {"task_id": task_id, "result": body, "saved_at": saved_at}
        pipeline.set(backend.key("result", task_id), json.dumps(record), ex=ttl)
        pipeline.zadd(backend.key("results", "index"), {task_id: saved_at})
    pipeline.execute()


def ids_of(store: RedisStore, **query: Any) -> list[str]:
    return [row.task_id for row in store.result_page(ResultQuery(**query)).rows]


def numbered(number: int) -> list[str]:
    return [f"task-{index:05d}" for index in range(number)]


def test_many_newest_orphans_hide_no_live_result(redis_backend: RedisBackend, store: RedisStore):
    put(redis_backend, ["alive"])
    now = time.time()
    orphans = {f"orphan-{number}": now + number for number in range(30_000)}
    redis_backend.client.zadd(redis_backend.key("results", "index"), orphans)
    counts = settled(store)
    assert ids_of(store) == ["alive"]
    assert (counts.results, counts.orphans, counts.results_indexed) == (1, 30_000, 30_001)
    assert [found["task_id"] for found in store.list_results(1)] == ["alive"]


def test_a_result_that_the_index_lacks_is_found_and_marked(
    redis_backend: RedisBackend, store: RedisStore
):
    put(redis_backend, ["indexed", "loose"])
    redis_backend.client.zrem(redis_backend.key("results", "index"), "loose")
    settled(store)
    rows = {row.task_id: row for row in store.result_page(ResultQuery()).rows}
    assert rows["indexed"].indexed
    assert not rows["loose"].indexed
    assert not store.result("loose").indexed
    broken = {found.key: found.reason for found in inspected(store).broken}
    assert "not in the index" in broken["omni:result:loose"]


@pytest.mark.parametrize("ruin", ["delete", "replace"])
def test_results_are_found_without_an_index(
    redis_backend: RedisBackend, store: RedisStore, ruin: str
):
    put(redis_backend, ["a", "b"])
    assert settled(store).results == 2
    index = redis_backend.key("results", "index")
    redis_backend.client.delete(index)
    if ruin == "replace":
        redis_backend.client.set(index, "x")
        broken = {found.key: found.reason for found in inspected(store).broken}
        assert broken["omni:results:index"] == "expected zset, is string"
    settled(store)
    assert sorted(ids_of(store)) == ["a", "b"]
    assert settled(store).results_indexed == 0


def test_values_of_other_types_are_marked_rows(redis_backend: RedisBackend, store: RedisStore):
    put(redis_backend, ["good", "bad"])
    key = redis_backend.key("result", "bad")
    redis_backend.client.delete(key)
    redis_backend.client.rpush(key, "x")
    rows = {row.task_id: row for row in store.result_page(ResultQuery()).rows}
    assert rows["good"].problem == ""
    assert rows["bad"].problem == "expected string, is list"
    assert store.result("bad").problem == "expected string, is list"
    assert store.get_result("bad") is None
    assert [found["task_id"] for found in store.list_results()] == ["good"]


def test_a_huge_value_is_never_read_whole(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    size = 40_000_000
    put(redis_backend, ["big", "small"])
    redis_backend.client.setrange(redis_backend.key("result", "big"), size - 1, "x")
    received: list[int] = []
    exchange = client.exchange

    def weighed(link: Any, commands: Any) -> list[Any]:
        replies = exchange(link, commands)
        received.extend(len(reply) for reply in replies if isinstance(reply, bytes))
        return replies

    monkeypatch.setattr(client, "exchange", weighed)
    found = {row.task_id: row for row in store.result_page(ResultQuery()).rows}["big"]
    assert (found.size, found.truncated) == (size, True)
    one = store.result("big")
    assert (one.size, len(one.raw), one.truncated, one.parsed) == (size, RAW_LIMIT, True, False)
    assert not store.result_page(ResultQuery(text="not there")).complete
    assert max(received) <= result_reading.WHOLE


def test_a_large_value_is_still_understood(redis_backend: RedisBackend, store: RedisStore):
    store.save_result("large", {"text": "x" * 500_000, "agent": "writer"})
    assert ids_of(store, agent="writer") == ["large"]
    found = store.result("large")
    assert found.parsed
    assert found.body["agent"] == "writer"
    assert len(found.raw) == found.size > 500_000


def test_what_others_change_shows_at_the_next_look(redis_backend: RedisBackend, store: RedisStore):
    put(redis_backend, ["a", "b", "c", "d"])
    assert settled(store).forever == 0
    redis_backend.client.persist(redis_backend.key("result", "a"))
    redis_backend.client.expire(redis_backend.key("result", "b"), 60)
    redis_backend.client.delete(redis_backend.key("result", "c"))
    redis_backend.client.set(redis_backend.key("result", "d"), "[")
    rows = {row.task_id: row for row in store.result_page(ResultQuery()).rows}
    assert rows.keys() == {"a", "b", "d"}
    assert rows["a"].expires_at is None
    assert rows["b"].expires_at == pytest.approx(time.time() + 60, abs=5)
    assert rows["d"].problem.startswith("not JSON")
    assert ids_of(store, life="forever") == ["d", "a"]
    assert store.expiring(120) == 1
    counts = settled(store)
    assert (counts.results, counts.orphans, counts.unreadable) == (3, 1, 1)


def test_what_others_change_far_from_the_page_is_noticed_in_turn(
    redis_backend: RedisBackend, store: RedisStore
):
    put(redis_backend, numbered(3000))
    assert settled(store).forever == 0
    redis_backend.client.persist(redis_backend.key("result", "task-00007"))
    for _ in range(2 * 3000 // result_index._SLICE):
        store.expiring(1)
    assert settled(store).forever == 1


@pytest.mark.parametrize("score", [None, 5.0], ids=["by time", "all at once"])
def test_the_middle_of_the_index_is_followed(
    redis_backend: RedisBackend, store: RedisStore, score: float | None
):
    put(redis_backend, numbered(6000), score=score)
    assert settled(store).results == 6000
    index = redis_backend.key("results", "index")
    middle = redis_backend.client.zscore(index, "task-03000")
    assert middle is not None
    redis_backend.client.zrem(index, "task-03000", "task-00001", "task-05998")
    for gone in ("task-03000", "task-00001", "task-05998"):
        redis_backend.client.delete(redis_backend.key("result", gone))
    redis_backend.client.set(redis_backend.key("result", "late"), '{"result": 1}')
    redis_backend.client.zadd(index, {"late": middle})
    # It took the very place of one that left, which no count shows; the walk over the keys does.
    deadline = time.monotonic() + 30
    while ids_of(store, life="forever") != ["late"] and time.monotonic() < deadline:
        time.sleep(0.01)
    counts = settled(store)
    assert (counts.results, counts.orphans) == (5998, 0)


def test_a_result_saved_again_is_shown_as_it_is_now(redis_backend: RedisBackend, store: RedisStore):
    put(redis_backend, numbered(300))
    assert ids_of(store, limit=1) == ["task-00299"]
    other = redis_backend.open()
    other.save_result("task-00000", {"agent": "second"}, 60)
    assert ids_of(store, limit=1) == ["task-00000"]
    assert ids_of(store, agent="second") == ["task-00000"]
    assert ids_of(store, order="expiring", limit=1) == ["task-00000"]
    assert settled(store).results == 300


def test_what_is_emptied_is_empty_at_the_next_look(redis_backend: RedisBackend, store: RedisStore):
    put(redis_backend, numbered(2500))
    assert settled(store).results == 2500
    redis_backend.client.flushdb()
    assert settled(store).results == 0
    assert store.result_page(ResultQuery()).rows == []
    put(redis_backend, numbered(10))
    assert settled(store).results == 10


def test_a_result_leaves_every_list_when_its_time_has_come(
    redis_backend: RedisBackend, store: RedisStore
):
    put(redis_backend, ["stays", "goes"])
    redis_backend.client.pexpire(redis_backend.key("result", "goes"), 300)
    assert ids_of(store, order="expiring") == ["goes", "stays"]
    time.sleep(0.35)
    assert ids_of(store, order="expiring") == ["stays"]
    assert ids_of(store, life="expired") == []
    counts = settled(store)
    assert (counts.results, counts.orphans) == (1, 1)
    with pytest.raises(RecordNotFound):
        store.result("goes")


def test_a_server_without_pexpiretime_tells_expiries_as_well(
    redis_backend: RedisBackend, store: RedisStore
):
    put(redis_backend, ["soon"], ttl=100)
    put(redis_backend, ["later"], ttl=1000)
    put(redis_backend, ["never"], ttl=None)
    store._expiries._verb = "PTTL"
    for _ in range(2):
        rows = store.result_page(ResultQuery(order="expiring")).rows
        assert [row.task_id for row in rows] == ["soon", "later", "never"]
        assert rows[0].expires_at == pytest.approx(time.time() + 100, abs=5)
        assert rows[2].expires_at is None
    assert store.result("soon").expires_at == pytest.approx(time.time() + 100, abs=5)


def test_time_left_is_right_where_the_clocks_differ(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    put(redis_backend, ["a"], ttl=600)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 300)  # ours is five minutes behind
    (row,) = store.result_page(ResultQuery()).rows
    assert row.expires_at == pytest.approx(time.time() + 600, abs=5)
    assert store.result("a").expires_at == pytest.approx(time.time() + 600, abs=5)
    assert (store.expiring(590), store.expiring(610)) == (0, 1)
    edges = [time.time() + left for left in (0, 590, 610)]
    assert store.expiry_histogram(edges) == [0, 1]
    found = store.result_page(ResultQuery(expires_from=edges[1], expires_before=edges[2]))
    assert [row.task_id for row in found.rows] == ["a"]
    assert any("300 s ahead" in risk for risk in store.inspect().risks)


def test_the_newest_are_there_before_all_are_learnt(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    put(redis_backend, numbered(5000))
    monkeypatch.setattr(result_index.ResultIndex.look, "__defaults__", (0.0,))
    monkeypatch.setattr(result_index.ResultIndex, "_learn_on", lambda self: None)
    page = store.result_page(ResultQuery(limit=3))
    assert [row.task_id for row in page.rows] == ["task-04999", "task-04998", "task-04997"]
    assert (page.total, page.complete) == (None, False)
    assert store.expiring(60) is None
    assert store.expiry_histogram([0, time.time() + 60]) is None
    counts = store.counts()
    assert not counts.complete
    assert counts.learnt < 5000
    monkeypatch.undo()
    assert settled(store).learnt == 5000
    assert store.result_page(ResultQuery(limit=3)).total == 5000


def test_a_search_that_runs_out_of_time_says_how_far_it_came(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    put(redis_backend, numbered(500))
    assert settled(store).results == 500
    monkeypatch.setattr(results, "_READ", 100)
    page = store.result_page(ResultQuery(text="TASK-00499", budget=0.0))
    assert [row.task_id for row in page.rows] == ["task-00499"]
    assert (page.complete, page.searched, page.of, page.total) == (False, 100, 500, None)
    page = store.result_page(ResultQuery(text="task-0000", budget=60))
    assert (page.complete, page.searched, page.total) == (True, 500, 10)


def test_a_warm_page_asks_for_what_it_shows(
    redis_backend: RedisBackend, store: RedisStore, monkeypatch: pytest.MonkeyPatch
):
    put(redis_backend, numbered(4000))
    asked: list[int] = []
    exchange = client.exchange

    def counted(link: Any, commands: Any) -> list[Any]:
        asked.append(len(commands))
        return exchange(link, commands)

    def cost(ask: Callable[[], object]) -> tuple[int, int]:
        settled(store)
        asked.clear()
        ask()
        return len(asked), sum(asked)

    monkeypatch.setattr(client, "exchange", counted)
    for query in (ResultQuery(), ResultQuery(order="expiring"), ResultQuery(agent="agent-1")):
        trips, commands = cost(lambda query=query: store.result_page(query))
        assert trips <= 5
        assert commands <= 2 * result_index._SLICE + 2 * query.limit + 20
    trips, _ = cost(store.counts)
    assert trips <= 10


def test_readers_stay_right_while_others_write(redis_backend: RedisBackend, store: RedisStore):
    put(redis_backend, numbered(2000))
    stop, failures = threading.Event(), list[BaseException]()

    def guarded(work: Callable[[int], object]) -> Callable[[], None]:
        def loop() -> None:
            turn = 0
            try:
                while not stop.is_set():
                    work(turn)
                    turn += 1
            except BaseException as error:
                failures.append(error)
                raise

        return loop

    other = redis_backend.open()
    work: list[Callable[[int], object]] = [
        lambda turn: other.save_result(f"new-{turn}", {"agent": f"agent-{turn % 5}"}, 60),
        lambda turn: other.delete_result(f"task-{turn:05d}"),
        lambda turn: store.save_result(f"own-{turn % 50}", turn),
        lambda turn: store.result_page(ResultQuery(order="expiring", offset=turn % 100)),
        lambda turn: store.result_page(ResultQuery(agent=f"agent-{turn % 5}")),
        lambda turn: store.counts(),
    ]
    threads = [threading.Thread(target=guarded(each)) for each in work]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    live = list(redis_backend.client.scan_iter("omni:result:*", count=1000))
    assert settled(store).results == len(live)
    assert len(ids_of(store, limit=10_000)) == len(live)


def test_every_view_is_what_a_fresh_sort_would_show():
    chance = random.Random(5)
    shelf, model = Shelf(), dict[bytes, Entry]()
    wanted = [Filter(), Filter(agent="a"), Filter(life="forever"), Filter(status="x", agent="b")]
    for _ in range(60):
        for _ in range(chance.choice([1, 5, 200])):
            task_id = b"%d" % chance.randrange(300)
            if chance.random() < 0.3:
                shelf.take(task_id)
                model.pop(task_id, None)
                continue
            entry = Entry(
                task_id, chance.randrange(50), chance.choice([None, float(chance.randrange(90))]),
                1, chance.choice("ab"), "t", chance.choice("xy"),
            )  # fmt: skip
            shelf.put(entry)
            model[task_id] = entry
        for kept in wanted:
            view = shelf.view(kept)
            ours = [entry for entry in model.values() if kept.keeps(entry)]
            assert view.newest.items() == sorted((one.score, one.task_id) for one in ours)
            assert len(view.expiring) == len(view.expiring.items()) == len(ours)
        assert shelf.forever == sum(entry.expires is None for entry in model.values())
        assert sum(shelf.facets["agent"].values()) == len(model)
