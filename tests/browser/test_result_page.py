"""One result: copied, downloaded byte for byte, and counted down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from omnidash.text import ref
from tests.browser.browsers import Watch
from tests.browser.changes import a_result
from tests.browser.conftest import Visit
from tests.browser.looks import address, next_refresh
from tests.browser.served import Application
from tests.stores import Backend, JsonBackend, RedisBackend

AWKWARD = ["manual-no-ttl", "<i>182</i>", "../../46", "<i>1004</i>", "a:b:c:259"]


def stored(backend: Backend, task_id: str) -> object:
    """What the store holds of a result: bytes in Redis, a part of a file in a JSON directory."""
    if isinstance(backend, JsonBackend):
        return backend.read("results.json").get(task_id)
    assert isinstance(backend, RedisBackend)
    return backend.client.get(backend.key("result", task_id))


@pytest.mark.both_stores
@pytest.mark.parametrize("task_id", AWKWARD)
def test_a_download_is_exactly_what_is_stored(
    application: Application, visit: Visit, store: str, task_id: str
) -> None:
    held = stored(application.backends[store], task_id)
    if held is None:
        task_id = "manual-no-ttl"
        held = stored(application.backends[store], task_id)
    page = visit(f"{store}/results/{ref(task_id)}/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("result-")
    content = Path(download.value.path()).read_bytes()
    if isinstance(held, bytes):
        assert content == held
    else:
        assert json.loads(content) == held


def test_the_payload_is_a_tree_above_its_raw_text(visit: Visit, store: str) -> None:
    page = visit(address(store, "one result"))
    expect(page.locator(".json-tree")).to_be_visible()
    expect(page.locator("#raw")).to_be_hidden()
    page.get_by_text("Raw text as stored").click()
    expect(page.locator("#raw")).to_contain_text('"task_id"')


def test_copying_takes_the_raw_text(application: Application, visit: Visit, store: str) -> None:
    page = visit(
        f"{store}/results/{ref('manual-no-ttl')}/",
        permissions=["clipboard-read", "clipboard-write"],
    )
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    held = stored(application.backends[store], "manual-no-ttl")
    assert json.loads(copied) == (json.loads(held) if isinstance(held, bytes) else held)
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()


def test_the_time_left_ticks_and_changes_its_colour(
    application: Application, visit: Visit, moving: str
) -> None:
    task_id = a_result(application.backends[moving], seconds_left=330)
    page = visit(f"{moving}/results/{ref(task_id)}/")
    left = page.locator("time[data-left]")
    expect(left).to_have_class("left-soon")
    before = left.inner_text()
    assert before.startswith("05:")
    expect(left).not_to_have_text(before)
    # Its clock is about to run too fast for answers to come in time.
    page.get_by_label("Refresh every").select_option("0")
    page.clock.install()
    page.clock.run_for(60_000)
    expect(left).to_have_class("left-now")
    page.clock.run_for(300_000)
    expect(left).to_have_text("expired")


def test_raw_text_stays_as_it_was_left_through_a_refresh(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/{ref('manual-no-ttl')}/")
    raw = page.locator("details.raw")
    before = raw.get_attribute("open")
    raw.locator("summary").click()
    next_refresh(page)
    assert raw.get_attribute("open") != before


def test_a_result_that_is_deleted_while_it_is_read_is_said_to_be_gone(
    application: Application, visit: Visit, watch: Watch, moving: str
) -> None:
    watch.expect("404")
    backend = application.backends[moving]
    task_id = a_result(backend)
    page = visit(f"{moving}/results/{ref(task_id)}/")
    if isinstance(backend, JsonBackend):
        left = backend.read("results.json")
        del left[task_id]
        backend.write("results.json", left)
    else:
        backend.open().delete_result(task_id)
    expect(page.get_by_role("alert")).to_contain_text("Not there, or no longer")
    expect(page.locator("h1")).to_have_text(task_id)  # what was read stays on the screen
