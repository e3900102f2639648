"""The history: its figures equal a sum by hand over the events that the store holds."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnidash.figures import percentile

from omnidash.history import History
from tests.stores import Backend, RedisBackend

pytest_plugins = ["tests.store_fixtures"]

NOW = 1_800_000_030.0
NAMES = st.sampled_from(["", "a", "b:c", "ü"])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(
            ["task_received", "task_processed", "task_failed", "agent_state_change", "other", 7]
        ),
        "topic": NAMES,
        "agent": NAMES,
        "timestamp": st.one_of(
            st.floats(NOW - 7200, NOW), st.none(), st.just("x"), st.just(math.nan)
        ),
        "processing_time_sec": st.one_of(
            st.floats(-1, 100), st.just(math.nan), st.just("1"), st.none()
        ),
        "error_type": st.sampled_from(["E", "F"]),
        "error": st.sampled_from(["x", "y"]),
    },
)


def fresh(history: History) -> History:
    """Read now, though somebody has read within the last second."""
    history._read_at = -math.inf
    history.refresh()
    return history


def by_hand(events: list[dict[str, Any]]) -> dict[str, Any]:
    counted = [e for e in events if isinstance(e.get("event"), str) and e["event"]]
    tasks = [e for e in counted if e["event"] != "agent_state_change"]
    times = sorted(
        e["processing_time_sec"]
        for e in tasks
        if e["event"] == "task_processed"
        and isinstance(e.get("processing_time_sec"), float)
        and e["processing_time_sec"] >= 0
    )
    kinds = Counter(e["event"] for e in tasks)
    failed = [e for e in tasks if e["event"] == "task_failed"]
    errors = Counter((e.get("error_type", ""), e.get("error", "")) for e in failed)
    return {
        "received": kinds["task_received"],
        "processed": kinds["task_processed"],
        "failed": kinds["task_failed"],
        "p50": times[math.ceil(0.5 * len(times)) - 1] if times else None,
        "max": times[-1] if times else None,
        "errors": dict(errors),
        "unreadable": len(events) - len(counted),
    }


def found(history: History) -> dict[str, Any]:
    totals = history.totals()
    return {
        "received": totals.received,
        "processed": totals.processed,
        "failed": totals.failed,
        "p50": totals.p50,
        "max": totals.max,
        "errors": {(g.error_type, g.error): g.count for g in history.errors()},
        "unreadable": history.stored()[1],
    }


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.lists(EVENTS, max_size=12), min_size=1, max_size=4), st.integers(0, 20))
def test_figures_equal_a_sum_by_hand_however_the_events_come_and_go(
    redis_backend: Backend, batches: list[list[dict[str, Any]]], keep: int
) -> None:
    store = redis_backend.open()
    store.clear_metrics()
    history, stored = History(store), []
    for batch in batches:
        redis_backend.put_metrics(batch)
        stored += batch
        assert found(fresh(history)) == by_hand(stored)
        agents, _ = history.by_agent()
        assert sum(row.received for row in agents) == history.totals().received
    redis_backend.trim_metrics(keep)
    assert found(fresh(history)) == by_hand(stored[-keep:] if keep else [])
    store.close()


def total(counts: list[int | None]) -> int:
    return sum(count for count in counts if count is not None)


def test_the_minutes_add_up_to_the_totals(backend: Backend) -> None:
    now = time.time()
    events = [
        {"event": kind, "topic": "t", "agent": agent, "timestamp": now - age}
        for kind in ("task_received", "task_processed", "task_failed")
        for agent in ("a", "b")
        for age in (61, 125, 600, 1800, 3000)
    ]
    backend.put_metrics(events)
    history = fresh(History(backend.open()))
    series = history.series(now, 60)
    assert total(series.received) == total(series.processed) == total(series.failed) == 10
    alone = history.series(now, 60, "t", "a")
    assert total(alone.received) == 5
    assert total(history.series(now, 60, topic="t").failed) == 10
    assert total(history.series(now, 60, agent="nobody").failed) == 0
    assert history.lately(now, 60).failed == 10


def test_minutes_before_the_oldest_stored_event_are_unknown_not_zero(backend: Backend) -> None:
    now = (time.time() // 60) * 60 + 30
    backend.put_metrics(
        [{"event": "task_processed", "topic": "t", "agent": "a", "timestamp": now - age}
         for age in (31, 100, 160, 220)]
    )  # fmt: skip
    history = fresh(History(backend.open()))
    assert history.covered(now, 60) == 4
    assert history.lately(now, 60).per_minute == 1.0
    assert [row.per_minute for row in history.busiest(now, 60, 5)] == [1.0]
    assert history.series(now, 60).processed == [*([None] * 56), 1, 1, 1, 1]


def test_a_cleared_store_leaves_no_figures(backend: Backend) -> None:
    store = backend.open()
    store.save_metric({"event": "task_received", "topic": "t", "agent": "a", "timestamp": NOW})
    history = fresh(History(store))
    assert history.totals().received == 1
    store.clear_metrics()
    assert fresh(history).totals().received == 0
    assert history.by_agent() == ([], 0)
    store.save_metric({"event": "task_failed", "topic": "t", "agent": "a", "timestamp": NOW})
    assert fresh(history).totals().failed == 1
    assert history.totals().received == 0


def test_each_event_is_read_once(backend: Backend) -> None:
    store = backend.open()
    read: list[int] = []
    metrics_after = store.metrics_after
    store.metrics_after = lambda *args: read.append(1) or metrics_after(*args)  # type: ignore
    backend.put_metrics([{"event": "task_received", "timestamp": NOW}] * 30)
    history = History(store)
    cursors = []
    for _ in range(3):
        fresh(history)
        cursors.append(history._cursor)
    assert len(set(cursors)) == 1
    assert history.totals().received == 30


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([1.0], 0.99, 1.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0], 0.51, 2.0)],
)
def test_a_percentile_is_a_value_that_occurred(
    values: list[float], share: float, expected: float | None
) -> None:
    assert percentile(values, share) == expected


def test_a_deleted_newest_event_does_not_take_the_others_along(
    redis_backend: RedisBackend,
) -> None:
    store = redis_backend.open()
    redis_backend.put_metrics([{"event": "task_received", "timestamp": NOW}] * 10)
    history = fresh(History(store))
    stream = redis_backend.key("metrics", "stream")
    newest = redis_backend.client.xrevrange(stream, count=1)[0][0]
    redis_backend.client.xdel(stream, newest)
    assert fresh(history).totals().received == 9
    redis_backend.put_metrics([{"event": "task_received", "timestamp": NOW}])
    assert fresh(history).totals().received == 10
