"""Backups as people take them: a real worker, a real Redis, and a browser from loss to recovery."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.browsers import Watch, context_of
from tests.browser.looks import too_wide, violations
from tests.browser.served import Application, RedisServer, served
from tests.stores import RedisBackend, contents

LOOKS = [("light", 1440), ("dark", 390)]


@pytest.fixture(scope="module")
def backed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """OmniDaemon's own data in a Redis of its own, and an empty JSON directory."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "copy").mkdir()
    server = RedisServer(folder)
    try:
        backend = server.load()
        stores = f"prod={backend.url},copy=json://{folder}/copy"
        with served(OMNIDASH_STORES=stores) as application:
            application.redis, application.backends = server, {"prod": backend}
            yield application
            backend.close()
    finally:
        server.stop()


@pytest.fixture
def page(backed: Application, browser: Browser) -> Iterator[Page]:
    watch = Watch()
    context = context_of(browser, backed.session)
    watch.over(context)
    yield context.new_page()
    context.close()
    assert watch.unexpected() == []


def confirm(page: Page, name: str = "") -> None:
    if name:
        page.locator("#actions-confirm [name=typed]").fill(name)
        page.keyboard.press("Enter")  # it confirms, and does not compare again
    else:
        page.locator("#actions-confirm footer button").click()
    page.wait_for_url(re.compile("/runs/[0-9]+/$"))
    state = page.locator("#runs-run .badge.state").first
    ends = re.compile("done|failed|cancelled|interrupted|refused")
    expect(state).to_have_text(ends, timeout=60_000)
    assert state.inner_text().lower() == "done", page.locator("#runs-run").inner_text()


def chosen(page: Page, mode: str) -> None:
    """The preview of this mode, with what runners noted."""
    button = page.locator("#actions-confirm footer button")
    expect(button).to_be_enabled()
    page.get_by_label(mode).check()
    expect(button).to_be_disabled()  # it would do what was compared before
    page.get_by_label("Merge").check()
    expect(button).to_be_enabled()
    page.get_by_label(mode).check()
    page.get_by_label("Also what runners noted").check()
    page.get_by_role("button", name="Compare again").click()
    page.wait_for_url(re.compile(f"mode={mode.lower()}"))


def sums(page: Page) -> dict[str, list[str]]:
    return {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.locator(".sums tbody tr").all()
    }


def lasting(backend: RedisBackend, began: float) -> dict[bytes, Any]:
    """What OmniDaemon stored, but what expires while the test goes on."""
    found: dict[bytes, Any] = contents(backend)  # type: ignore[assignment]
    late = (began + 600) * 1000
    return {
        key: value
        for key, value in found.items()
        if key.startswith(b"omni") and not key.startswith(b"omnidash:")
        and (value[2] == -1 or value[2] > late)
    }  # fmt: skip


def test_a_store_is_backed_up_proven_wiped_and_restored_as_it_was(
    backed: Application, page: Page
) -> None:
    backend = backed.backends["prod"]
    assert isinstance(backend, RedisBackend)
    began = time.time()
    before = lasting(backend, began)
    page.goto(backed("prod/backups/"))
    page.get_by_role("link", name="Back up now").click()
    confirm(page)
    page.locator(".run-made a").click()
    page.get_by_role("link", name="Trial restore").click()
    confirm(page)

    backend.client.delete(*backend.client.scan_iter("omni:*", count=1000))  # but not the bus
    page.goto(backed("prod/backups/"))
    expect(page.locator("tbody tr").first).to_contain_text("trial good")
    page.get_by_role("link", name="Restore", exact=True).click()
    chosen(page, "Replace")
    assert sums(page)["agents"][:3] == ["18", "0", "0"]
    confirm(page, "prod")

    assert lasting(backend, began) == before
    expect(page.locator(".run-made")).to_contain_text("The store as it was")
    with page.expect_download() as report:
        page.get_by_role("link", name="What became of each record").click()
    assert report.value.suggested_filename.endswith(".csv.gz")


def test_a_server_saves_itself_and_says_when(backed: Application, page: Page) -> None:
    page.goto(backed("prod/backups/"))
    page.get_by_role("link", name="Save now").click()
    confirm(page)


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_the_pages_of_a_restore_fit_and_can_be_used_by_all(
    backed: Application, browser: Browser, page: Page, theme: str, width: int
) -> None:
    page.goto(backed("prod/backups/"))
    one = page.locator("tbody tr td a").first.get_attribute("href") or ""
    context = context_of(browser, backed.session, theme=theme, width=width)
    page = context.new_page()
    pk = one.rstrip("/").rpartition("/")[2]
    for path in (
        "prod/backups/", one, f"prod/backups/restore?backup={pk}&mode=replace",
        "copy/backups/", "copy/backups/copy?from=prod",
    ):  # fmt: skip
        page.goto(backed(path))
        assert violations(page) == [], path
        assert too_wide(page) == [], path
    context.close()
