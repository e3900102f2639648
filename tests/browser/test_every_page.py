"""Each page in both themes and at both widths: quiet, readable for all, not too wide, not heavy."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Request

from tests.browser.conftest import Visit
from tests.browser.looks import PAGES, address, too_wide, violations
from tests.browser.served import Application

LOOKS = [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)]


def seen(visit: Visit, store: str, name: str, theme: str, width: int) -> Page:
    session = {"session": []} if name == "login" else {}
    page = visit(address(store, name), theme=theme, width=width, **session)
    assert page.locator("h1").first.is_visible()
    assert page.locator("html").get_attribute("data-bs-theme") == theme
    return page


@pytest.mark.parametrize(("theme", "width"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_quiet_fits_and_can_be_read_by_all(
    visit: Visit, store: str, name: str, theme: str, width: int
) -> None:
    page = seen(visit, store, name, theme, width)
    assert too_wide(page) == []
    assert violations(page) == []
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert too_wide(page) == []
    assert violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_the_first_load_of_each_page_is_at_most_140_kb(
    application: Application, visit: Visit, store: str, name: str
) -> None:
    page = visit("login/", session=application.session if name != "login" else [])
    # Only now, in a profile whose cache is empty again: what one page needs by itself.
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    loaded: list[Request] = []
    page.on("requestfinished", loaded.append)
    page.goto(application(address(store, name)), wait_until="networkidle")
    sizes = {one.url: one.sizes()["responseBodySize"] for one in loaded}
    assert any(url.endswith(".css") for url in sizes), "the cache was empty"
    assert all(size >= 0 for size in sizes.values()), sizes
    assert sum(sizes.values()) <= 140 * 1024, sizes
