"""A store that goes away while somebody looks, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from tests.browser.browsers import Watch
from tests.browser.changes import back, gone
from tests.browser.conftest import Visit
from tests.browser.looks import next_refresh, violations
from tests.browser.served import Application


@pytest.fixture
def take_away(application: Application, failing: str) -> Iterator[Callable[[], Callable[[], None]]]:
    """Takes the store away; what it answers brings it back. It is back after the test anyhow."""
    backend = application.backends[failing]
    away = False

    def bring_back() -> None:
        nonlocal away
        if away:
            back(application, backend)
            away = False

    def take_away() -> Callable[[], None]:
        nonlocal away
        gone(application, backend)
        away = True
        return bring_back

    yield take_away
    bring_back()


def notice_of(page: Page) -> None:
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("cannot be read since")
    expect(notice).to_contain_text("Trying again by itself")
    expect(notice.locator(".notice-cause")).not_to_be_empty()
    expect(notice.locator("time").first).to_be_visible()


@pytest.mark.both_stores
def test_an_outage_is_told_above_dimmed_content_and_passes_by_itself(
    visit: Visit, watch: Watch, take_away: Callable, failing: str
) -> None:
    watch.expect("503")
    page = visit(f"{failing}/results/")
    next_refresh(page)
    page.evaluate("window.untouched = true")
    live = page.locator("section[data-live]")
    before = live.locator("h2").all_inner_texts()
    bring_back = take_away()
    notice_of(page)
    expect(live).to_have_css("opacity", "0.5")
    assert live.locator("h2").all_inner_texts() == before
    expect(page.locator("[data-live-word]")).to_have_text("Retrying")
    bring_back()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(live).to_have_css("opacity", "1")
    expect(page.locator("[data-live-word]")).to_have_text("Live")
    assert page.evaluate("window.untouched")


def test_a_page_opened_during_an_outage_keeps_its_frame_and_comes_to_life(
    visit: Visit, watch: Watch, take_away: Callable, failing: str
) -> None:
    watch.expect("503")
    page = visit(f"{failing}/agents/")
    rows = page.locator("#agents-table tbody tr").count()
    bring_back = take_away()
    page.reload()
    notice_of(page)
    expect(page.get_by_role("link", name="Results")).to_be_visible()
    expect(page.locator("#agents-table tbody tr")).to_have_count(rows)
    expect(page.locator("main > [data-live]")).to_have_css("opacity", "0.5")
    bring_back()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("#agents-table tbody tr")).to_have_count(rows)
    expect(page.locator("[inert]")).to_have_count(0)


def test_the_notice_can_be_read_by_all_in_both_themes(
    visit: Visit, watch: Watch, take_away: Callable, failing: str
) -> None:
    watch.expect("503")
    take_away()
    for theme in ("light", "dark"):
        page = visit(f"{failing}/agents/", theme=theme, width=390)
        notice_of(page)
        # Dimmed and inert on purpose: what is below the notice is old.
        assert [line for line in violations(page) if "alert" in line or "notice" in line] == []


def test_retries_grow_rarer_and_never_stop(
    visit: Visit, watch: Watch, take_away: Callable, failing: str
) -> None:
    watch.expect("503")
    page = visit(f"{failing}/results/")
    page.clock.install()
    page.reload()
    next_refresh(page)
    page.evaluate(
        """() => {
          window.sent = [];
          document.addEventListener("htmx:config:request", () => window.sent.push(Date.now()));
        }"""
    )
    take_away()
    while page.evaluate("window.sent.length") < 6:
        page.clock.run_for(500)
        if len(watch.answers) < len(watch.refreshes):
            # What was asked is answered in real time, however fast the page's clock goes.
            expect(page.locator("[data-live-word]")).to_have_text("Retrying")
            page.evaluate("1")
    sent = page.evaluate("window.sent")
    waits = [(later - earlier) / 1000 for earlier, later in pairwise(sent)]
    assert waits[0] < waits[1] < waits[2] < waits[3] < waits[4] < 65, waits
    notice_of(page)
