"""A restore of a JSON directory happens all or not at all, whatever comes in between."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import open_store
from storage.base import StoreBusy, StoreChanged, StoreError, StoreReadOnly, StoreUnavailable
from storage.changes import Kind, Names, Record
from storage.json_store import JsonStore, exchange, files, journal
from storage.json_store.marker import MARKER
from storage.snapshots import Staging
from tests.stores import let_it_rest
from tests.test_json_changes import opened, record, write
from tests.test_json_snapshot import NAMES, files_in, folder_of, put_all, records_in
from tests.test_live_runner import Runner

ROOT = Path(__file__).parent.parent
TOKEN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
OLD: dict[str, Any] = {
    "agents": {"t": [{"name": "a"}, {"name": "b"}], "u": [{"name": "c"}]},
    "results": {"r": record("r", "old"), "s": record("s")},
    "config": {"k": 1, "l": [2]},
}
NEW: dict[str, Any] = {
    "agents": {"t": [{"name": "b", "new": 1}], "v": [{"name": "d"}]},
    "results": {"s": record("s", "new"), "q": record("q")},
    "metrics": [{"event": "e", "saved_at": 1.5}, {"event": "f", "saved_at": 2.5}],
    "config": {"k": 2},
}
EVERYTHING: list[tuple[Kind, Names]] = [
    ("agent", ("t", "a")), ("agent", ("u", "c")), ("result", ("r",)), ("config", ("l",)),
]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> JsonStore:
    return folder_of(tmp_path / "store", **OLD)


@pytest.fixture
def source(tmp_path: Path) -> JsonStore:
    (tmp_path / "elsewhere").mkdir()
    return folder_of(tmp_path / "elsewhere" / "source", **NEW)


@pytest.fixture(params=["exchange", "journal"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the directory is a mount point, as in a container, it cannot be exchanged."""
    if request.param == "journal":
        monkeypatch.setattr(exchange, "exchange", barred)
    return str(request.param)


def barred(one: str, other: str) -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), one)


def folder(store: JsonStore) -> Path:
    return Path(store.directory)


def beside(store: JsonStore) -> list[str]:
    """What lies beside the directory, apart from what the tests put there."""
    own = {folder(store).name, "elsewhere"}
    return sorted(set(os.listdir(folder(store).parent)) - own)


def within(store: JsonStore) -> set[str]:
    """What lies in the directory beside the store's files, the lock and the marker."""
    return set(os.listdir(store.directory)) - {*NAMES, files.LOCK_NAME, MARKER}


def restore(store: JsonStore, source: JsonStore, token: str = TOKEN) -> None:
    with store.stage(token) as staging:
        assert put_all(staging, records_in(source.snapshot())) == []
        staging.commit(EVERYTHING, keep_events=False)


# What a restore makes of a directory


def test_a_restore_puts_the_new_in_the_place_of_the_old(
    store: JsonStore, source: JsonStore, way: str
):
    before = files_in(folder(store))
    restore(store, source)
    assert files_in(folder(store)) == files_in(folder(source))
    assert store.committed(TOKEN) is True
    assert store.committed(OTHER) is False
    assert within(store) == set()
    kept = beside(store)
    if way == "exchange":
        assert len(kept) == 1 and kept[0].startswith("store.before-restore-2")
        assert files_in(folder(store).parent / kept[0]) == before
    else:
        assert kept == []


def test_what_is_neither_put_nor_deleted_stays_as_it_is(store: JsonStore, way: str):
    write(folder(store), "results.json", b'{\n  "r": {\n    "x": NaN,\n    "x": 1.50\n  }\n}')
    status = os.stat(folder(store) / "agents.json")
    with store.stage(TOKEN) as staging:
        staging.put([Record("result", ("q",), b"{}"), Record("config", ("k",), b"[3]")])
        staging.commit([("config", ("l",))], keep_events=True)
    assert files_in(folder(store))["results.json"] == (
        b'{\n  "r": {\n    "x": NaN,\n    "x": 1.50\n  },\n  "q": {}\n}'
    )
    assert json.loads(files_in(folder(store))["config.json"]) == {"k": [3]}
    assert os.stat(folder(store) / "agents.json").st_ino == status.st_ino
    assert "metrics.json" not in files_in(folder(store))


