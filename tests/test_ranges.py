"""Ranges of the metrics: what cannot be is named, and what is not known is not zero."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from django.test import Client

from tests.pages import serving, text_of
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


def moment(seconds_ago: float) -> str:
    at = datetime.datetime.fromtimestamp(time.time() - seconds_ago, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def some_tasks(backend: Backend) -> Iterator[None]:
    """Three tasks, of which nothing is known before the first."""
    backend.put_metrics([
        {"topic": "t", "agent": "a", "event": "task_received", "task_id": str(number),
         "timestamp": time.time() - 30 + number, "saved_at": time.time() - 30 + number}
        for number in range(3)
    ])  # fmt: skip
    with serving(prod=backend.url):
        yield


def page(client: Client, noun: str, **query: str) -> str:
    response = client.get(f"/prod/{noun}/?{urlencode(query)}")
    assert response.status_code == 200
    return text_of(response)


@pytest.mark.parametrize("noun", ["metrics", "errors"])
@pytest.mark.parametrize(
    ("start", "end", "named"),
    [(-3600, -7200, "from"), (60, 120, "to"), (3 * 366 * 86_400, 60, "from"), (1e9, 2e9, "from")],
)
def test_a_range_that_cannot_be_is_named_and_left_out(
    viewer_client: Client, some_tasks: None, noun: str, start: float, end: float, named: str
) -> None:
    shown = page(viewer_client, noun, **{"from": moment(start), "to": moment(end)})
    assert "Left out of this address" in shown
    assert f"{named}:" in shown


def test_a_range_before_all_that_was_read_is_unknown_and_not_zero(
    viewer_client: Client, some_tasks: None
) -> None:
    shown = page(viewer_client, "metrics", **{"from": moment(7200), "to": moment(3600)})
    assert "Received—" in shown
    assert "Received0" not in shown


def test_a_comparison_says_that_only_a_part_is_known(
    viewer_client: Client, some_tasks: None
) -> None:
    shown = page(viewer_client, "metrics", range="15m", compare="on")
    assert "Received3" in shown
    assert "— before" in shown
    assert "Of the period before only a part is known" in shown
