"""The bars above the results: clicked, reached by keyboard, alive, and in the reader's zone."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.browsers import is_from_htmx
from tests.browser.changes import a_result
from tests.browser.conftest import Visit
from tests.browser.looks import next_refresh, too_wide, violations
from tests.browser.served import Application
from tests.stores import Backend

SPAN = 1800
IN_HALF_HOURS = {3: 2, 5: 1, 7: 3, 9: 1, 40: 2}  # from now on: how many results expire in it


def half_hour(ahead: int) -> int:
    return int(time.time() // SPAN + ahead) * SPAN


def a_result_of(backend: Backend, start: int, task_id: str = "") -> str:
    """A result that expires in the middle of that half hour."""
    return a_result(backend, task_id, seconds_left=start + SPAN / 2 - time.time())


@pytest.fixture
def spread(application: Application, moving: str) -> str:
    """The store that tests write into, with results that expire throughout the day. No half hour
    ends while a test is at it: once in a hundred runs that has to be waited for."""
    if (left := SPAN - time.time() % SPAN) < 20:
        time.sleep(left)
    for ahead, count in IN_HALF_HOURS.items():
        for number in range(count):
            a_result_of(application.backends[moving], half_hour(ahead), f"in-{ahead}-{number}")
    return moving


def bars(page: Page) -> Locator:
    return page.locator("#results-expiry a.bar")


def chosen(page: Page) -> Locator:
    return page.locator("#results-expiry a.bar[aria-current]")


def count_of(bar: Locator) -> str:
    return bar.locator("b").text_content() or ""


def heading(page: Page) -> Locator:
    return page.locator("#results-table h2")


def name_of(bar: Locator) -> str:
    name = bar.get_attribute("id")
    assert name
    return name


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_a_bar_filters_the_list_and_the_way_back_works(
    visit: Visit, spread: str, theme: str, width: int
) -> None:
    page = visit(f"{spread}/results/", theme=theme, width=width)
    page.evaluate("window.untouched = true")
    before = heading(page).inner_text()
    bar = bars(page).nth(2)
    name, count = name_of(bar), count_of(bar)
    bar.click()
    expect(heading(page)).to_have_text(re.compile(rf"^{count} match(es)?$"))
    start = int(name.removeprefix("expiry-"))
    expect(page).to_have_url(
        re.compile(rf"/results/\?expires_from={start}&expires_before={start + SPAN}$")
    )
    expect(chosen(page)).to_have_id(name)
    expect(chosen(page)).to_be_focused()
    expect(page.locator(".chip")).to_contain_text("expires")
    assert violations(page) == []
    assert too_wide(page) == []
    page.go_back()
    expect(heading(page)).to_have_text(before)
    expect(chosen(page)).to_have_count(0)
    page.go_forward()
    expect(chosen(page)).to_have_id(name)
    chosen(page).click()  # once more: all of them again
    expect(heading(page)).to_have_text(before)
    expect(page).to_have_url(re.compile(r"/results/\??$"))
    assert page.evaluate("window.untouched")


def test_the_chip_takes_the_filter_away(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/?order=expiring")
    before = heading(page).inner_text()
    bars(page).first.click()
    expect(heading(page)).to_contain_text("match")
    page.locator(".chip").click()
    expect(heading(page)).to_have_text(before)
    expect(page).to_have_url(re.compile(r"/results/\?order=expiring$"))
    expect(page.locator(".chip")).to_have_count(0)


def test_typing_and_choosing_narrow_the_list_together(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/")
    bar = bars(page).nth(1)
    name = name_of(bar)
    bar.click()
    expect(chosen(page)).to_have_id(name)
    rows = page.locator("#results-table tbody tr[id]")
    agent = rows.first.locator('[data-label="Agent"] > bdi').inner_text()
    page.get_by_label("Agent", exact=True).fill(agent)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"agent=.*expires_from=|expires_from=.*agent="))
    expect(chosen(page)).to_have_id(name)
    for row in rows.all():
        expect(row.locator('[data-label="Agent"] > bdi')).to_have_text(agent)
    other = bars(page).nth(3)
    name = name_of(other)
    other.click()
    expect(chosen(page)).to_have_id(name)
    expect(page).to_have_url(re.compile(r"agent="))


def test_bars_are_reached_and_chosen_by_keyboard(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/")
    first, second = name_of(bars(page).first), name_of(bars(page).nth(1))
    bars(page).first.focus()
    page.keyboard.press("Tab")
    expect(page.locator(f"#{second}")).to_be_focused()
    outline = page.locator(f"#{second}").evaluate("bar => getComputedStyle(bar).outlineStyle")
    assert outline == "solid"
    expect(page.locator(f"#{second} .bar-tip")).to_have_css("clip-path", "none")
    expect(page.locator(f"#{first} .bar-tip")).not_to_have_css("clip-path", "none")
    page.keyboard.press("Enter")
    expect(chosen(page)).to_have_id(second)
    expect(chosen(page)).to_be_focused()


def test_a_refresh_keeps_the_focus_and_the_chosen_bar_while_counts_change(
    application: Application, visit: Visit, spread: str
) -> None:
    page = visit(f"{spread}/results/")
    numbers = page.locator("#results-expiry details")
    numbers.locator("summary").click()
    backend, start = application.backends[spread], half_hour(7)
    bar = page.locator(f"#expiry-{start}")
    bar.focus()
    page.keyboard.press("Enter")
    expect(chosen(page)).to_have_id(f"expiry-{start}")
    count = int(count_of(bar))
    bar.evaluate("bar => { bar.kept = true; }")
    fresh = a_result_of(backend, start)
    expect(bar.locator("b")).to_have_text(str(count + 1))
    expect(page.get_by_text(fresh)).to_be_visible()
    expect(bar).to_be_focused()
    expect(chosen(page)).to_have_id(f"expiry-{start}")
    assert bar.evaluate("bar => bar.kept")
    assert numbers.get_attribute("open") is not None
    expect(heading(page)).to_have_text(f"{count + 1} match")


def test_a_bar_that_appears_beside_the_focused_one_does_not_take_its_focus(
    application: Application, visit: Visit, spread: str
) -> None:
    page = visit(f"{spread}/results/")
    middle = half_hour(20)
    for start in (middle, middle - SPAN, middle + SPAN):
        a_result_of(application.backends[spread], start)
        expect(page.locator(f"#expiry-{start}")).to_be_visible()
        page.locator(f"#expiry-{middle}").focus()
    expect(page.locator(f"#expiry-{middle}")).to_be_focused()
    page.evaluate("document.activeElement.kept = true")
    for start in (middle - 2 * SPAN, middle + 2 * SPAN):
        a_result_of(application.backends[spread], start)
        expect(page.locator(f"#expiry-{start}")).to_be_visible()
        expect(page.locator(f"#expiry-{middle}")).to_be_focused()
    assert page.evaluate("document.activeElement.kept")


def test_an_unchanged_choice_is_answered_with_nothing(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/")
    bars(page).nth(2).click()
    expect(chosen(page)).to_have_count(1)
    next_refresh(page)
    next_refresh(page, status=204)
    expect(chosen(page)).to_be_focused()


def test_hours_are_told_in_the_readers_zone(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/")
    told = page.locator("#results-expiry time[data-clock]").evaluate_all(
        """times => times.map((time) => [time.textContent, new Intl.DateTimeFormat("en-GB", {
          timeZone: "Europe/Berlin", hour: "2-digit", minute: "2-digit",
        }).format(Date.parse(time.dateTime))])"""
    )
    assert len(told) > 10
    assert [shown for shown, _ in told] == [expected for _, expected in told]
    bars(page).first.click()
    expect(page.locator(".chip")).to_contain_text(
        page.locator("#results-expiry a[aria-current] time").first.text_content() or "none"
    )
    # What the server writes is another zone: it must not come through at a refresh.
    next_refresh(page)
    first = page.locator("#results-expiry a[aria-current] time").first
    expect(page.locator(".chip time").first).to_have_text(first.text_content() or "none")


def test_on_a_phone_bars_are_wide_enough_for_a_finger_and_are_scrolled_to(
    visit: Visit, spread: str
) -> None:
    page = visit(f"{spread}/results/", width=390)
    box = bars(page).first.bounding_box()
    assert box
    assert box["width"] >= 24
    assert box["height"] >= 24
    last = bars(page).last
    name = name_of(last)
    last.scroll_into_view_if_needed()
    last.tap()
    expect(chosen(page)).to_have_id(name)
    expect(chosen(page)).to_be_in_viewport()
    assert too_wide(page) == []


def test_a_click_for_a_new_tab_is_left_to_the_browser(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/")
    with page.context.expect_page() as opened:
        bars(page).first.click(modifiers=["Control"])
    expect(opened.value).to_have_url(re.compile("expires_from="))
    expect(chosen(page)).to_have_count(0)


def test_a_bar_works_without_javascript(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/", java_script_enabled=False)
    bar = bars(page).nth(2)
    name, count = name_of(bar), count_of(bar)
    bar.click()
    expect(heading(page)).to_have_text(re.compile(rf"^{count} match(es)?$"))
    expect(chosen(page)).to_have_id(name)
    page.get_by_label("Status").fill("nonsense")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile("expires_from="))
    expect(heading(page)).to_have_text("0 match")


def test_the_answer_of_a_bar_is_only_the_part(visit: Visit, spread: str) -> None:
    page = visit(f"{spread}/results/")
    with page.expect_response(lambda found: is_from_htmx(found.request)) as answer:
        bars(page).first.click()
    assert "<html" not in answer.value.text()
