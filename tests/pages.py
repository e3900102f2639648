"""Pages under test: a served store, and what a reader sees of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import html5lib
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from omnidash.stores import registry

PAGES = {
    "overview": "",
    "agents": "agents/",
    "results": "results/",
    "metrics": "metrics/",
    "errors": "errors/",
    "storage": "storage/",
    "backups": "backups/",
    "config": "config/",
}
OF_THE_STORE = {name: path for name, path in PAGES.items() if name != "backups"}
"""Those that cannot be read while the store is down."""
HTMX = {"HX-Request": "true", "HX-Request-Type": "partial"}


@contextmanager
def serving(**stores: str) -> Iterator[None]:
    """The application serves these stores (name=URL) and no other."""
    before = settings.OMNIDASH_STORES
    settings.OMNIDASH_STORES = stores
    registry.cache_clear()
    try:
        yield
    finally:
        for entry in registry().values():
            entry.store.close()
        settings.OMNIDASH_STORES = before
        registry.cache_clear()


def addresses(patterns: list[URLPattern | URLResolver] | None = None, lead: str = "/") -> list[str]:
    """One address of each line of the site map, with "default" for whatever is variable."""
    found = []
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        # Django's admin has the only regular expression: the apps that it knows.
        own = re.sub(r"^\^\(\?P<app_label>(\w+)\)/\$$", r"\1/", str(entry.pattern))
        here = lead + re.sub(r"<[^>]*>", "default", re.sub(r"<int:[^>]*>", "1", own))
        found += addresses(entry.url_patterns, here) if isinstance(entry, URLResolver) else [here]
    return found


def text_of(response: HttpResponse) -> str:
    """What a person reads: the parsed page without its markup, white space folded."""
    tree = html5lib.parse(response.content.decode(), namespaceHTMLElements=False)
    return re.sub(r"\s+", " ", "".join(tree.itertext()))


def elements(response: HttpResponse, tag: str) -> list[Any]:
    tree = html5lib.parse(response.content.decode(), namespaceHTMLElements=False)
    return list(tree.iter(tag))


def links(response: HttpResponse, within: str) -> dict[str, str]:
    """Address -> text of the links that begin so."""
    found = {}
    for link in elements(response, "a"):
        href = link.get("href", "")
        if href.startswith(within) and len(href) > len(within):
            found[href] = "".join(link.itertext()).strip()
    return found


def get_part(client: Client, path: str, **headers: str) -> HttpResponse:
    return client.get(path, headers={**HTMX, **headers})
