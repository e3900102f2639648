"""Actions as people take them: a real worker, a real Redis, and a browser that watches."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from tests.browser.browsers import Watch, context_of
from tests.browser.looks import too_wide, violations
from tests.browser.served import Application, RedisServer, person, served, until

PageOf = Callable[..., Page]
MANY, ORPHANS = 60_000, 20_000


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """An application over a Redis of its own, with an operator and a viewer."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        with served(OMNIDASH_STORES=f"prod={server.url}") as application:
            application.redis = server
            yield application
    finally:
        server.stop()


@pytest.fixture
def client(acting: Application) -> Iterator[redis.Redis]:
    assert acting.redis is not None
    with redis.Redis.from_url(acting.redis.url) as found:
        found.flushdb()
        yield found


def results(client: redis.Redis, count: int) -> None:
    now, padding = time.time(), "words " * 150
    for start in range(0, count, 5000):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(count, start + 5000)):
            body = f'{{"task_id": "t{number}", "result": "{padding}", "saved_at": {now}}}'
            pipeline.set(f"omni:result:t{number}", body, ex=86_400)
            pipeline.zadd("omni:results:index", {f"t{number}": now + number / 1e6})
        pipeline.execute()


def orphans(client: redis.Redis, count: int) -> None:
    client.zadd("omni:results:index", {f"orphan-{number}": number for number in range(count)})


@pytest.fixture(scope="module")
def sessions(acting: Application) -> dict[str, list[Any]]:
    return {role: person(acting, role) for role in ("viewer", "operator", "administrator")}


@pytest.fixture
def page_of(
    acting: Application, browser: Browser, sessions: dict[str, list[Any]]
) -> Iterator[PageOf]:
    contexts, watch = [], Watch()
    watch.expect("409")  # while the results are being learnt

    def page_of(role: str = "operator", **options: object) -> Page:
        context = context_of(browser, sessions[role], **options)
        contexts.append(context)
        watch.over(context)
        return context.new_page()

    yield page_of
    for context in contexts:
        context.close()
    assert watch.unexpected() == []


def begin(page: Page) -> None:
    """Confirm what is shown."""
    typed = page.locator("#actions-confirm [name=typed]")
    if typed.count():
        typed.fill("prod")
    page.locator("#actions-confirm footer button").click()
    expect(page).to_have_url(re.compile("/runs/[0-9]+/$"))


def ended(page: Page) -> str:
    state = page.locator("#runs-run .badge.state").first
    expect(state).to_have_text(
        re.compile("done|failed|cancelled|interrupted|refused"), timeout=120_000
    )
    return state.inner_text().lower()


def counted(page: Page) -> int:
    return int(page.locator(".run-count strong").inner_text().replace(",", ""))


def test_a_viewer_sees_no_action_and_is_refused(
    acting: Application, client: redis.Redis, page_of: PageOf
) -> None:
    results(client, 3)
    page = page_of("viewer")
    for path in ("", "agents/", "results/", "storage/", "config/"):
        page.goto(acting(f"prod/{path}"))
        assert page.get_by_role("link", name=re.compile("Delete|Clear|Clean|Runs")).count() == (
            1 if path in ("agents/", "results/", "config/") else 0
        ), f"{path}: only the one that clears the filter"
        assert page.locator("main input[type=checkbox]").count() == 0


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_the_pages_of_actions_fit_and_can_be_used_by_all(
    acting: Application, client: redis.Redis, page_of: PageOf, theme: str, width: int
) -> None:
    results(client, 3)
    page = page_of("administrator", theme=theme, width=width)
    for path in ("prod/cleanup/", "prod/clear/everything", "runs/", "prod/config/edit"):
        page.goto(acting(path))
        assert violations(page) == [], path
        assert too_wide(page) == [], path


def test_an_operator_cleans_up_orphans_and_watches_the_bar(
    acting: Application, client: redis.Redis, page_of: PageOf
) -> None:
    orphans(client, ORPHANS)
    page = page_of()
    page.goto(acting("prod/cleanup/"))
    line = page.locator("#line-index")
    expect(line.locator("[data-label=Records]")).to_have_text("20,000")
    line.get_by_role("button", name="Clean up").click()
    expect(page.locator("#confirm-title")).to_contain_text("20,000 records")
    begin(page)
    expect(page.locator("progress")).to_be_visible()
    assert ended(page) == "done"
    assert counted(page) == ORPHANS
    assert client.zcard("omni:results:index") == 0


@contextmanager
def clearing_many(acting: Application, client: redis.Redis, page: Page) -> Iterator[None]:
    """The first of many results are gone, and in here the others go slowly."""
    results(client, MANY)
    page.goto(acting("prod/clear/results"))
    until(lambda: learnt(page), "the results were not learnt")
    with slowed(client):
        begin(page)
        until(lambda: client.zcard("omni:results:index") < MANY, "it did not begin")
        yield


@contextmanager
def slowed(client: redis.Redis) -> Iterator[None]:
    """Redis takes changes only now and then: for so long each time that a busy machine has its
    turn, too, before the next pause."""
    over = threading.Event()

    def hold() -> None:
        while not over.wait(0.3):
            client.client_pause(200, all=False)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_deletion_that_is_stopped_half_way_is_counted_truly_and_put_back(
    acting: Application, client: redis.Redis, page_of: PageOf
) -> None:
    page = page_of("administrator")
    with clearing_many(acting, client, page):
        page.get_by_role("button", name="Stop").click()
        assert ended(page) == "cancelled"
    left = client.zcard("omni:results:index")
    assert 0 < left < MANY
    assert counted(page) == MANY - left
    assert client.exists(*[f"omni:result:t{number}" for number in range(MANY)]) == left
    page.get_by_role("link", name="Put back").click()
    begin(page)
    assert ended(page) == "done"
    assert client.zcard("omni:results:index") == MANY
    assert 0 < client.ttl("omni:result:t0") <= 86_400


def learnt(page: Page) -> bool:
    """Until all results are known it says so, and is asked again."""
    found = page.locator("#actions-confirm [name=plan]").count() > 0
    if not found:
        page.wait_for_timeout(300)
        page.reload()
    return found


def test_a_worker_that_is_killed_is_told_and_running_again_finishes(
    acting: Application, client: redis.Redis, page_of: PageOf
) -> None:
    page = page_of("administrator")
    with clearing_many(acting, client, page):
        kill_worker(acting)
    assert ended(page) == "interrupted"
    left = client.zcard("omni:results:index")
    assert left > 0, "it was through before it could be killed"
    page.get_by_role("link", name="Run again").click()
    until(lambda: learnt(page), "the results were not learnt")
    begin(page)
    assert ended(page) == "done"
    assert client.zcard("omni:results:index") == 0
    assert client.dbsize() == 0


def kill_worker(acting: Application) -> None:
    data = acting.environment["OMNIDASH_DATA_DIR"].encode()
    ours = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if b"manage.py\0worker" in said(process / "cmdline") and data in said(process / "environ")
    ]
    assert ours
    for pid in ours:
        os.kill(pid, signal.SIGKILL)


def said(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""
