"""The history says what a sum by hand over the raw events says, however they came and were read."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import omnidash.history as history_module
from omnidash.charts import ALL, ERRORS, Drawing
from omnidash.history import History, answers, errors, rows
from omnidash.history.answers import Whom
from omnidash.history.levels import LEVELS, SLACK, Span, cover, kept, last, level_of, span, written
from omnidash.history.sketch import counts
from omnidash.history.tally import COLUMNS, SHARES, Tally
from omnidash.models import Gap, Mark, Rollup, Source, Subject
from omnidash.queries import RANGES
from storage.records import to_bytes, to_text
from tests.history.by_hand import (
    DAY,
    EVENT,
    RECENT,
    Event,
    Stream,
    Sum,
    agent_of,
    by,
    close,
    error_of,
    subjects_of,
    total,
)
from tests.history.readers import merged, read_now
from tests.stores import Backend, JsonBackend, RedisBackend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

generated = settings(
    phases=[Phase.explicit, Phase.generate],  # making a failure small takes minutes here
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
BATCHES = st.lists(
    st.tuples(st.lists(EVENT, max_size=25), st.integers(0, 3)), min_size=1, max_size=5
)
CHARTS = (*ALL, ERRORS)
_fresh = count()


@pytest.fixture(params=["json", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def new_backend(kind: str, tmp_path: Path, redis_url: str) -> Iterator[Backend]:
    """A store of its own for each example."""
    number = next(_fresh)
    if kind == "redis":
        backend: Backend = RedisBackend(redis_url, f"p{number}")
    else:
        folder = tmp_path / str(number)
        folder.mkdir()
        backend = JsonBackend(folder)
    yield backend
    backend.close()


@contextmanager
def ingested(
    backend: Backend, batches: Sequence[tuple[list[Event], int]], at_once: int
) -> Iterator[tuple[Stream, History]]:
    """The batches written one after the other, each read by one of three readers or by none."""
    stream = Stream(backend, time.time())
    readers = [History(backend.open()) for _ in range(3)]
    before, history_module._BATCH = history_module._BATCH, at_once
    try:
        for events, who in batches:
            stream.write(events)
            if who < len(readers):
                read_now(readers[who])
        yield stream, read_now(readers[0])
    finally:
        history_module._BATCH = before


@generated
@given(batches=BATCHES, at_once=st.integers(1, 40))
def test_every_interval_of_every_level_is_the_sum_of_its_events(
    kind: str, tmp_path: Path, redis_url: str, batches: Any, at_once: int
) -> None:
    with (
        new_backend(kind, tmp_path, redis_url) as backend,
        ingested(backend, batches, at_once) as (stream, history),
    ):
        source = history.source()
        says_what_was_not_counted(source, stream)
        for level in LEVELS:
            rows_are_sums(source, stream, level)
        subjects_are_those_of_the_events(source, stream)
        assert Mark.objects.filter(source=source).count() == sum(
            event.kind == "state" for event in stream.told if event.dated
        )
        assert (history.behind, history.aside, Gap.objects.filter(source=source).count()) == (
            False, 0, 0,
        )  # fmt: skip


def says_what_was_not_counted(source: Source, stream: Stream) -> None:
    readable = [event for event in stream.told if event.kind]
    dated = [event for event in readable if event.dated]
    assert source.events == len(stream.told)
    assert source.unreadable == len(stream.told) - len(readable)
    assert source.undated == len(readable) - len(dated)
    assert source.untimed == sum(event.untimed for event in dated)
    times = [event.at for event in dated if event.at is not None]
    taken = [event.at if event.stored is None else event.stored for event in stream.told]
    began = next((at for at in taken if at is not None), None)
    if began is None or began <= stream.base:
        assert source.since == began
    else:  # a clock that is ahead
        assert source.since is not None
        assert stream.base <= source.since <= time.time()
    assert source.newest == (max(times) if times else None)


def rows_are_sums(source: Source, stream: Stream, level: int) -> None:
    def places(event: Event) -> list[tuple[int, tuple[bytes, ...], int]]:
        start = int(event.at // level) * level  # type: ignore[operator]
        return [(*subject, start) for subject in subjects_of(event)]

    names = {
        found.pk: (found.kind, tuple(map(bytes, (found.topic, found.agent, found.error_type,
                                                 found.message))))
        for found in Subject.objects.filter(source=source)
    }  # fmt: skip
    query = Rollup.objects.filter(subject__source=source, level=level)
    stored = {
        (*names[subject], start): Tally.of(row)
        for subject, start, *row in query.values_list("subject_id", "start", *COLUMNS)
    }
    expected = {
        place: found
        for place, found in by(filter(lambda event: event.dated, stream.told), places).items()
        if written(level, place[-1], stream.base)
    }
    assert stored.keys() == expected.keys()
    for place, tally in stored.items():
        is_sum(tally, expected[place])


def is_sum(tally: Tally, expected: Sum) -> None:
    found = (tally.received, tally.processed, tally.failed, tally.other, tally.timed)
    assert found == expected.counts
    assert tally.seconds == pytest.approx(sum(expected.times))
    assert (tally.low, tally.high) == (
        min(expected.times, default=None), max(expected.times, default=None),
    )  # fmt: skip
    assert sum(counts(tally.sketch)[1]) == len(expected.times)
    for quantile, exact in zip(tally.quantiles(), expected.quantiles(), strict=True):
        assert close(quantile, exact)


def subjects_are_those_of_the_events(source: Source, stream: Stream) -> None:
    tasks = [event for event in stream.told if event.is_task]
    for agent in {agent_of(event) for event in tasks}:
        name = (to_text(agent[0]), to_text(agent[1]))
        events = [event for event in tasks if agent_of(event) == agent]
        times = sorted((event.at or 0 for event in events), reverse=True)
        assert answers.last_seen(source, name) == times[0]
        assert [event.at for event in answers.recent(source, name)] == times[:10]


# Ranges


RANGE = st.one_of(
    st.sampled_from(list(RANGES.values())).map(lambda seconds: (seconds, 0.0)),
    st.tuples(st.floats(1, 90 * DAY), st.floats(0, 90 * DAY)),
    st.tuples(st.floats(1, 7200), st.floats(0, 7200)),
)


def span_of(drawn: tuple[float, float], now: float) -> Span:
    seconds, ago = drawn
    return span(now - ago - seconds, now - ago, now) if ago else last(seconds, now)


@generated
@given(
    batches=BATCHES,
    ranges=st.lists(RANGE, min_size=1, max_size=4),
    topic=st.sampled_from(["a", "b", "\ud800", "a:b", "nobody"]),
    agent=st.sampled_from(["x", "b:x", "", "nobody"]),
)
def test_all_answers_of_a_range_agree_with_its_events(
    kind: str, tmp_path: Path, redis_url: str, batches: Any, ranges: Any, topic: str, agent: str
) -> None:
    with (
        new_backend(kind, tmp_path, redis_url) as backend,
        ingested(backend, batches, 1000) as (stream, history),
    ):
        source = history.source()
        for drawn in ranges:
            for whom in (Whom(), Whom(topic), Whom(None, agent), Whom(topic, agent)):
                answers_agree(source, stream, span_of(drawn, stream.base), whom)


def answers_agree(source: Source, stream: Stream, asked: Span, whom: Whom) -> None:
    events = [event for event in stream.told if event.dated and is_about(event, whom)]
    within = [event for event in events if asked.start <= (event.at or 0) < asked.end]
    points = answers.points(source, asked, whom)
    points_agree(source, points, within)
    is_sum(points.total, total(within))
    tasks = [event for event in within if event.is_task]
    tables_agree(source, asked, whom, tasks)
    covers_agree(source, asked, whom, total(within))
    failures_agree(source, asked, whom, tasks)
    flying = in_flight(source, asked, events, points)
    assert answers.in_flight(source, points, whom) == flying
    if whom == answers.EVERYTHING:
        assert answers.of_agents(source, asked, [("a", "x")])["a", "x"].total == (
            answers.points(source, asked, Whom("a", "x")).total
        )


def is_about(event: Event, whom: Whom) -> bool:
    if whom == answers.EVERYTHING:
        return True
    return (
        event.kind != "state"
        and (whom.topic is None or to_bytes(event.topic) == to_bytes(whom.topic))
        and (whom.agent is None or to_bytes(event.agent) == to_bytes(whom.agent))
    )


def points_agree(source: Source, points: answers.Points, within: Sequence[Event]) -> None:
    step = points.span.step
    sums = by(within, lambda event: [int((event.at or 0) // step) * step])
    for start, tally in zip(points.span.times, points.tallies, strict=True):
        if start in sums:
            assert tally is not None
            is_sum(tally, sums[start])
        else:
            known = source.since is not None and source.since < start + step
            assert tally == (Tally() if known else None)


def tables_agree(source: Source, asked: Span, whom: Whom, tasks: Sequence[Event]) -> None:
    sums = by(tasks, lambda event: [agent_of(event)])
    figures, found = answers.by_agent(source, asked, whom)
    assert found == len(figures) == len(sums)
    assert {(to_bytes(row.topic), to_bytes(row.agent)) for row in figures} == sums.keys()
    for row in figures:
        expected = sums[to_bytes(row.topic), to_bytes(row.agent)]
        assert (row.received, row.processed, row.failed) == expected.counts[:3]
        assert row.max == max(expected.times, default=None)
        quantiles = (row.p50, row.p95, row.p99)
        assert all(map(close, quantiles, expected.quantiles()))
    ordered, _ = answers.by_agent(source, asked, whom, "ended")
    ended = [row.processed + row.failed for row in ordered]
    assert ended == sorted((found.ended for found in sums.values()), reverse=True)
    busiest = answers.busiest(source, asked, whom, 3)
    assert [sum(column) for _, column in busiest] == [number for number in ended if number][:3]
    for (topic, agent), column in busiest:
        alone = answers.points(source, asked, Whom(topic, agent))
        assert column == [tally.ended if tally else 0 for tally in alone.tallies]
    pages = [answers.by_agent(source, asked, whom, "p95", at, 2)[0] for at in range(0, found, 2)]
    tails = [row.p95 or 0.0 for page in pages for row in page]
    assert len(tails) == found
    assert tails == sorted(tails, reverse=True)


def covers_agree(source: Source, asked: Span, whom: Whom, expected: Sum) -> None:
    """The coarse intervals that a table is summed from, and the fine ones that a chart is."""
    subjects = whom.subjects(source)
    for level in LEVELS:
        if asked.step % level or not written(level, asked.start, time.time()):
            continue
        added = rows.sums(subjects, list(cover(Span(asked.start, asked.end, level))))
        found = (added.received, added.processed, added.failed, added.other, added.timed)
        assert found == expected.counts


def failures_agree(source: Source, asked: Span, whom: Whom, tasks: Sequence[Event]) -> None:
    sums = by([event for event in tasks if event.kind == "failed"], lambda event: [error_of(event)])
    found = errors.failures(source, asked, whom)
    assert [failure.count for failure in found] == sorted(
        (known.failed for known in sums.values()), reverse=True
    )
    for failure in found:
        error = to_bytes(failure.error_type), to_bytes(failure.message)
        assert failure.count == sums[error].failed
        (column,) = errors.over_time(source, asked, [failure.subjects])
        assert sum(count or 0 for count in column) == failure.count
        alike = [event for event in tasks if event.kind == "failed" and error_of(event) == error]
        assert {(to_bytes(topic), to_bytes(agent)) for topic, agent in failure.agents} == {
            agent_of(event) for event in alike
        }
    for failure, shown in zip(found, errors.examples(found), strict=True):
        times = [example.event.at for example in shown]
        assert 1 <= len(times) <= 5
        assert times[0] == failure.last_seen


def in_flight(
    source: Source, asked: Span, events: Sequence[Event], points: answers.Points
) -> list[int | None]:
    def change(found: Sum) -> int:
        return found.received - found.ended

    step = asked.step
    before = total(event for event in events if (event.at or 0) < asked.start)
    sums = by(events, lambda event: [int((event.at or 0) // step) * step])
    flying, column = max(0, change(before)), []
    for start, tally in zip(asked.times, points.tallies, strict=True):
        flying = max(0, flying + change(sums.get(start, Sum())))
        column.append(None if tally is None else flying)
    return column


# What a reader puts together


@generated
@given(
    batches=st.lists(st.lists(RECENT, max_size=25), min_size=2, max_size=5),
    drawn=st.one_of(st.just((900, 0.0)), RANGE),
    moves=st.lists(st.floats(0, 300), min_size=5, max_size=5),
    compare=st.booleans(),
    topic=st.sampled_from([None, "a"]),
    text=st.sampled_from(["", "", "way"]),
)
def test_what_a_reader_merges_is_the_full_answer(
    kind: str,
    tmp_path: Path,
    redis_url: str,
    batches: Any,
    drawn: tuple[float, float],
    moves: list[float],
    compare: bool,
    topic: str | None,
    text: str,
) -> None:
    with new_backend(kind, tmp_path, redis_url) as backend:
        stream = Stream(backend, time.time())
        history, known, now = History(backend.open()), None, stream.base
        for events, move in zip(batches, moves, strict=False):
            stream.write(events)
            now += move
            source = read_now(history).source()
            drawing = Drawing(source, span_of(drawn, now), Whom(topic), compare, CHARTS, text)
            full = drawing.columns()
            if known is not None:
                news = drawing.columns(drawing.since(known["version"]))
                assert merged(known, as_json(news)) in (as_json(full), None)
            known = as_json(full)


def as_json(columns: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(columns, allow_nan=False))
    return found


def test_a_range_of_each_length_is_whole_and_kept(redis_url: str) -> None:
    now = time.time()
    for seconds in RANGES.values():
        found = last(seconds, now)
        assert found.seconds == math.ceil(seconds / found.step) * found.step
        assert kept(level_of(found.step), found.start + found.step * SLACK, now)
        assert SHARES == (0.5, 0.95, 0.99)


def test_a_range_that_moves_on_counts_what_is_in_flight_as_a_new_look_does(
    backend: Backend,
) -> None:
    """What ended without a receipt is forgotten, but only while it is in the range."""
    now = time.time() // 10 * 10 + 5
    history = History(backend.open())

    def look(at: float) -> Drawing:
        return Drawing(read_now(history).source(), last(900, at), charts=CHARTS)

    backend.put_metrics(
        [{"event": "task_processed", "timestamp": now - 885}]
        + [{"event": "task_received", "timestamp": now - 875}] * 4
        + [{"event": "task_processed", "timestamp": now - 100}]
    )
    known = as_json(look(now).columns())
    backend.put_metrics([{"event": "task_received", "timestamp": now}])
    later = look(now + 40)
    news = merged(known, as_json(later.columns(later.since(known["version"]))))
    assert news in (as_json(later.columns()), None)
    assert known["in_flight"][-1] == 3


ABSURD = [
    "-10000000000000",
    "-1",
    "0",
    "1",
    "7",
    "10000000000000",
    "9" * 400,
    "9" * 5000,
    "",
    "x",
    "1e9",
]


@pytest.mark.parametrize("compare", [False, True])
def test_a_version_that_no_page_has_drawn_is_answered_as_without_one(
    backend: Backend, compare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it names costs nothing: no span is looked at but the one that is drawn."""
    now = time.time()
    backend.put_metrics([{"event": "task_received", "timestamp": now - age} for age in (900, 60)])
    source = read_now(History(backend.open())).source()
    drawing = Drawing(source, last(900, now - 30), compare=compare)
    later = Drawing(source, last(900, now), compare=compare)
    known = drawing.version.split(".")
    assert later.since(".".join(known)) is not None
    monkeypatch.setattr(answers, "flying_alike", None)
    for place in range(len(known)):
        for odd in ABSURD:
            parts = [*known[:place], odd, *known[place + 1 :]]
            if parts == known:
                continue
            assert later.since(".".join(parts)) is None
    start, end, step = map(int, known[1:])
    for odd_span in (
        (start + 1, end),
        (start, end + 1),
        (end, start),
        (start, start),
        (start, now + 99),
    ):
        assert later.since(f"{known[0]}.{odd_span[0]}.{int(odd_span[1])}.{step}") is None
    assert later.since(f"{known[0]}.{start - 2 * drawing.span.seconds}.{end}.{step}") is None


