"""Every page of the real application over a large Redis, as a logged-in reader gets it."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import redis

from bench import data
from bench.application import PAGES_DB
from bench.stores import Sizes

TARGET_MS = 150.0
ROUNDS = 7


@dataclass
class PageRow:
    """Milliseconds for one page: asked for first, and later beside a store that goes on working."""

    page: str
    path: str
    cold: float
    kilobytes: float = 0.0
    warm: list[float] = field(default_factory=list)
    target: float | None = TARGET_MS

    @property
    def median(self) -> float:
        return statistics.median(self.warm)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.median <= self.target else "MISSED"


def page_rows(browser: Any, server: str, size: Sizes, *, quick: bool) -> list[PageRow]:
    client = redis.Redis.from_url(f"{server}/{PAGES_DB}")
    try:
        now = time.time()
        data.fill_agents(client, size.agents, now)
        data.fill_results(client, size.results, now, size.agents)
        data.fill_metrics(client, size.metrics, now, size.agents)
        return _measured(browser, client, size, quick)
    finally:
        client.flushdb()
        client.close()


def _measured(browser: Any, client: redis.Redis, size: Sizes, quick: bool) -> list[PageRow]:
    pages = _pages(client)
    rows = []
    target = None if quick else TARGET_MS
    for title, path in pages.items():
        milliseconds, length = get(browser, path)
        rows.append(PageRow(title, path, milliseconds, length / 1024, target=target))
    _wait_until_learnt()
    for round_number in range(1 if quick else ROUNDS):
        for row in rows:
            # Longer than any answer is kept, and with news: what live refresh meets.
            _work_goes_on(client, size, round_number)
            time.sleep(0.05 if quick else 1.1)
            milliseconds, length = get(browser, row.path)
            row.warm.append(milliseconds)
            row.kilobytes = length / 1024
    return rows


def _pages(client: redis.Redis) -> dict[str, str]:
    from omnidash.text import ref

    task_id = client.zrevrange("omni:results:index", 500, 500)[0].decode()
    topic, name = data.topic_of(123), data.agent_name(123)
    return {
        "overview": "/bench/",
        "agents": "/bench/agents/",
        "agents, filtered": f"/bench/agents/?topic={topic}&q=12",
        "agents, by state": "/bench/agents/?state=active",
        "one agent": f"/bench/agents/{ref(topic, name)}/",
        "results, newest": "/bench/results/",
        "results, soonest to expire": "/bench/results/?order=expiring",
        "results, of one agent": f"/bench/results/?agent={name}",
        "one result": f"/bench/results/{ref(task_id)}/",
        "metrics": "/bench/metrics/",
        "storage": "/bench/storage/",
        "config": "/bench/config/",
    }


def get(browser: Any, path: str) -> tuple[float, int]:
    start = time.perf_counter()
    response = browser.get(path)
    elapsed = time.perf_counter() - start
    if response.status_code != 200:
        raise SystemExit(f"{path} answers {response.status_code}")
    return elapsed * 1000, len(response.content)


def _wait_until_learnt() -> None:
    from omnidash.stores import registry

    registry()["bench"].history.refresh()  # as the clock does
    store = registry()["bench"].store
    deadline = time.monotonic() + 300
    while not store.counts().complete and time.monotonic() < deadline:
        time.sleep(0.1)


def _work_goes_on(client: redis.Redis, size: Sizes, round_number: int) -> None:
    """Twenty tasks more, as a runner would leave them."""
    now = time.time()
    pipe = client.pipeline(transaction=False)
    for event in list(data.metrics(40, now, size.agents)):
        event |= {"timestamp": now, "saved_at": now}
        pipe.xadd("omni:metrics:stream", {"data": json.dumps(event)})
    for number, (_, record, _) in enumerate(data.results(20, now, size.agents)):
        task_id = f"live-{round_number}-{now:.3f}-{number}"
        record |= {"task_id": task_id, "saved_at": now}
        pipe.set(f"omni:result:{task_id}", json.dumps(record), ex=data.DAY)
        pipe.zadd("omni:results:index", {task_id: now + 0.001})
    pipe.execute()
