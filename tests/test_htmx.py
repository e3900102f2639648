"""One address, two answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django_htmx.middleware import HtmxMiddleware

from omnidash.htmx import page

FILES = {
    "x/index.html": "<html>{{ part }}</html>",
    "x/_table.html": '<section id="x-table">{{ name }}</section>',
}
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def files(settings: Any) -> None:
    templates = copy.deepcopy(settings.TEMPLATES)
    templates[0]["APP_DIRS"] = False
    options: dict[str, Any] = templates[0]["OPTIONS"]
    options["loaders"] = [("django.template.loaders.locmem.Loader", FILES)]
    settings.TEMPLATES = templates


def answer(name: str = "a", status: int = 200, **headers: str) -> HttpResponse:
    request = RequestFactory().get("/", headers=headers)

    def view(request: HttpRequest) -> HttpResponse:
        return page(request, "x/index.html", "x/_table.html", {"name": name}, status=status)

    return HtmxMiddleware(view)(request)  # type: ignore[return-value]


def test_a_browser_gets_the_page_and_htmx_the_part() -> None:
    assert answer().content.startswith(b'<html><section id="x-table">')
    assert answer(**HTMX).content == b'<section id="x-table">a</section>'
    assert answer().headers["Vary"] == answer(**HTMX).headers["Vary"] == "HX-Request"


@pytest.mark.parametrize(
    "more",
    [
        {"HX-Boosted": "true"},
        {"HX-History-Restore-Request": "true"},
        {"HX-Request-Type": "full"},
    ],
)
def test_htmx_gets_the_page_where_it_needs_all_of_it(more: dict[str, str]) -> None:
    assert answer(**HTMX, **more).content.startswith(b"<html>")


def test_an_unchanged_part_is_not_sent_again() -> None:
    digest = answer(**HTMX).headers["X-Part"]
    assert len(digest) == 16
    again = answer(**HTMX, **{"X-Part": digest})
    assert (again.status_code, again.content, again.headers["X-Part"]) == (204, b"", digest)
    changed = answer("b", **HTMX, **{"X-Part": digest})
    assert (changed.status_code, changed.headers["X-Part"] != digest) == (200, True)
    assert answer(status=503, **HTMX, **{"X-Part": digest}).status_code == 503
    assert answer(**{"X-Part": digest}).content.startswith(b"<html>")


def test_a_lone_surrogate_is_shown_as_a_question_mark() -> None:
    assert answer("a\ud800b", **HTMX).content == b'<section id="x-table">a?b</section>'


def test_a_value_is_escaped_in_a_part_too() -> None:
    assert b"<svg" not in answer('"><svg onload=1>', **HTMX).content
