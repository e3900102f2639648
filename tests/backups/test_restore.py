"""A restore does what was shown, all of it or nothing, and says which."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_user
from django.db import connections

from omnidash import backups, runs
from omnidash.actions.plans import unpack
from omnidash.backups import reports
from omnidash.models import Backup, Plan, Run
from omnidash.roles import group_of
from omnidash.stores import Entry, registry
from storage.archive import ArchiveWriter, Header
from storage.base import StoreUnavailable
from storage.changes import Record
from storage.comparison import VOLATILE
from storage.json_store.staging import JsonStaging
from storage.redis_store.staging import RedisStaging
from tests.backups.asking import administrator, backed_up, did, finished, restored, started
from tests.backups.test_making import damage
from tests.pages import serving
from tests.servers import RedisServer
from tests.stores import Backend, JsonBackend, RedisBackend, contents

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


def of_theirs(backend: Backend) -> Any:
    """All that is in a backup: not the event bus, nor what says that a restore was done."""
    found: Any = contents(backend)
    if isinstance(backend, RedisBackend):
        return {key: one for key, one in found.items() if key.startswith(b"omni:")}
    return found


def sums(run: Run) -> dict[tuple[str, str], int]:
    assert run.plan is not None
    return {(one.kind, one.names[0]): one.count for one in unpack(bytes(run.plan.content or b""))}


def test_a_store_that_was_wiped_is_the_same_again(backend: Backend, entry: Entry) -> None:
    made, before = backed_up(), of_theirs(backend)
    did("clear", what="everything")
    run = restored(made)
    assert of_theirs(backend) == before
    assert (run.done, run.total) == (run.total, run.done)
    assert "Compared afterwards: all is there." in run.message


def test_a_merge_keeps_what_is_newer_and_what_is_only_in_the_store(
    backend: Backend, entry: Entry
) -> None:
    made = backed_up()
    entry.store.save_result("task-0", {"agent": "newer"}, 7200)
    entry.store.save_result("other", {"agent": "other"}, 7200)
    entry.store.delete_result("task-1")
    run = restored(made, mode="merge")
    assert sums(run)["result", "kept"] == 1
    assert (run.done, sums(run)["result", "added"]) == (1, 1)
    store = entry.store
    assert store.get_result("task-0") == {"agent": "newer"}
    assert store.get_result("other") and store.get_result("task-1")


def test_a_replacement_deletes_what_is_not_in_the_backup(entry: Entry) -> None:
    made = backed_up()
    entry.store.save_result("other", {"agent": "other"}, 7200)
    entry.store.save_config("theirs", 1)
    run = restored(made)
    assert (sums(run)["result", "deleted"], sums(run)["config", "deleted"]) == (1, 1)
    assert entry.store.get_result("other") is None
    assert entry.store.get_config("theirs") is None


def test_what_omnidaemon_notes_while_it_runs_is_left_alone(entry: Entry) -> None:
    key = "_subscription_active:group:t:a"
    entry.store.save_config(key, True)
    made = backed_up()
    entry.store.save_config(key, False)
    did("restore", backup=made.pk, mode="replace", volatile=False)
    assert entry.store.get_config(key) is False
    restored(made)
    assert entry.store.get_config(key) is True


def test_results_live_longer_if_that_is_asked_for(entry: Entry) -> None:
    made = backed_up()
    before = entry.store.result("task-0").expires_at
    did("clear", what="results")
    did("restore", backup=made.pk, mode="replace", volatile=False, extend=3600.0)
    after = entry.store.result("task-0").expires_at
    assert isinstance(before, float) and isinstance(after, float)
    assert abs(after - before - 3600) < 0.01


def test_the_store_as_it_was_is_in_a_verified_backup(backend: Backend, entry: Entry) -> None:
    made = backed_up()
    did("clear", what="results")
    wiped = of_theirs(backend)
    restored(made)
    safety = Backup.objects.get(reason="safety")
    assert safety.checked == "good"
    restored(safety)
    assert of_theirs(backend) == wiped


def test_a_store_that_changed_since_it_was_shown_is_left_alone(
    backend: Backend, entry: Entry
) -> None:
    made = backed_up()
    entry.store.save_config("mine", {"x": 2})
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    entry.store.save_config("mine", {"x": 3})
    before = of_theirs(backend)
    assert finished(run).state == "refused"
    assert "changed since it was shown" in run.message and "Nothing was changed" in run.message
    assert of_theirs(backend) == before


def test_a_damaged_backup_is_refused_before_anything_is_written(
    backend: Backend, entry: Entry, folder: Path
) -> None:
    made = backed_up()
    did("clear", what="results")
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    damage(folder / made.name)
    before = backend.photograph()
    assert finished(run).state == "failed"
    assert (backend.photograph(), Backup.objects.count()) == (before, 1)
    with pytest.raises(backups.BackupError, match="is not good"):
        started("restore", backup=made.pk, mode="replace", volatile=True)


def test_without_a_safety_backup_nothing_is_changed(
    backend: Backend, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backed_up()
    did("clear", what="results")
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    before = backend.photograph()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert finished(run).state == "failed"
    assert backend.photograph() == before


def test_a_permission_that_was_taken_away_is_noticed(backend: Backend, entry: Entry) -> None:
    made, user = backed_up(), administrator()
    did("clear", what="results")
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    user.groups.set([group_of("operator")])
    before = of_theirs(backend)
    assert finished(run).state == "refused"
    assert of_theirs(backend) == before


def test_two_who_confirm_the_same_restore_start_one_run(entry: Entry) -> None:
    made = backed_up()
    did("clear", what="results")
    other = make_user("operator")
    other.groups.set([group_of("administrator")])
    params = {"backup": made.pk, "mode": "replace", "volatile": True}
    assert started("restore", **params) == started("restore", user=other, **params)


def test_of_two_restores_that_begin_at_once_one_is_refused(entry: Entry) -> None:
    made = backed_up()
    did("clear", what="results")
    first = started("restore", backup=made.pk, mode="replace", volatile=True)
    second = started("restore", backup=made.pk, mode="merge", volatile=True)
    now = time.time()
    Run.objects.filter(pk=first.pk).update(state="running", started_at=now - 1, beat_at=now)
    assert finished(second).state == "refused"


def test_a_read_only_store_is_not_restored(entry: Entry, settings: Any) -> None:
    made = backed_up()
    settings.OMNIDASH_READ_ONLY = True
    with pytest.raises(runs.Refused):
        started("restore", backup=made.pk, mode="merge")


@pytest.mark.parametrize("backend", ["json"], indirect=True)
def test_a_directory_that_a_runner_owns_is_not_restored(backend: JsonBackend, entry: Entry) -> None:
    made = backed_up()
    did("clear", what="results")
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    backend.write("config.json", {"_omnidaemon_start_time": time.time()})
    assert finished(run).state in ("refused", "failed")
    assert "Nothing was changed" in run.message
    assert entry.store.get_result("task-0") is None


def test_a_report_tells_of_each_record_and_holds_no_formula(entry: Entry, folder: Path) -> None:
    entry.store.save_result("=cmd()", {"agent": "a"}, 3600)
    entry.store.save_config("other", 1)
    entry.store.save_config("same", 1)
    made = backed_up()
    did("clear", what="results")
    entry.store.save_config("other", 2)
    entry.store.save_config("new", 1)
    report = json.loads(restored(made).report)
    path = reports.path_of_report(report["file"])
    assert path is not None and path.stat().st_mode & 0o077 == 0
    text = gzip.decompress(path.read_bytes()).decode()
    assert "result,'=cmd(),added\r\n" in text
    assert "config,other,replaced\r\n" in text
    assert "config,same,unchanged\r\n" in text
    assert "config,new,deleted\r\n" in text


def test_a_preview_counts_what_is_left_out_by_its_reason(entry: Entry) -> None:
    entry.store.save_config("supervisor:a", {"state": "running"})
    made = backed_up()
    run = started("restore", backup=made.pk, mode="replace")
    targets = unpack(bytes(run.plan.content or b""))
    left = [one for one in targets if one.kind == "config" and one.names[0] == "skipped"]
    assert [(one.names, one.count) for one in left] == [(("skipped", VOLATILE), 1)]


def test_a_restore_that_is_stopped_changes_nothing(
    backend: Backend, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backed_up()
    did("clear", what="results")
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    before = of_theirs(backend)
    runs.ask_to_stop(run, "anna")
    Run.objects.update(state="queued", stop_asked="anna")
    monkeypatch.setattr(runs.execution, "_ASK", 0.0)
    assert finished(run).state == "cancelled"
    assert run.message == "Stopped by anna. Nothing was changed."
    assert of_theirs(backend) == before


# Killed


STAGINGS = {"json": JsonStaging, "redis": RedisStaging}


def killed_at_commit(backend: Backend, run: Run, after: bool) -> None:
    """A worker that is killed right before, or right after, the one change."""
    connections.close_all()
    for entry in registry().values():
        entry.store.close()
    child = os.fork()
    if child == 0:
        try:
            staging: Any = STAGINGS[backend.name]
            commit: Callable[..., None] = staging.commit

            def killed(*args: Any) -> None:
                if after:
                    commit(*args)
                os.kill(os.getpid(), signal.SIGKILL)

            staging.commit = killed
            runs.execute.call(run.pk)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    Run.objects.filter(pk=run.pk).update(beat_at=1.0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_killed_restore_leaves_the_old_store_or_the_new_one_and_says_which(
    backend: Backend, entry: Entry, after: bool
) -> None:
    made, full = backed_up(), of_theirs(backend)
    did("clear", what="everything")
    wiped = of_theirs(backend)
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    killed_at_commit(backend, run, after)
    assert runs.note_interrupted(time.time()) == 1
    run.refresh_from_db()
    assert run.state == "interrupted"
    which = "the new one" if after else "the old one"
    assert f"The store is {which}" in run.message
    assert of_theirs(backend) == (full if after else wiped)
    Plan.objects.filter(run=None).delete()
    restored(made)
    assert of_theirs(backend) == full, "and the next one works"


def test_a_run_that_was_killed_before_it_began_says_so(entry: Entry) -> None:
    made = backed_up()
    did("clear", what="results")
    run = started("restore", backup=made.pk, mode="replace", volatile=True)
    Run.objects.filter(pk=run.pk).update(state="running", started_at=1.0, beat_at=1.0)
    assert runs.note_interrupted(time.time()) == 1
    run.refresh_from_db()
    assert run.message.endswith("It had not begun to change anything.")


def test_a_store_that_does_not_answer_is_asked_again_what_became_of_it(
    server: RedisServer,
) -> None:
    with serving(prod=server.url):
        run = Run.objects.create(
            action="restore", store="prod", address=registry()["prod"].store.address,
            state="running", created_at=time.time(), beat_at=time.time() - 60,
            params=json.dumps({"token": "0" * 32}),
        )  # fmt: skip
        server.stop()
        assert runs.note_interrupted(time.time()) == 0
        server.start()
        assert runs.note_interrupted(time.time()) == 1
        run.refresh_from_db()
        assert run.state == "interrupted"


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
def test_a_connection_lost_at_the_change_is_told_truly(
    backend: Backend, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backed_up()
    did("clear", what="results")
    commit = RedisStaging.commit

    def lost(*args: Any) -> None:
        commit(*args)
        raise StoreUnavailable("the connection was lost")

    monkeypatch.setattr(RedisStaging, "commit", lost)
    run = finished(started("restore", backup=made.pk, mode="replace", volatile=True))
    assert run.state == "failed"
    assert "The store is the new one" in run.message
    assert entry.store.get_result("task-0")


def test_what_the_server_cannot_take_is_no_success(redis_backend: RedisBackend) -> None:
    """A DUMP of another version of Redis is only known to be none when it is tried."""
    with serving(prod=redis_backend.url):
        entry = registry()["prod"]
        path = str(backups.folder() / "omnidash-20260101T000000Z-00000000000000aa.odb.gz")
        header = Header("backup", "redis", entry.store.address, time.time(), {})
        with ArchiveWriter(path, header) as writer:
            writer.add([Record("result", ("odd",), b"no dump of this server", "dump", score="1")])
            writer.add([Record("config", ("fine",), b"1")])
            writer.finish(verify=True)
        backups.adopt()
        run = finished(
            started("restore", backup=Backup.objects.get().pk, mode="replace", volatile=True)
        )
        assert run.state == Run.State.FAILED
        assert (run.done, run.skipped) == (1, 1)
        assert "not all could be stored: 1 cannot be read by this version of Redis" in run.message
        assert entry.store.get_config("fine") == 1
