"""Selecting records, and the dialog that asks before anything happens, as a browser shows them."""

from __future__ import annotations

import re
import uuid

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.browsers import Watch
from tests.browser.changes import a_result, back, gone
from tests.browser.conftest import Visit
from tests.browser.looks import AGENT, address, too_wide, violations
from tests.browser.served import Application, until
from tests.browser.test_live import every
from tests.stores import Backend, JsonBackend, RedisBackend

LOOKS = [("light", 1440), ("dark", 390)]


def pick(page: Page, name: str) -> Locator:
    return page.get_by_label(f"Select {name}", exact=True)


def some_results(backend: Backend, count: int) -> list[str]:
    """The newest first, as they are listed."""
    return [a_result(backend, f"pick-{uuid.uuid4()}") for _ in range(count)][::-1]


def without_result(backend: Backend, task_id: str) -> None:
    """Somebody else has deleted it."""
    if isinstance(backend, JsonBackend):
        stored = backend.read("results.json")
        del stored[task_id]
        backend.write("results.json", stored)
    else:
        assert isinstance(backend, RedisBackend)
        backend.client.delete(backend.key("result", task_id))
        backend.client.zrem(backend.key("results", "index"), task_id)


def picked(page: Page) -> list[str]:
    found: list[str] = page.locator("[data-pick]:checked").evaluate_all(
        "all => all.map((one) => one.getAttribute('aria-label').replace('Select ', ''))"
    )
    return found


def bar(page: Page) -> Locator:
    return page.locator(".selection-bar")


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def asked_to_delete(page: Page) -> Locator:
    """The confirmation of deleting what is selected."""
    bar(page).get_by_role("button", name="Delete").click()
    expect(dialog(page).locator("#actions-confirm")).to_be_visible()
    return dialog(page)


def test_the_selection_stays_with_its_records_while_others_come(
    application: Application, visit: Visit, moving: str
) -> None:
    backend = application.backends[moving]
    mine = some_results(backend, 3)
    page = visit(f"{moving}/results/")
    expect(bar(page)).to_be_hidden()
    top = page.locator("#results-table tbody tr").first.bounding_box()
    pick(page, mine[0]).check()
    pick(page, mine[2]).check()
    expect(bar(page)).to_contain_text("2 selected")
    assert page.locator("#results-table tbody tr").first.bounding_box() == top
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement.blur()")
    fresh = a_result(backend)
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    assert picked(page) == [mine[0], mine[2]]
    page.get_by_role("button", name="1 new").click()
    expect(pick(page, fresh)).to_be_visible()
    assert picked(page) == [mine[0], mine[2]]
    expect(bar(page)).to_contain_text("2 selected")


def test_a_selected_record_that_goes_is_said_and_no_other_takes_its_place(
    application: Application, visit: Visit, moving: str
) -> None:
    backend = application.backends[moving]
    mine = some_results(backend, 3)
    page = visit(f"{moving}/results/")
    pick(page, mine[0]).check()
    pick(page, mine[1]).check()
    without_result(backend, mine[0])
    page.locator("[data-live-new]").click()
    expect(pick(page, mine[0])).to_have_count(0)
    assert picked(page) == [mine[1]]
    expect(bar(page)).to_contain_text("1 selected, 1 no longer listed")
    pick(page, mine[2]).check()
    expect(bar(page)).to_contain_text("2 selected")
    expect(bar(page)).not_to_contain_text("no longer")


def test_another_filter_keeps_of_the_selection_what_it_lists(
    application: Application, visit: Visit, moving: str
) -> None:
    mine = some_results(application.backends[moving], 2)
    page = visit(f"{moving}/results/")
    for name in mine:
        pick(page, name).check()
    page.locator("[data-filter]").fill(mine[1])
    expect(pick(page, mine[0])).to_have_count(0)
    assert set(picked(page)) == {mine[1]}, "as often as it is listed"
    expect(bar(page)).to_contain_text("1 selected, 1 no longer listed")


