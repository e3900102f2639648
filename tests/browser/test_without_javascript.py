"""The site works without JavaScript: links, forms, pages of a list, details."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.looks import PAGES, address
from tests.browser.served import PASSWORD, USER, Application


@pytest.fixture
def plain(visit: Visit) -> Visit:
    def plain(path: str, **options: object) -> Page:
        return visit(path, java_script_enabled=False, **options)

    return plain


def test_each_page_is_there(application: Application, plain: Visit, store: str) -> None:
    page = plain(f"{store}/")
    for name in PAGES:
        page.goto(application(address(store, name)))
        expect(page.locator("h1").first).to_be_visible()


def test_who_logs_in_comes_to_the_page_asked_for(plain: Visit) -> None:
    page = plain("json/results/?order=expiring", session=[])
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/json/results/\?order=expiring$"))


def test_the_filter_filters(plain: Visit, store: str) -> None:
    page = plain(f"{store}/agents/")
    page.get_by_label("Name", exact=True).fill("payment")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#agents-table h2")).to_have_text("1 agent matches")
    expect(page.get_by_label("Name", exact=True)).to_have_value("payment")
    page.get_by_role("link", name="payment-processor").click()
    expect(page.locator("h1")).to_have_text("payment-processor")


def test_pages_of_a_list_follow_each_other(plain: Visit, store: str) -> None:
    page = plain(f"{store}/results/?order=expiring")
    links = page.locator("#results-table tbody a")
    first = links.all_inner_texts()
    page.get_by_role("link", name="Next").click()
    expect(page).to_have_url(re.compile("order=expiring&page=2|page=2&order=expiring"))
    expect(links).to_have_count(50)
    second = links.all_inner_texts()
    assert not set(first) & set(second)
    page.get_by_role("link", name="Previous").click()
    expect(page).not_to_have_url(re.compile("page=2"))
    expect(links).to_have_text(first)


def test_details_and_downloads_work(plain: Visit, store: str) -> None:
    page = plain(address(store, "one result"))
    raw = page.locator("details.raw")
    before = raw.get_attribute("open")
    raw.locator("summary").click()
    assert raw.get_attribute("open") != before
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("result")


def test_every_page_can_be_reached_on_a_phone(
    application: Application, plain: Visit, store: str
) -> None:
    page = plain(f"{store}/", width=390)
    page.get_by_label("Menu").tap()  # opened by the browser itself
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Config").tap()
    expect(page).to_have_url(application(f"{store}/config/"))
