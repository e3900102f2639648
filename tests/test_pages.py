"""Each page over each backend: whole, as a part, without a login, with the store down."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from django.test import Client

from tests.pages import PAGES, elements, get_part, links, serving, text_of
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture(params=["json_fixture", "redis_fixture"])
def served(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """OmniDaemon's own data, served as the store `prod`."""
    backend: Backend = request.getfixturevalue(request.param)
    with serving(prod=backend.url):
        yield backend


@pytest.fixture(params=["json", "redis"])
def empty(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend: Backend = request.getfixturevalue(f"{request.param}_backend")
    with serving(prod=backend.url):
        yield backend


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_nobody_sees_a_page_without_a_login(client: Client, served: Backend, path: str) -> None:
    response = client.get(f"/prod/{path}")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/login/?next=")
    assert b"agent" not in response.content


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_a_part_without_a_login_sends_the_whole_page_to_the_door(
    client: Client, served: Backend, path: str
) -> None:
    response = get_part(client, f"/prod/{path}")
    assert response.status_code == 401
    assert response.headers["HX-Redirect"].startswith("/login/")
    assert response.content == b""


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_a_browser_gets_the_page_and_htmx_the_part_of_it(
    viewer_client: Client, served: Backend, path: str
) -> None:
    whole = viewer_client.get(f"/prod/{path}")
    assert whole.status_code == 200
    (root,) = [e for e in elements(whole, "section") if "data-live" in e.attrib]
    part = get_part(viewer_client, f"/prod/{path}")
    assert part.status_code == 200
    assert b"<html" not in part.content
    (alone,) = [e for e in elements(part, "section") if "data-live" in e.attrib]
    assert alone.get("id") == root.get("id")
    assert re.fullmatch(r"[a-z]+-[a-z]+", root.get("id", ""))
    assert alone.get("hx-get") == f"/prod/{path}"


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_an_unchanged_part_is_answered_with_nothing(
    viewer_client: Client, served: Backend, path: str
) -> None:
    for _ in range(3):  # a minute may pass between two looks, and then the texts change
        first = get_part(viewer_client, f"/prod/{path}")
        again = get_part(viewer_client, f"/prod/{path}", **{"X-Part": first.headers["X-Part"]})
        if again.status_code == 204:
            break
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_an_empty_store_is_a_beginning_not_an_error(
    viewer_client: Client, empty: Backend, path: str
) -> None:
    response = viewer_client.get(f"/prod/{path}")
    assert response.status_code == 200
    assert "Traceback" not in text_of(response)


def test_each_listed_agent_has_a_link_that_opens_exactly_that_one(
    viewer_client: Client, served: Backend
) -> None:
    listed = links(viewer_client.get("/prod/agents/"), "/prod/agents/")
    assert len(listed) == 18
    for address, name in listed.items():
        page = viewer_client.get(address)
        assert page.status_code == 200
        (heading,) = elements(page, "h1")
        assert "".join(heading.itertext()).strip() == name


def test_each_listed_result_has_a_link_that_opens_exactly_that_one(
    viewer_client: Client, served: Backend
) -> None:
    found: dict[str, str] = {}
    for number in (1, 2, 3, 15, 16):
        page = viewer_client.get(f"/prod/results/?page={number}")
        found |= links(page, "/prod/results/")
    found |= links(viewer_client.get("/prod/results/?q=..%2F..%2F"), "/prod/results/")
    records = {address: name for address, name in found.items() if address.endswith("/")}
    assert any(".." in name for name in records.values()), "the awkward ids are among them"
    for address, name in records.items():
        page = viewer_client.get(address)
        assert page.status_code == 200, name
        (heading,) = elements(page, "h1")
        shown = "".join(heading.itertext()).strip()
        assert shown == name or shown.startswith(name.rstrip("…"))


def test_a_task_id_that_was_never_stored_is_said_to_be_gone(
    viewer_client: Client, served: Backend
) -> None:
    response = viewer_client.get("/prod/results/bmV2ZXI/")
    assert response.status_code == 404
    assert "Not there, or no longer" in text_of(response)


@pytest.mark.parametrize("ref", ["x", "..", "%2e%2e", "~", "bmV2ZXI~bmV2ZXI~bmV2ZXI"])
@pytest.mark.parametrize("noun", ["agents", "results"])
def test_an_address_that_was_not_made_here_is_not_found(
    viewer_client: Client, empty: Backend, noun: str, ref: str
) -> None:
    assert viewer_client.get(f"/prod/{noun}/{ref}/").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "page=0", "page=-1", "page=1e9", "page=999999999999", "page=x", "within=-5", "within=x",
        "order=sideways", "life=%00", "q=" + "x" * 5000, "q=%00", "q=%ff", "topic=%F0%9F%9A%80",
        "state=%3Csvg%20onload=1%3E", "order=", "page=1&page=2", "deep=maybe", "agent=%ED%A0%80",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_a_query_that_cannot_be_is_named_and_left_out(
    viewer_client: Client, empty: Backend, path: str, query: str
) -> None:
    response = viewer_client.get(f"/prod/{path}?{query}")
    assert response.status_code == 200
    assert "<svg onload" not in response.content.decode()


def test_what_was_left_out_of_an_address_is_said(viewer_client: Client, empty: Backend) -> None:
    assert "within" in text_of(viewer_client.get("/prod/results/?within=-5")).split("Filter")[0]


def test_a_state_that_there_is_not_is_left_out_and_said(
    viewer_client: Client, served: Backend
) -> None:
    page = viewer_client.get("/prod/agents/?state=nonsense")
    assert len(links(page, "/prod/agents/")) == 18
    assert "Left out of this address: state" in text_of(page)


def test_a_page_beyond_the_last_is_empty_not_an_error(
    viewer_client: Client, served: Backend
) -> None:
    response = viewer_client.get("/prod/results/?page=90000")
    assert response.status_code == 200
    assert "Nothing on this page" in text_of(response)


def test_an_unknown_store_is_not_found(viewer_client: Client, empty: Backend) -> None:
    assert viewer_client.get("/staging/").status_code == 404


def test_several_stores_are_switched_between(
    viewer_client: Client, json_fixture: Backend, redis_backend: Backend
) -> None:
    with serving(production=json_fixture.url, dev=redis_backend.url):
        page = viewer_client.get("/production/")
        assert "/dev/" in links(page, "/dev")
        assert "18" in text_of(page)
        assert viewer_client.get("/dev/").status_code == 200


def test_a_page_never_writes_to_its_store(viewer_client: Client, served: Backend) -> None:
    before = served.photograph()
    for path in [*PAGES.values(), "results/?life=expired", "results/?q=1807", "agents/?state=late"]:
        assert viewer_client.get(f"/prod/{path}").status_code == 200
    page = viewer_client.get("/prod/results/?life=expired")
    for address in links(page, "/prod/results/"):
        viewer_client.get(address)
    assert served.photograph() == before


class TestFiltersOfAgents:
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("topic=etl.raw", {"etl enricher"}),
            ("topic=file_system", set()),
            ("q=EXTRACTOR", {"invoice:extractor:v1", "extractor", "invoices:extractor"}),
            ("tool=list_files", {"OMNICOREAGENT_FILESYSTEM_AGENT"}),
            ("state=paused", {"paused-agent"}),
            ("topic=alerts.%5Bprod%5D*", {"alert-router"}),
        ],
    )  # fmt: skip
    def test_they_keep_exactly_what_matches(
        self, viewer_client: Client, served: Backend, query: str, names: set[str]
    ) -> None:
        page = viewer_client.get(f"/prod/agents/?{query}")
        assert set(links(page, "/prod/agents/").values()) == names

    def test_an_order_is_kept(self, viewer_client: Client, served: Backend) -> None:
        page = viewer_client.get("/prod/agents/?order=-name")
        shown = list(links(page, "/prod/agents/").values())
        assert shown == sorted(shown, reverse=True)


