"""Where there is no OmniDaemon yet: sample data that says so on every page, and lives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.browser.looks import too_wide, violations
from tests.browser.served import Application, served

PATHS = ["", "agents/", "results/", "metrics/", "errors/", "storage/", "config/"]


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    with served(OMNIDASH_SAMPLE="on") as application:
        yield application


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_every_page_says_that_its_data_are_a_sample(
    application: Application, visit: Visit, theme: str, width: int
) -> None:
    page = visit("default/", theme=theme, width=width)
    for path in PATHS:
        page.goto(application(f"default/{path}"))
        expect(page.get_by_label("Sample data")).to_contain_text("A simulator writes it")
        assert too_wide(page) == []
    assert violations(page) == []


def test_the_pages_of_single_records_say_so_too(visit: Visit) -> None:
    page = visit("default/agents/")
    page.locator("#agents-table tbody td a").first.click()
    expect(page.locator(".sample")).to_be_visible()


def test_the_sample_lives(visit: Visit) -> None:
    page = visit("default/metrics/")
    received = page.locator(".kpi", has_text="Received").locator(".kpi-value")
    expect(received).not_to_have_text(received.inner_text())
