"""The pages of people and passwords, and the marks of a store that wants care, as they are seen."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.browsers import Watch
from tests.browser.conftest import Visit
from tests.browser.looks import too_wide, violations
from tests.browser.served import PASSWORD, USER, Application

LOOKS = [("light", 1440), ("dark", 390)]
PAGES = {
    "people": "admin/",
    "users": "admin/auth/user/",
    "a new user": "admin/auth/user/add/",
    "a user": "admin/auth/user/1/change/",
    "a user's past": "admin/auth/user/1/history/",
    "groups": "admin/auth/group/",
    "a group": "admin/auth/group/2/change/",
    "password": "password/",
    "confirmation": "confirm-password/?next=/admin/",
}


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_people_and_passwords_keep_to_the_policy_and_the_theme(
    application: Application, visit: Visit, theme: str, width: int
) -> None:
    page = visit(PAGES["people"], theme=theme, width=width)
    for path in PAGES.values():
        page.goto(application(path), wait_until="networkidle")
        expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)
        assert is_dark(page) == (theme == "dark"), path
        assert too_wide(page) == [], path


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_people_and_passwords_can_be_read_by_all(
    application: Application, visit: Visit, watch: Watch, theme: str, width: int
) -> None:
    # axe itself puts a style into pages whose style sheets import others, as the admin's do.
    watch.expect("inline|preload assets")
    page = visit(PAGES["people"], theme=theme, width=width)
    wrong: dict[str, list[str]] = {}
    for name, path in PAGES.items():
        page.goto(application(path))
        if found := violations(page):
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_a_store_that_wants_care_says_so_in_its_head(
    application: Application, visit: Visit, theme: str, width: int
) -> None:
    page = visit("guarded/", theme=theme, width=width)
    head = page.locator(".topbar")
    expect(head.get_by_text("production")).to_be_visible()
    expect(head.get_by_title("mode=read-only")).to_be_visible()
    tinted = colour(page)
    assert violations(page) == []
    assert too_wide(page) == []
    page.goto(application("json/"))
    assert colour(page) != tinted
    expect(page.locator(".store-mark")).to_have_count(0)


def test_an_administrator_adds_a_person_who_then_only_looks(
    application: Application, visit: Visit, watch: Watch
) -> None:
    watch.expect("answer: 403|status of 403")
    page = visit("json/")
    page.get_by_role("link", name="People").click()
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name="Add user").click()
    page.get_by_label("Username").fill("vera")
    page.get_by_label("Password:", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_label("viewer").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("vera")
    hers = visit("login/", session=[])
    log_in(hers, "vera")
    expect(hers.get_by_role("link", name="People")).to_have_count(0)
    hers.goto(application("admin/"))
    expect(hers.get_by_role("heading", name="Not allowed")).to_be_visible()


def test_a_password_is_confirmed_without_javascript(visit: Visit) -> None:
    page = visit("confirm-password/?next=/json/config/", java_script_enabled=False)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("This is not your password.")).to_be_visible()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()
    expect(page).to_have_url(re.compile("/json/config/$"))


def test_the_password_page_is_one_step_from_every_page(visit: Visit) -> None:
    page = visit("json/agents/")
    page.get_by_role("link", name="Change your password").click()
    expect(page.get_by_text(USER)).to_be_visible()
    page.get_by_label("Old password").fill("not this one")
    page.get_by_label("New password", exact=True).fill("another good password")
    page.get_by_label("New password confirmation").fill("another good password")
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_text("This is not your password.")).to_be_visible()


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def colour(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.querySelector('.topbar')).backgroundColor"))


def is_dark(page: Page) -> bool:
    """Whether the page is darker than what is written on it."""
    return bool(
        page.evaluate(
            """() => {
              const light = (value) => value.match(/[0-9.]+/g).slice(0, 3)
                .reduce((sum, part) => sum + Number(part), 0);
              const style = getComputedStyle(document.body);
              return light(style.backgroundColor) < light(style.color);
            }"""
        )
    )
