"""The page of the cleanup: its limits, and the form of its schedules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import client_of
from django.test import Client

from omnidash.models import Run, Schedule
from omnidash.stores import registry
from tests.pages import HTMX, elements, serving, text_of
from tests.stores import Backend, JsonBackend, RedisBackend, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db
NEW = {"action": "clean-up", "every": "day", "at": "03:00", "zone": "UTC", "line": "old-metrics"}


@pytest.fixture(autouse=True)
def served(backend: Backend) -> Iterator[None]:
    with serving(prod=backend.url):
        store = registry()["prod"].store
        for number in range(3):
            store.save_result(f"task-{number}", {"agent": "a"}, None)
        settled(store)
        yield


def value_of(page: Any, name: str) -> str | None:
    found: str | None = next(
        one.get("value") for one in elements(page, "input") if one.get("name") == name
    )
    return found


def adding(client: Client, **data: str) -> Any:
    return client.post("/prod/cleanup/schedules", {**NEW, **data})


def test_half_of_the_events_that_omnidaemon_keeps_are_kept_by_default(backend: Backend) -> None:
    page = client_of("operator").get("/prod/cleanup/")
    assert value_of(page, "newest") == ("5000" if isinstance(backend, JsonBackend) else "50000")


def test_a_line_asks_with_its_own_limit_whatever_stands_in_the_others() -> None:
    asked = {"line": "large", "megabytes": "0.00001", "days": "-1"}
    client = client_of("operator")
    answer = client.get("/prod/cleanup/run", asked)
    assert answer.status_code == 400, "too small a limit"
    assert "Large results: Ensure" in text_of(answer)
    answer = client.get("/prod/cleanup/run", {**asked, "megabytes": "2.5"})
    assert answer.status_code == 200
    assert "Larger than2.5 MB" in text_of(answer)


def test_the_button_for_all_lines_names_their_count_and_asks_about_just_these() -> None:
    client = client_of("operator")
    page = client.get("/prod/cleanup/", {"days": "0.01"})
    wanted = "Clean up all 3 records"  # of an agent that is not registered
    button = next(one for one in elements(page, "button") if one.text == wanted)
    answer = client.get(button.get("formaction"), {button.get("name"): button.get("value")})
    assert "Clean up 3 records?" in text_of(answer)


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
def test_what_nobody_can_miss_goes_by_a_button_that_is_not_red(backend: RedisBackend) -> None:
    backend.client.zadd(backend.key("results", "index"), {"lost": 1})
    client = client_of("operator")
    settled(registry()["prod"].store)
    red = {
        line: "btn-danger" in client.get("/prod/cleanup/run", {"line": line, "days": "0.01"})
        .content.decode()
        for line in ("index", "unregistered")
    }  # fmt: skip
    assert red == {"index": False, "unregistered": True}


def test_a_schedule_is_said_in_the_words_of_its_lines() -> None:
    client = client_of("administrator")
    assert adding(client, line="unregistered").status_code == 302
    said = text_of(client.get("/prod/cleanup/"))
    assert "Clean up: Results of agents that are not registered" in said
    log = text_of(client.get("/runs/"))
    assert "Clean up: Results of agents that are not registered, daily at 03:00 UTC: added." in log


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"zone": "Mars"}, "There is no such time zone"),
        ({"at": "noon"}, "Enter a valid time"),
        ({"every": "hours", "hours": "0"}, "greater than or equal to 1"),
        ({"line": ""}, "There is no such line"),
        ({"line": "old", "days": "x"}, "Old results: Enter a number."),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said_in_its_form(data: dict[str, str], told: str) -> None:
    client = client_of("administrator")
    for headers in ({}, HTMX):
        answer = client.post("/prod/cleanup/schedules", {**NEW, **data}, headers=headers)
        assert answer.status_code == 422
        assert told in text_of(answer)
        (form,) = [one for one in elements(answer, "form") if one.get("id") == "schedule-form"]
        typed = {one.get("name"): one.get("value") for one in form.iter("input")}
        assert typed["zone"] == {**NEW, **data}["zone"]
    assert not Schedule.objects.exists()


def test_what_belongs_to_another_interval_is_not_looked_at() -> None:
    client = client_of("administrator")
    assert adding(client, hours="0", weekday="9").status_code == 302
    assert adding(client, every="hours", hours="6", zone="Mars", at="noon").status_code == 302
    assert [one.every for one in Schedule.objects.order_by("pk")] == ["day", "hours"]


def test_a_schedule_is_deleted_only_after_it_was_asked() -> None:
    client = client_of("administrator")
    adding(client)
    page = client.get("/prod/cleanup/")
    link = next(one for one in elements(page, "a") if one.text == "Delete")
    asked = client.get(link.get("href"))
    assert "Delete this schedule?" in text_of(asked)
    assert "Old metric events" in text_of(asked)
    assert Schedule.objects.exists()
    (form,) = [
        one for one in elements(asked, "form") if one.get("action", "").endswith("schedules")
    ]
    data = {one.get("name"): one.get("value") for one in form.iter("input")}
    assert client.post(form.get("action"), data).status_code == 302
    assert not Schedule.objects.exists()
    assert client.post(form.get("action"), data).status_code == 302, "somebody was quicker"
    assert client.get(link.get("href")).status_code == 404


def test_an_operator_changes_no_schedule() -> None:
    adding(client_of("administrator"))
    client, number = client_of("operator"), Schedule.objects.get().pk
    assert "Delete" not in text_of(client.get("/prod/cleanup/"))
    for answer in (
        adding(client),
        client.post("/prod/cleanup/schedules", {"schedule": number, "do": "delete"}),
        client.get("/prod/cleanup/schedules/delete", {"schedule": number}),
    ):
        assert answer.status_code == 403
        assert "Changing schedules is for administrators." in text_of(answer)
    assert Schedule.objects.count() == 1
    assert Run.objects.filter(state="refused", action="edit-schedules").count() == 3
