"""The stores beside OmniDaemon's own, and beside a lean client that only fetches and parses."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import redis

from bench import data, raw
from bench.measure import Row, interleaved, row, timed
from bench.servers import JSONStore, RedisStore, Upstream
from storage import open_store
from storage.base import Store


@dataclass(frozen=True)
class Sizes:
    """How much there is, and how often each thing is measured."""

    few_agents: int = 1_000
    agents: int = 10_000
    few_results: int = 10_000
    results: int = 100_000
    metrics: int = 100_000
    runs: int = 5
    slow_runs: int = 3


QUICK = Sizes(50, 500, 500, 2_000, 2_000, runs=2, slow_runs=1)


def n(number: int) -> str:
    return f"{number:,}"


# Redis


@dataclass
class Redises:
    """One database of the server as each of the three sees it."""

    client: redis.Redis
    lean: raw.Lean
    ours: Store
    theirs: RedisStore


@contextmanager
def database(server: str, number: int, upstream: Upstream) -> Iterator[Redises]:
    client = redis.Redis.from_url(f"{server}/{number}")
    client.flushdb()
    lean = raw.Lean(f"{server}/{number}")
    ours = open_store(f"{server}/{number}")
    theirs = upstream.connected(RedisStore(f"{server}/{number}"))
    try:
        yield Redises(client, lean, ours, theirs)
    finally:
        lean.close()
        ours.close()
        upstream.call(theirs.close)
        client.flushdb()
        client.close()


def redis_agents(server: str, upstream: Upstream, size: Sizes) -> Iterator[Row]:
    for number, target in ((size.few_agents, None), (size.agents, 20)):
        with database(server, 1, upstream) as db:
            data.fill_agents(db.client, number, time.time())
            assert sum(map(len, db.ours.list_all_agents().values())) == number
            samples = interleaved(
                {
                    "theirs": lambda db=db: upstream.call(db.theirs.list_all_agents),
                    "ours": db.ours.list_all_agents,
                    "raw": lambda db=db: raw.agents(db.lean),
                },
                size.runs,
            )
            yield row(f"Redis: list {n(number)} agents", samples, target)


def redis_results(server: str, upstream: Upstream, size: Sizes) -> Iterator[Row]:
    for number, limits in (
        (size.few_results, [size.few_results]),
        (size.results, [100, size.results]),
    ):
        with database(server, 1, upstream) as db:
            data.fill_results(db.client, number, time.time(), size.agents)
            for limit in limits:
                assert len(db.ours.list_results(limit)) == limit
                samples = interleaved(
                    {
                        "theirs": lambda db=db, k=limit: upstream.call(db.theirs.list_results, k),
                        "ours": lambda db=db, k=limit: db.ours.list_results(k),
                        "raw": lambda db=db, k=limit: raw.results(db.lean, k),
                    },
                    size.slow_runs if limit > 50_000 else size.runs,
                )
                if limit < number:
                    work, target = f"Redis: newest {n(limit)} of {n(number)} results", 10
                else:
                    work, target = f"Redis: all {n(number)} results", 20
                yield row(work, samples, target)


def redis_metrics(server: str, upstream: Upstream, size: Sizes) -> Iterator[Row]:
    limit = size.metrics
    with database(server, 1, upstream) as db:
        data.fill_metrics(db.client, limit, time.time(), size.agents)
        assert len(db.ours.get_metrics(limit=limit)) == limit
        samples = interleaved(
            {
                "theirs": lambda: upstream.call(db.theirs.get_metrics, limit=limit),
                "ours": lambda: db.ours.get_metrics(limit=limit),
                "raw": lambda: raw.metrics(db.lean, limit),
            },
            size.slow_runs,
        )
        yield row(f"Redis: read {n(limit)} metrics", samples)


def redis_clear(server: str, upstream: Upstream, size: Sizes) -> Iterator[Row]:
    """Once each, on fresh data: nothing is left to clear twice."""
    with database(server, 1, upstream) as db:
        clears: dict[str, Callable[[], object]] = {
            "theirs": lambda: upstream.call(db.theirs.clear_results),
            "ours": db.ours.clear_results,
            "raw": lambda: raw.clear_results(db.lean),
        }
        samples = {}
        for name, clear in clears.items():
            data.fill_results(db.client, size.results, time.time(), size.agents)
            samples[name] = [timed(clear)]
            assert db.client.dbsize() == 0
    yield row(f"Redis: clear {n(size.results)} results (once each)", samples, 15)


# JSON


def parsed(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


def json_results(upstream: Upstream, size: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="omnidash-bench-") as temporary:
        folder = Path(temporary) / "store"
        data.write_json(folder, time.time(), of_results=size.few_results)
        url = f"json://{quote(str(folder))}"
        path = folder / "results.json"
        some_id = next(iter(parsed(path)))
        opened = open_store(url)

        def theirs_open() -> object:
            store = upstream.connected(JSONStore(str(folder)))
            return store, upstream.call(store.get_result, some_id)

        def ours_open() -> object:
            store = open_store(url)
            return store, store.get_result(some_id)

        number = n(size.few_results)
        megabytes = f"{path.stat().st_size / 1e6:.0f} MB"
        yield row(
            f"JSON: open {number} results ({megabytes}) and get one",
            interleaved(
                {"theirs": theirs_open, "ours": ours_open, "raw": lambda: parsed(path)}, size.runs
            ),
            limit=1.6,
        )
        yield row(
            f"JSON: get one of {number} again, file unchanged (OmniDaemon has to open again)",
            interleaved(
                {"theirs": theirs_open, "ours": lambda: opened.get_result(some_id)}, size.runs
            ),
            target=50,
        )
        yield json_save(folder, upstream, size)


def json_save(folder: Path, upstream: Upstream, size: Sizes) -> Row:
    """Whoever is not the only writer has to read again what the other wrote; here both write, so
    each has its own copy of the folder."""
    body = {"answer": 42, "text": "lorem ipsum " * 60}
    other = folder.parent / "other"
    other.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".json":
            (other / path.name).write_bytes(path.read_bytes())
    theirs = upstream.connected(JSONStore(str(other)))
    ours = open_store(f"json://{quote(str(folder))}")
    values = parsed(folder / "results.json")
    raw_path = folder.parent / "raw.json"

    def raw_save() -> None:
        values["saved"] = {"task_id": "saved", "result": body, "saved_at": time.time()}
        half = raw_path.with_suffix(".half")
        with open(half, "wb") as file:
            file.write(orjson.dumps(values, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        half.replace(raw_path)

    def ours_save() -> None:
        with ours.owner_stated_stopped():  # the folder is a moment old, and nobody's
            ours.save_result("saved", body, 3600)

    samples = interleaved(
        {
            "theirs": lambda: upstream.call(theirs.save_result, "saved", body, 3600),
            "ours": ours_save,
            "raw": raw_save,
        },
        size.runs,
    )
    return row(f"JSON: save one result beside {n(size.few_results)}", samples)


def json_agents(upstream: Upstream, size: Sizes) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="omnidash-bench-") as temporary:
        folder = Path(temporary) / "store"
        data.write_json(folder, time.time(), of_agents=size.agents)
        url = f"json://{quote(str(folder))}"
        path = folder / "agents.json"

        def theirs() -> object:
            store = upstream.connected(JSONStore(str(folder)))
            return store, upstream.call(store.list_all_agents)

        def ours() -> object:
            store = open_store(url)
            return store, store.list_all_agents()

        samples = interleaved(
            {"theirs": theirs, "ours": ours, "raw": lambda: parsed(path)}, size.runs
        )
        yield row(f"JSON: open and list {n(size.agents)} agents", samples)


def store_rows(server: str, size: Sizes) -> dict[str, Callable[[], Iterator[Row]]]:
    """Groups of rows by name; a group is only prepared when it is asked for."""
    upstream = Upstream()
    return {
        "redis-agents": lambda: redis_agents(server, upstream, size),
        "redis-results": lambda: redis_results(server, upstream, size),
        "redis-metrics": lambda: redis_metrics(server, upstream, size),
        "redis-clear": lambda: redis_clear(server, upstream, size),
        "json-results": lambda: json_results(upstream, size),
        "json-agents": lambda: json_agents(upstream, size),
    }
