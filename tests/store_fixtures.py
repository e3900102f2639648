"""Fixtures of the tests that need a store: `pytest_plugins = ["tests.store_fixtures"]`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.base import Store
from tests.servers import RedisServer
from tests.stores import DATA, Backend, JsonBackend, RedisBackend


@pytest.fixture
def json_backend(tmp_path: Path) -> Iterator[JsonBackend]:
    """An empty JSON directory."""
    folder = tmp_path / "store"
    folder.mkdir()
    backend = JsonBackend(folder)
    yield backend
    backend.close()


@pytest.fixture
def redis_backend(redis_url: str) -> Iterator[RedisBackend]:
    """An empty Redis."""
    backend = RedisBackend(redis_url)
    yield backend
    backend.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this one test, to be broken."""
    found = RedisServer()
    yield found
    found.close()


@pytest.fixture(params=["json", "redis"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(f"{request.param}_backend")
    return found


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.open()


@pytest.fixture
def json_fixture(json_backend: JsonBackend) -> JsonBackend:
    """OmniDaemon's own JSON data, moved to the present."""
    script = DATA / "copy_json_fixture.py"
    subprocess.run([sys.executable, script, json_backend.folder], check=True)
    return json_backend


@pytest.fixture
def redis_fixture(redis_url: str, redis_backend: RedisBackend) -> RedisBackend:
    """OmniDaemon's own Redis data, moved to the present."""
    script, data = DATA / "load_redis_fixture.py", DATA / "redis-small.jsonl.gz"
    subprocess.run([sys.executable, script, data, redis_url, "--now", "--flush"], check=True)
    return redis_backend
