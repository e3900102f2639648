"""Over the same events our figures are those of OmniDaemon's own `sdk.metrics`."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from omnidash.history import History, answers
from omnidash.history.levels import last
from omnidash.queries import RANGES
from tests.history.readers import read_now
from tests.stores import Backend, JsonBackend, RedisBackend
from tests.test_live_runner import Runner
from tests.upstream import OmniDaemonSDK, Upstream

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

EVERYTHING = 1_000_000  # events; OmniDaemon takes the newest thousand unless told otherwise
Theirs = dict[tuple[str, str], dict[str, float]]


def of_omnidaemon(backend: Backend) -> Theirs:
    async def asked(store: Any) -> Theirs:
        found = await OmniDaemonSDK(store=store).metrics(limit=EVERYTHING)
        return {
            (topic, agent): figures
            for topic, agents in found.items()
            for agent, figures in agents.items()
        }

    found: Theirs = Upstream(backend).run(asked)
    return found


def agree(history: History, theirs: Theirs) -> None:
    figures, count = answers.by_agent(history.source(), last(RANGES["30d"], time.time()))
    ours = {(row.topic, row.agent): row for row in figures}
    assert ours.keys() == theirs.keys()
    assert count == len(theirs)
    for agent, told in theirs.items():
        row = ours[agent]
        counts = ("tasks_received", "tasks_processed", "tasks_failed")
        assert [row.received, row.processed, row.failed] == [told[name] for name in counts]
        if row.processed:
            # They round to milliseconds.
            assert row.mean == pytest.approx(told["avg_processing_time_sec"], abs=0.00051)
        else:
            assert row.mean is None


@pytest.fixture(params=["json_fixture", "redis_fixture"])
def real(request: pytest.FixtureRequest) -> Backend:
    """What OmniDaemon's agents left behind."""
    found: Backend = request.getfixturevalue(request.param)
    return found


def test_totals_of_each_agent_are_theirs(real: Backend) -> None:
    theirs = of_omnidaemon(real)
    assert sum(told["tasks_processed"] for told in theirs.values()) > 500
    agree(read_now(History(real.open())), theirs)


def test_percentiles_and_maxima_are_those_of_the_stored_times(real: Backend) -> None:
    times = defaultdict(list)
    for event in Upstream(real).get_metrics(limit=EVERYTHING):
        if event.get("event") == "task_processed":
            times[event["topic"], event["agent"]].append(event["processing_time_sec"])
    source = read_now(History(real.open())).source()
    figures, _ = answers.by_agent(source, last(RANGES["30d"], time.time()))
    assert {(row.topic, row.agent) for row in figures if row.max is not None} == times.keys()
    for row in figures:
        ordered = sorted(times.get((row.topic, row.agent), []))
        if ordered:
            assert row.max == ordered[-1]
            assert row.mean == pytest.approx(sum(ordered) / len(ordered))
            for found, share in ((row.p50, 50), (row.p95, 95), (row.p99, 99)):
                exact = ordered[math.ceil(Fraction(share, 100) * len(ordered)) - 1]
                assert found == pytest.approx(exact, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("kind", ["json", "redis"])
def test_a_runner_that_works_beside_two_readers_is_counted_once(
    kind: str, redis_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    runner = Runner(redis_url, STORAGE_BACKEND=kind, JSON_STORAGE_DIR=str(folder))
    backend: Backend = JsonBackend(folder) if kind == "json" else RedisBackend(redis_url)
    try:
        readers = [History(backend.open()), History(backend.open())]
        for _ in range(5):
            runner.publish(20)
            for history in readers:
                read_now(history)
        wanted = 100 if kind == "json" else 400  # a JSON store keeps the newest 99 to itself
        deadline = time.monotonic() + 60
        while readers[0].source().events < wanted:
            assert time.monotonic() < deadline
            for history in readers:
                read_now(history)
            time.sleep(0.05)
        runner.stop()
        read_now(readers[0])
        agree(readers[1], of_omnidaemon(backend))
        assert readers[0].source().events == backend.metrics_stored() == 400
    finally:
        runner.kill()
        backend.close()
