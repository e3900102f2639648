"""One served application and one Chromium a worker, and a page that must not complain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.browsers import Watch, chromium, context_of
from tests.browser.served import Application, served_fixtures

HERE = Path(__file__).parent
KINDS = ("json", "redis")
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What a browser does is the same over either kind of store, and what pages say of each is
    tested without one: so each test meets one of them, and the other half of the tests the other.
    Both where a test is marked so."""
    given: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        given.update([mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0])
    turn = crc32(metafunc.definition.name.encode()) % 2
    both = metafunc.definition.get_closest_marker("both_stores")
    for fixture in {"store", "moving", "failing"}.intersection(metafunc.fixturenames) - given:
        metafunc.parametrize(fixture, KINDS if both else [KINDS[turn]], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    """A store that no test changes."""
    return str(request.param)


@pytest.fixture
def moving(request: pytest.FixtureRequest) -> str:
    """A store that tests write into."""
    return f"moving-{request.param}"


@pytest.fixture
def failing(request: pytest.FixtureRequest) -> str:
    """A store that tests take away and bring back."""
    return f"failing-{request.param}"
