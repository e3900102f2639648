"""Where actions are asked for in the pages: who sees what, and what their forms and links say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import client_of
from django.test import Client
from django.urls import resolve

from omnidash.stores import registry
from omnidash.text import ref
from tests.pages import elements, get_part, serving, text_of
from tests.stores import Backend, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

IDS = ["task-1", "", "../../etc/passwd", '"><svg onload=1>', "翻訳 🚀", "long" * 300]
TOPICS = ["t", "", "a&b=c#d?e", '"><b>', "x" * 1001]
PAGES = {
    "agents": "agents/",
    "an agent": f"agents/{ref('t', 'a')}/",
    "results": "results/",
    "filtered results": "results/?agent=a",
    "a result": f"results/{ref('task-1')}/",
    "config": "config/",
    "storage": "storage/",
}
OPERATOR = {"delete-agents", "delete-results", "extend-results", "cleanup", "runs"}
ADMINISTRATOR = OPERATOR | {
    "delete-topic", "delete-matching-results", "set-config", "delete-config", "clear",
}  # fmt: skip


@pytest.fixture(autouse=True)
def served(backend: Backend) -> Iterator[None]:
    with serving(prod=backend.url):
        store = registry()["prod"].store
        for task_id in IDS:
            store.save_result(task_id, {"agent": "a", "topic": "t"}, 3600)
        for topic in TOPICS:
            store.add_agent(topic, {"name": "a"})
        store.save_config("mine & yours", {"x": 1})
        store.save_config("k" * 1001, 1)
        settled(store)
        yield


def asked_on(client: Client, path: str) -> set[str]:
    """The names of the addresses of actions that a page leads to."""
    page = client.get(f"/prod/{path}")
    assert page.status_code == 200
    found = [link.get("href") for link in elements(page, "a")]
    found += [button.get("formaction") for button in elements(page, "button")]
    names = {resolve(urlsplit(one).path).url_name for one in found if one and one.startswith("/")}
    return names & ADMINISTRATOR


def picks(page: Any) -> list[Any]:
    return [one for one in elements(page, "input") if "data-pick" in one.attrib]


def hidden(page: Any, form: str) -> list[tuple[str, str]]:
    """What a form holds that nobody has to fill in."""
    inside = next(one for one in elements(page, "form") if one.get("id") == form)
    return [(one.get("name"), one.get("value", "")) for one in inside.iter("input")]


def button(page: Any, form: str, label: str) -> Any:
    inside = [one for one in elements(page, "form") if one.get("id") == form]
    candidates = [one for one in elements(page, "button") if one.get("form") == form]
    candidates += [one for root in inside for one in root.iter("button")]
    return next(one for one in candidates if "".join(one.itertext()).strip() == label)


@pytest.mark.parametrize("name", PAGES)
def test_a_viewer_sees_nothing_to_act_with(name: str) -> None:
    client = client_of("viewer")
    assert asked_on(client, PAGES[name]) == set()
    page = client.get(f"/prod/{PAGES[name]}")
    assert not picks(page)
    assert "data-dialog " not in page.content.decode()


def test_each_role_sees_what_it_may_do_and_no_more() -> None:
    for role, wanted in (("operator", OPERATOR), ("administrator", ADMINISTRATOR)):
        client = client_of(role)
        assert set().union(*(asked_on(client, path) for path in PAGES.values())) == wanted


@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_offered_a_change_of_a_read_only_store(name: str, backend: Backend) -> None:
    joint = "&" if "?" in backend.url else "?"
    with serving(prod=f"{backend.url}{joint}mode=read-only"):
        settled(registry()["prod"].store)
        client = client_of("administrator")
        assert asked_on(client, PAGES[name]) <= {"cleanup", "runs"}
        assert not picks(client.get(f"/prod/{PAGES[name]}"))


def test_the_selected_are_posted_without_a_script_and_named_before_anything_happens() -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies = client_of("operator").cookies
    page = client.get("/prod/results/")
    offered = {one.get("value"): one for one in picks(page)}
    assert set(offered) == {ref(one) for one in IDS}
    assert {one.get("form") for one in offered.values()} == {"ask"}
    delete = button(page, "ask", "Delete")
    data = dict(hidden(page, "ask")) | {"of": list(offered)}
    answer = client.post(delete.get("formaction"), data)
    assert answer.status_code == 200, text_of(answer)
    assert f"Delete {len(IDS)} results?" in text_of(answer)
    assert len(registry()["prod"].store.results_by_id(IDS)) == len(IDS)


def test_every_checkbox_is_named_after_its_record() -> None:
    client = client_of("operator")
    names = {one.get("aria-label") for one in picks(client.get("/prod/results/"))}
    assert {"Select task-1", "Select (empty id)", 'Select "><svg onload=1>'} <= names
    assert len(names) == len(IDS)


def test_a_record_that_is_listed_twice_is_selected_once() -> None:
    page = client_of("operator").get("/prod/results/?q=task-1")
    values = [one.get("value") for one in picks(page)]
    assert set(values) == {ref("task-1")}
    ids = [one.get("id") for one in elements(page, "input") if one.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", ["agents/", "results/?agent=a", "config/", "storage/"])
def test_parts_hold_no_token_so_unchanged_ones_are_not_sent_again(path: str) -> None:
    client = client_of("administrator")
    first = get_part(client, f"/prod/{path}")
    assert "csrfmiddlewaretoken" not in first.content.decode()
    if path != "storage/":  # a Redis never looks the same twice
        again = get_part(client, f"/prod/{path}", **{"X-Part": first.headers["X-Part"]})
        assert again.status_code == 204


def test_all_that_match_takes_the_filter_along_as_it_was_asked_for() -> None:
    client = client_of("administrator")
    asked = {"agent": '"><b>a&b', "topic": "t", "life": "forever"}
    registry()["prod"].store.save_result("kept", {"agent": asked["agent"], "topic": "t"}, None)
    settled(registry()["prod"].store)
    page = client.get("/prod/results/", {**asked, "order": "expiring", "page": 1})
    sent = dict(hidden(page, "matching"))
    assert sent == {**asked, "matching": "on", "at": "", "zone": ""}
    assert "All 1 that match" in text_of(page)
    delete = button(page, "matching", "Delete").get("formaction")
    assert "Delete 1 result?" in text_of(client.get(delete, sent))
    extend = button(page, "matching", "24 hours longer")
    data = {**sent, extend.get("name"): extend.get("value")}
    answer = client.get(extend.get("formaction"), data)
    assert "Set the expiry of 1 result?" in text_of(answer)


@pytest.mark.parametrize(
    "query", ["", "?order=expiring&page=1", "?agent=nobody", "?agent=a&life=x"]
)
def test_without_a_filter_that_holds_there_is_no_all_that_match(query: str) -> None:
    """One that was left out would mean more records than the reader believes."""
    page = client_of("administrator").get(f"/prod/results/{query}")
    assert not [one for one in elements(page, "form") if one.get("id") == "matching"]


def test_an_operator_extends_all_that_match_but_does_not_delete_them() -> None:
    page = client_of("operator").get("/prod/results/?agent=a")
    assert button(page, "matching", "Keep for ever") is not None
    assert "delete-matching" not in page.content.decode()


def test_a_topic_can_be_deleted_whatever_it_is_called() -> None:
    client = client_of("administrator")
    page = client.get("/prod/agents/")
    found = [one.get("href") for one in elements(page, "a") if one.text == "Delete topic"]
    topics = [parse_qs(urlsplit(one).query)["of"][0] for one in found]
    assert sorted(topics) == sorted(map(ref, TOPICS))
    for address in found:
        assert "Delete 1 agent?" in text_of(client.get(address))
    flat = client.get("/prod/agents/?order=name")
    assert "Delete topic" not in text_of(flat)


def test_a_record_of_its_own_page_is_the_one_that_is_asked_about() -> None:
    client = client_of("operator")
    agent = client.get(f"/prod/{PAGES['an agent']}")
    link = next(one for one in elements(agent, "a") if one.text == "Delete agent")
    assert "t / a" in text_of(client.get(link.get("href")))
    result = client.get(f"/prod/{PAGES['a result']}")
    held = [one for one in elements(result, "input") if one.get("form") == "ask"]
    assert [one.get("value") for one in held if one.get("name") == "of"] == [ref("task-1")]
    assert button(result, "ask", "Delete result").get("formaction") == "/prod/results/delete"


def test_keys_are_added_edited_and_deleted_where_they_are_listed() -> None:
    client = client_of("administrator")
    page = client.get("/prod/config/")
    found = {one.get("aria-label") or one.text: one for one in elements(page, "a")}
    edit = client.get(found["Edit mine & yours"].get("href"))
    area = elements(edit, "textarea")[0]
    assert '"x": 1' in area.text
    keys = [one for one in elements(edit, "input") if one.get("name") == "of"]
    assert ("hidden", ref("mine & yours")) in [(one.get("type"), one.get("value")) for one in keys]
    assert "mine & yours" in text_of(client.get(found["Delete mine & yours"].get("href")))
    assert elements(client.get(found["Add key"].get("href")), "textarea")[0].text is None
    assert [label for label in found if label and label.startswith("Edit kkk")]
