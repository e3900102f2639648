"""The sample store: plausible, shaped as OmniDaemon's own, alive, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from storage import open_store
from storage.base import ResultQuery, StoreBusy
from storage.json_store import JsonStore
from storage.simulator import NotASample, advance, first_batch, new_world, simulate
from tests.upstream import JSONStore

ROOT = Path(__file__).resolve().parent.parent
NOW = 1_790_000_000.0


def opened(folder: Path) -> JsonStore:
    store = open_store(f"json://{quote(str(folder))}")
    assert isinstance(store, JsonStore)
    return store


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "store"
    simulate(str(folder), threading.Event(), seed=1, once=True)
    return folder


def load(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text("utf-8"))


def eventually(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_the_sample_is_a_plausible_company(sample: Path):
    store = opened(sample)
    counts = store.counts()
    assert (counts.agents, counts.topics, counts.unreadable) == (24, 9, 0)
    assert (counts.expired, counts.forever) == (3, 1)
    assert counts.results is not None
    assert 350 < counts.results < 750
    assert counts.metrics is not None
    assert 6000 < counts.metrics < 10_000
    assert not store.inspect().troubles
    assert not store.inspect().broken
    states = [agent.subscribed for agent in store.agents_by_name(
        (topic, agent["name"])
        for topic, agents in store.list_all_agents().items()
        for agent in agents
    )]  # fmt: skip
    assert Counter(states) == {True: 23, False: 1}
    assert len(store.supervisors()) == 3
    assert any(
        not agent["name"].isascii() for agent in store.get_agents_by_topic("translation.requested")
    )
    soon = store.expiring(3600)
    assert soon
    assert soon > 5
    assert store.runner().start_time


def test_the_events_are_those_of_the_last_hour_in_order(sample: Path):
    events = load(sample, "metrics.json")
    times = [event["saved_at"] for event in events]
    assert times == sorted(times)
    assert time.time() - 3700 < times[0] < time.time() - 3500
    assert times[-1] > time.time() - 60
    kinds = Counter(event["event"] for event in events)
    assert set(kinds) == {"task_received", "task_processed", "task_failed", "agent_state_change"}
    assert 0.97 < kinds["task_processed"] / (kinds["task_processed"] + kinds["task_failed"]) < 1
    assert len({event["error_type"] for event in events if "error_type" in event}) >= 4


FIXTURE = ROOT / "tests" / "data" / "json-small"


def test_the_records_have_the_fields_of_the_real_ones(sample: Path):
    def events(folder: Path) -> set[tuple[str, ...]]:
        return {(event["event"], *event) for event in load(folder, "metrics.json")}

    assert events(sample) == events(FIXTURE)

    def fields(folder: Path, name: str) -> set[tuple[str, ...]]:
        found = load(folder, name)
        if name == "agents.json":
            return {tuple(agent) for agents in found.values() for agent in agents}
        results = [result for result in found.values() if "content" in (result["result"] or ())]
        return {tuple(result) + tuple(result["result"]) for result in results if
                len(result) == 4}  # fmt: skip

    assert fields(sample, "agents.json") <= fields(FIXTURE, "agents.json")
    assert fields(sample, "results.json") <= fields(FIXTURE, "results.json")
    ours, theirs = load(sample, "config.json"), load(FIXTURE, "config.json")

    def supervisor(config: dict[str, Any]) -> set[tuple[str, ...]]:
        found = [value for key, value in config.items() if key.startswith("supervisor:")]
        return {tuple(value) for value in found}

    assert supervisor(ours) == supervisor(theirs)


def test_omnidaemon_reads_the_sample(sample: Path):
    async def read() -> tuple[int, int, int]:
        store = JSONStore(str(sample))
        await store.connect()
        agents = await store.list_all_agents()
        results = await store.list_results(10_000)
        metrics = await store.get_metrics(limit=100_000)
        return sum(map(len, agents.values())), len(results), len(metrics)

    counts = opened(sample).counts()
    on_disk = (counts.results or 0) + (counts.expired or 0)
    assert asyncio.run(read()) == (24, on_disk, counts.metrics)


def test_the_sample_has_secrets_to_mask(sample: Path):
    config = load(sample, "config.json")
    assert "smtp.password" in config
    assert ":sample-secret@" in config["crm.url"]


def test_the_same_seed_and_time_give_the_same_company():
    def photograph(seed: int) -> str:
        world = new_world(seed, NOW)
        batches = [first_batch(world, NOW)]
        batches += [advance(world, NOW + second) for second in range(1, 100)]
        return repr(batches)

    assert photograph(1) == photograph(1)
    assert photograph(1) != photograph(2)


def test_a_day_of_it_keeps_its_size_and_its_shape():
    world = new_world(3, NOW)
    results = dict(first_batch(world, NOW).results)
    states, events, last = Counter[str](), 0, 0.0
    for minute in range(1, 24 * 60):
        now = NOW + minute * 60
        batch = advance(world, now)
        results.update(batch.results)
        for key in batch.dropped_results:
            del results[key]
        for event in batch.metrics:
            assert last <= event["saved_at"] <= now + 0.01
            last = event["saved_at"]
        events += len(batch.metrics)
        states.update(e["new_state"] for e in batch.metrics if "new_state" in e)
        assert 350 < len(results) < 750
        expired = sum(result.get("expires_at", now + 1) <= now for result in results.values())
        assert expired <= 3
    assert 100 < events / (24 * 60) < 160
    assert states["crashed"] == states["restarting"] > 50


# The process


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "manage.py", "simulate", *arguments]
        environment = os.environ | {
            "OMNIDASH_DATA_DIR": str(tmp_path / "data"),
            "OMNIDASH_STORES": f"default=json://{tmp_path}/other",
        }
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_it_keeps_writing_until_told_to_stop_and_stops_cleanly(simulator, tmp_path: Path):
    folder = tmp_path / "sample"
    process = simulator("--dir", str(folder), "--seed", "5")
    eventually(lambda: (folder / "metrics.json").exists())
    store = opened(folder)
    cursor = store.metrics_after(None).cursor
    eventually(lambda: store.metrics_after(cursor).events)
    assert store.metrics_after(cursor).gap is False
    assert store.owner().state == "live"
    with pytest.raises(StoreBusy):
        store.save_config("a", 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert store.runner().start_time is None
    assert store.owner().state == "free"
    assert store.supervisors() == []
    config = load(folder, "config.json")
    assert config["_supervisor_registry"] == []
    assert config["supervisor:invoice-parser"] is None


def test_it_ends_with_the_process_that_started_it(tmp_path: Path):
    folder = tmp_path / "sample"
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import sys, threading; from storage.simulator "
        "import simulate; simulate(sys.argv[1], threading.Event(), 1)', sys.argv[1]])\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT)
    eventually(lambda: (folder / "metrics.json").exists())
    parent.kill()
    parent.wait()
    eventually(lambda: load(folder, "config.json")["_omnidaemon_start_time"] is None)


def test_an_earlier_sample_is_made_fresh(tmp_path: Path):
    folder = tmp_path / "sample"
    simulate(str(folder), threading.Event(), 1, once=True)
    old = load(folder, "results.json")
    (folder / "metrics.json").write_text("[{")
    (folder / "agents.json").write_bytes(b"")
    simulate(str(folder), threading.Event(), 2, once=True)
    store = opened(folder)
    assert store.counts().agents == 24
    assert not set(old) & set(load(folder, "results.json")) - {"quarterly-report-kept"}
    assert store.result_page(ResultQuery(limit=1)).rows[0].saved_at
    assert store.health_check()["status"] == "healthy"


@pytest.mark.parametrize("name", ["agents.json", "anything", ".hidden"])
def test_a_directory_with_files_of_others_is_left_alone(tmp_path: Path, name: str):
    (tmp_path / name).write_text("{}")
    with pytest.raises(NotASample, match="no simulator wrote"):
        simulate(str(tmp_path), threading.Event(), 1, once=True)
    assert os.listdir(tmp_path) == [name]


def test_two_simulators_do_not_share_a_directory(simulator, tmp_path: Path):
    folder = tmp_path / "sample"
    simulator("--dir", str(folder))
    eventually(lambda: (folder / "metrics.json").exists())
    second = simulator("--dir", str(folder))
    assert second.wait(20) == 1
    assert second.stderr is not None
    assert b"another simulator" in second.stderr.read()


def test_without_a_sample_store_the_directory_must_be_named(simulator):
    process = simulator()
    assert process.wait(20) == 1
    assert process.stderr is not None
    assert b"--dir" in process.stderr.read()
