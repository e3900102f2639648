"""The metric history: reading events, and answering from a month of 200 agents."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis

from bench import data
from bench.application import HISTORY_DB
from bench.measure import interleaved, timed
from bench.servers import OmniDaemonSDK, RedisStore, Upstream
from bench.stores import Sizes, n

AGENTS = 200
DAYS = 30
ROUNDS = 9
RANGES = ("15m", "1h", "6h", "24h", "7d", "30d")


@dataclass
class HistoryRow:
    """Milliseconds, medians; `target` is the most that we want to take, in milliseconds, or how
    many times faster than OmniDaemon we want to be where there is a figure of theirs."""

    work: str
    samples: list[float]
    target: float | None = None
    theirs: list[float] = field(default_factory=list)

    @property
    def ours(self) -> float:
        return statistics.median(self.samples)

    @property
    def faster(self) -> float | None:
        return statistics.median(self.theirs) / self.ours if self.theirs else None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self.faster is not None:
            return (
                f"≥ {self.target:g} × faster: {'met' if self.faster >= self.target else 'MISSED'}"
            )
        return f"≤ {self.target:,g} ms: {'met' if self.ours <= self.target else 'MISSED'}"


def history_rows(
    browser: Any, server: str, size: Sizes, upstream: Upstream, *, quick: bool
) -> Iterator[HistoryRow]:
    url = f"{server}/{HISTORY_DB}"
    client = redis.Redis.from_url(url)
    try:
        yield from _reading(client, size)
        yield _summing(url, size, upstream)
        fill_month(2 if quick else DAYS)
        yield _news(client, f"1,000 new events, beside a month of {AGENTS} agents", size)
        yield from _answers(browser, 2 if quick else ROUNDS)
    finally:
        client.flushdb()
        client.close()


def _history() -> Any:
    from omnidash.stores import registry

    return registry()["history"].history


def _reading(client: redis.Redis, size: Sizes) -> Iterator[HistoryRow]:
    from omnidash.models import Source

    samples = []
    for _ in range(3):
        Source.objects.all().delete()
        client.flushdb()
        data.fill_metrics(client, size.metrics, time.time(), AGENTS)
        samples.append(timed(lambda: _read()))
        assert _history().source().events == size.metrics
    yield HistoryRow(f"first reading of {n(size.metrics)} events", samples, 3000)
    yield _news(client, f"1,000 new events, beside {n(size.metrics)}", size)


def _read() -> None:
    history = _history()
    history._read_at = float("-inf")  # as if the last reading had been a second ago
    history.refresh()


def _news(client: redis.Redis, work: str, size: Sizes) -> HistoryRow:
    samples = []
    for _ in range(ROUNDS):
        now = time.time()
        pipe = client.pipeline(transaction=False)
        for number, event in enumerate(data.metrics(1000, now, AGENTS)):
            at = now - 5 * (1000 - number) / 1000  # what comes in between two ticks of the clock
            event |= {"timestamp": at, "saved_at": at}
            pipe.xadd("omni:metrics:stream", {"data": json.dumps(event)}, maxlen=size.metrics)
        pipe.execute()
        samples.append(timed(lambda: _read()))
    return HistoryRow(work, samples, 60)


def _summing(url: str, size: Sizes, upstream: Upstream) -> HistoryRow:
    """Figures of each agent over all stored events, as `sdk.metrics` and `omnidaemon metrics`."""
    from omnidash.history import answers
    from omnidash.history.levels import DAY, Span

    store = upstream.connected(RedisStore(url))
    sdk = OmniDaemonSDK(store=store)
    source, now = _history().source(), time.time()
    whole = Span(int(source.since // DAY) * DAY, int(now // DAY + 1) * DAY, DAY)
    samples = interleaved(
        {
            "theirs": lambda: upstream.call(sdk.metrics, limit=size.metrics),
            "ours": lambda: answers.by_agent(source, whole),
        },
        size.slow_runs,
    )
    work = f"figures of {AGENTS} agents over all {n(size.metrics)} stored events (`sdk.metrics`)"
    return HistoryRow(work, samples["ours"], 50, samples["theirs"])


def _answers(browser: Any, rounds: int) -> Iterator[HistoryRow]:
    for name in RANGES:
        for what, path in (("page", ""), ("points of the charts", "points")):
            address = f"/history/metrics/{path}?range={name}"
            samples = [timed(lambda a=address: _get(browser, a)) for _ in range(rounds)]
            yield HistoryRow(f"metrics {what}, {name}", samples, 60)
    part = {"HX-Request": "true", "HX-Request-Type": "partial"}
    address = "/history/metrics/?range=30d"
    version = browser.get(address, headers=part).headers["X-Part"]
    samples = [
        timed(lambda: _get(browser, address, {**part, "X-Part": version}, 204))
        for _ in range(3 * rounds)
    ]
    yield HistoryRow("live refresh with nothing new", samples, 5)


def _get(browser: Any, path: str, headers: dict[str, str] | None = None, status: int = 200) -> None:
    response = browser.get(path, headers=headers or {})
    if response.status_code != status:
        raise SystemExit(f"{path} answers {response.status_code}")


def fill_month(days: int) -> None:
    """Roll-ups as a month of busy agents leaves them: each with events in every interval."""
    from django.db import transaction

    from omnidash.history import rows
    from omnidash.history.levels import KEEP
    from omnidash.models import Source

    source, now = _history().source(), time.time()
    subjects = _subjects(source)
    for level, keep in KEEP.items():
        first = int((now - min(keep, days * 86_400)) // level) * level
        busy = {weight: [_busy(level, weight) for _ in range(50)] for _, weight in subjects}
        with transaction.atomic():
            for start in range(first, int(now) - 3 * 3600, level):
                rows.save({
                    (subject, level, start): _CHANCE.choice(busy[weight])
                    for subject, weight in subjects
                })  # fmt: skip
    Source.objects.filter(pk=source.pk).update(since=now - days * 86_400)


def _subjects(source: Any) -> list[tuple[int, int]]:
    """The subjects that the events made, each with how many agents it stands for."""
    from omnidash.models import Subject

    weights = {Subject.Kind.ALL: AGENTS, Subject.Kind.TOPIC: AGENTS // data.TOPICS}
    return [
        (subject, weights.get(kind, 1))
        for subject, kind in Subject.objects.filter(source=source).values_list("pk", "kind")
    ]


_CHANCE = random.Random(3)


def _busy(level: int, weight: int) -> Any:
    """Five tasks a minute of each agent."""
    from omnidash.history.sketch import one
    from omnidash.history.tally import Tally

    count = max(1, weight * level // 12)
    times = [_CHANCE.lognormvariate(-2, 0.8) for _ in range(min(count, 60))]
    return Tally(
        received=count,
        processed=count - count // 20,
        failed=count // 20,
        timed=len(times),
        seconds=sum(times),
        low=min(times),
        high=max(times),
        sketch=sum(map(one, times)),
    )
