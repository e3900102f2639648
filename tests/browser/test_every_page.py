"""Each page in both themes and at both widths: quiet, readable for all, not too wide, not heavy."""

from __future__ import annotations

import pytest
from playwright.sync_api import Request, expect

from tests.browser.conftest import Visit
from tests.browser.looks import PAGES, address, too_wide, violations
from tests.browser.served import Application

LOOKS = [
    # The templates are the same; only what they are filled with is another.
    ("redis", "light", 1440),
    ("json", "dark", 1440),
    ("json", "light", 390),
    ("redis", "dark", 390),
]


@pytest.mark.parametrize(("store", "theme", "width"), LOOKS)
def test_each_page_is_quiet_fits_and_can_be_read_by_all(
    application: Application, visit: Visit, store: str, theme: str, width: int
) -> None:
    page = visit(f"{store}/", theme=theme, width=width)
    wrong: dict[str, list[str]] = {}
    for name in PAGES:
        if name == "login":
            page.goto("about:blank")  # else the page itself asks, and is sent to the login
            page.context.clear_cookies()
        page.goto(application(address(store, name)))
        expect(page.locator("h1").first).to_be_visible()
        expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)
        found = too_wide(page)
        page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        found += too_wide(page) + violations(page)
        if found:
            wrong[name] = found
    assert wrong == {}


def test_the_first_load_of_each_page_is_at_most_140_kb(
    application: Application, visit: Visit, store: str
) -> None:
    page = visit("login/")
    cache = page.context.new_cdp_session(page)
    loaded: list[Request] = []
    page.on("requestfinished", lambda request: loaded.append(request))
    for name in PAGES:
        page.goto("about:blank")
        if name == "login":
            page.context.clear_cookies()
        cache.send("Network.clearBrowserCache")
        loaded.clear()
        page.goto(application(address(store, name)), wait_until="networkidle")
        # Less than nothing is what the icon of the tab says, which Chromium keeps elsewhere.
        sizes = {one.url: max(0, one.sizes()["responseBodySize"]) for one in loaded}
        assert all(size for url, size in sizes.items() if url.endswith((".css", ".js"))), name
        assert any(url.endswith(".css") for url in sizes), name
        assert sum(sizes.values()) <= 140 * 1024, (name, sizes)