def test_one_event_of_a_long_past_does_not_make_all_since_then_known(backend: Backend) -> None:
    """It is counted where it belongs, and beside it nothing is known."""
    now = time.time()
    month, history = last(30 * DAY, now), History(backend.open())
    backend.put_metrics(
        [{"event": "task_processed", "timestamp": now - 1, "saved_at": now - 1}] * 5
    )
    source = read_now(history).source()
    before = answers.points(source, month).column("processed")
    assert [count for count in before if count is not None] == [5]
    known = Drawing(source, month, charts=CHARTS)
    backend.put_metrics([{"event": "task_processed", "timestamp": now - 29 * DAY, "saved_at": now}])
    later = read_now(history).source()
    assert later.since == source.since
    after = answers.points(later, month).column("processed")
    assert [count for count in after if count is not None] == [1, 5]
    drawing = Drawing(later, month, charts=CHARTS)
    news = drawing.columns(drawing.since(known.version))
    merge = merged(as_json(known.columns()), as_json(news))
    assert merge in (None, as_json(drawing.columns()))
    assert after.index(1) == int(now - 29 * DAY - month.start) // month.step
    hour = last(3600, now)
    assert answers.minutes_known(answers.points(later, hour)) == (
        answers.minutes_known(answers.points(source, hour))
    )
