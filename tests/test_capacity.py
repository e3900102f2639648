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
from tests.history.readers import read_now
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


def test_events_are_forecast_as_they_are_stored_whatever_they_tell(
    redis_backend: RedisBackend,
) -> None:
    """Unreadable ones and those whose clock is hours behind fill the stream as fast as others."""
    store, begin = redis_backend.open(), time.time()
    history = History(store)
    good = {"event": "task_received", "timestamp": begin}
    odd = ({}, {"timestamp": begin - 4 * 3600}, {"timestamp": None}, {"event": None})
    for minute in range(31):
        if minute:
            redis_backend.put_metrics([good, *({**good, **fields} for fields in odd)])
        read_now(history)
        source, counts = history.source(), store.counts()
        gauges.note(source, gauges.figures(source, counts, []), begin + 60 * minute)
    counts, now = settled(store), begin + 30 * 60
    assert (counts.metrics, history.source().events) == (150, 150)
    cap = counts.metrics_cap or 0
    events = part(fills(history.source(), counts, [], now), "Metric events")
    assert events.is_ring
    assert events.forecast.full_in == pytest.approx((cap - 150) * 60 / 5, rel=0.01)
    full = dataclasses.replace(counts, metrics_cap=counts.metrics)
    said = part(fills(history.source(), full, [], now), "Metric events").forecast.words
    assert said == "holds the last 30 min at the present rate"


def test_a_full_stream_of_which_too_little_was_seen_has_no_rate(source: Source) -> None:
    for minute in range(9):
        gauges.note(source, {gauges.READ: 5.0 * minute}, NOW - 60 * (9 - minute))
    source.events = 45
    (fill,) = fills(source, Counts(metrics=100, metrics_cap=100), [], NOW)
    assert fill.forecast.words == "full, the oldest are dropped; the present rate is unknown"


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
