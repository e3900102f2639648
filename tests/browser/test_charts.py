"""Charts: what they say under the cursor, zoom, and news without being built again."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, Response, expect

from tests.browser.changes import some_tasks
from tests.browser.conftest import Visit
from tests.browser.looks import eventually, too_wide, violations
from tests.browser.served import Application


def chart(page: Page, kind: str) -> Locator:
    found = page.locator(f"[data-kind={kind}]")
    expect(found.locator("canvas")).to_have_count(1)
    return found


def is_points(response: Response) -> bool:
    return "/metrics/points" in response.url


def legend(page: Page, kind: str) -> str:
    return chart(page, kind).locator(".u-legend").inner_text()


def test_a_chart_gets_new_data_and_is_not_rebuilt(
    application: Application, visit: Visit, moving: str
) -> None:
    page = visit(f"{moving}/")
    canvas = chart(page, "tasks").locator("canvas")
    canvas.evaluate("canvas => { canvas.kept = true; window.drawn = canvas.toDataURL(); }")
    some_tasks(application.backends[moving], 300)  # fewer may be less than a pixel
    eventually(
        page, "document.querySelector('[data-kind=tasks] canvas').toDataURL() !== window.drawn"
    )
    assert canvas.evaluate("canvas => canvas.kept")
    expect(canvas).to_have_count(1)


def test_a_refresh_asks_for_new_points_only(
    application: Application, visit: Visit, moving: str
) -> None:
    some_tasks(application.backends[moving])  # else the newest event may be older than the range
    page = visit(f"{moving}/metrics/?range=15m")
    chart(page, "tasks")
    with page.expect_response(lambda r: is_points(r) and r.status == 204):
        pass  # everything that was there before is read
    with page.expect_response(lambda r: is_points(r) and r.status == 200) as news:
        some_tasks(application.backends[moving])
    answer = json.loads(news.value.text())
    assert "version" in parse_qs(urlsplit(news.value.url).query)
    assert 0 < len(answer["times"]) < 30
    assert len(answer["received"]) == len(answer["times"])
    assert answer["times"][-1] == answer["end"] - answer["step"]


def test_nothing_new_is_answered_with_nothing(visit: Visit, store: str) -> None:
    page = visit(f"{store}/metrics/?range=24h")
    chart(page, "tasks")
    with page.expect_response(lambda r: is_points(r) and r.status == 204):
        pass


def test_all_charts_share_one_cursor(visit: Visit, store: str) -> None:
    page = visit(f"{store}/metrics/?range=15m")
    chart(page, "latency")
    page.get_by_label("Refresh every").select_option("0")
    before = legend(page, "latency")
    plot = chart(page, "tasks").locator(".u-over")
    plot.hover(position={"x": 600, "y": 40})
    eventually(
        page, f"document.querySelector('[data-kind=latency] .u-legend').innerText !== {before!r}"
    )
    time = legend(page, "tasks").split("Received")[0]
    assert ":" in time
    assert legend(page, "latency").startswith(time.strip()[:10])


def test_a_drag_zooms_and_a_double_click_goes_back(visit: Visit, store: str) -> None:
    page = visit(f"{store}/metrics/?range=6h&topic=payments.charge")
    plot = chart(page, "tasks").locator(".u-over")
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + 300, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile("from="))
    query = parse_qs(urlsplit(page.url).query)
    assert query["topic"] == ["payments.charge"]
    assert query["from"][0] < query["to"][0]
    chart(page, "tasks").locator(".u-over").dblclick()
    expect(page).not_to_have_url(re.compile("from="))
    assert parse_qs(urlsplit(page.url).query)["topic"] == ["payments.charge"]


def test_times_are_shown_in_utc_on_demand(visit: Visit) -> None:
    page = visit("redis/metrics/?range=15m")
    foot = page.locator("footer [data-zone]")
    expect(foot).to_have_text("Europe/Berlin")
    chart(page, "tasks").locator(".u-over").hover(position={"x": 600, "y": 40})
    local = legend(page, "tasks")
    page.get_by_role("button", name="Show UTC").click()
    expect(foot).to_have_text("UTC")
    chart(page, "tasks").locator(".u-over").hover(position={"x": 600, "y": 41})
    assert legend(page, "tasks").split("Received")[0] != local.split("Received")[0]
    page.reload()
    expect(foot).to_have_text("UTC")
    page.get_by_role("button", name="Show Europe/Berlin").click()
    expect(foot).to_have_text("Europe/Berlin")


def test_what_happened_is_told_at_its_mark(visit: Visit) -> None:
    page = visit("redis/metrics/?range=15m")
    plot = chart(page, "tasks").locator(".u-over")
    box = plot.bounding_box()
    assert box
    for x in range(int(box["width"] / 2), int(box["width"]), 4):
        plot.hover(position={"x": x, "y": 40})
        caption = page.locator("figure:has([data-kind=tasks]) [data-step]").inner_text()
        if "→" in caption:
            break
    assert "→" in caption


def test_the_charts_are_there_as_numbers(visit: Visit, store: str) -> None:
    page = visit(f"{store}/metrics/?range=1h")
    received = page.locator(".kpi", has_text="Received").locator(".kpi-value").inner_text()
    page.get_by_role("link", name="These charts as numbers").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Metrics as numbers")
    cells = page.locator("#metrics-numbers tbody td:nth-child(2)").all_inner_texts()
    counts = [int(cell.replace(",", "")) for cell in cells if cell != "—"]
    assert sum(counts) == int(received.replace(",", ""))
    assert violations(page) == []


def test_a_comparison_adds_the_period_before(visit: Visit, store: str) -> None:
    page = visit(f"{store}/metrics/?range=15m&compare=on")
    assert "Before" in legend(page, "tasks")
    assert violations(page) == []


def test_a_phone_shows_all_charts(visit: Visit, store: str) -> None:
    page = visit(f"{store}/metrics/?range=1h", width=390)
    for kind in ("tasks", "failure", "latency", "flight", "agents"):
        chart(page, kind)
    assert too_wide(page) == []