def test_the_head_takes_the_page_and_clear_gives_it_back(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/")
    head = page.get_by_label("All on this page")
    page.locator("[data-pick]").nth(4).check()
    assert head.evaluate("one => one.indeterminate && !one.checked")
    head.check()
    assert len(picked(page)) == 50
    expect(bar(page)).to_contain_text("50 selected")
    page.locator("[data-pick]").first.uncheck()
    assert head.evaluate("one => one.indeterminate && !one.checked")
    page.get_by_role("button", name="Clear selection").click()
    assert picked(page) == []
    expect(bar(page)).to_be_hidden()
    expect(page.locator("#results-table .table-scroll")).to_be_focused()


def test_the_dialog_opens_after_the_way_back_to_another_filter(visit: Visit, store: str) -> None:
    page = visit(f"{store}/agents/")
    page.locator("[data-filter]").fill("payment")
    expect(page.locator("#agents-table h2")).to_have_text("1 agent matches")
    page.go_back()
    expect(page.locator("#agents-table h2")).to_contain_text("topics")
    page.locator("[data-pick]").first.check()
    asked_to_delete(page).get_by_role("link", name="Cancel").click()
    expect(dialog(page)).to_be_hidden()
    expect(bar(page).get_by_role("button", name="Delete")).to_be_focused()


def test_figures_go_on_while_something_is_selected(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/")
    page.locator("[data-pick]").first.check()
    expect(page.locator("[data-pick]").first).to_be_focused()
    with page.expect_response(lambda found: "hx-request" in found.request.headers):
        pass


def test_the_dialog_says_what_would_happen_and_gives_the_focus_back(
    visit: Visit, store: str
) -> None:
    page = visit(f"{store}/results/")
    for number in (0, 2):
        page.locator("[data-pick]").nth(number).check()
    names = picked(page)
    shown = asked_to_delete(page)
    expect(shown).to_have_accessible_name("Delete 2 results?")
    for name in names:
        expect(shown).to_contain_text(name)
    expect(shown.get_by_role("textbox")).to_be_focused()  # the name is to be typed
    page.keyboard.press("Escape")
    expect(dialog(page)).to_be_hidden()
    expect(bar(page).get_by_role("button", name="Delete")).to_be_focused()
    shown = asked_to_delete(page)
    shown.get_by_role("link", name="Cancel").click()
    expect(dialog(page)).to_be_hidden()
    asked_to_delete(page)
    page.mouse.click(5, 5)
    expect(dialog(page)).to_be_hidden()
    assert picked(page) == names
    expect(page).to_have_url(re.compile(f"/{store}/results/$"))


def test_the_refresh_waits_while_the_dialog_is_open(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/")
    page.locator("[data-pick]").first.check()
    page.clock.install()
    asked_to_delete(page)
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))
    page.clock.run_for(20_000)
    page.evaluate("1")
    assert sent == []


def test_what_is_confirmed_once_is_sent_once_and_leads_to_its_run(
    application: Application, visit: Visit
) -> None:
    (mine,) = some_results(application.backends["moving-redis"], 1)
    page = visit("moving-redis/results/")
    every(page, "0")
    pick(page, mine).check()
    shown = asked_to_delete(page)
    expect(shown.get_by_role("link", name="Cancel")).to_be_focused()
    held: list[Route] = []
    page.route("**/results/delete", lambda route: held.append(route))
    confirm = shown.get_by_role("button", name="Delete 1 result")
    confirm.dblclick(no_wait_after=True)
    expect(confirm).to_be_disabled()
    until(lambda: bool(page.evaluate("1") and held), "nothing was sent")
    assert len(held) == 1
    held[0].continue_()
    expect(page).to_have_url(re.compile(r"/runs/\d+/$"))
    expect(page.locator("h1")).to_have_text("Delete 1 result")


def test_all_that_match_are_asked_about_together(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/?topic=payments.charge")
    heading = page.locator("#results-table h2").inner_text()
    count = heading.split()[0]
    matching = page.locator(".matching-bar")
    expect(matching).to_contain_text(f"All {count} that match")
    matching.get_by_text("Set expiry").click()
    matching.get_by_role("button", name="24 hours longer").click()
    shown = dialog(page)
    expect(shown).to_have_accessible_name(f"Set the expiry of {count} results?")
    page.keyboard.press("Escape")
    expect(matching.locator("summary")).to_be_focused()
    matching.get_by_role("button", name="Delete").click()
    expect(dialog(page)).to_have_accessible_name(f"Delete {count} results?")


def test_an_expiry_is_chosen_by_date_in_the_zone_of_the_page(
    visit: Visit, watch: Watch, store: str
) -> None:
    watch.expect("400")
    page = visit(address(store, "one result"))
    menu = page.locator("details.menu")
    menu.locator("summary").click()
    menu.get_by_label("Until, in Europe/Berlin").fill("2099-01-02T04:04")
    menu.get_by_role("button", name="Set").click()
    expect(dialog(page)).to_contain_text("2099-01-02 03:04:00 UTC")
    page.keyboard.press("Escape")
    menu.locator("summary").click()
    menu.get_by_label("Until, in Europe/Berlin").fill("2001-01-02T03:04")
    menu.get_by_label("Until, in Europe/Berlin").press("Enter")
    expect(dialog(page)).to_contain_text("lies in the past")


def test_a_menu_closes_by_a_click_beside_it_and_by_escape(visit: Visit) -> None:
    page = visit(address("json", "one result"))
    menu = page.locator("details.menu")
    for close in (lambda: page.mouse.click(600, 600), lambda: page.keyboard.press("Escape")):
        menu.locator("summary").click()
        expect(menu.get_by_role("button", name="Keep for ever")).to_be_visible()
        close()
        expect(menu.get_by_role("button", name="Keep for ever")).to_be_hidden()
    expect(menu.locator("summary")).to_be_focused()


def test_a_value_that_is_no_json_is_said_in_the_dialog_and_kept_there(
    visit: Visit, watch: Watch
) -> None:
    watch.expect("422")
    page = visit("json/config/")
    page.get_by_role("link", name="Add key").click()
    shown = dialog(page)
    expect(shown.get_by_label("Key")).to_be_focused()
    shown.get_by_label("Key").fill("mine")
    shown.get_by_label("Value").fill("{oops")
    taller(page, shown.get_by_label("Value"))  # its style must not be copied: the policy forbids it
    page.mouse.click(5, 5)
    expect(shown.get_by_label("Value")).to_have_value("{oops")
    with page.expect_response(lambda found: found.status == 422):
        shown.get_by_role("button", name="Go on").click()
    expect(shown.get_by_role("alert")).to_contain_text("not JSON")
    expect(shown.get_by_label("Value")).to_have_value("{oops")
    shown.get_by_label("Value").fill('{"a": ""}')
    shown.get_by_role("button", name="Go on").click()
    expect(shown.locator("#actions-confirm")).to_be_visible()


def taller(page: Page, area: Locator) -> None:
    """Drags the corner of a text area down."""
    box = area.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 40)
    page.mouse.up()
    expect(area).to_have_attribute("style", re.compile("height"))


def test_a_line_of_the_cleanup_asks_with_the_limit_as_it_stands(visit: Visit, store: str) -> None:
    page = visit(f"{store}/cleanup/")
    line = page.locator("#line-many-metrics")
    line.get_by_role("spinbutton").fill("1234")
    line.get_by_role("button", name="Clean up").click()
    expect(dialog(page).locator(".facts")).to_contain_text("1,234 newest events")
    page.keyboard.press("Escape")
    line.get_by_role("spinbutton").press("Enter")
    expect(page).to_have_url(re.compile("newest=1234"))
    expect(line.get_by_role("spinbutton")).to_have_value("1234")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_schedule_shows_the_fields_of_its_interval_and_says_there_what_is_wrong(
    visit: Visit, watch: Watch, scripts: bool
) -> None:
    watch.expect("422")
    page = visit("json/cleanup/", java_script_enabled=scripts)
    form = page.get_by_role("form", name="Add a schedule")
    for interval, fields in (
        ("day", ["every", "at", "zone"]), ("week", ["every", "weekday", "at", "zone"]),
        ("hours", ["every", "hours"]),
    ):  # fmt: skip
        form.get_by_label("Repeat").select_option(interval)
        named = form.locator(".schedule-when [name]")
        assert [one.get_attribute("name") for one in named.all() if one.is_visible()] == fields
    form.get_by_label("Old results", exact=True).check()
    form.get_by_role("spinbutton", name="Hours").fill("0")
    form.get_by_role("button", name="Add schedule").click()
    expect(form.get_by_role("alert")).to_contain_text("greater than or equal to 1")
    expect(form.get_by_label("Old results", exact=True)).to_be_checked()
    expect(form.get_by_role("spinbutton", name="Hours")).to_be_visible()


def test_what_cannot_be_asked_is_said_in_the_dialog(
    application: Application, visit: Visit, watch: Watch, failing: str
) -> None:
    watch.expect("503")
    page = visit(f"{failing}/results/")
    every(page, "0")
    page.locator("[data-pick]").first.check()
    gone(application, application.backends[failing])
    try:
        bar(page).get_by_role("button", name="Delete").click()
        expect(dialog(page).get_by_role("alert")).to_be_visible()
        expect(page.locator("#notice[data-outage]")).to_have_count(0)
        expect(dialog(page)).to_have_accessible_name(re.compile("Down|cannot be read"))
        assert violations(page) == []
        dialog(page).get_by_role("button", name="Close").click()
        expect(dialog(page)).to_be_hidden()
    finally:
        back(application, application.backends[failing])


def test_an_answer_that_never_comes_is_said_in_the_dialog(visit: Visit, watch: Watch) -> None:
    watch.expect("ERR_FAILED|net::|TypeError")
    page = visit("json/agents/")
    page.route("**/agents/delete", lambda route: route.abort())
    page.locator("[data-pick]").first.check()
    bar(page).get_by_role("button", name="Delete").click()
    expect(dialog(page)).to_have_accessible_name("No answer came.")


def test_a_forbidden_answer_is_said_in_the_dialog(visit: Visit, watch: Watch) -> None:
    watch.expect("403")
    page = visit("json/agents/")
    page.locator("[data-pick]").first.check()
    page.locator("#ask [name=csrfmiddlewaretoken]").evaluate("one => { one.value = 'x'; }")
    bar(page).get_by_role("button", name="Delete").click()
    expect(dialog(page)).to_have_accessible_name("Not allowed")
    expect(dialog(page).locator("main, .page")).to_have_count(0)


def test_without_a_script_the_same_form_leads_to_a_whole_page(visit: Visit, store: str) -> None:
    page = visit(f"{store}/results/", java_script_enabled=False)
    expect(page.get_by_label("All on this page")).to_be_hidden()
    boxes = page.locator("[data-pick]")
    boxes.nth(1).check()
    boxes.nth(3).check()
    expect(bar(page).get_by_role("button", name="Clear selection")).to_be_hidden()
    bar(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Delete 2 results?")).to_be_visible()
    page.go_back()
    assert page.locator("[data-pick]:checked").count() == 0, "by place it could be another record"
    bar(page).locator("summary").click()
    boxes.nth(1).check()
    bar(page).get_by_role("button", name="Keep for ever").click()
    expect(page.get_by_role("heading", name="Set the expiry of 1 result?")).to_be_visible()


def test_enter_in_a_checkbox_asks_for_nothing(visit: Visit, store: str) -> None:
    page = visit(f"{store}/agents/")
    page.locator("[data-pick]").first.check()
    page.keyboard.press("Enter")
    page.evaluate("new Promise((done) => setTimeout(done, 50))")
    expect(dialog(page)).to_be_hidden()
    expect(page).to_have_url(re.compile("/agents/$"))


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_selection_menus_and_dialogs_fit_and_can_be_read_by_all(
    application: Application, visit: Visit, theme: str, width: int
) -> None:
    page = visit("redis/results/?topic=payments.charge", theme=theme, width=width)
    page.get_by_label("All on this page").check()
    assert too_wide(page) + violations(page) == []
    bar(page).locator("summary").click()
    menu = bar(page).locator(".menu-panel").bounding_box()
    delete = bar(page).get_by_role("button", name="Delete").bounding_box()
    assert menu and delete and menu["y"] + menu["height"] <= delete["y"], "the bar stays in sight"
    assert violations(page) == []
    bar(page).get_by_role("button", name="1 hour longer").click()
    expect(dialog(page).locator("#actions-confirm")).to_be_visible()
    assert too_wide(page) + violations(page) == []
    for path, label in (
        (AGENT, "Delete agent"), ("agents/", "Delete topic"), ("config/", "Add key"),
        ("storage/", "Clear everything"),
    ):  # fmt: skip
        page.goto(application(f"redis/{path}"))
        page.get_by_role("link", name=label).first.click()
        expect(dialog(page).locator("#actions-confirm, #config-edit")).to_be_visible()
        assert too_wide(page) + violations(page) == [], path
    expect(page.locator("#confirm-title")).to_be_in_viewport()
    expect(dialog(page).locator("[name=typed]")).to_be_in_viewport()
    page.keyboard.press("Escape")
    page.goto(application("json/cleanup/"))
    assert too_wide(page) + violations(page) == []