class TestFiltersOfResults:
    def test_an_agent_and_its_topic(self, viewer_client: Client, served: Backend) -> None:
        page = viewer_client.get("/prod/results/?agent=extractor&topic=tenant%3Aacme%3Ainvoices")
        rows = [e for e in elements(page, "td") if e.get("data-label") == "Agent"]
        assert rows
        assert {"".join(row.itertext()) for row in rows} == {"extractortenant:acme:invoices"}

    def test_soonest_to_expire_comes_in_order(self, viewer_client: Client, served: Backend) -> None:
        page = viewer_client.get("/prod/results/?order=expiring")
        times = [e.get("datetime") for e in elements(page, "time") if "data-left" in e.attrib]
        assert len(times) > 10
        assert times == sorted(times)

    def test_a_status_that_no_result_has(self, viewer_client: Client, served: Backend) -> None:
        page = viewer_client.get("/prod/results/?status=failed")
        assert "No stored result matches" in text_of(page)

    def test_text_of_a_payload_is_found_as_typed(
        self, viewer_client: Client, empty: Backend
    ) -> None:
        store = empty.open()
        store.save_result("needle", {"note": "Überraschung <b>"}, 600)
        page = viewer_client.get("/prod/results/?q=%C3%9Cberraschung")
        assert "needle" in links(page, "/prod/results/").values()

    def test_within_an_hour(self, viewer_client: Client, empty: Backend) -> None:
        store = empty.open()
        store.save_result("soon", 1, 600)
        store.save_result("late", 1, 7200)
        page = viewer_client.get("/prod/results/?within=60")
        assert set(links(page, "/prod/results/").values()) == {"soon"}

    def test_no_expiry_is_a_state_of_its_own(self, viewer_client: Client, served: Backend) -> None:
        page = viewer_client.get("/prod/results/?life=forever")
        assert "no expiry" in text_of(page)
        assert not [e for e in elements(page, "time") if "data-left" in e.attrib]


