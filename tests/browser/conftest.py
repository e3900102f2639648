"""One served application and one Chromium a worker, and a page that must not complain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.browsers import Watch, chromium, context_of
from tests.browser.served import Application, served_fixtures

HERE = Path(__file__).parent
Visit = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def application() -> Iterator[Application]:
    with served_fixtures() as application:
        yield application


# Not for the whole session: Playwright keeps an event loop running in this thread, in which tests
# of other folders could not run theirs.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def visit(application: Application, browser: Browser, watch: Watch) -> Iterator[Visit]:
    """`visit("json/agents/", theme="dark", width=390)`: a page in a profile of its own, logged in
    unless `session=[]`. Whatever its console complains of fails the test at its end."""
    contexts: list[BrowserContext] = []

    def visit(path: str = "json/", **options: Any) -> Page:
        context = context_of(browser, options.pop("session", application.session), **options)
        contexts.append(context)
        watch.over(context)
        page = context.new_page()
        page.goto(application(path))
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            page.evaluate("1")  # what it has said so far arrives before the answer
        context.close()
    assert watch.unexpected() == []


@pytest.fixture(params=["json", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    """A store that no test changes."""
    return str(request.param)


@pytest.fixture(params=["json", "redis"])
def moving(request: pytest.FixtureRequest) -> str:
    """A store that tests write into."""
    return f"moving-{request.param}"


@pytest.fixture(params=["json", "redis"])
def failing(request: pytest.FixtureRequest) -> str:
    """A store that tests take away and bring back."""
    return f"failing-{request.param}"
