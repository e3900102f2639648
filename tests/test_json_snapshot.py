"""A JSON directory read whole, and put into another: the same data, byte for byte."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base import StoreDenied, StoreUnavailable
from storage.changes import EXPIRED, Names, Record
from storage.json_store import JsonStore, snapshot
from storage.snapshots import Snapshot, Staging
from tests.stores import DATA, JsonBackend, let_it_rest
from tests.test_json_changes import opened, record, write
from tests.upstream import Upstream

pytest_plugins = ["tests.store_fixtures"]

NAMES = ("agents.json", "results.json", "metrics.json", "config.json")
TOKEN = "0123456789abcdef" * 2
LATER = round(time.time()) + 90_000.0


def records_in(found: Snapshot) -> list[Record]:
    records = []
    for batch in found:
        assert len({record.kind for record in batch}) == 1
        records += batch
    return records


def put_all(staging: Staging, records: Iterable[Record]) -> list[tuple[Names, str]]:
    skipped = []
    for one in records:
        skipped += staging.put([one]).skipped
    return skipped


def restored(
    source: JsonStore, target: JsonStore, token: str = TOKEN, keep_events: bool = False
) -> list[tuple[Names, str]]:
    """All of one store into another one; what was skipped."""
    with target.stage(token) as staging:
        skipped = put_all(staging, records_in(source.snapshot()))
        staging.commit([], keep_events)
    return skipped


def files_in(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


def folder_of(path: Path, **files: Any) -> JsonStore:
    """A store of its own with these files: `agents=…` is agents.json."""
    path.mkdir()
    for name, value in files.items():
        write(path, f"{name}.json", value)
    return opened(path)


@pytest.fixture
def target(tmp_path: Path) -> JsonStore:
    return folder_of(tmp_path / "target")


# What is read


def test_files_come_first_and_then_the_records_in_their_order(tmp_path: Path):
    store = folder_of(
        tmp_path / "source",
        agents={"t": [{"name": "b"}, {"name": "a"}], "s": [{"name": "c"}]},
        results={"z": record("z", expires_at=LATER), "y": record("y")},
        metrics=[{"event": "e", "saved_at": 5.5}, {"event": "f", "saved_at": 5.5}],
        config={"k": [1.50]},
    )
    found = store.snapshot()
    assert found.total is None
    records = records_in(found)
    assert [(one.kind, *one.names) for one in records] == [
        *(("file", name) for name in NAMES),
        ("agent", "t", "b"), ("agent", "t", "a"), ("agent", "s", "c"),
        ("result", "z"), ("result", "y"),
        ("metrics", "5.5-0000"), ("metrics", "5.5-0001"),
        ("config", "k"),
    ]  # fmt: skip
    assert found.total == 4 + 2 + 2 + 2 + 1  # topics, before their agents are known
    assert {one.names[0]: one.raw for one in records[:4]} == files_in(tmp_path / "source")
    assert records[7].expires_at_ms == round(LATER * 1000)
    assert records[8].expires_at_ms is None
    assert [one.score for one in records[4:7]] == ["0", "1", "0"]
    assert json.loads(records[7].raw) == record("z", expires_at=LATER)


def test_each_kind_has_a_section_of_its_own_moment(tmp_path: Path):
    store = folder_of(tmp_path / "source", agents={}, results=b"\xff", metrics=[])
    found = store.snapshot()
    before = time.time()
    records_in(found)
    sections = {section.kind: section for section in found.sections()}
    assert list(sections) == ["file", "agent", "result", "metrics", "config"]
    assert sections["file"].consistency == "fuzzy"
    assert {sections[kind].consistency for kind in list(sections)[1:]} == {"point-in-time"}
    assert {kind: section.note for kind, section in sections.items()} == {
        "file": "",
        "agent": "",
        "result": "results.json is corrupt: its bytes are here, its records are not",
        "metrics": "",
        "config": "there is no config.json",
    }
    for section in sections.values():
        assert before <= section.began <= section.ended <= time.time()


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a": "\xff"}', b"[]", b"\xef\xbb\xbf{}"])
def test_of_a_corrupt_file_the_bytes_are_saved(tmp_path: Path, raw: bytes):
    store = folder_of(tmp_path / "source", agents=raw, config={"k": 1})
    records = records_in(store.snapshot())
    assert [(one.kind, one.names[0]) for one in records] == [
        ("file", "agents.json"), ("file", "config.json"), ("config", "k"),
    ]  # fmt: skip
    assert records[0].raw == raw


def test_what_has_expired_and_is_still_there_is_saved_but_not_restored(
    tmp_path: Path, target: JsonStore
):
    source = folder_of(
        tmp_path / "source", results={"old": record("old", expires_at=5.0), "new": record("new")}
    )
    records = records_in(source.snapshot())
    assert {one.names[0]: one.expires_at_ms for one in records if one.kind == "result"} == {
        "old": 5000, "new": None,
    }  # fmt: skip
    assert restored(source, target) == [(("old",), EXPIRED)]
    assert json.loads(files_in(tmp_path / "target")["results.json"]) == {"new": record("new")}


def test_a_large_file_is_saved_in_pieces(
    tmp_path: Path, target: JsonStore, monkeypatch: pytest.MonkeyPatch
):
    for module in ("snapshot", "merging"):
        monkeypatch.setattr(f"storage.json_store.{module}.PIECE", 64)
    source = folder_of(tmp_path / "source", config=b'{"k":"%s\xc3\xa9"}' % (b"x" * 1000))
    pieces = [one for one in records_in(source.snapshot()) if one.kind == "file"]
    assert [one.names for one in pieces[:2]] == [("config.json",), ("config.json", "2")]
    assert b"".join(one.raw for one in pieces) == files_in(tmp_path / "source")["config.json"]
    assert max(len(one.raw) for one in pieces) == 64
    assert restored(source, target) == []
    assert files_in(tmp_path / "target") == files_in(tmp_path / "source")


def test_a_batch_is_no_larger_than_it_must_be(tmp_path: Path):
    large = {str(n): record(str(n), "x" * 1_000_000) for n in range(10)}
    small = {str(n): n for n in range(2500)}
    store = folder_of(tmp_path / "source", results=large, config=small)
    sizes = [(batch[0].kind, len(batch)) for batch in store.snapshot()]
    assert sizes == [
        ("file", 1), ("file", 1), ("result", 5), ("result", 5),
        ("config", 1000), ("config", 1000), ("config", 500),
    ]  # fmt: skip


def test_events_have_names_of_their_own_though_the_clock_was_set_back(tmp_path: Path):
    times = [5.5, 6.5, 5.5, 5.5, 6.5]
    store = folder_of(tmp_path / "source", metrics=[{"saved_at": at} for at in times])
    names = [one.names[0] for one in records_in(store.snapshot()) if one.kind == "metrics"]
    assert names == ["5.5-0000", "6.5-0000", "5.5-0001", "5.5-0002", "6.5-0001"]


def test_a_link_is_not_followed_and_a_missing_directory_is_said(tmp_path: Path):
    store = folder_of(tmp_path / "source")
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "source" / "agents.json").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreDenied, match="symbolic link"):
        records_in(store.snapshot())
    with pytest.raises(StoreUnavailable, match="No such file"):
        records_in(opened(tmp_path / "nowhere").snapshot())


def test_what_was_read_is_one_version_though_the_file_changes_meanwhile(tmp_path: Path):
    store = folder_of(tmp_path / "source", config={str(n): n for n in range(3000)})
    batches = iter(store.snapshot())
    found = list(next(batches))
    write(tmp_path / "source", "config.json", {"other": 1})
    for batch in batches:
        found += batch
    assert [one.names[0] for one in found] == ["config.json", *map(str, range(3000))]


# What is put back


HOSTILE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "empty files": {"agents": {}, "results": {}, "metrics": [], "config": {}},
    "numbers": {
        "results": b'{\n  "a": {\n    "result": NaN,\n    "x": 1.50\n  },\n  "b": -Infinity\n}',
        "config": b'{\n  "k": 123456789012345678901234567890,\n  "l": 1.0E+2,\n  "m": -0\n}',
    },
    "duplicate keys": {
        "results": b'{\n  "a": {\n    "x": 1,\n    "x": 2\n  },\n  "a": {\n    "y": 3\n  }\n}',
        "agents": b'{\n  "t": [\n    {\n      "name": "a",\n      "name": "b"\n    }\n  ]\n}',
    },
    "lone surrogates": {
        "config": b'{\n  "\\ud800": "\\udfff",\n  "\\udcff\\udc80": 1\n}',
        "agents": b'{\n  "\\ud83d": [\n    {\n      "name": "\\ude80"\n    }\n  ]\n}',
    },
    "another layout": {
        "agents": b'{"t":[{"name":"a"},{"name":"b"}],"none":[],"odd":5}',
        "results": b' {"a": {"result": "\xc3\xa9", "saved_at": 5.5}}\n\n',
        "metrics": b"[ 1,\n2 , {} ]",
        "config": b'{\n"k":\n[\n  1,\n  "x"\n]}',
    },
    "agents of one name or of none": {
        "agents": {"t": [{"name": "a"}, {"name": "a", "n": 2}, {}, 5, {"name": "[2]"}]}
    },
    "a clock set back": {
        "metrics": [1, {"saved_at": 9.5}, {"saved_at": 3.5}, {"saved_at": 9.5}, "x"]
    },
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_store_is_restored_byte_for_byte(case: str, tmp_path: Path, target: JsonStore):
    source = folder_of(tmp_path / "source", **HOSTILE[case])
    assert restored(source, target) == []
    assert files_in(tmp_path / "target") == files_in(tmp_path / "source")
    with source.stage("f" * 32, trial=True) as trial:
        assert put_all(trial, records_in(source.snapshot())) == []
        assert records_in(trial.staged()) == records_in(source.snapshot())


def test_omnidaemons_own_data_are_restored_byte_for_byte(json_fixture: JsonBackend, tmp_path: Path):
    let_it_rest(json_fixture.folder)
    store = json_fixture.open()
    assert isinstance(store, JsonStore)
    with store.owner_stated_stopped():
        saved, before = records_in(store.snapshot()), files_in(json_fixture.folder)
        expired = {one.names for one in saved if (one.expires_at_ms or 1e15) < time.time() * 1000}
        for path in json_fixture.folder.glob("*.json"):
            path.unlink()
        with store.stage(TOKEN) as staging:
            skipped = put_all(staging, saved)
            staging.commit([], keep_events=False)
        after = files_in(json_fixture.folder)
        assert {names for names, _ in skipped} == expired
        if not expired:
            assert after["results.json"] == before["results.json"]
        for name in ("agents.json", "metrics.json", "config.json"):
            assert after[name] == before[name]
        assert store.committed(TOKEN) is True
    theirs = Upstream(json_fixture)
    ours = store.list_all_agents()
    assert theirs.list_all_agents() == ours
    assert len(theirs.list_results(10_000)) == store.counts().results
    assert theirs.get_metrics(limit=10_000) == store.get_metrics(limit=10_000)
    assert (DATA / "json-small" / "agents.json").exists()


def test_a_broken_record_is_saved_and_not_put_among_good_ones(tmp_path: Path, target: JsonStore):
    raw = b'{\n  "good": {\n    "result": 1\n  },\n  "bad": {oops\n  },\n  "last": 2\n}'
    source = folder_of(tmp_path / "source", results=raw)
    assert [one.raw for one in records_in(source.snapshot())][2] == b"{oops\n  }"
    ((names, why),) = restored(source, target)
    assert names == ("bad",) and "is no JSON" in why
    assert json.loads(files_in(tmp_path / "target")["results.json"]) == {
        "good": {"result": 1}, "last": 2,
    }  # fmt: skip


def test_a_corrupt_file_is_not_put_into_place(tmp_path: Path):
    source = folder_of(tmp_path / "source", agents=b"{oops", config={"k": 1})
    target = folder_of(tmp_path / "target", agents={"t": [{"name": "a"}]})
    ((names, why),) = restored(source, target)
    assert names == ("agents.json",) and "corrupt" in why
    assert target.topics() == [("t", 1)]
    assert target.get_config("k") == 1


@pytest.mark.parametrize(
    "one",
    [
        Record("member", ("t", "a"), form="none"),
        Record("hash", ("t", "a"), b"[]", form="hash"),
        Record("entry", ("a",), form="none"),
        Record("result", ("a",), b"{}", form="dump"),
        Record("result", (), b"{}"),
        Record("agent", ("t",), b"{}"),
        Record("config", ("a", "b"), b"1"),
        Record("config", ("a",), b""),
        Record("config", ("a",), b"\xff"),
        Record("metrics", ("a",), b"1, 2"),
        Record("file", ("../agents.json",), b"{}"),
        Record("file", (".omnidash.lock",), b"{}"),
        Record("file", ("agents.json", "2", "3"), b"{}"),
        Record("result", ("a",), b"5", expires_at_ms=1 << 50),
    ],
    ids=str,
)
def test_what_is_no_record_of_a_directory_is_skipped(one: Record, target: JsonStore):
    before = sorted(os.listdir(target.directory))
    with target.stage(TOKEN) as staging:
        change = staging.put([one])
        assert change.done == 0
        assert [names for names, _ in change.skipped] == [one.names]
        staging.commit([], keep_events=True)
    assert set(os.listdir(target.directory)) - set(before) <= {
        ".omnidash.lock",
        ".omnidash-restored",
    }


def test_a_result_is_restored_with_the_expiry_of_its_record(tmp_path: Path, target: JsonStore):
    text = json.dumps(record("a", expires_at=LATER)).encode()
    with target.stage(TOKEN) as staging:
        staging.put([Record("result", ("longer",), text, expires_at_ms=round(LATER * 1000) + 500)])
        staging.put([Record("result", ("ever",), text)])
        staging.put([Record("result", ("same",), text, expires_at_ms=round(LATER * 1000))])
        staging.commit([], keep_events=True)
    found = json.loads(files_in(tmp_path / "target")["results.json"])
    assert {key: value.get("expires_at") for key, value in found.items()} == {
        "longer": LATER + 0.5, "ever": None, "same": LATER,
    }  # fmt: skip


# By property

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
LAYOUT: st.SearchStrategy[Callable[[Any], bytes]] = st.sampled_from([None, 0, 1, 2, 3]).flatmap(
    lambda indent: st.booleans().map(
        lambda plain: (
            lambda value: json.dumps(value, indent=indent, ensure_ascii=plain).encode(
                "utf-8", "surrogatepass"
            )
        )
    )
)
TEXT_KEYED = st.dictionaries(st.text(max_size=4), JSON, max_size=4)
AGENTS = st.dictionaries(
    st.text(max_size=3),
    JSON | st.lists(JSON | st.fixed_dictionaries({"name": st.text(max_size=2)}), max_size=4),
    max_size=4,
)
EVENTS = st.lists(
    JSON | st.fixed_dictionaries({"saved_at": st.sampled_from([1.5, 2.5, 3, "x", 0.0])}), max_size=6
)


@settings(deadline=None, max_examples=60)
@given(AGENTS, TEXT_KEYED, EVENTS, TEXT_KEYED, LAYOUT)
def test_whatever_is_saved_is_restored(
    tmp_path_factory: pytest.TempPathFactory,
    agents: Any, results: Any, metrics: Any, config: Any, layout: Callable[[Any], bytes],
):  # fmt: skip
    folder = tmp_path_factory.mktemp("property")
    values = {"agents": agents, "results": results, "metrics": metrics, "config": config}
    source = folder_of(folder / "source", **{name: layout(value) for name, value in values.items()})
    target = folder_of(folder / "target", config={"kept": 1})
    with target.stage(TOKEN) as staging:
        skipped = put_all(staging, records_in(source.snapshot()))
        staging.commit([("config", ("kept",))] if "kept" not in config else [], keep_events=False)
    assert skipped == []
    assert files_in(folder / "target") == files_in(folder / "source")
    assert snapshot.KINDS.keys() == set(NAMES)
