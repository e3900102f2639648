"""Capacity: the parts of a store, how full they are, and what becomes of them."""

from __future__ import annotations

import dataclasses
import time

import pytest
from django.test import Client

from omnidash import health
from omnidash.capacity import Fill, fills
from omnidash.forecast import Forecast
from omnidash.history import History, gauges
from omnidash.history.answers import Figures
from omnidash.history.tally import Tally
from omnidash.models import Source
from storage.base import Counts, Fact
from tests.pages import elements, serving, text_of
from tests.stores import Backend, RedisBackend, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

NOW = 1_800_000_000.0
MEMORY = [Fact("memory", "used", 50e6, "bytes"), Fact("memory", "limit", 100e6, "bytes")]


@pytest.fixture
def source() -> Source:
    return Source.objects.create(key=b"s" * 16, address="redis://there")


def remember(source: Source, name: str, rate: float, value: float, minutes: int = 180) -> None:
    """Samples that lead to the value now."""
    for minute in range(1, minutes + 1):
        gauges.note(source, {name: value - rate * 60 * minute}, NOW - 60 * minute)


def part(found: list[Fill], name: str) -> Fill:
    return next(fill for fill in found if fill.name == name)


def test_memory_that_grows_is_forecast_from_its_samples(source: Source) -> None:
    remember(source, gauges.MEMORY, rate=4000, value=50e6)
    (fill,) = fills(source, Counts(), MEMORY, NOW)
    assert (fill.name, fill.value, fill.limit, fill.share) == ("Memory", 50e6, 100e6, "0.5000")
    assert fill.forecast.words == "full in about 3 h 28 min at the present rate"
    assert fill.is_soon_full
    assert len(fill.values) == 36
    assert None not in fill.values


def test_a_disk_is_full_when_nothing_is_free(source: Source) -> None:
    remember(source, gauges.FREE, rate=-1e5, value=18e8)
    facts = [
        Fact("directory", "free space", 18e8, "bytes"),
        Fact("directory", "size of the file system", 1e10, "bytes"),
    ]
    (fill,) = fills(source, Counts(), facts, NOW)
    assert (fill.value, fill.limit) == (8.2e9, 1e10)
    assert fill.forecast.words == "full in about 5 h at the present rate"


def test_what_has_no_limit_is_never_full(source: Source) -> None:
    remember(source, gauges.ORPHANS, rate=1, value=20_000)
    (fill,) = fills(source, Counts(orphans=20_000), [], NOW)
    assert (fill.limit, fill.share, fill.forecast.words) == (None, None, "growing")


def test_what_is_unknown_is_no_part(source: Source) -> None:
    assert fills(source, Counts(), [Fact("memory", "used", None, "bytes", "denied")], NOW) == []


def test_events_are_forecast_from_the_events_themselves(redis_backend: RedisBackend) -> None:
    now = time.time()
    redis_backend.put_metrics(
        [{"event": "task_received", "timestamp": now - 6 * place} for place in range(600)]
    )
    store = redis_backend.open()
    history = History(store)
    history.refresh()
    counts = settled(store)
    events = part(fills(history.source(), counts, [], now), "Metric events")
    assert events.is_ring
    assert events.forecast.full_in == pytest.approx((counts.metrics_cap or 0) * 6, rel=0.05)
    full = dataclasses.replace(counts, metrics_cap=counts.metrics)
    said = part(fills(history.source(), full, [], now), "Metric events").forecast.words
    assert said in {f"holds the last {time} at the present rate" for time in ("59 min", "1 h")}


def test_before_any_event_was_read_nothing_is_forecast(source: Source) -> None:
    (fill,) = fills(source, Counts(metrics=5, metrics_cap=100), [], NOW)
    assert fill.forecast.words == "unknown: not enough samples yet (0 min)"


def attention(fill: Fill) -> list[health.Attention]:
    figures = Figures.of(Tally())
    return health.attention(Counts(), None, [], figures, [], [], NOW, capacity=[fill])


MEMORY_FILL = Fill("Memory", "bytes", 5.0, 9.0, Forecast("full in about 3 h", 10_800.0), [])


def test_what_is_full_within_a_day_needs_attention() -> None:
    (said,) = attention(MEMORY_FILL)
    assert (said.level, said.subject, said.text) == ("warn", "Memory", "full in about 3 h")


@pytest.mark.parametrize("later", [None, 86_401.0])
def test_what_is_full_later_or_never_needs_none(later: float | None) -> None:
    assert attention(dataclasses.replace(MEMORY_FILL, forecast=Forecast("words", later))) == []


def test_a_ring_that_fills_is_only_mentioned() -> None:
    (said,) = attention(dataclasses.replace(MEMORY_FILL, is_ring=True))
    assert said.level == "quiet"
    assert said.text.endswith("; then the oldest are dropped")


def test_the_storage_page_shows_each_part(viewer_client: Client, backend: Backend) -> None:
    store = backend.open()
    store.save_metric({"event": "task_received", "timestamp": time.time()})
    settled(store)
    with serving(prod=backend.url):
        response = viewer_client.get("/prod/storage/")
        assert response.status_code == 200
        said = text_of(response)
        assert "Capacity" in said
        assert "Unknown: not enough samples yet" in said
        assert ("Memory" if backend.name == "redis" else "Disk") in said
        assert [meter.get("max") for meter in elements(response, "meter") if meter.get("high")] in (
            ["1"], []
        )  # fmt: skip
