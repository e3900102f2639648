"""Gauges: the last value of each interval, by the names that facts and counts have."""

from __future__ import annotations

import pytest

from omnidash.history import gauges
from omnidash.history.levels import DAY, HOUR, MINUTE, Span
from omnidash.models import Gauge, Source
from storage.base import Counts, Fact
from tests.stores import Backend, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

NOW = 1_800_000_000


@pytest.fixture
def source() -> Source:
    return Source.objects.create(key=b"s" * 16, address="redis://there")


def test_the_last_value_of_an_interval_wins(source: Source) -> None:
    for second, value in ((0, 1.0), (30, 5.0), (59, 2.0), (60, 7.0)):
        gauges.note(source, {gauges.METRICS: value}, NOW + second)
    minutes = gauges.series(source, gauges.METRICS, Span(NOW - 60, NOW + 180, MINUTE))
    assert minutes == [None, 2.0, 7.0, None]
    quarters = gauges.series(source, gauges.METRICS, Span(NOW, NOW + HOUR, 15 * MINUTE))
    assert quarters == [7.0, None, None, None]


def test_a_step_of_several_intervals_has_the_last_of_them(source: Source) -> None:
    for minute in range(10):
        gauges.note(source, {gauges.METRICS: float(minute)}, NOW + 60 * minute)
    span = Span(NOW, NOW + 15 * MINUTE, 5 * MINUTE)
    assert gauges.series(source, gauges.METRICS, span) == [4.0, 9.0, None]


def test_a_long_step_is_read_from_the_coarse_level(source: Source) -> None:
    gauges.note(source, {gauges.METRICS: 3.0}, NOW)
    Gauge.objects.filter(level=MINUTE).delete()
    assert gauges.series(source, gauges.METRICS, Span(NOW // DAY * DAY, NOW + DAY, DAY))[0] == 3.0


def test_sources_and_gauges_are_kept_apart(source: Source) -> None:
    other = Source.objects.create(key=b"o" * 16, address="redis://elsewhere")
    gauges.note(source, {gauges.METRICS: 1.0, gauges.ORPHANS: 2.0}, NOW)
    gauges.note(other, {gauges.METRICS: 3.0}, NOW)
    found = gauges.samples(other, [gauges.METRICS, gauges.ORPHANS], Span(NOW - 60, NOW + 60, 60))
    assert found == {gauges.METRICS: [(NOW, 3.0)], gauges.ORPHANS: []}


def test_what_is_unknown_is_not_stored(source: Source) -> None:
    facts = [
        Fact("memory", "used", 5.0, "bytes"),
        Fact("memory", "limit", None, "bytes", "no limit"),
        Fact("directory", "free space", float("nan"), "bytes"),
        Fact("directory", "size of the file system", 1e300, "bytes"),
        Fact("memory", "eviction policy", "noeviction"),
        Fact("directory", "read-only", False, "flag"),
    ]
    found = gauges.figures(source, Counts(metrics=0, metrics_cap=100, results=None), facts)
    assert found == {
        gauges.READ: 0.0, gauges.METRICS: 0.0, gauges.METRICS_CAP: 100.0, gauges.MEMORY: 5.0,
    }  # fmt: skip


def test_counts_that_are_still_being_learnt_are_no_trend(source: Source) -> None:
    learning = Counts(metrics=5, results=7, orphans=0, complete=False)
    assert gauges.figures(source, learning, []) == {gauges.READ: 0.0, gauges.METRICS: 5.0}


def test_both_backends_tell_how_full_they_are(backend: Backend, source: Source) -> None:
    store = backend.open()
    store.save_metric({"event": "task_received", "timestamp": float(NOW)})
    store.save_result("task", {"a": 1})
    found = gauges.figures(source, settled(store), store.inspect().facts)
    assert (found[gauges.METRICS], found[gauges.RESULTS]) == (1.0, 1.0)
    assert found[gauges.METRICS_CAP] > 1
    expected = (
        {gauges.MEMORY, gauges.ORPHANS}
        if backend.name == "redis"
        else {gauges.FREE, gauges.DISK, gauges.EXPIRED, "results.json/size", "metrics.json/size"}
    )
    assert expected <= found.keys()
    assert all(len(name) <= Gauge._meta.get_field("name").max_length for name in found)
