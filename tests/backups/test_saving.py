"""The server's own save counts as done only when the server itself says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidash import runs
from omnidash.backups import BackupError
from omnidash.stores import registry
from storage import open_store
from storage.base import StoreError
from tests.backups.asking import did, finished, started
from tests.pages import serving
from tests.servers import RedisServer
from tests.stores import JsonBackend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


def test_a_save_that_succeeded_is_a_later_time(server: RedisServer) -> None:
    with serving(prod=server.url):
        for _ in range(2):  # also within one second of the one before
            before = server.client().lastsave()
            did("save-rdb")
            assert server.client().lastsave() > before
    assert (Path(server.folder) / "dump.rdb").exists()


def test_a_save_that_failed_is_a_run_that_failed(server: RedisServer) -> None:
    # The server runs as root in some machines, whom no permission keeps from writing.
    (Path(server.folder) / "dump.rdb").mkdir()
    with serving(prod=server.url):
        run = finished(started("save-rdb"))
    assert run.state == "failed"
    assert "its status is err" in run.message


def test_a_server_that_forbids_it_says_so(server: RedisServer) -> None:
    server.client().execute_command(
        "ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all", "-bgsave"
    )
    with serving(prod=f"redis://reader:hunter2@127.0.0.1:{server.port}/0"):
        run = finished(started("save-rdb"))
    assert run.state == "failed"
    assert "hunter2" not in run.message


def test_a_directory_has_no_server(json_backend: JsonBackend) -> None:
    with serving(prod=json_backend.url):
        assert not registry()["prod"].store.can_save
        with pytest.raises(BackupError):
            started("save-rdb")


def test_a_read_only_store_is_not_told_to_save(server: RedisServer) -> None:
    with serving(prod=f"{server.url}?mode=read-only"), pytest.raises(runs.Refused):
        started("save-rdb")


def test_a_server_that_is_lost_while_it_saves_is_told(server: RedisServer) -> None:
    store = open_store(server.url)
    server.client().config_set("rdb-key-save-delay", 100_000)
    server.client().mset({f"k{number}": "v" for number in range(100)})
    saving = store.save_to_disk()
    next(saving)
    server.stop()
    with pytest.raises(StoreError):
        list(saving)
    store.close()