def test_a_restore_that_changes_nothing_is_still_one_that_was_made(store: JsonStore, way: str):
    before = files_in(folder(store))
    with store.stage(TOKEN) as staging:
        staging.commit([], keep_events=True)
    assert store.committed(TOKEN) is True
    assert files_in(folder(store)) == before


def test_agents_come_back_to_their_places(store: JsonStore):
    agents = [{"name": name} for name in "abcdef"]
    write(folder(store), "agents.json", {"t": agents})
    saved = [one for one in records_in(store.snapshot()) if one.kind == "agent"]
    write(folder(store), "agents.json", {"t": [agents[1], {"name": "new"}, agents[4]]})
    with store.stage(TOKEN) as staging:
        staging.put([one for one in saved if one.names[1] in "acdf"])
        staging.commit([("agent", ("t", "new"))], keep_events=True)
    assert json.loads(files_in(folder(store))["agents.json"]) == {"t": agents}


def test_a_topic_without_agents_goes(store: JsonStore):
    with store.stage(TOKEN) as staging:
        staging.commit([("agent", ("t", "a")), ("agent", ("t", "b"))], keep_events=True)
    assert json.loads(files_in(folder(store))["agents.json"]) == {"u": [{"name": "c"}]}


def test_a_topic_that_is_no_list_is_not_mixed_with_agents(store: JsonStore):
    write(folder(store), "agents.json", {"t": 5})
    agent = Record("agent", ("t", "a"), b'{"name": "a"}')
    with store.stage(TOKEN) as staging:
        staging.put([agent])
        with pytest.raises(StoreUnavailable, match="no list of agents"):
            staging.commit([], keep_events=True)
    assert store.committed(TOKEN) is False
    with store.stage(OTHER) as staging:
        staging.put([agent])
        staging.commit([("agent", ("t", ""))], keep_events=True)
    assert json.loads(files_in(folder(store))["agents.json"]) == {"t": [{"name": "a"}]}


def test_events_stand_between_those_that_are_there_by_their_times(store: JsonStore):
    write(folder(store), "metrics.json", [{"n": n, "saved_at": float(n)} for n in (2, 4, 4, 8)])
    with store.stage(TOKEN) as staging:
        staging.put([
            Record("metrics", ("1.0-0000",), b'{"n": 1, "saved_at": 1.0}'),
            Record("metrics", ("1.0-0001",), b'"undated"'),
            Record("metrics", ("4.0-0001",), b'{"n": "another", "saved_at": 4.0}'),
            Record("metrics", ("4.0-0002",), b'{"n": "third", "saved_at": 4.0}'),
            Record("metrics", ("9.0-0000",), b'{"n": 9, "saved_at": 9.0}'),
        ])  # fmt: skip
        staging.commit([("metrics", ("8.0-0000",))], keep_events=True)
    found = json.loads(files_in(folder(store))["metrics.json"])
    assert [one if one == "undated" else one["n"] for one in found] == [
        1, "undated", 2, 4, 4, "another", "third", 9,
    ]  # fmt: skip


def test_events_beyond_the_cap_are_left_to_omnidaemon(store: JsonStore):
    write(folder(store), "metrics.json", [{"saved_at": 1.0 + n} for n in range(9_999)])
    with store.stage(TOKEN) as staging:
        staging.put([Record("metrics", (f"{n / 8}-0000",), b"{}") for n in range(1, 5)])
        staging.commit([], keep_events=True)
    assert len(json.loads(files_in(folder(store))["metrics.json"])) == 10_003


def test_a_corrupt_file_is_replaced_only_if_it_is_restored(store: JsonStore, way: str):
    corrupt = write(folder(store), "results.json", b"{oops")
    with store.stage(TOKEN) as staging, store.owner_stated_stopped():
        staging.put([Record("config", ("k",), b"3")])
        staging.commit([], keep_events=True)
    assert files_in(folder(store))["results.json"] == corrupt
    with store.stage(OTHER) as staging:
        staging.put([Record("result", ("a",), b"{}")])
        staging.commit([], keep_events=True)
    assert json.loads(files_in(folder(store))["results.json"]) == {"a": {}}


def test_what_was_staged_is_read_back_before_it_is_committed(store: JsonStore, source: JsonStore):
    with store.stage(TOKEN) as staging:
        put_all(staging, records_in(source.snapshot()))
        assert records_in(staging.staged()) == records_in(source.snapshot())
        assert files_in(folder(store)) != files_in(folder(source))
    assert beside(store) == []


