"""Backups from the command line: the same runs, and exit codes that mean something."""

from __future__ import annotations

import io
import os
import pty
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from omnidash import foreground, runs
from omnidash.models import Backup, Run
from omnidash.progress import Step
from omnidash.roles import Console
from omnidash.stores import Entry
from storage import open_store
from tests.backups.asking import backed_up
from tests.backups.test_making import damage
from tests.pages import serving
from tests.stores import Backend, JsonBackend, contents
from tests.test_settings import manage

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def backend(json_backend: JsonBackend) -> JsonBackend:
    return json_backend


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals stay pytest's own."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    yield
    runs.stopping.clear()


def asked(*command: str) -> tuple[int, str]:
    """The exit code, and what was said."""
    out = io.StringIO()
    try:
        call_command(*command, stdout=out, stderr=out)
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


def test_a_store_is_backed_up_in_the_name_of_who_is_at_the_console(
    entry: Entry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "omnidash.runs")
    code, said = asked("backup", "prod")
    assert not caplog.messages, "it is said once"
    run = Run.objects.get()
    assert (code, run.state, run.who, run.origin) == (
        0, "done", Console().get_username(), "command",
    )  # fmt: skip
    assert Backup.objects.get().name in said


def test_all_are_backed_up_though_one_fails(entry: Entry, backend: Backend) -> None:
    with serving(down="redis://127.0.0.1:1/0", prod=backend.url):
        code, said = asked("backup", "--all")
    assert (code, Backup.objects.get().store) == (1, "prod")
    assert "1 not backed up" in said


@pytest.mark.parametrize("command", [["backup"], ["backup", "nobody"], ["verify", "nothing"]])
def test_wrong_usage_is_code_2(entry: Entry, command: list[str]) -> None:
    assert asked(*command)[0] == 2


def test_a_backup_is_verified_by_id_by_name_and_by_file(
    entry: Entry, folder: Path, tmp_path: Path
) -> None:
    made = backed_up()
    elsewhere = shutil.copy(folder / made.name, tmp_path / "elsewhere.gz")
    for named in (made.pk, made.name, str(folder / made.name), str(elsewhere)):
        code, said = asked("verify", named, "--trial")
        assert (code, "compared record by record" in said) == (0, True), said
    assert Backup.objects.count() == 1, "a copy of a backup is that backup"


def test_a_file_from_elsewhere_is_kept_only_if_it_is_restored(
    entry: Entry, folder: Path, tmp_path: Path
) -> None:
    made = backed_up()
    elsewhere = str(shutil.move(folder / made.name, tmp_path / "elsewhere.gz"))
    made.delete()
    for command in (["verify", elsewhere], ["verify", elsewhere, "--trial"],
                    ["restore", elsewhere, "prod", "--dry-run"]):  # fmt: skip
        assert asked(*command)[0] == 0
        assert (Backup.objects.count(), list(folder.iterdir())) == (0, []), command
    entry.store.clear_results()
    for _ in range(2):
        assert asked("restore", elsewhere, "prod", "--yes")[0] == 0
    assert Backup.objects.filter(reason="upload").count() == 1


def test_a_folder_that_is_not_there_is_wrong_usage(entry: Entry, tmp_path: Path) -> None:
    code, said = asked("copy", "prod", f"json://{tmp_path}/new/dir", "--yes")
    assert (code, "the folder of a store must be there" in said) == (2, True), said
    assert not Run.objects.exists()


def test_damage_is_code_3(entry: Entry, folder: Path, tmp_path: Path) -> None:
    made = backed_up()
    damage(folder / made.name)
    assert asked("verify", made.pk)[0] == 3
    assert asked("restore", made.pk, "prod", "--yes")[0] == 3
    elsewhere = tmp_path / "elsewhere.gz"
    elsewhere.write_bytes((folder / made.name).read_bytes()[:-9])
    assert asked("verify", str(elsewhere))[0] == 3
    assert asked("restore", str(elsewhere), "prod", "--yes")[0] == 3
    assert not Run.objects.filter(action="restore").exists()


def test_a_dry_run_changes_nothing(entry: Entry, backend: Backend) -> None:
    made = backed_up()
    entry.store.clear_results()
    before = contents(backend)
    code, said = asked("restore", made.pk, "prod", "--dry-run", "--mode", "replace")
    assert (code, "5 records would change" in said) == (0, True), said
    assert (contents(backend), Run.objects.filter(action="restore").count()) == (before, 0)


