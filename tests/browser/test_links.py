"""Each record that a list shows has a link that opens exactly that one, whatever it is called."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from omnidash.text import printable
from tests.browser.conftest import Visit
from tests.browser.served import Application
from tests.stores import Backend, JsonBackend, RedisBackend

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def task_ids(backend: Backend) -> list[str]:
    if isinstance(backend, JsonBackend):
        return list(backend.read("results.json"))
    assert isinstance(backend, RedisBackend)
    start = len(backend.key("result", ""))
    return [key[start:].decode() for key in backend.client.scan_iter(backend.key("result", "*"))]


def agent_names(backend: Backend) -> list[str]:
    if isinstance(backend, JsonBackend):
        return [one["name"] for found in backend.read("agents.json").values() for one in found]
    assert isinstance(backend, RedisBackend)
    members = (
        backend.client.smembers(key) for key in backend.client.scan_iter(backend.key("agents", "*"))
    )
    return [name.decode() for found in members for name in found]


def links(page: Page, noun: str) -> dict[str, str]:
    """Address as the browser understands it -> text, of the links to single records."""
    found: list[tuple[str, str]] = page.locator(
        f"#{noun}-table tbody td.pick-cell + td a"
    ).evaluate_all("all => all.map((link) => [link.href, link.textContent])")
    return dict(found)


@pytest.mark.both_stores
def test_each_agent_in_the_list_opens_as_itself(
    application: Application, visit: Visit, store: str
) -> None:
    page = visit(f"{store}/agents/")
    listed = links(page, "agents")
    assert sorted(listed.values()) == sorted(
        map(printable, agent_names(application.backends[store]))
    )
    for href, name in listed.items():
        assert page.goto(href, wait_until="commit").status == 200  # type: ignore[union-attr]
        assert page.locator("h1").inner_text() == name
        assert page.url == href


@pytest.mark.both_stores
def test_each_result_in_the_list_opens_as_itself(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/")
    listed = links(page, "results")
    assert len(listed) == 50
    for href, name in list(listed.items())[::7]:
        assert page.goto(href, wait_until="commit").status == 200  # type: ignore[union-attr]
        assert page.locator("h1").inner_text() == name
        assert page.url == href


@pytest.mark.both_stores
def test_results_with_awkward_ids_are_found_and_open_by_a_click(
    application: Application, visit: Visit, store: str
) -> None:
    awkward = [one for one in task_ids(application.backends[store]) if not UUID.fullmatch(one)]
    assert len(awkward) > 10
    page = visit(f"{store}/results/?life=")
    kinds = {re.sub(r"\d+", "0", one): one for one in awkward}
    for task_id in kinds.values():
        page.goto(application(f"{store}/results/"), wait_until="domcontentloaded")
        page.locator("[data-filter]").fill(task_id)
        page.keyboard.press("Enter")
        row = page.locator("#results-table tbody tr").filter(has_text="this id")
        row.get_by_role("link").first.click()
        expect(page).to_have_url(re.compile(r"/results/[\w~-]+/$"))
        assert page.locator("h1").inner_text() == task_id
