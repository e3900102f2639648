"""What has outlived its time goes, in small portions, so that nobody waits long for the database.

A row is kept a little longer (SLACK) than ranges of its level are answered. It goes by age alone,
so the history of a store that is not configured any more runs out by itself; its cursor stays.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from omnidash.history import gauges
from omnidash.history.levels import DAY, KEEP, LEVELS, SLACK
from omnidash.models import Gap, Gauge, Mark, Rollup, Source, Subject

MARKS_KEPT = 31 * DAY
MARKS = 5000  # of a source: more are no marks, but noise
REMEMBERED = 730 * DAY  # gaps, and subjects of whom nothing else is left
PORTION = 5000  # rows that go in one transaction

# Row values and not Django's objects: the key has three parts. Both databases find the rows in the
# index by level and start.
_DROP_ROLLUPS = (
    "DELETE FROM omnidash_rollup WHERE (subject_id, level, start) IN (SELECT subject_id, level, "
    "start FROM omnidash_rollup WHERE level = %s AND start < %s ORDER BY start LIMIT %s)"
)


def prune(now: float) -> Iterator[int]:
    """Drop what is older than it is kept. Yields the number of rows of each portion, after which
    others get their turn; whoever stops asking leaves the rest for the next time."""
    for level in LEVELS:
        yield from _rollups(level, now - KEEP[level] * SLACK)
    yield from _drop(Gap.objects.filter(end__lt=now - REMEMBERED))
    for source in Source.objects.order_by("pk"):
        yield from _marks(source, now)
        yield from _gauges(source, now)
        yield from _subjects(source, now - REMEMBERED)


def _rollups(level: int, before: float) -> Iterator[int]:
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_DROP_ROLLUPS, [level, before, PORTION])
            dropped = cursor.rowcount
        if dropped:
            yield dropped
        if dropped < PORTION:
            return


def _marks(source: Source, now: float) -> Iterator[int]:
    marks = Mark.objects.filter(source=source)
    yield from _drop(marks.filter(at__lt=now - MARKS_KEPT))
    yield from _drop(marks.order_by("-at", "-pk"), MARKS)


def _gauges(source: Source, now: float) -> Iterator[int]:
    """The key leads to those of one name and level: a few thousand at most."""
    for name in _names(source):
        for level in gauges.LEVELS:
            dropped, _ = Gauge.objects.filter(
                source=source, name=name, level=level, start__lt=now - KEEP[level] * SLACK
            ).delete()
            if dropped:
                yield dropped


def _names(source: Source) -> Iterator[str]:
    """The names of a source's gauges; each is found by a step in the index."""
    name: str | None = ""
    while name is not None:
        further = Gauge.objects.filter(source=source, name__gt=name).order_by("name")
        name = further.values_list("name", flat=True).first()
        if name is not None:
            yield name


def _subjects(source: Source, before: float) -> Iterator[int]:
    """Those without rows. Topics have no time of their own; they live as long as their rows."""
    rows = Rollup.objects.filter(subject_id=OuterRef("pk"))
    forgotten = Subject.objects.filter(
        Q(last_seen__lt=before) | Q(last_seen__isnull=True), ~Exists(rows), source=source
    )
    yield from _drop(forgotten, locked=source)


def _drop(query: QuerySet, after: int = 0, locked: Source | None = None) -> Iterator[int]:
    """The objects of a query, without the first `after` of it."""
    while True:
        found = list(query.values_list("pk", flat=True)[after : after + PORTION])
        if found:
            with transaction.atomic():
                if locked:  # who ingests holds this row, so nothing is added to what goes
                    list(Source.objects.select_for_update().filter(pk=locked.pk))
                query.filter(pk__in=found).delete()
            yield len(found)
        if len(found) < PORTION:
            return
