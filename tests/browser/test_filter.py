"""Filtering by typing: the address says what is shown, and the way back works."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.browsers import is_from_htmx
from tests.browser.conftest import Visit
from tests.browser.looks import next_refresh
from tests.browser.served import Application


def heading(page: Page, noun: str) -> str:
    return page.locator(f"#{noun}-table h2").inner_text()


def test_the_address_and_the_table_follow_what_is_typed(visit: Visit, store: str) -> None:
    page = visit(f"{store}/agents/")
    page.evaluate("window.untouched = true")
    page.locator("[data-filter]").press_sequentially("payment")
    expect(page.locator("#agents-table h2")).to_have_text("1 agent matches")
    expect(page.locator("#agents-table tbody td a")).to_have_text(["payment-processor"])
    expect(page).to_have_url(re.compile(r"/agents/\?q=payment&order=topic$|/agents/\?q=payment$"))
    expect(page.locator("[data-filter]")).to_be_focused()
    assert page.evaluate("window.untouched")


@pytest.mark.parametrize("noun", ["agents", "results"])
def test_the_back_button_restores_list_and_filter(visit: Visit, store: str, noun: str) -> None:
    page = visit(f"{store}/{noun}/")
    all_of_it = heading(page, noun)
    page.locator("[data-filter]").press_sequentially("no such thing")
    expect(page.locator(f"#{noun}-table tbody a")).to_have_count(0)
    expect(page).to_have_url(re.compile("no(%20|\\+)such(%20|\\+)thing"))
    while "?" in page.url:  # a slow typist leaves more than one step behind
        page.go_back()
    expect(page.locator(f"#{noun}-table h2")).to_have_text(all_of_it)
    expect(page.locator("[data-filter]")).to_have_value("")
    next_refresh(page)  # and lives on
    assert heading(page, noun) == all_of_it
    page.go_forward()
    expect(page.locator(f"#{noun}-table tbody a")).to_have_count(0)


def test_a_filtered_address_can_be_sent_to_somebody(
    application: Application, visit: Visit, store: str
) -> None:
    page = visit(f"{store}/results/")
    page.get_by_label("Agent", exact=True).fill("payment-processor")
    page.get_by_label("Order", exact=True).select_option("expiring")
    expect(page.locator("#results-table h2")).to_contain_text("match")
    rows = page.locator("#results-table tbody a").all_inner_texts()
    other = visit(page.url.removeprefix(application.url))
    expect(other.get_by_label("Agent", exact=True)).to_have_value("payment-processor")
    expect(other.get_by_label("Order", exact=True)).to_have_value("expiring")
    assert other.locator("#results-table tbody a").all_inner_texts() == rows


def test_a_filter_with_markup_in_it_is_only_text(visit: Visit, store: str) -> None:
    page = visit(f"{store}/agents/")
    page.locator("[data-filter]").fill('"><img src=x onerror=alert(1)>')
    expect(page.locator("#agents-table h2")).to_have_text("0 agents match")
    page.reload()
    expect(page.locator("[data-filter]")).to_have_value('"><img src=x onerror=alert(1)>')
    expect(page.locator("main img")).to_have_count(0)


def test_an_answer_that_is_overtaken_does_not_replace_a_newer_one(visit: Visit, store: str) -> None:
    page = visit(f"{store}/agents/")
    filter_ = page.locator("[data-filter]")
    for text in ("p", "pa", "paused", "payment", "flaky"):
        filter_.fill(text)
        page.keyboard.press("Enter")
    expect(page.locator("#agents-table tbody td a")).to_have_text(["flaky-process-agent"])
    next_refresh(page)
    expect(page.locator("#agents-table tbody td a")).to_have_text(["flaky-process-agent"])
    expect(page).to_have_url(re.compile("q=flaky"))


def test_a_refresh_that_the_filter_overtook_does_not_bring_the_old_list_back(
    visit: Visit, store: str
) -> None:
    page = visit(f"{store}/agents/?order=name")
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "q=" not in route.request.url and is_from_htmx(route.request) and not held:
            held.append(route)
        else:
            route.continue_()

    with page.expect_request(is_from_htmx):
        page.route("**/agents/**", hold)
    page.locator("[data-filter]").press_sequentially("payment")
    expect(page.locator("#agents-table tbody td a")).to_have_text(["payment-processor"])
    with page.expect_event("requestfinished", lambda found: found == held[0].request):
        held[0].continue_()
    next_refresh(page)
    expect(page.locator("#agents-table tbody td a")).to_have_text(["payment-processor"])
    expect(page).to_have_url(re.compile("q=payment"))
