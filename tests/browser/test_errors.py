"""Errors: the chart names the kinds, details stay open through a refresh, ranges, the histogram."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

from omnidash.text import ref
from tests.browser.conftest import Visit
from tests.browser.looks import next_refresh, too_wide, violations
from tests.browser.served import Application
from tests.stores import Backend

AGENT = f"agents/{ref('payments.charge', 'payment-processor')}/"
LOOKS = [("light", 1440), ("dark", 390)]


def fail(backend: Backend, error_type: str) -> None:
    now = time.time()
    event = {"event": "task_failed", "topic": "t", "agent": "a", "timestamp": now, "saved_at": now}
    backend.put_metrics([{**event, "task_id": "1", "error_type": error_type, "error": "<b>x</b>"}])


def test_the_chart_names_the_kinds_that_the_table_lists(visit: Visit, store: str) -> None:
    page = visit(f"{store}/errors/")
    legend = page.locator("[data-kind=errors] .u-legend")
    expect(legend).to_contain_text("PermissionError: card_declined")
    expect(legend).to_contain_text("Others")
    rows = page.locator("table.errors tbody tr").count()
    expect(legend.locator("tr")).to_have_count(min(rows, 8) + 2)  # the time and the others


def test_a_new_kind_arrives_in_table_and_chart_and_what_is_open_stays_open(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/errors/?order=newest")
    page.get_by_role("heading", level=1).hover()
    examples = page.locator("tr", has_text="PermissionError").locator("details").first
    examples.locator("summary").click()
    page.get_by_role("heading", level=1).click()
    fail(application.backends[moving], "BrandNew")
    row = page.locator("table.errors tbody tr").first
    page.get_by_role("heading", level=1).hover()
    for _ in range(5):
        next_refresh(page)
        page.locator("[data-live-new]").evaluate("button => button.hidden || button.click()")
        if "BrandNew" in row.inner_text():
            break
    expect(row).to_contain_text("BrandNew")
    expect(row).to_contain_text("<b>x</b>")
    expect(examples).to_have_attribute("open", "")
    expect(page.locator("[data-kind=errors] .u-legend")).to_contain_text(re.compile("Others"))


def test_the_range_that_is_shown_is_marked_and_another_is_one_click_away(
    visit: Visit, store: str
) -> None:
    page = visit(f"{store}/errors/?q=declined")
    ranges = page.get_by_role("navigation", name="Range of time")
    expect(ranges.locator("[aria-current]")).to_have_text("24h")
    ranges.get_by_role("link", name="7d").click()
    expect(page).to_have_url(re.compile("range=7d"))
    expect(ranges.locator("[aria-current]")).to_have_text("7d")
    expect(page.get_by_label("Text in type or message")).to_have_value("declined")


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_a_histogram_shows_how_long_tasks_take_and_can_be_read_by_all(
    visit: Visit, store: str, theme: str, width: int
) -> None:
    page = visit(f"{store}/{AGENT}", theme=theme, width=width)
    drawn = page.get_by_role("img", name=re.compile("Latency: p50"))
    box = drawn.bounding_box()
    assert box
    heights = drawn.locator("rect").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().toJSON())"
    )
    assert len(heights) > 5
    assert all(
        box["x"] - 1 <= one["left"] < one["right"] <= box["x"] + box["width"] + 1 for one in heights
    )
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    assert too_wide(page) == []
    assert violations(page) == []
    page.get_by_role("link", name="All errors of this agent").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Errors")
    expect(page.locator(".board-bar")).to_contain_text("Only agent payment-processor")
    assert too_wide(page) == []
