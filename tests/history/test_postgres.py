"""The history in a PostgreSQL is the same as in SQLite."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omnidash.history import History, answers
from omnidash.history.answers import Whom
from omnidash.history.levels import LEVELS, last
from tests.history.readers import read_now
from tests.history.test_exact import (
    BATCHES,
    RANGE,
    answers_agree,
    generated,
    ingested,
    new_backend,
    rows_are_sums,
    says_what_was_not_counted,
    span_of,
    subjects_are_those_of_the_events,
)
from tests.servers import PostgresServer
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]


@examples(generated, max_examples=10)
@given(batches=BATCHES, at_once=st.integers(1, 40), drawn=RANGE)
def test_every_interval_and_every_answer_is_the_sum_of_its_events(
    on_postgres: PostgresServer,
    tmp_path: Path,
    redis_url: str,
    batches: Any,
    at_once: int,
    drawn: tuple[float, float],
) -> None:
    with (
        new_backend("redis", tmp_path, redis_url) as backend,
        ingested(backend, batches, at_once) as (stream, history),
    ):
        source = history.source()
        says_what_was_not_counted(source, stream)
        for level in LEVELS:
            rows_are_sums(source, stream, level)
        subjects_are_those_of_the_events(source, stream)
        for whom in (Whom(), Whom("a"), Whom(None, "x"), Whom("\ud800", "x")):
            answers_agree(source, stream, span_of(drawn, stream.base), whom)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("topic", ["s b", "t a", "t b"]),
        ("agent", ["t a", "s b", "t b"]),
        ("ended", ["t b", "s b", "t a"]),
        ("received", ["t a", "s b", "t b"]),
        ("processed", ["s b", "t b", "t a"]),
        ("failed", ["t b", "t a", "s b"]),
        ("max", ["s b", "t b", "t a"]),
        ("p95", ["s b", "t b", "t a"]),
        ("last_seen", ["t b", "t a", "s b"]),
    ],
)
def test_every_order_of_the_agents(
    on_postgres: PostgresServer, redis_backend: Backend, order: str, expected: list[str]
) -> None:
    now = time.time()
    events = [("task_received", "t a", 2), ("task_processed", "s b", 3), ("task_failed", "t b", 1),
              ("task_processed", "t b", 4)]  # fmt: skip
    redis_backend.put_metrics(
        [
            {"event": event, "topic": who[0], "agent": who[2], "timestamp": now - age,
             "processing_time_sec": 10 * (age == 3) + 1}
            for event, who, age in events
        ]
    )  # fmt: skip
    source = read_now(History(redis_backend.open())).source()
    found, count = answers.by_agent(source, last(900, now), order=order)
    assert [f"{row.topic} {row.agent}" for row in found] == expected
    assert count == 3
