"""Names of kilobytes and of a megabyte: listed, and linked by an address that a server takes."""

from __future__ import annotations

import html
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from django.test import Client

from omnidash.templatetags.show import filters
from tests.browser.served import Application, served
from tests.pages import links, serving
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]

LENGTHS = {"5 KB": 5_000, "1 MB": 1_000_000}


def fill(backend: Backend, length: int) -> None:
    """Two of each that differ in the last character alone, and a short one."""
    store = backend.open()
    for number, name in enumerate(("x" * length + "a", "x" * length + "b", "short")):
        text = f"description {number}"
        store.add_agent("topic", {"name": name, "description": text})
        body = {"agent": name, "topic": "topic", "text": "y" * number * 50_000}
        store.save_result(name, body, 3600)
    now = time.time()
    event = {"topic": "topic", "agent": "x" * length + "a", "task_id": "x" * length + "b"}
    store.save_metric({"event": "task_processed", "timestamp": now, **event})
    store.save_config("_supervisor_registry", ["x" * length + "a"])
    store.save_config(
        "supervisor:" + "x" * length + "a",
        {"agent_name": "x" * length + "a", "state": "crashed", "last_heartbeat": now},
    )


@pytest.fixture
def application(backend: Backend) -> Iterator[Application]:
    with served(OMNIDASH_STORES=f"prod={backend.url}") as found:
        yield found


def get(application: Application, path: str) -> tuple[int, str]:
    session = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in application.session)
    request = urllib.request.Request(application(path), headers={"Cookie": session})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def hrefs(page: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'href="([^"]*)"', page)]


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_served_page_of_every_long_name_opens_by_its_link(
    application: Application, backend: Backend, length: int
) -> None:
    fill(backend, length)
    telling = {"agents": r"(description \d)", "results": r'"Size" class="num">([^<]+)<'}
    opened = {"agents": telling["agents"], "results": r"<dt>Size</dt><dd>([^<]+)<"}
    for noun, detail in telling.items():
        status, page = get(application, f"prod/{noun}/")
        assert status == 200
        rows = re.findall(rf'href="(/prod/{noun}/[^"?]+)".*?{detail}', page, re.DOTALL)
        assert len({address for address, _ in rows}) == len({said for _, said in rows}) == 3
        for address, said in rows:
            status, page = get(application, address)
            assert status == 200
            assert set(re.findall(opened[noun], page)) == {said}
    assert get(application, "prod/agents/!" + "0" * 64 + "/")[0] == 404
    assert get(application, "prod/results/!" + "0" * 64 + "/")[0] == 404


def test_no_link_of_any_page_is_dead(application: Application, backend: Backend) -> None:
    fill(backend, 5_000)
    seen, todo = set(), ["/prod/"]
    while todo:
        path = todo.pop()
        seen.add(path)
        status, page = get(application, path)
        assert status == 200, path
        assert not any("Left out of this address" in line for line in page.splitlines()), path
        found = {urljoin(path, one) for one in hrefs(page)}
        todo += [
            one for one in found - seen - {*todo}
            if one.startswith("/prod/") and "#" not in one
        ]  # fmt: skip
        assert max(map(len, found), default=0) < 2100
    assert len(seen) >= 12


@pytest.mark.django_db
def test_a_link_that_filters_by_a_long_name_is_left_out(
    viewer_client: Client, backend: Backend
) -> None:
    fill(backend, 1_000)
    with serving(prod=backend.url):
        pages = links(viewer_client.get("/prod/agents/"), "/prod/agents/")
        filtering = [
            bool(links(viewer_client.get(address), "/prod/results/?")) for address in pages
        ]
    assert sorted(filtering) == [False, False, True]
    assert filters(agent="a b", topic="\udcff&") == "?agent=a%20b&topic=%ED%B3%BF%26"
    assert filters(agent="🚀" * 160, topic="") != ""
    assert filters(agent="🚀" * 170, topic="") == ""