def test_a_download_is_the_stored_text(viewer_client: Client, empty: Backend) -> None:
    store = empty.open()
    store.save_result("a\r\nb", {"n": float("nan"), "big": 10**30}, 600)
    (address,) = links(viewer_client.get("/prod/results/"), "/prod/results/")
    response = viewer_client.get(address + "download")
    assert response.status_code == 200
    assert b"NaN" in response.content
    assert str(10**30).encode() in response.content
    assert response.headers["Content-Disposition"] == 'attachment; filename="result-a_b.json"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_result_that_expires_between_list_and_look_is_said_to_be_gone(
    viewer_client: Client, redis_backend: Backend
) -> None:
    with serving(prod=redis_backend.url):
        store = redis_backend.open()
        store.save_result("short", {}, 1)
        (address,) = links(viewer_client.get("/prod/results/"), "/prod/results/")
        deadline = time.monotonic() + 10
        while viewer_client.get(address).status_code != 404:
            assert time.monotonic() < deadline
        assert "expired or been deleted" in text_of(viewer_client.get(address))


SECRET_URL = "amqp://user:hunter2@broker/"


def test_secrets_of_the_configuration_are_on_no_page(viewer_client: Client, empty: Backend) -> None:
    store = empty.open()
    store.save_config("smtp.password", "hunter2")
    store.save_config("settings", {"api_key": "hunter2", "url": SECRET_URL})
    store.save_config("broken token", "x")
    for path in PAGES.values():
        assert b"hunter2" not in viewer_client.get(f"/prod/{path}").content
    assert "broker" in text_of(viewer_client.get("/prod/config/"))


HOSTILE = "\"><svg onload=alert(1)>\u202e\x1b[31m\r\nX: y' hx-get=/x {{ 7|add:7 }}"


def test_a_hostile_name_is_text_on_every_page(viewer_client: Client, empty: Backend) -> None:
    store = empty.open()
    store.add_agent(HOSTILE, {"name": HOSTILE, "description": HOSTILE, "tools": [HOSTILE]})
    store.save_result(HOSTILE, {"agent": HOSTILE, "topic": HOSTILE, "x": HOSTILE}, 600)
    store.save_config(HOSTILE, HOSTILE)
    now = time.time()
    for event in ("task_received", "task_failed", HOSTILE):
        store.save_metric(
            {"event": event, "topic": HOSTILE, "agent": HOSTILE, "task_id": HOSTILE,
             "error": HOSTILE, "error_type": HOSTILE, "timestamp": now}
        )  # fmt: skip
    paths = [f"/prod/{path}" for path in PAGES.values()]
    paths += links(viewer_client.get("/prod/agents/"), "/prod/agents/")
    paths += links(viewer_client.get("/prod/results/"), "/prod/results/")
    assert len(paths) == len(PAGES) + 2
    for path in paths:
        for response in (viewer_client.get(path), get_part(viewer_client, path)):
            assert response.status_code == 200, path
            assert not [e for e in elements(response, "svg") if "onload" in e.attrib]
            assert all(e.get("hx-get") != "/x" for e in elements(response, "a"))
            assert "\u202e" not in response.content.decode()
            assert b"\x1b" not in response.content
            assert b"14" not in re.findall(rb"x \S+ }}", response.content)
