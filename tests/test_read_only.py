"""A store or a dashboard that changes nothing, and one whose changes matter: both are seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from omnidash.stores import registry
from omnidash.text import ref
from tests.pages import elements, serving, text_of

pytestmark = pytest.mark.django_db
BOTH = "?mode=read-only&env=production"


def marks(client: Client, path: str) -> dict[str, str]:
    """The marks in the head of a page, with their reasons."""
    return {
        text.partition(":")[0]: mark.get("title", "")
        for mark in elements(client.get(path), "span")
        if "store-mark" in mark.get("class", "").split() and (text := "".join(mark.itertext()))
    }


def test_a_plain_store_has_no_mark(viewer_client: Client, tmp_path: Path) -> None:
    with serving(plain=f"json://{tmp_path}"):
        entry = registry()["plain"]
        assert (entry.read_only, entry.production) == ("", False)
        assert marks(viewer_client, "/plain/") == {}


@pytest.mark.parametrize("path", ["", "agents/", "config/", f"agents/{ref('no', 'one')}/"])
def test_each_page_of_a_store_says_what_it_is(
    viewer_client: Client, tmp_path: Path, path: str
) -> None:
    with serving(plain=f"json://{tmp_path}", live=f"json://{tmp_path}{BOTH}"):
        entry = registry()["live"]
        assert entry.production
        assert "mode=read-only" in entry.read_only
        assert marks(viewer_client, f"/live/{path}") == {
            "production": "",
            "read-only": entry.read_only,
        }
        assert registry()["plain"].read_only == ""


def test_a_store_that_is_down_still_says_what_it_is(viewer_client: Client) -> None:
    with serving(live=f"redis://127.0.0.1:1/0{BOTH}"):
        assert viewer_client.get("/live/").status_code == 503
        assert set(marks(viewer_client, "/live/")) == {"production", "read-only"}


def test_a_read_only_dashboard_closes_every_store(
    viewer_client: Client, tmp_path: Path, settings: object
) -> None:
    settings.OMNIDASH_READ_ONLY = True  # type: ignore[attr-defined]
    with serving(plain=f"json://{tmp_path}", live=f"json://{tmp_path}{BOTH}"):
        for entry in registry().values():
            assert "OMNIDASH_READ_ONLY" in entry.read_only
        assert "OMNIDASH_READ_ONLY is on" in text_of(viewer_client.get("/plain/"))


def test_the_same_data_have_one_history_whatever_they_are_called(tmp_path: Path) -> None:
    with serving(plain=f"json://{tmp_path}", live=f"json://{tmp_path}{BOTH}"):
        entries = registry()
        assert entries["plain"].store.address == entries["live"].store.address
