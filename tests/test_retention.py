"""What has outlived its time goes, and nothing before."""

from __future__ import annotations

import pytest

from omnidash.history import gauges, retention
from omnidash.history.levels import DAY, KEEP, LEVELS, SLACK
from omnidash.history.retention import MARKS, MARKS_KEPT, REMEMBERED, prune
from omnidash.models import Gap, Gauge, Mark, Rollup, Source, Subject

pytestmark = pytest.mark.django_db

NOW = 1_800_000_000.0


@pytest.fixture
def source() -> Source:
    return Source.objects.create(key=b"s" * 16, address="redis://there")


def subject(source: Source, key: str, **fields: object) -> Subject:
    kind = fields.pop("kind", Subject.Kind.AGENT)
    return Subject.objects.create(source=source, key=key.encode(), kind=kind, **fields)


def rollup(owner: Subject, level: int, start: int) -> None:
    Rollup.objects.create(
        subject=owner, level=level, start=start, received=1, processed=0, failed=0, other=0,
        timed=0, seconds=0.0, sketch=b"",
    )  # fmt: skip


def mark(source: Source, age: float) -> Mark:
    return Mark(source=source, at=NOW - age, kind=Mark.Kind.STATE, subject=b"a", text=b"")


def pruned() -> int:
    return sum(prune(NOW))


@pytest.mark.parametrize("level", LEVELS)
def test_a_row_lives_until_no_range_can_ask_for_it(source: Source, level: int) -> None:
    owner = subject(source, "a", last_seen=NOW)
    oldest = int(NOW - KEEP[level] * SLACK)
    starts = [oldest - level, oldest - 1, oldest, oldest + level, int(NOW)]
    for start in starts:
        rollup(owner, level, start)
    assert pruned() == 2
    assert list(Rollup.objects.order_by("start").values_list("start", flat=True)) == starts[2:]


def test_every_level_goes_by_its_own_age(source: Source) -> None:
    owner = subject(source, "a", last_seen=NOW)
    for level in LEVELS:
        rollup(owner, level, int(NOW - 3 * DAY))
    pruned()
    kept = set(Rollup.objects.values_list("level", flat=True))
    assert kept == {level for level in LEVELS if KEEP[level] >= 3 * DAY}


def test_rows_go_in_portions_and_whoever_stops_leaves_the_rest(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PORTION", 3)
    owner = subject(source, "a", last_seen=NOW)
    for start in range(7):
        rollup(owner, LEVELS[0], start)
    assert next(prune(NOW)) == 3
    assert Rollup.objects.count() == 4
    assert list(prune(NOW)) == [3, 1]


def test_old_marks_go(source: Source) -> None:
    Mark.objects.bulk_create([mark(source, MARKS_KEPT + 1), mark(source, MARKS_KEPT - 1)])
    assert pruned() == 1
    assert Mark.objects.get().at == NOW - MARKS_KEPT + 1


def test_of_too_many_marks_of_a_source_the_newest_stay(source: Source) -> None:
    other = Source.objects.create(key=b"o" * 16, address="redis://elsewhere")
    Mark.objects.bulk_create([mark(source, age) for age in range(MARKS + 20)])
    Mark.objects.bulk_create([mark(other, age) for age in range(MARKS - 20)])
    assert pruned() == 20
    assert Mark.objects.filter(source=source).count() == MARKS
    assert Mark.objects.filter(source=source, at__lt=NOW - MARKS).count() == 0
    assert Mark.objects.filter(source=other).count() == MARKS - 20


def test_a_gap_stays_as_long_as_a_day_may_touch_it(source: Source) -> None:
    Gap.objects.create(source=source, start=0.0, end=NOW - REMEMBERED - 1)
    Gap.objects.create(source=source, start=0.0, end=NOW - REMEMBERED + 1)
    assert pruned() == 1
    assert Gap.objects.get().end == NOW - REMEMBERED + 1


def test_gauges_go_by_level_whatever_their_names(source: Source) -> None:
    for name in ("", "metrics", "ü/size"):
        for level in gauges.LEVELS:
            for start in (int(NOW - KEEP[level] * SLACK) - 1, int(NOW - KEEP[level])):
                Gauge.objects.create(source=source, name=name, level=level, start=start, value=1.0)
    pruned()
    left = Gauge.objects.exclude(name="").values_list("level", "start")
    assert sorted(left) == sorted((n, int(NOW - KEEP[n])) for n in gauges.LEVELS for _ in range(2))


def test_a_subject_is_forgotten_when_nothing_is_left_of_it(source: Source) -> None:
    long_ago = NOW - REMEMBERED - 1
    subject(source, "nothing left", last_seen=long_ago)
    subject(source, "a topic", kind=Subject.Kind.TOPIC)
    subject(source, "seen since", last_seen=NOW - REMEMBERED + 1)
    rollup(subject(source, "with a row", last_seen=long_ago), DAY, int(NOW - 700 * DAY))
    rollup(subject(source, "a topic with a row", kind=Subject.Kind.TOPIC), DAY, int(NOW))
    assert pruned() == 2
    kept = {bytes(key) for key in Subject.objects.values_list("key", flat=True)}
    assert kept == {b"seen since", b"with a row", b"a topic with a row"}


def test_the_cursor_of_a_store_outlives_all_else(source: Source) -> None:
    rollup(subject(source, "a", last_seen=1.0), DAY, 0)
    pruned()
    assert not Rollup.objects.exists()
    assert Source.objects.get() == source


def test_deleting_rows_and_sources_forgets_everything(source: Source) -> None:
    """As docs/history.md says."""
    rollup(subject(source, "a", last_seen=NOW), DAY, int(NOW))
    mark(source, 0).save()
    Gap.objects.create(source=source, start=0.0, end=NOW)
    gauges.note(source, {gauges.METRICS: 1.0}, NOW)
    Rollup.objects.all().delete()
    Source.objects.all().delete()
    assert not any(model.objects.exists() for model in (Subject, Rollup, Mark, Gap, Gauge, Source))


def test_there_is_nothing_to_do_twice(source: Source) -> None:
    owner = subject(source, "a", last_seen=1.0)
    for level in LEVELS:
        rollup(owner, level, 0)
    assert pruned() == len(LEVELS) + 1
    assert pruned() == 0