KEYS = st.sampled_from(["a", "b", "c", "\ud800", ""])
KEYED = st.dictionaries(KEYS, st.integers() | st.floats(allow_nan=False), max_size=5)
TOPICS = st.dictionaries(
    KEYS,
    st.lists(
        st.fixed_dictionaries({"name": st.sampled_from("xyz"), "n": st.integers()}),
        max_size=3,
        unique_by=lambda agent: agent["name"],
    ),
    max_size=3,
)
EVENTS = st.lists(st.fixed_dictionaries({"saved_at": st.sampled_from([1.5, 2.5, 3.5])}), max_size=5)


def by_names(store: JsonStore) -> dict[tuple[Kind, Names], Record]:
    records = [one for one in records_in(store.snapshot()) if one.kind != "file"]
    return {(one.kind, one.names): one for one in records}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_it_is_what_was_there_without_what_was_deleted_and_with_what_was_put(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.mktemp("property")
    values = {"agents": TOPICS, "results": KEYED, "metrics": EVENTS, "config": KEYED}
    drawn = {name: (data.draw(values[name]), data.draw(values[name])) for name in values}
    store = folder_of(folder / "store", **{name: pair[0] for name, pair in drawn.items()})
    other = folder_of(folder / "other", **{name: pair[1] for name, pair in drawn.items()})
    there, put = by_names(store), by_names(other)
    for names in data.draw(st.lists(st.sampled_from([*put]), unique=True)) if put else []:
        del put[names]
    deleted = data.draw(st.lists(st.sampled_from([*there]), unique=True)) if there else []
    with store.stage(TOKEN) as staging:
        for one in put.values():
            assert staging.put([one]).skipped == []
        staging.commit(deleted, keep_events=True)
    found = by_names(store)
    wanted = {names: one for names, one in there.items() if names not in deleted} | put
    events = [
        sum(kind == "metrics" for kind, _ in some)
        for some in (found, there.keys() - {*deleted}, put)
    ]
    assert events[0] == events[1] + events[2]
    assert {names: one.raw for names, one in found.items() if names[0] != "metrics"} == {
        names: one.raw for names, one in wanted.items() if names[0] != "metrics"
    }


# What lies around the files


def test_modes_and_foreign_files_come_along(store: JsonStore, source: JsonStore, way: str):
    os.chmod(folder(store), 0o750)
    os.chmod(folder(store) / "agents.json", 0o640)
    (folder(store) / "notes.txt").write_text("mine")
    (folder(store) / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder(store) / "pipe")
    names = {name: os.lstat(folder(store) / name).st_ino for name in within(store)}
    restore(store, source)
    assert {name: os.lstat(folder(store) / name).st_ino for name in within(store)} == names
    assert folder(store).stat().st_mode & 0o7777 == 0o750
    modes = {name: (folder(store) / name).stat().st_mode & 0o7777 for name in NAMES}
    assert modes == {
        "agents.json": 0o640, "results.json": 0o644, "config.json": 0o644,
        "metrics.json": 0o640,  # new, and as open as the directory
    }  # fmt: skip


def test_a_directory_with_folders_in_it_is_not_exchanged(store: JsonStore, source: JsonStore):
    (folder(store) / "sub").mkdir()
    inode = folder(store).stat().st_ino
    restore(store, source)
    assert files_in(folder(store)) == files_in(folder(source))
    assert folder(store).stat().st_ino == inode
    assert beside(store) == []


def test_a_directory_behind_a_link_is_restored_where_it_is(tmp_path: Path, source: JsonStore):
    folder_of(tmp_path / "real", **OLD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = opened(tmp_path / "link")
    restore(store, source)
    assert (tmp_path / "link").is_symlink()
    assert files_in(tmp_path / "real") == files_in(folder(source))
    assert store.committed(TOKEN) is True


def test_a_name_too_long_for_a_sibling_is_no_hindrance(
    tmp_path: Path, source: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = folder_of(tmp_path / ("x" * 250), **OLD)
    restore(store, source)
    assert files_in(folder(store)) == files_in(folder(source))
    with store.stage(OTHER, trial=True) as trial:
        put_all(trial, records_in(source.snapshot()))
        assert records_in(trial.staged()) == records_in(source.snapshot())


def test_of_the_directories_before_a_restore_the_newest_is_kept(
    store: JsonStore, source: JsonStore
):
    mine = folder(store).parent / "store.before-restore-mine"
    mine.mkdir()
    for number in range(3):
        restore(store, source, f"{number:032x}")
    assert len(beside(store)) == 2
    assert mine.is_dir()
    assert [store.committed(f"{number:032x}") for number in range(4)] == [True] * 3 + [False]


def test_the_next_change_needs_no_statement(store: JsonStore, source: JsonStore, way: str):
    restore(store, source)
    assert store.owner().state == "free", store.owner().evidence
    store.save_config("after", 1)
    assert store.get_config("after") == 1
    assert opened(folder(store)).owner().state == "free"


# Who else is at work


def test_nothing_else_of_ours_writes_meanwhile(
    store: JsonStore, source: JsonStore, way: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files, "_LOCK_PATIENCE", 0.0)
    other = opened(folder(store))
    with store.stage(TOKEN) as staging:
        with pytest.raises(StoreBusy):
            other.save_config("k", 5)
        with pytest.raises(StoreBusy):
            other.stage(OTHER)
        with other.stage(OTHER, trial=True) as trial:
            trial.put([])
        put_all(staging, records_in(source.snapshot()))
        staging.commit(EVERYTHING, keep_events=False)
        with pytest.raises(StoreBusy):  # also in the new directory
            other.save_config("k", 5)
    other.save_config("k", 5)
    assert store.get_config("k") == 5


def test_a_live_runner_is_not_disturbed(redis_url: str, tmp_path: Path, source: JsonStore):
    directory = tmp_path / "live"
    runner = Runner(redis_url, STORAGE_BACKEND="json", JSON_STORAGE_DIR=str(directory))
    try:
        store = opened(directory)
        with pytest.raises(StoreBusy, match="stop the runner"):
            store.stage(TOKEN)
        with store.stage(TOKEN, trial=True) as trial:
            assert put_all(trial, records_in(source.snapshot())) == []
        assert store.committed(TOKEN) is False
        runner.stop()
        restore(store, source)
        assert files_in(directory) == files_in(folder(source)) | {
            "agents.json": files_in(directory)["agents.json"],
            "config.json": files_in(directory)["config.json"],
        }
    finally:
        runner.kill()


def test_a_runner_that_starts_meanwhile_is_not_disturbed(
    store: JsonStore, source: JsonStore, way: str
):
    with store.stage(TOKEN) as staging:
        put_all(staging, records_in(source.snapshot()))
        config = {"_omnidaemon_start_time": time.time()}
        (folder(store) / "config.json").write_text(json.dumps(config))
        before = files_in(folder(store))
        with pytest.raises(StoreBusy, match="stop the runner"):
            staging.commit(EVERYTHING, keep_events=False)
    assert files_in(folder(store)) == before
    assert store.committed(TOKEN) is False
    assert (beside(store), within(store)) == ([], set())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_changed_meanwhile_is_kept(name: str, store: JsonStore, source: JsonStore, way: str):
    with store.stage(TOKEN) as staging:
        put_all(staging, records_in(source.snapshot()))
        changed: Any = [{"changed": 1}] if name == "metrics.json" else {"changed": []}
        (folder(store) / name).write_text(json.dumps(changed))
        os.utime(folder(store) / name, (5.0, 5.0))  # that of a runner would be StoreBusy
        before = files_in(folder(store))
        with pytest.raises(StoreChanged, match=name):
            staging.commit(EVERYTHING, keep_events=False)
    assert files_in(folder(store)) == before
    assert store.committed(TOKEN) is False
    assert (beside(store), within(store)) == ([], set())


def test_a_file_that_appears_at_the_last_moment_is_not_left_behind(
    store: JsonStore, source: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    real = store._check_and_note

    def meanwhile(*arguments: Any) -> None:
        real(*arguments)
        (folder(store) / "agents.tmp").write_text("half")

    monkeypatch.setattr(store, "_check_and_note", meanwhile)
    with pytest.raises(StoreChanged):
        restore(store, source)
    assert within(store) == {"agents.tmp"}


@pytest.mark.parametrize("token", ["", "../" + "a" * 29, "A" * 32, "a" * 31, "a" * 33, "ａ" * 32])
def test_a_token_is_no_path(token: str, store: JsonStore):
    for ask in (store.stage, store.committed, lambda one: store.stage(one, trial=True)):
        with pytest.raises(ValueError, match="32"):
            ask(token)


# Trials


def test_a_trial_touches_nothing_and_leaves_nothing(store: JsonStore, source: JsonStore):
    before = {path: path.stat().st_mtime_ns for path in folder(store).iterdir()}
    with store.stage(TOKEN, trial=True) as trial:
        (place,) = beside(store)
        assert place == f".store.omnidash-trial-{TOKEN}"
        assert (folder(store).parent / place).stat().st_mode & 0o777 == 0o700
        put_all(trial, records_in(source.snapshot()))
        assert records_in(trial.staged()) == records_in(source.snapshot())
        with pytest.raises(ValueError, match="never committed"):
            trial.commit([], keep_events=True)
    assert beside(store) == []
    assert {path: path.stat().st_mtime_ns for path in folder(store).iterdir()} == before


def test_leftovers_of_killed_trials_are_removed_by_the_next_but_no_live_one(store: JsonStore):
    dead = folder(store).parent / f".store.omnidash-trial-{OTHER}"
    dead.mkdir()
    (dead / "agents.json").write_text("{}")
    (folder(store).parent / ".store.omnidash-trial-mine").mkdir()
    with store.stage(TOKEN, trial=True) as first, store.stage("a" * 32, trial=True) as second:
        assert len(beside(store)) == 3
        for trial in (first, second):
            trial.put([Record("config", ("k",), b"1")])
            assert len(records_in(trial.staged())) == 2
    assert beside(store) == [".store.omnidash-trial-mine"]


def test_where_the_parent_cannot_be_written_a_trial_lies_among_temporary_files(
    store: JsonStore, source: JsonStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "elsewhere" / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere" / "tmp"))
    real = os.mkdir

    def refused(path: str, mode: int = 0o777) -> None:
        if os.path.dirname(path) == str(folder(store).parent):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", refused)
    with store.stage(TOKEN, trial=True) as trial:
        assert os.listdir(tmp_path / "elsewhere" / "tmp") == [f".omnidash-trial-{TOKEN}"]
        put_all(trial, records_in(source.snapshot()))
        assert records_in(trial.staged()) == records_in(source.snapshot())
    assert os.listdir(tmp_path / "elsewhere" / "tmp") == []


# Killed


class Crashes:
    """A process that restores and is killed (tests/crashing.py), and what a directory then is."""

    def __init__(self, tmp_path: Path) -> None:
        self.template = folder(folder_of(tmp_path / "template", **OLD))
        self.source = folder_of(tmp_path / "source", **NEW)
        self.folder = tmp_path / "place" / "store"
        self.folder.parent.mkdir()
        self.at = 1
        command = [sys.executable, "-m", "tests.crashing"]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},  # calls are counted: no trials of others
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def anew(self) -> None:
        shutil.rmtree(self.folder.parent)
        shutil.copytree(self.template, self.folder)
        (self.folder / "notes.txt").write_text("mine")
        let_it_rest(self.folder)

    def run(self, **order: Any) -> int:
        urls = {"url": f"json://{self.folder}", "source": self.source.address}
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(urls | {"token": TOKEN} | order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def half_done(self) -> None:
        """From the first call after which nothing but the journal knows what was meant."""
        while True:
            self.anew()
            assert self.run(at=self.at, journal=True) == 0
            noted = (self.folder / ".omnidash-restore" / "intent.json").exists()
            if noted and files_in(self.folder) != files_in(self.template):
                return
            self.at += 1

    def judged(self) -> bool:
        """Whether it is the new store: all of it, as the store itself says; and tidy."""
        store = opened(self.folder)
        made = store.committed(TOKEN)
        wanted = self.source if made else opened(self.template)
        assert files_in(self.folder) == files_in(folder(wanted))
        assert within(store) == {"notes.txt"}
        assert made is not None
        for name in beside(store):
            assert name.startswith("store.before-restore-")
            assert files_in(self.folder.parent / name) == files_in(self.template)
        store.save_config("after", 1)
        return made

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture
def crashes(tmp_path: Path) -> Iterator[Crashes]:
    found = Crashes(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("journal", [False, True], ids=["exchange", "journal"])
def test_killed_at_any_call_it_is_the_old_store_or_the_new_one(crashes: Crashes, journal: bool):
    found = [False]
    while True:
        crashes.anew()
        calls = crashes.run(at=len(found), journal=journal)
        found.append(crashes.judged())
        if journal or not found[-1]:
            assert beside(opened(crashes.folder)) == []
        else:
            assert len(beside(opened(crashes.folder))) == 1
        if calls:
            break  # it came to its end
    assert calls > 30
    assert found == sorted(found)  # once it is new it is never old again
    assert found[-1] is found[-2] is True


def test_killed_again_while_it_is_settled_it_is_the_new_store(crashes: Crashes):
    again, calls = 0, 0
    while not calls:
        crashes.half_done()
        again += 1
        calls = crashes.run(then="check", at=again)
        assert crashes.judged() is True
    assert calls > 10


def test_killed_again_while_it_is_given_up_what_somebody_changed_is_kept(crashes: Crashes):
    again, calls = 0, 0
    while not calls:
        crashes.half_done()
        theirs = write(crashes.folder, "results.json", {"theirs": 1})
        again += 1
        calls = crashes.run(then="check", at=again)
        assert opened(crashes.folder).committed(TOKEN) is None
        assert files_in(crashes.folder)["results.json"] == theirs
        assert within(opened(crashes.folder)) == {"notes.txt"}
    assert calls > 10


def killed_at_random(crashes: Crashes, times: int) -> None:
    for number in range(times):
        crashes.anew()
        began = time.monotonic()
        crashes.run(journal=bool(number % 2))
        whole = time.monotonic() - began
        crashes.anew()
        crashes.run(journal=bool(number % 2), delay=random.uniform(0.0, whole))
        crashes.judged()


def test_killed_at_random_it_is_the_old_store_or_the_new_one(crashes: Crashes):
    killed_at_random(crashes, 20)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_killed_at_random_two_hundred_times(crashes: Crashes):
    killed_at_random(crashes, 200)


def half_done(store: JsonStore, source: JsonStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a killed writer leaves it: decided on, one file moved."""
    with monkeypatch.context() as patch:
        patch.setattr(exchange, "exchange", barred)
        patch.setattr(journal, "_finish", lambda *_: os._exit)
        restore(store, source)
    assert journal.is_pending(store.directory)


def test_the_next_change_finishes_what_was_half_done(
    store: JsonStore, source: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    half_done(store, source, monkeypatch)
    assert files_in(folder(store))["agents.json"] != files_in(folder(source))["agents.json"]
    assert any("half done" in trouble for trouble in store.inspect().troubles)
    store.save_config("after", 1)
    assert json.loads(files_in(folder(store))["config.json"]) == {"k": 2, "after": 1}
    assert files_in(folder(store))["agents.json"] == files_in(folder(source))["agents.json"]
    assert store.committed(TOKEN) is True
    assert store.inspect().troubles == []


def test_a_live_runner_is_not_disturbed_by_what_was_half_done(
    store: JsonStore, source: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    half_done(store, source, monkeypatch)
    config = {"_omnidaemon_start_time": time.time()}
    (folder(store) / "config.json").write_text(json.dumps(config))
    with pytest.raises(StoreBusy, match=r"half done.*stop the runner"):
        store.committed(TOKEN)
    assert journal.is_pending(store.directory)


def test_what_somebody_changed_meanwhile_is_not_overwritten_by_what_was_half_done(
    store: JsonStore, source: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    half_done(store, source, monkeypatch)
    write(folder(store), "agents.json", {"theirs": []})
    assert store.committed(TOKEN) is None
    assert store.committed(TOKEN) is None
    assert store.topics() == []
    assert json.loads(files_in(folder(store))["agents.json"]) == {"theirs": []}
    assert within(store) == set()


def test_a_damaged_file_is_not_moved_into_place(
    store: JsonStore, source: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    half_done(store, source, monkeypatch)
    (folder(store) / ".omnidash-restore" / "results.json").write_bytes(b"{}")
    before = files_in(folder(store))
    assert store.committed(TOKEN) is None
    assert files_in(folder(store)) == before


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"x": 1}', b'{"' + b"a" * 32 + b'": 5}'])
def test_a_marker_that_is_none_names_no_restore(store: JsonStore, source: JsonStore, raw: bytes):
    (folder(store) / MARKER).write_bytes(raw)
    assert store.committed("a" * 32) is False
    restore(store, source)
    assert store.committed(TOKEN) is True


def test_what_can_have_been_forgotten_is_not_denied(store: JsonStore):
    (folder(store) / MARKER).write_text(json.dumps({f"{n:032x}": True for n in range(100)}))
    assert store.committed(TOKEN) is None
    with store.stage(TOKEN) as staging:
        staging.commit([], keep_events=True)
    assert [store.committed(one) for one in (TOKEN, f"{1:032x}", f"{0:032x}")] == [True, True, None]


def test_a_folder_that_only_looks_like_ours_is_not_removed(store: JsonStore, source: JsonStore):
    mine = folder(store).parent / f".store.omnidash-restore-{OTHER}"
    mine.mkdir()
    (mine / "precious").write_text("mine")
    restore(store, source)
    assert (mine / "precious").read_text() == "mine"


# A full disk


@contextmanager
def no_file_larger(size: int) -> Iterator[None]:
    """The system refuses to write beyond so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_at_any_size_that_is_refused_the_store_is_the_old_one(
    store: JsonStore, source: JsonStore, way: str
):
    for number, name in enumerate(NAMES[:3]):  # by size, and so each in its turn
        write(folder(source), name, b" " * (2000 - number * 500) + files_in(folder(source))[name])
    sizes = {len(raw) for raw in files_in(folder(source)).values()} | {1}
    store.committed(TOKEN)  # makes the lock
    before = files_in(folder(store))
    for size in sorted(sizes):
        with (
            no_file_larger(size - 1),
            pytest.raises(StoreReadOnly, match="File too large; nothing changed"),
        ):
            restore(store, source)
        assert files_in(folder(store)) == before
        assert (beside(store), within(store)) == ([], set())
        assert store.committed(TOKEN) is False
    restore(store, source)
    assert store.committed(TOKEN) is True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 64 pages, where the system lets us mount one."""
    path = tmp_path / "small"
    path.mkdir()
    size = 64 * resource.getpagesize()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount: the limit of a file's size has to do")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_on_a_disk_that_is_full_at_any_point_the_store_is_the_old_one(
    small_disk: Path, source: JsonStore, way: str
):
    page = resource.getpagesize()
    for name in NAMES[:3]:
        raw = files_in(folder(source))[name]
        write(folder(source), name, b" " * (2 * page) + raw)
    refusals = 0
    for free in range(64):
        for path in small_disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        store = folder_of(small_disk / "store", **OLD)
        store.committed(TOKEN)
        with open(small_disk / "filler", "wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"x" * page)
        os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - free * page)
        before = files_in(folder(store))
        try:
            restore(store, source)
        except StoreReadOnly as error:
            assert "no space left; nothing changed" in str(error)
            assert files_in(folder(store)) == before
            assert within(store) == set()
            assert beside(store) == ["filler"]
            assert store.committed(TOKEN) is False
            refusals += 1
        else:
            break
    assert refusals >= 7  # there are so many pages of new files
    assert files_in(folder(store)) == files_in(folder(source))
    assert store.committed(TOKEN) is True


def test_a_directory_that_is_a_mount_point_is_restored_within(small_disk: Path, source: JsonStore):
    for name, value in OLD.items():
        write(small_disk, f"{name}.json", value)
    store = opened(small_disk)
    restore(store, source)
    assert files_in(small_disk) == files_in(folder(source))
    assert store.committed(TOKEN) is True
    assert (beside(store), within(store)) == ([], set())


def test_where_nothing_may_be_written_a_restore_does_not_begin(store: JsonStore):
    (folder(store) / files.LOCK_NAME).mkdir()
    with pytest.raises(StoreError, match="nothing changed"):
        store.stage(TOKEN)


def test_a_staging_is_discarded_with_its_block(store: JsonStore, source: JsonStore):
    def begun() -> Staging:
        return open_store(store.address).stage(TOKEN)  # type: ignore[attr-defined]

    with begun() as staging:
        put_all(staging, records_in(source.snapshot()))
        records_in(staging.staged())
    assert (beside(store), within(store)) == ([], set())
    assert store.committed(TOKEN) is False
    staging.discard()
