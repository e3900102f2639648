"""The real OmniDaemon works, and the pages follow it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.test import Client

from omnidash.history import answers
from omnidash.history.levels import last
from omnidash.stores import registry
from storage import open_store
from storage.base import StoreBusy
from storage.json_store import JsonStore
from tests.pages import links, serving, text_of

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parent.parent


class Runner:
    """OmniDaemon's runner on one store, its bus on Redis."""

    def __init__(self, redis_url: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.runner"],
            cwd=ROOT,
            env={**os.environ, "REDIS_URL": redis_url, "EVENT_BUS_TYPE": "redis_stream"}
            | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.expect("ready")

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        pytest.fail(f"the runner ended without saying {word}")

    def publish(self, tasks: int) -> None:
        assert self.process.stdin is not None
        print(tasks, file=self.process.stdin, flush=True)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.expect("stopped")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=["json", "redis"])
def live(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Runner]:
    folder = tmp_path / "store"
    url = f"json://{folder}" if request.param == "json" else redis_url
    runner = Runner(redis_url, STORAGE_BACKEND=request.param, JSON_STORAGE_DIR=str(folder))
    with serving(prod=url):
        yield runner
    runner.kill()


def until(word: str, question: Callable[[], str]) -> None:
    deadline = time.monotonic() + 60
    while word not in (said := question()):
        assert time.monotonic() < deadline, f"the page did not follow: {said}"
        time.sleep(0.2)


def test_the_pages_follow_a_real_runner_through_its_life(
    viewer_client: Client, live: Runner
) -> None:
    def said(path: str) -> str:
        return text_of(viewer_client.get(f"/prod/{path}"))

    until("2 agents in 2 topics", lambda: said("agents/"))
    assert set(links(viewer_client.get("/prod/agents/"), "/prod/agents/").values()) == {
        "echo",
        "fuse",
    }
    assert "Active" in said("agents/?q=echo")

    live.publish(40)
    until("40 stored", lambda: said("results/"))
    # A runner that writes JSON keeps up to 99 events in memory: 160 events make 100 visible.
    seen = 160 if registry()["prod"].store.metrics_lag == 0 else 100
    until(f"{seen} events were read", lambda: said("metrics/"))
    assert "ValueError" in said("metrics/")
    assert "no <b>good</b>" in said("metrics/")
    until("Running", lambda: said(""))
    if seen == 160:
        source = registry()["prod"].history.source()
        total = answers.points(source, last(900, time.time())).total
        assert (total.received, total.processed, total.failed) == (80, 40, 40)

    live.stop()
    until("Stopped", lambda: said(""))
    until("160 events were read", lambda: said("metrics/"))


def test_a_runner_that_is_killed_is_not_running_for_ever(
    viewer_client: Client, live: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.publish(60)
    until("Running", lambda: text_of(viewer_client.get("/prod/")))
    live.kill()
    monkeypatch.setattr("omnidash.health.ALIVE", 0.0)  # as if the time had passed
    page = text_of(viewer_client.get("/prod/"))
    assert re.search(r"Status\s*Degraded", page)
    assert "never said that it stopped" in page


def test_a_json_directory_is_free_as_soon_as_its_runner_has_stopped_cleanly(
    redis_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    runner = Runner(redis_url, STORAGE_BACKEND="json", JSON_STORAGE_DIR=str(folder))
    try:
        store = open_store(f"json://{folder}")
        assert isinstance(store, JsonStore)
        assert store.owner().state == "live"
        runner.publish(5)
        deadline = time.monotonic() + 60
        while len(store.list_results()) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(StoreBusy, match="stop the runner"):
            store.clear_results()
        runner.stop()
        assert store.owner().state == "free", store.owner().evidence
        assert store.clear_results() == 5
    finally:
        runner.kill()
