"""The frame around each page: themes, the menu on a phone, the keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.browsers import Watch
from tests.browser.conftest import Visit
from tests.browser.looks import too_wide, violations
from tests.browser.served import PASSWORD, USER, Application

# Notes the theme of the document whenever something is added to it before the body is complete.
_NOTE_THEMES = """
window.themes = [];
new MutationObserver(() => {
  if (document.body && window.themes.length < 50) {
    window.themes.push(document.documentElement.dataset.bsTheme);
  }
}).observe(document, { childList: true, subtree: true });
"""


def expect_theme(page: Page, theme: str) -> None:
    expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_theme_follows_the_system_until_one_is_chosen(visit: Visit) -> None:
    page = visit(theme="dark")
    expect_theme(page, "dark")
    dark = background(page)
    page.emulate_media(color_scheme="light")
    expect_theme(page, "light")
    assert background(page) != dark
    page.get_by_label("Dark theme").click()
    expect_theme(page, "dark")
    assert background(page) == dark
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    page.evaluate("new Promise(requestAnimationFrame)")
    expect_theme(page, "dark")


def test_a_chosen_theme_is_remembered_and_there_before_the_first_paint(visit: Visit) -> None:
    page = visit(theme="light")
    page.get_by_label("Dark theme").click()
    expect(page.get_by_label("Dark theme")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Theme of the system")).to_have_attribute("aria-pressed", "false")
    page.context.add_init_script(_NOTE_THEMES)
    page.reload()
    assert set(page.evaluate("window.themes")) == {"dark"}
    expect(page.get_by_label("Dark theme")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Theme of the system").click()
    expect_theme(page, "light")
    page.reload()
    expect_theme(page, "light")


def test_charts_are_drawn_anew_in_the_colours_of_the_theme(visit: Visit) -> None:
    page = visit(theme="light")
    chart = page.locator("[data-kind=tasks] canvas")
    light = chart.evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("Dark theme").click()
    expect(chart).to_have_count(1)
    assert chart.evaluate("canvas => canvas.toDataURL()") != light


def test_the_menu_of_a_phone_opens_and_closes_by_touch(visit: Visit) -> None:
    page = visit(width=390)
    agents = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Agents")
    expect(agents).to_be_hidden()
    page.get_by_label("Menu").tap()
    expect(agents).to_be_visible()
    assert too_wide(page) == []
    assert violations(page) == []
    page.touchscreen.tap(380, 600)  # beside it
    expect(agents).to_be_hidden()
    page.get_by_label("Menu").tap()
    agents.tap()
    expect(page).to_have_url(re.compile("/json/agents/$"))
    expect(agents).to_be_hidden()


def test_the_menu_of_a_phone_is_reached_by_keyboard(visit: Visit) -> None:
    page = visit(width=390)
    menu, agents = page.get_by_label("Menu"), page.locator(".nav-item-link").nth(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(menu).to_be_focused()
    page.keyboard.press("Enter")
    expect(agents).to_be_visible()
    for _ in range(4):  # the brand, the stores, overview, agents
        page.keyboard.press("Tab")
    expect(agents).to_be_focused()
    page.keyboard.press("Escape")
    expect(agents).to_be_hidden()
    expect(menu).to_be_focused()


def test_the_skip_link_comes_first_and_leads_to_the_content(visit: Visit) -> None:
    page = visit("json/agents/")
    page.keyboard.press("Tab")
    skip = page.get_by_text("Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize("path", ["json/agents/", "json/results/", "json/metrics/", "json/config/"])
def test_slash_goes_to_the_filter_and_escape_leaves_it(visit: Visit, path: str) -> None:
    page = visit(path)
    page.keyboard.press("/")
    expect(page.locator("[data-filter]")).to_be_focused()
    page.keyboard.type("a/b?")
    expect(page.locator("[data-filter]")).to_have_value("a/b?")
    page.keyboard.press("Escape")
    expect(page.locator("[data-filter]")).not_to_be_focused()


def test_a_question_mark_shows_the_keys_and_escape_hides_them(visit: Visit) -> None:
    page = visit()
    keys = page.get_by_label("Keyboard help").filter(has_text="leave the filter")
    expect(keys).to_be_hidden()
    page.keyboard.press("?")
    expect(keys).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()


@pytest.mark.parametrize(
    ("key", "path"),
    [("o", ""), ("a", "agents/"), ("r", "results/"), ("m", "metrics/"), ("e", "errors/"),
     ("s", "storage/"), ("c", "config/"), ("l", "cleanup/"), ("u", "../runs/")],
)  # fmt: skip
def test_g_and_a_letter_goes_to_a_page(
    application: Application, visit: Visit, key: str, path: str
) -> None:
    page = visit("json/storage/" if key != "s" else "json/")
    page.keyboard.press("g")
    page.keyboard.press(key)
    expect(page).to_have_url(application(f"json/{path}".removeprefix("json/../")))


def test_the_figures_of_the_overview_stand_in_one_row(visit: Visit) -> None:
    page = visit("json/")
    page.set_viewport_size({"width": 1280, "height": 800})
    tops = page.locator(".kpi").evaluate_all("all => all.map((one) => one.offsetTop)")
    assert (len(tops), len(set(tops))) == (6, 1)


def test_p_pauses_and_resumes(visit: Visit) -> None:
    page = visit()
    page.keyboard.press("p")
    expect(page.get_by_label("Refresh every")).to_have_value("0")
    expect(page.locator("[data-live-word]")).to_have_text("Paused")
    page.keyboard.press("p")
    expect(page.get_by_label("Refresh every")).to_have_value("2")
    expect(page.locator("[data-live-word]")).to_have_text("Live")


def test_another_store_is_one_switch_away(application: Application, visit: Visit) -> None:
    page = visit("json/agents/")
    page.locator(".store-switch summary").click()
    page.get_by_role("link", name="moving-json").click()
    expect(page).to_have_url(application("moving-json/"))


def test_real_data_are_not_called_a_sample(visit: Visit) -> None:
    expect(visit().locator(".sample")).to_have_count(0)


def test_who_logs_in_comes_where_they_wanted_and_who_logs_out_is_at_the_door(
    application: Application, visit: Visit
) -> None:
    page = visit("login/?next=/json/config/", session=[])
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile("/json/config/$"))
    page.get_by_label("Log out").click()
    expect(page).to_have_url(re.compile("/login/$"))
    page.goto(application("json/"))
    expect(page).to_have_url(re.compile(r"/login/\?next=/json/$"))


def test_a_wrong_password_is_said_without_leaving_the_door(visit: Visit, watch: Watch) -> None:
    page = visit("login/", session=[], theme="dark", width=390)
    page.get_by_label("Username").fill("nobody")
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []


def test_an_address_without_a_page_is_said_in_both_themes(visit: Visit, watch: Watch) -> None:
    watch.expect("404")
    for chosen in ("light", "dark"):
        page = visit("json/agents/none/", theme=chosen, width=390)
        expect_theme(page, chosen)
        assert too_wide(page) == []
        assert violations(page) == []
