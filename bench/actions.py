"""Actions as runs: looked at, executed, and with what is deleted in the recycle bin."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from bench import data
from bench.application import ACTIONS_DB
from bench.history import HistoryRow
from bench.measure import timed
from bench.servers import RedisStore, Upstream
from bench.stores import Sizes, n

EXTENDED = 10_000
_ROUNDS = 3
# Asks as often as it can and says what it waited for the slowest answer, in milliseconds.
_BYSTANDER = """
import sys, time, redis
client, worst = redis.Redis.from_url(sys.argv[1]), 0.0
client.ping()
print("ready", flush=True)
while not select([sys.stdin], [], [], 0.001)[0]:
    start = time.perf_counter()
    client.ping()
    worst = max(worst, time.perf_counter() - start)
print(worst * 1000)
"""


def action_rows(server: str, size: Sizes, upstream: Upstream) -> Iterator[HistoryRow]:
    url = f"{server}/{ACTIONS_DB}"
    client = redis.Redis.from_url(url)
    try:
        yield from _clearing(client, url, size, upstream)
        yield from _looking(client, size)
        yield _json_deletion(min(size.few_results, 10_000))
    finally:
        client.flushdb()
        client.close()


def _entry() -> Any:
    from omnidash.stores import registry

    return registry()["actions"]


def _filled(client: redis.Redis, size: Sizes) -> None:
    client.flushdb()
    data.fill_results(client, size.results, time.time(), size.agents)
    _entry().store.close()
    while not _entry().store.counts().complete:
        time.sleep(0.05)


def _plan(name: str, **params: Any) -> Any:
    from django.contrib.auth.models import User

    from omnidash import runs
    from omnidash.actions.catalogue import ACTIONS

    return runs.plan(User.objects.get(), ACTIONS[name], _entry(), params)


def _run(plan: Any) -> Any:
    from django.contrib.auth.models import User

    from omnidash import runs

    run = runs.start(plan, User.objects.get(), "")
    runs.execute.call(run.pk)
    run.refresh_from_db()
    assert (run.state, run.done) == ("done", plan.count), run.message
    return run


def _clearing(
    client: redis.Redis, url: str, size: Sizes, upstream: Upstream
) -> Iterator[HistoryRow]:
    theirs = upstream.connected(RedisStore(url))
    client.flushdb()
    data.fill_results(client, size.results, time.time(), size.agents)
    slow = [timed(lambda: upstream.call(theirs.clear_results))]
    upstream.call(theirs.close)
    runs_, waits, backs = [], [], []
    for _ in range(_ROUNDS):
        _filled(client, size)
        plan = _plan("clear", what="results")
        with bystander(url) as waited:
            runs_.append(timed(lambda plan=plan: _run(plan)))
        waits += waited
        assert client.dbsize() == 0
    done = _last_run()
    back = _plan("put-back", run=done.pk, bin=done.bin, removed=done.done)
    backs.append(timed(lambda: _run(back)))
    number = n(size.results)
    yield HistoryRow(
        f"clear {number} results as a run, with the recycle bin (theirs: `clear_results`)",
        runs_, 15, slow,
    )  # fmt: skip
    yield HistoryRow("longest wait of another client of Redis meanwhile", waits, 20)
    yield HistoryRow(f"put back {number} results", backs)


def _last_run() -> Any:
    from omnidash.models import Run

    return Run.objects.latest("pk")


@contextmanager
def bystander(url: str) -> Iterator[list[float]]:
    waited: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-c", f"from select import select\n{_BYSTANDER}", url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    yield waited
    waited.append(float(process.communicate("\n")[0]))


def _looking(client: redis.Redis, size: Sizes) -> Iterator[HistoryRow]:
    from omnidash.actions.cleanup import LINES

    _filled(client, size)
    limits = {"days": 0.0, "megabytes": 0.0, "metric_days": 0.0, "newest": 0}
    lines = [line.name for line in LINES]
    previews = [timed(lambda: _plan("clean-up", lines=lines, **limits)) for _ in range(2 * _ROUNDS)]
    yield HistoryRow(f"preview of a cleanup of {n(size.results)} results", previews, 1500)
    page = _entry().store.result_targets()[: min(EXTENDED, size.results)]
    ids = [target.names[0] for target in page]
    extended = []
    for _ in range(2 * _ROUNDS):
        plan = _plan("extend-results", ids=ids, more=3600.0)
        extended.append(timed(lambda plan=plan: _run(plan)))
    yield HistoryRow(f"extend {n(len(ids))} expiries as a run", extended, 500)


def _json_deletion(count: int) -> HistoryRow:
    from storage import open_store
    from storage.json_store import files

    samples = []
    written: list[str] = []
    moved = files.move_into_place

    def counted(beside: str, path: str, durable: bool) -> Any:
        written.append(path)
        return moved(beside, path, durable)

    files.move_into_place = counted
    try:
        for _ in range(_ROUNDS):
            with tempfile.TemporaryDirectory(prefix="omnidash-bench-") as temporary:
                folder = Path(temporary) / "store"
                data.write_json(folder, time.time(), of_results=count)
                store = open_store(f"json://{quote(str(folder))}")
                targets = store.result_targets()[: count // 10]
                written.clear()
                with store.owner_stated_stopped():
                    samples.append(timed(partial(store.remove, targets, lambda records: None)))
    finally:
        files.move_into_place = moved
    work = f"JSON: delete {n(count // 10)} of {n(count)} results ({len(written)} write of the file)"
    return HistoryRow(work, samples)
