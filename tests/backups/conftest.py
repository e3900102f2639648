"""A served store with something in it, and a folder of backups of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from omnidash.stores import Entry, registry
from tests.backups.asking import fill
from tests.pages import serving
from tests.stores import Backend


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.OMNIDASH_BACKUP_DIR = tmp_path / "backups"
    settings.OMNIDASH_BACKUP_DIR.mkdir(mode=0o700)
    return tmp_path / "backups"


@pytest.fixture
def entry(backend: Backend) -> Iterator[Entry]:
    """The store prod, of either kind."""
    with serving(prod=backend.url):
        fill(registry()["prod"].store)
        yield registry()["prod"]