def test_a_restore_asks_and_without_a_terminal_refuses(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backed_up()
    entry.store.clear_results()
    monkeypatch.setattr("sys.stdin", io.StringIO("prod\n"))
    assert asked("restore", made.pk, "prod")[0] == 2
    assert asked("restore", made.pk, "prod", "--yes")[0] == 0
    assert entry.store.get_result("task-0")


def test_a_read_only_store_is_code_2(entry: Entry, settings: Any) -> None:
    made = backed_up()
    settings.OMNIDASH_READ_ONLY = True
    assert asked("restore", made.pk, "prod", "--yes")[0] == 2


def test_a_store_is_copied_to_one_that_is_not_configured(
    entry: Entry, tmp_path: Path, redis_backend: Any
) -> None:
    code, said = asked("copy", "prod", redis_backend.url, "--yes")
    assert (code, "Compared afterwards: all is there." in said) == (0, True), said
    assert redis_backend.open().get_result("task-0") == entry.store.get_result("task-0")
    assert asked("copy", "prod", "prod", "--yes")[0] == 2
    code, said = asked("copy", "prod", "ftp://u:hunter2@h/x", "--yes")
    assert (code, "hunter2" in said) == (2, False)


SECRET = "s3cr/3t?PW"


@pytest.mark.parametrize(
    "command",
    [
        ["backup", f"redis://:{SECRET}@127.0.0.1:1/0"], ["backup", f"ftp://u:{SECRET}@h/"],
        ["verify", f"redis://:{SECRET}@h/"], ["restore", f"redis://:{SECRET}@h/", "prod"],
        ["copy", "prod", f"redis://:{SECRET}@127.0.0.1:1/0"],
        ["copy", "prod", f"redis:/:{SECRET}@h"], ["backup", "prod", f"redis://:{SECRET}@h/"],
    ],
)  # fmt: skip
def test_no_command_repeats_a_url(entry: Entry, command: list[str]) -> None:
    code, said = asked(*command)
    assert code and SECRET not in said and "3t?PW" not in said


def test_a_url_of_which_much_is_left_out_of_its_name_is_no_other_store(
    entry: Entry, tmp_path: Path
) -> None:
    deep = "/".join(["x" * 60, "y" * 60])
    one, other = (f"json://{tmp_path}/{name}/{deep}" for name in ("one", "other"))
    for url in (one, other):
        Path(url.removeprefix("json://")).mkdir(parents=True)
    assert asked("copy", "prod", one, "--yes")[0] == 0
    code, said = asked("copy", one, other, "--yes")
    assert (code, "Compared afterwards: all is there." in said) == (0, True), said
    assert open_store(other).get_result("task-0") == entry.store.get_result("task-0")
    assert asked("copy", one, f"{one}/", "--yes")[0] == 2, "into itself"


def test_a_url_of_a_configured_store_is_that_and_may_only_be_stricter(
    entry: Entry, backend: Backend
) -> None:
    made = backed_up()
    assert asked("backup", backend.url)[1].startswith("prod: ")
    code, said = asked("restore", made.pk, f"{backend.url}?mode=read-only", "--yes")
    assert (code, "read-only" in said) == (2, True), said
    code, said = asked("restore", made.pk, backend.url, "--yes")
    assert (code, "read-only" in said) == (2, True), "what was said first still holds"


def test_other_credentials_than_those_of_a_configured_store_are_refused() -> None:
    with serving(prod="redis://one:first@127.0.0.1:1/0"):
        code, said = asked("backup", "redis://two:second@127.0.0.1:1/0")
        assert (code, "credentials" in said, "second" in said) == (2, True, False)
        assert asked("backup", "redis://one:first@127.0.0.1:1/0")[0] == 1, "it is down"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-90000", "1e18"])
def test_how_long_results_may_live_is_bounded(entry: Entry, seconds: str) -> None:
    before = entry.store.counts()
    code, said = asked("restore", "any", "prod", f"--extend={seconds}", "--mode=replace", "--yes")
    assert (code, "ten years" in said, entry.store.counts()) == (2, True, before)


def test_who_interrupts_a_command_stops_its_run(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreground._stop(2, None)
    code, said = asked("backup", "prod")
    assert (code, Run.objects.get().state) == (1, "interrupted")
    assert "No backup was made" in said


def test_a_progress_bar_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [Step("Reading the store", 50, 100)]
    mine, theirs = pty.openpty()
    for terminal, drawn in ((os.fdopen(theirs, "w"), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", terminal)
        foreground.show(steps)
        if drawn:
            assert b" 50% Reading the store 50 of 100" in os.read(mine, 1000)
        else:
            assert isinstance(terminal, io.StringIO) and terminal.getvalue() == ""


def test_the_exit_code_is_that_of_the_process(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    env = {"OMNIDASH_STORES": f"prod=json://{store}"}
    assert manage(tmp_path, "migrate", "-v0", **env).returncode == 0
    done = manage(tmp_path, "backup", "prod", **env)
    assert (done.returncode, "\r" in done.stderr) == (0, False), done.stderr
    assert manage(tmp_path, "backup", "nobody", **env).returncode == 2
    made = next((tmp_path / "var" / "backups").glob("*.odb.gz"))
    damage(made)
    assert manage(tmp_path, "verify", str(made), **env).returncode == 3
