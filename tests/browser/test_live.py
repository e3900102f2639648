"""Live refresh: what changes in the store appears, and nobody is disturbed by it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.browsers import Watch, is_from_htmx
from tests.browser.changes import AGENT, a_result, an_agent, some_tasks
from tests.browser.conftest import Visit
from tests.browser.looks import PAGES, address, next_refresh, violations
from tests.browser.served import Application

LIVE = [name for name in PAGES if name != "login"]
# The reader looks at another tab, as far as the page can know.
_HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  Object.defineProperty(
    document, "visibilityState", { value: hidden ? "hidden" : "visible", configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
_COUNT_SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.shifts.push(
    `${entry.value} ${entry.sources.map((source) => source.node?.outerHTML?.slice(0, 120))}`,
  ))).observe({ type: "layout-shift" });
}"""


def shifts(page: Page) -> list[str]:
    """What the browser saw move, once it has painted."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    found: list[str] = page.evaluate("window.shifts")
    return found


def every(page: Page, seconds: str) -> None:
    page.get_by_label("Refresh every").select_option(seconds)


# A Redis never looks the same twice: its latency, memory and uptime are on the storage page.
@pytest.mark.parametrize("name", [name for name in LIVE if name != "storage"])
def test_unchanged_data_is_answered_with_nothing(visit: Visit, store: str, name: str) -> None:
    page = visit(address(store, name))
    page.evaluate("document.querySelector('[data-live]').marked = true")
    refresh = next_refresh(page, status=204)
    assert refresh.headers.get("content-length", "0") == "0"
    assert page.evaluate("document.querySelector('[data-live]').marked")


def test_a_new_result_appears_without_a_reload(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/results/")
    page.evaluate("window.untouched = true")
    counted = page.locator('[data-count="results"]')
    before = int(counted.inner_text().replace(",", ""))
    fresh = a_result(application.backends[moving])
    expect(page.get_by_text(fresh)).to_be_visible()
    expect(counted).to_have_text(f"{before + 1:,}")
    expect(page.locator("#results-table h2")).to_have_text(f"{before + 1:,} stored")
    assert page.evaluate("window.untouched")


def test_a_new_agent_appears_without_a_reload(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/agents/")
    page.evaluate("window.untouched = true")
    an_agent(application.backends[moving], "a latecomer <b>")
    link = page.get_by_role("link", name="a latecomer <b>")
    expect(link).to_be_visible()
    assert page.evaluate("window.untouched")
    link.click()
    expect(page.locator("h1")).to_have_text("a latecomer <b>")


def test_new_rows_wait_while_the_list_is_read_by_keyboard(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/results/")
    link = page.locator("#results-table tbody a").nth(2)
    name = link.inner_text()
    link.focus()
    fresh = a_result(application.backends[moving])
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    assert page.evaluate("document.activeElement.textContent") == name
    expect(page.get_by_text(fresh)).to_have_count(0)
    a_result(application.backends[moving])
    page.get_by_role("button", name="2 new").click()
    expect(page.get_by_text(fresh)).to_be_visible()
    expect(page.locator("[data-live-new]")).to_be_hidden()
    expect(page.locator("#results-table .table-scroll")).to_be_focused()


def test_the_focus_stays_on_its_record_when_figures_change(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/agents/")
    link = page.get_by_role("link", name=AGENT)
    link.focus()
    received = page.get_by_role("row").filter(has=link).locator('[data-label="Received"]')
    before = int(received.inner_text().replace(",", ""))
    some_tasks(application.backends[moving])
    expect(received).to_have_text(f"{before + 1:,}")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(AGENT)


def test_no_row_moves_under_the_pointer(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/results/")
    row = page.locator("#results-table tbody tr").nth(3)
    name = row.get_by_role("link").inner_text()
    row.hover()
    page.evaluate(_COUNT_SHIFTS)
    fresh = a_result(application.backends[moving])
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    assert page.evaluate("document.querySelector('tbody tr:hover a').textContent") == name
    assert shifts(page) == []
    assert violations(page) == []
    page.mouse.move(2, 2)
    expect(page.get_by_text(fresh)).to_be_visible()
    expect(page.locator("[data-live-new]")).to_be_hidden()


def test_opened_details_stay_open(application: Application, visit: Visit, moving: str) -> None:
    page = visit(f"{moving}/results/")
    numbers = page.locator("details.chart-numbers")
    numbers.locator("summary").click()
    before = numbers.inner_text()
    a_result(application.backends[moving], seconds_left=1800)
    expect(numbers).not_to_have_text(before, use_inner_text=True)
    assert numbers.get_attribute("open") is not None
    numbers.locator("summary").click()
    before = numbers.text_content() or ""
    a_result(application.backends[moving], seconds_left=1800)
    expect(numbers).not_to_have_text(before)
    assert numbers.get_attribute("open") is None


def test_what_was_scrolled_to_stays_where_it_is(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/results/", width=390)
    page.evaluate("window.scrollTo(0, 900)")
    row = page.locator("#results-table tbody tr:nth-child(8)")
    row_id, before = row.get_attribute("id"), row.bounding_box()
    fresh = a_result(application.backends[moving])
    new = page.get_by_role("button", name="1 new")
    expect(new).to_be_visible()
    assert page.evaluate("window.scrollY") == 900
    assert page.locator(f"[id='{row_id}']").bounding_box() == before
    new.tap()
    expect(page.get_by_text(fresh)).to_be_attached()
    after = page.locator(f"[id='{row_id}']").bounding_box()
    assert before and after and abs(after["y"] - before["y"]) < 2  # the browser's own anchor


def test_text_in_the_filter_stays_and_goes_on_filtering(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/agents/")
    filter_ = page.locator("[data-filter]")
    filter_.press_sequentially("newcomer")
    expect(page.locator("#agents-table h2")).to_have_text("0 agents match")
    an_agent(application.backends[moving], f"newcomer of {moving}")
    expect(page.locator("#agents-table h2")).to_have_text("1 agent matches")
    expect(filter_).to_have_value("newcomer")
    expect(filter_).to_be_focused()


def test_figures_of_an_agent_follow(application: Application, visit: Visit, moving: str) -> None:
    page = visit(f"{moving}/agents/?q={AGENT}")
    page.get_by_role("link", name=AGENT).click()
    received = page.locator(".kpi", has_text="Received").locator(".kpi-value")
    before = int(received.inner_text().replace(",", ""))
    some_tasks(application.backends[moving])
    expect(received).to_have_text(f"{before + 1:,}")


@pytest.mark.parametrize("path", ["", "agents/", "metrics/"])
def test_nothing_moves_when_figures_change(
    application: Application, visit: Visit, moving: str, path: str
) -> None:
    page = visit(f"{moving}/{path}")
    next_refresh(page)
    page.evaluate(_COUNT_SHIFTS)
    with page.expect_response(lambda found: is_from_htmx(found.request) and found.status == 200):
        some_tasks(application.backends[moving])
    next_refresh(page)  # by then the one before was swapped in
    assert shifts(page) == []


def test_a_selection_is_not_disturbed(application: Application, visit: Visit, moving: str) -> None:
    page = visit(f"{moving}/results/")
    page.clock.install()
    page.locator("#results-table h2").select_text()
    sent = refreshes_of(page)
    page.clock.run_for(20_000)
    assert sent() == 0
    page.evaluate("document.getSelection().removeAllRanges()")
    with page.expect_response(lambda found: is_from_htmx(found.request)):
        page.clock.run_for(3_000)


def refreshes_of(page: Page) -> Callable[[], int]:
    """Counts what htmx asks for from now on."""
    sent = []
    page.on("request", lambda request: is_from_htmx(request) and sent.append(request))

    def count() -> int:
        page.evaluate("1")  # what happened before has arrived
        return len(sent)

    return count


def test_nothing_is_asked_for_while_the_tab_is_hidden(visit: Visit, store: str) -> None:
    page = visit(f"{store}/")
    page.clock.install()
    page.reload()
    next_refresh(page)
    page.evaluate(_HIDE, True)
    sent = refreshes_of(page)
    page.clock.run_for(120_000)
    assert sent() == 0
    with page.expect_response(lambda found: is_from_htmx(found.request)):
        page.evaluate(_HIDE, False)  # at once: what is on the screen is old


def test_nothing_is_asked_for_when_refresh_is_off(visit: Visit) -> None:
    page = visit()
    page.clock.install()
    page.reload()
    every(page, "0")
    sent = refreshes_of(page)
    page.clock.run_for(300_000)
    assert sent() == 0
    expect(page.locator("[data-live-word]")).to_have_text("Paused")


def test_the_chosen_interval_is_kept_and_remembered(visit: Visit) -> None:
    page = visit()
    page.clock.install()
    every(page, "15")
    page.reload()
    expect(page.get_by_label("Refresh every")).to_have_value("15")
    sent = refreshes_of(page)
    page.clock.run_for(13_000)
    assert sent() == 0
    with page.expect_response(lambda found: is_from_htmx(found.request)):
        page.clock.run_for(3_000)


def test_a_session_that_ended_leads_to_the_door_as_a_whole_page(
    visit: Visit, watch: Watch, store: str
) -> None:
    watch.expect("401")
    page = visit(f"{store}/agents/?order=name")
    page.context.clear_cookies()
    expect(page).to_have_url(re.compile(r"/login/\?next="))
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    expect(page.locator("#sidebar, #agents-table, [data-live]")).to_have_count(0)
    assert "order" in page.url
