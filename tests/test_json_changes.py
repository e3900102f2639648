"""Changes of a JSON directory: one write, byte for byte, and never beside a running OmniDaemon."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import open_store
from storage.base import ResultQuery, StoreBusy, StoreReadOnly, StoreUnavailable
from storage.changes import CHANGED, EXPIRED, GONE, THERE, Change, Expiry, Record, Target
from storage.json_store import JsonStore, files
from storage.json_store.encoding import encode
from storage.json_store.expiry import expiring
from storage.json_store.layout import as_record, parse_list, parse_objects
from tests.stores import let_it_rest

NOW = time.time()


def opened(folder: Path) -> JsonStore:
    store = open_store(f"json://{quote(str(folder))}")
    assert isinstance(store, JsonStore)
    return store


@pytest.fixture
def store(tmp_path: Path) -> JsonStore:
    return opened(tmp_path)


def write(folder: Path, name: str, value: Any) -> bytes:
    """As OmniDaemon writes it, bytes as they are; and then let alone."""
    raw = value if isinstance(value, bytes) else json.dumps(value, indent=2).encode()
    (folder / name).write_bytes(raw)
    let_it_rest(folder)
    return raw


def record(task_id: str, result: Any = None, **more: Any) -> dict[str, Any]:
    return {"task_id": task_id, "result": result, "saved_at": NOW, **more}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def nothing_kept(records: Sequence[Record]) -> None:
    """For tests that put nothing back."""


def removed(store: JsonStore, targets: Sequence[Target]) -> list[Record]:
    kept: list[Record] = []
    assert store.remove(targets, kept.extend).skipped == []
    return kept


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are written, one entry a write."""
    found: list[str] = []
    real = files.move_into_place

    def noted(beside: str, path: str, durable: bool) -> os.stat_result:
        found.append(os.path.basename(path))
        return real(beside, path, durable)

    monkeypatch.setattr(files, "move_into_place", noted)
    return found


# One write


def test_a_thousand_of_ten_thousand_results_cost_one_write(
    store: JsonStore, tmp_path: Path, writes: list[str]
):
    write(tmp_path, "results.json", {str(n): record(str(n), {"n": n}) for n in range(10_000)})
    ids = [str(number) for number in range(0, 10_000, 10)]
    kept = removed(store, store.result_targets(task_ids=ids))
    assert writes == ["results.json"]
    assert store.counts().results == 9000
    assert [one.names[0] for one in kept] == ids
    assert store.put_back(kept).done == 1000
    assert store.set_expiry(store.result_targets(), Expiry(more=60)).done == 10_000
    assert writes == ["results.json"] * 3


def test_what_changes_nothing_writes_nothing(store: JsonStore, tmp_path: Path, writes: list[str]):
    write(tmp_path, "results.json", {"r": record("r")})
    write(tmp_path, "agents.json", {"t": [{"name": "a"}]})
    write(tmp_path, "metrics.json", [{"saved_at": 1.5}])
    write(tmp_path, "config.json", {"k": 1})
    targets = [
        *store.result_targets(), *store.agent_targets(), *store.metric_targets(),
        *store.config_targets(["k"]),
    ]  # fmt: skip
    for target in targets:
        wrong = replace(target, mark="wrong")
        assert store.remove([wrong], nothing_kept).skipped == [(target.names, CHANGED)]
    assert store.set_expiry([replace(targets[0], mark="")], Expiry()).done == 0
    assert store.put_back([Record("result", ("r",), b"{}")]).done == 0
    assert writes == []


def test_a_file_changed_by_others_during_the_write_is_compared_again(
    store: JsonStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path, "results.json", {"a": record("a"), "b": record("b"), "c": record("c")})
    targets = store.result_targets(task_ids=["a", "b"])
    real, times = files.write_beside, []

    def changed_meanwhile(path: str, raw: bytes, durable: bool) -> str:
        times.append(1)
        if len(times) == 1:
            write(tmp_path, "results.json", {"a": record("a"), "b": record("b", "newer")})
        return real(path, raw, durable)

    monkeypatch.setattr(files, "write_beside", changed_meanwhile)
    given: list[list[str]] = []
    with store.owner_stated_stopped():
        change = store.remove(targets, lambda some: given.append([one.names[0] for one in some]))
    assert given == [["a", "b"], ["a"]]
    assert (change.done, change.skipped) == (1, [(("b",), CHANGED)])
    assert json.loads((tmp_path / "results.json").read_bytes()) == {"b": record("b", "newer")}


def test_a_disk_that_refuses_leaves_all_as_it_was(
    store: JsonStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = write(tmp_path, "results.json", {"a": record("a"), "b": record("b")})

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_beside", full)
    kept: list[Record] = []
    with pytest.raises(StoreReadOnly, match="no space left"):
        store.remove(store.result_targets(task_ids=["a"]), kept.extend)
    assert len(kept) == 1
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_corrupt_file_is_neither_previewed_nor_changed(store: JsonStore, tmp_path: Path):
    raw = write(tmp_path, "results.json", b'{"a": ')
    with pytest.raises(StoreUnavailable, match="corrupt"):
        store.result_targets()
    with pytest.raises(StoreUnavailable, match="corrupt"):
        store.remove([Target("result", ("a",), "")], nothing_kept)
    with pytest.raises(StoreUnavailable, match="corrupt"):
        store.put_back([Record("result", ("a",), b"{}")])
    assert (tmp_path / "results.json").read_bytes() == raw


@pytest.mark.parametrize("kind", ["entry", "member", "hash"])
def test_what_only_redis_has_is_refused(store: JsonStore, kind: Any):
    with pytest.raises(ValueError, match="kind"):
        store.remove([Target(kind, ("a",), "")], nothing_kept)
    with pytest.raises(ValueError, match="kind"):
        store.put_back([Record(kind, ("a",), form="none")])


# Byte for byte

HOSTILE = b"""{
  "x": {
    "task_id": "x",
    "result": {"n": NaN, "n": 1.0, "long": 123456789012345678901234567890,   "u": "\xc3\xbc"},
    "saved_at": 1.50
  },
  "\\u0079": [1,
    2],
  "z": {"task_id": "z", "result": null, "saved_at": 1e3, "expires_at": 9e9}
}"""


def test_records_of_any_spelling_come_back_as_they_were(store: JsonStore, tmp_path: Path):
    write(tmp_path, "results.json", HOSTILE)
    document = parse_objects(HOSTILE)
    kept = removed(store, store.result_targets(task_ids=["x", "z"]))
    assert [one.raw for one in kept] == [document.text("x"), document.text("z")]
    left = (tmp_path / "results.json").read_bytes()
    assert left == b'{\n  "y": [1,\n    2]\n}'
    store.put_back(kept)
    again = parse_objects((tmp_path / "results.json").read_bytes())
    assert {key: again.text(key) for key in again.values} == {
        key: document.text(key) for key in "yxz"
    }


def test_a_record_that_looks_like_two_is_put_back_as_one(store: JsonStore, tmp_path: Path):
    raw = b' {"task_id": "a", "result": [\n  "b", {\n  "c": 1}]}\n'
    assert store.put_back([Record("result", ("a",), raw), Record("result", ("d",), b"1")]).done == 2
    assert json.loads((tmp_path / "results.json").read_bytes()) == {"a": json.loads(raw), "d": 1}
    assert [one.names for one in opened(tmp_path).result_targets()] == [("a",), ("d",)]


@pytest.mark.parametrize("raw", [b"", b"{", b'1,\n  "forged": 2', b"}", b"\xff", b"1 2"])
def test_what_is_no_json_is_not_put_back(store: JsonStore, tmp_path: Path, raw: bytes):
    before = write(tmp_path, "results.json", {"r": record("r")})
    write(tmp_path, "agents.json", {})
    for kind, names in (
        ("result", ("a",)), ("config", ("a",)), ("metrics", ("a",)), ("agent", ("t", "a")),
    ):  # fmt: skip
        change = store.put_back([Record(kind, names, raw)])  # type: ignore[arg-type]
        assert change.done == 0
        assert "is no JSON" in change.skipped[0][1]
    assert (tmp_path / "results.json").read_bytes() == before


def test_what_came_from_elsewhere_is_not_put_back(store: JsonStore):
    for form in ("hash", "dump", "none"):
        change = store.put_back([Record("result", ("a",), b"1", form=form)])  # type: ignore[arg-type]
        assert change.skipped == [(("a",), "is not of a JSON directory")]


def test_broken_records_can_be_removed_and_others_too(store: JsonStore, tmp_path: Path):
    raw = b'{\n  "a": {"task_id": "a", "result":},\n  "b": {"result": 1},\n  "c": 5\n}'
    write(tmp_path, "results.json", raw)
    targets = store.result_targets()
    assert [one.names[0] for one in targets] == ["a", "b", "c"]
    removed(store, targets[1:2])
    assert (tmp_path / "results.json").read_bytes() == raw.replace(b'  "b": {"result": 1},\n', b"")
    kept = removed(store, targets[:1])
    assert kept[0].raw == b'{"task_id": "a", "result":}'
    assert json.loads((tmp_path / "results.json").read_bytes()) == {"c": 5}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
INDENTS = st.sampled_from([None, 0, 1, 2, 4, "\t"])


@settings(deadline=None)
@given(JSON, INDENTS, st.sampled_from(["", " ", "\n  ", "\r\n"]))
def test_any_json_becomes_one_record_of_the_same_value(value: Any, indent: Any, blank: str):
    raw = (blank + json.dumps(value, indent=indent) + blank).encode()
    text = as_record(raw)
    assert text is not None
    objects = parse_objects(b'{\n  "a": 1\n}').with_texts({"b": text, "c": b"2"})
    listing = parse_list(b"[]").of([b"1", text, b"2"], [])
    for found in (parse_objects(objects.raw), parse_list(listing.raw)):
        assert found.spans is not None
        assert len(found.spans) == 3
    assert repr(parse_objects(objects.raw).copy_of("b")) == repr(json.loads(raw))
    assert repr(parse_list(listing.raw).copy_of(1)) == repr(json.loads(raw))
    if text != raw:
        assert text == encode(json.loads(raw))


def test_a_line_that_only_looks_like_a_record_does_not_break_the_file(
    store: JsonStore, tmp_path: Path
):
    write(tmp_path, "results.json", b'{\n  "a": {"n": 1,\n  "b": 2},\n  "c": 3,\n  "b": 4\n}')
    assert removed(store, store.result_targets(task_ids=["c"]))[0].raw == b"3"
    assert json.loads((tmp_path / "results.json").read_bytes()) == {"a": {"n": 1, "b": 2}, "b": 4}


# Agents, by place too

TWINS = [
    {"name": "a", "callback": "1"},
    {"name": "b"},
    {"callback": "no name"},
    {"name": "a", "callback": "2"},
    {"name": "[2]"},
    {"name": ""},
    5,
    {"name": "a", "callback": "1"},
]


def agents_in(folder: Path) -> Any:
    return json.loads((folder / "agents.json").read_bytes())


def test_of_two_agents_of_one_name_each_can_be_removed(store: JsonStore, tmp_path: Path):
    before = write(tmp_path, "agents.json", {"t": TWINS})
    one, two, three = store.agent_targets([("t", "a")])
    assert one.names == two.names == three.names == ("t", "a")
    assert one.mark == three.mark != two.mark
    kept = removed(store, [two])
    assert agents_in(tmp_path)["t"] == [agent for agent in TWINS if agent != TWINS[3]]
    assert store.put_back(kept).skipped == [(("t", "a"), THERE)]
    kept += removed(store, [one, three])
    assert [agent for agent in agents_in(tmp_path)["t"] if agent in (TWINS[0], TWINS[3])] == []
    assert store.put_back(kept).done == 3
    assert sorted(map(str, agents_in(tmp_path)["t"])) == sorted(map(str, TWINS))
    assert len((tmp_path / "agents.json").read_bytes()) == len(before)


def test_agents_come_back_in_their_places(store: JsonStore, tmp_path: Path):
    before = write(tmp_path, "agents.json", {"t": TWINS, "u": [{"name": "x"}]})
    for chosen in ([0], [2, 3], [0, 1, 7], [4, 5, 6], list(range(8))):
        targets = store.agent_targets()
        kept = removed(store, [targets[place] for place in chosen])
        assert store.put_back(kept).done == len(chosen)
        assert agents_in(tmp_path) == json.loads(before)


def test_agents_without_a_name_are_known_by_what_they_are(store: JsonStore, tmp_path: Path):
    write(tmp_path, "agents.json", {"t": TWINS})
    targets = {one.names[1]: one for one in store.agent_targets() if one.mark}
    seen = store.agent_targets([("t", "[2]"), ("t", "[5]"), ("t", "[6]")])
    assert [one.names[1] for one in seen] == ["[2]", "[2]", "[5]", "[6]"]
    removed(store, [targets["b"]])  # those behind it move up
    kept = removed(store, seen)
    assert agents_in(tmp_path)["t"] == [TWINS[0], TWINS[3], TWINS[7]]
    assert store.remove(seen[2:3], nothing_kept).skipped == [(("t", "[5]"), GONE)]
    assert store.put_back(kept).done == 4
    assert [reason for _, reason in store.put_back(kept).skipped] == [THERE] * 4


def test_a_topic_that_is_no_list_can_be_removed(store: JsonStore, tmp_path: Path):
    before = write(tmp_path, "agents.json", {"t": {"name": "a"}, "u": [{"name": "b"}], "v": None})
    targets = store.agent_targets()
    assert [one.names for one in targets] == [("t", ""), ("u", "b"), ("v", "")]
    kept = removed(store, [targets[0]])
    assert agents_in(tmp_path) == {"u": [{"name": "b"}], "v": None}
    assert store.put_back([Record("agent", ("v", "new"), b'{"name": "new"}')]).skipped == [
        (("v", "new"), "its topic is no list of agents")
    ]
    assert store.put_back(kept).done == 1
    assert agents_in(tmp_path) == json.loads(before)
    assert store.put_back(kept).skipped == [(("t", ""), THERE)]


def test_a_topic_without_agents_is_gone(store: JsonStore, tmp_path: Path):
    write(tmp_path, "agents.json", {"t": [{"name": "a"}], "u": [{"name": "b"}]})
    kept = removed(store, store.agent_targets([("t", "a")]))
    assert agents_in(tmp_path) == {"u": [{"name": "b"}]}
    store.add_agent("t", {"name": "c"})
    store.put_back(kept)
    assert agents_in(tmp_path)["t"] == [{"name": "a"}, {"name": "c"}]


def test_other_agents_of_a_topic_stay_byte_for_byte(store: JsonStore, tmp_path: Path):
    raw = (
        b'{\n  "t": [\n    {\n      "name": "a"\n    },\n    {\n      "name": "b",\n'
        b'      "x": NaN,\n      "x": 1.50\n    }\n  ]\n}'
    )
    write(tmp_path, "agents.json", raw)
    kept = removed(store, store.agent_targets([("t", "a")]))
    assert b'"x": NaN,\n      "x": 1.50\n    }\n  ]\n}' in (tmp_path / "agents.json").read_bytes()
    store.put_back(kept)
    assert (tmp_path / "agents.json").read_bytes() == raw


# Metrics


def test_events_beyond_the_cap_are_not_put_back(store: JsonStore, tmp_path: Path):
    events = [{"event": "e", "n": number, "saved_at": 1e9 + number} for number in range(10_000)]
    write(tmp_path, "metrics.json", events)
    kept = removed(store, store.metric_targets(keep=9000))
    write(
        tmp_path, "metrics.json", events[1000:] + [{"new": n, "saved_at": 2e9} for n in range(400)]
    )
    change = store.put_back(kept)
    assert change.done == 600
    assert [names for names, _ in change.skipped] == [one.names for one in kept[:400]]
    assert {why for _, why in change.skipped} == {"metrics.json holds at most 10,000 events"}
    found = json.loads((tmp_path / "metrics.json").read_bytes())
    assert found[:600] == events[400:1000]
    assert len(found) == 10_000


def test_events_without_a_date_go_with_those_behind_them(store: JsonStore, tmp_path: Path):
    events = [
        1,
        {"saved_at": 100.0},
        {"saved_at": "?"},
        {"saved_at": 200.0},
        None,
        {"saved_at": 300},
    ]
    write(tmp_path, "metrics.json", events)
    assert store.metric_targets(before=100.0) == []
    assert store.metric_targets(before=150.0)[0].count == 2
    assert store.metric_targets(before=250.0)[0].count == 4
    assert store.metric_targets(before=1e9)[0].count == 6
    kept = removed(store, store.metric_targets(before=250.0))
    assert json.loads((tmp_path / "metrics.json").read_bytes()) == events[4:]
    assert store.put_back(kept).done == 4
    assert json.loads((tmp_path / "metrics.json").read_bytes()) == events


def test_a_clock_set_back_does_not_remove_what_is_behind_a_later_event(
    store: JsonStore, tmp_path: Path
):
    write(tmp_path, "metrics.json", [{"saved_at": at} for at in (100.0, 900.0, 200.0)])
    assert store.metric_targets(before=500.0)[0].count == 1


def test_an_event_changed_in_place_is_not_removed_unseen(store: JsonStore, tmp_path: Path):
    write(tmp_path, "metrics.json", [{"n": n, "saved_at": 1.0 + n} for n in range(4)])
    (target,) = store.metric_targets(keep=1)
    write(tmp_path, "metrics.json", [{"n": -n, "saved_at": 1.0 + n} for n in (0, 7)] + [
        {"n": n, "saved_at": 1.0 + n} for n in (2, 3)
    ])  # fmt: skip
    assert store.remove([target], nothing_kept).skipped == [(target.names, CHANGED)]


# Expiry


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["task_id", "result", "expires_at", "é"]) | st.text(), JSON),
    INDENTS,
    st.none() | st.floats(1.0, 4e9),
)
def test_nothing_but_the_expiry_changes(record: dict[str, Any], indent: Any, at: float | None):
    text = as_record(json.dumps(record, indent=indent).replace("\n", "\n  ").encode())
    assert text is not None
    found = json.loads(expiring(text, at))
    expected = {name: value for name, value in record.items() if name != "expires_at"}
    expected |= {} if at is None else {"expires_at": at}
    assert {name: repr(value) for name, value in found.items()} == {
        name: repr(json.loads(json.dumps(value))) for name, value in expected.items()
    }
    again = as_record(expiring(text, at))
    assert again == expiring(text, at)


def test_other_members_of_a_record_stay_byte_for_byte(store: JsonStore, tmp_path: Path):
    raw = (
        b'{\n  "a": {\n    "task_id": "a",\n    "result": {\n      "x": 1.50,\n'
        b'      "x": "expires_at"\n    },\n    "saved_at": 1.50%s\n  },\n  "b": 1\n}'
    )
    write(tmp_path, "results.json", raw % b"")
    at = float(int(NOW) + 5000)
    store.set_expiry(store.result_targets(task_ids=["a"]), Expiry(at=at))
    expected = raw % b',\n    "expires_at": %s' % repr(at).encode()
    assert (tmp_path / "results.json").read_bytes() == expected
    store.set_expiry(store.result_targets(task_ids=["a"]), Expiry(more=10))
    expected = raw % b',\n    "expires_at": %s' % repr(at + 10).encode()
    assert (tmp_path / "results.json").read_bytes() == expected
    store.set_expiry(store.result_targets(task_ids=["a"]), Expiry())
    assert (tmp_path / "results.json").read_bytes() == raw % b""


def test_a_member_that_only_looks_like_the_expiry_stays(store: JsonStore, tmp_path: Path):
    raw = (
        b'{\n  "a": {\n    "result": {"q": 1,\n    "expires_at": 5},\n    "saved_at": 1.5,\n'
        b'    "expires_at": 9e9\n  }\n}'
    )
    write(tmp_path, "results.json", raw)
    assert store.set_expiry(store.result_targets(), Expiry()).done == 1
    assert json.loads((tmp_path / "results.json").read_bytes()) == {
        "a": {"result": {"q": 1, "expires_at": 5}, "saved_at": 1.5}
    }


def test_expired_results_live_again_but_not_in_the_past(store: JsonStore, tmp_path: Path):
    write(tmp_path, "results.json", {
        "hour": record("hour", expires_at=NOW - 3600),
        "day": record("day", expires_at=NOW - 86400),
        "broken": 5,
        "odd": record("odd", expires_at="soon"),
    })  # fmt: skip
    change = store.set_expiry(store.result_targets(), Expiry(more=7200))
    assert change.done == 2
    assert dict(change.skipped) == {
        ("day",): "would still have expired",
        ("broken",): "is no readable result",
    }
    rows = store.results_by_id(["hour", "odd"])
    assert rows["hour"].expires_at == NOW + 3600
    assert rows["odd"].expires_at == pytest.approx(time.time() + 7200, abs=60)
    assert not rows["odd"].problem
    assert store.set_expiry(store.result_targets(), Expiry()).done == 3
    assert store.counts().expired == 0


def test_nothing_expires_after_the_time_that_is_still_read_as_one(store: JsonStore, tmp_path: Path):
    write(tmp_path, "results.json", {"a": record("a", expires_at=4.1e9)})
    assert store.set_expiry(store.result_targets(), Expiry(more=1e7)).skipped == [
        (("a",), "would expire after the year 2099")
    ]
    with pytest.raises(ValueError, match="2099"):
        store.set_expiry(store.result_targets(), Expiry(at=4.2e9))


def test_expired_results_are_removed_and_do_not_come_back(store: JsonStore, tmp_path: Path):
    write(tmp_path, "results.json", {
        "old": record("old", expires_at=NOW - 5), "new": record("new", expires_at=NOW + 50_000),
    })  # fmt: skip
    targets = store.result_targets(ResultQuery(life="expired"))
    assert [one.names[0] for one in targets] == ["old"]
    kept = removed(store, targets)
    assert kept[0].expires_at_ms == round((NOW - 5) * 1000)
    assert store.put_back(kept).skipped == [(("old",), EXPIRED)]


def test_an_age_that_is_unknown_is_not_old(store: JsonStore, tmp_path: Path):
    write(tmp_path, "results.json", {
        "old": {**record("old"), "saved_at": 5.0},
        "none": {"task_id": "none", "result": 1}, "odd": {**record("odd"), "saved_at": "?"},
    })  # fmt: skip
    found = store.result_page(ResultQuery(saved_before=NOW))
    assert [row.task_id for row in found.rows] == ["old"]


# Temporary files of killed writers


def make_old(path: Path) -> None:
    os.utime(path, (NOW - 100, NOW - 100), follow_symlinks=False)


@pytest.fixture
def leftovers(tmp_path: Path) -> list[str]:
    """Temporary files that nobody is writing any more, beside what only looks like them."""
    names = [".omnidash-results.json.ab.tmp", "agents.tmp", "results.tmp"]
    for name in [*names, "metrics.tmp", "other.tmp", "agents.tmp.bak", ".omnidash-x"]:
        (tmp_path / name).write_bytes(b"half of " + name.encode())
        if name != "metrics.tmp":  # which somebody is writing just now
            make_old(tmp_path / name)
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "config.tmp").symlink_to(tmp_path / "elsewhere")
    make_old(tmp_path / "config.tmp")
    os.mkfifo(tmp_path / ".omnidash-pipe.tmp")
    make_old(tmp_path / ".omnidash-pipe.tmp")
    (tmp_path / ".omnidash-folder.tmp").mkdir()
    make_old(tmp_path / ".omnidash-folder.tmp")
    return names


def test_temporary_files_of_killed_writers_are_loose_ends(
    store: JsonStore, tmp_path: Path, leftovers: list[str]
):
    before = set(os.listdir(tmp_path))
    targets = store.loose_ends()
    assert [one.names[0] for one in targets] == leftovers
    assert [one.size for one in targets] == [len(f"half of {name}") for name in leftovers]
    kept = removed(store, targets)
    assert {one.names[0]: one.raw for one in kept} == {
        name: b"half of " + name.encode() for name in leftovers
    }
    assert before - set(os.listdir(tmp_path)) == set(leftovers)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
    assert store.loose_ends() == []
    change = store.put_back(kept)
    assert change.done == 0
    assert len(change.skipped) == 3


@pytest.mark.parametrize(
    "name", ["elsewhere", "../elsewhere", "config.tmp", "metrics.tmp", "agents.json", "", "."]
)
def test_no_other_file_can_be_meant(
    store: JsonStore, tmp_path: Path, leftovers: list[str], name: str
):
    write_names = set(os.listdir(tmp_path))
    status = os.lstat(tmp_path / name) if (tmp_path / name).exists() else None
    mark = "-".join(map(str, files.signature_of(status))) if status else ""
    change = store.remove([Target("file", (name,), mark)], nothing_kept)
    assert change.skipped == [((name,), GONE)]
    assert write_names <= set(os.listdir(tmp_path))


def test_a_temporary_file_that_changed_stays(
    store: JsonStore, tmp_path: Path, leftovers: list[str]
):
    targets = store.loose_ends()
    (tmp_path / "agents.tmp").write_bytes(b"another")
    make_old(tmp_path / "agents.tmp")
    change = store.remove(targets, nothing_kept)
    assert change.done == 2
    assert change.skipped == [(("agents.tmp",), CHANGED)]
    assert (tmp_path / "agents.tmp").exists()


def test_a_file_too_large_to_be_kept_stays(store: JsonStore, tmp_path: Path):
    with open(tmp_path / "agents.tmp", "wb") as file:
        file.truncate((64 << 20) + 1)
    make_old(tmp_path / "agents.tmp")
    change = store.remove(store.loose_ends(), nothing_kept)
    assert "too large to be kept" in change.skipped[0][1]
    assert (tmp_path / "agents.tmp").exists()


# Who owns the directory


def every_change(store: JsonStore) -> Iterator[Callable[[], Change]]:
    ends = store.loose_ends()
    for targets in (
        store.result_targets(), store.agent_targets(), store.metric_targets(),
        store.config_targets(["key"]), ends,
    ):  # fmt: skip
        assert targets
        yield lambda targets=targets: store.remove(targets, nothing_kept)  # type: ignore[misc]
    yield lambda: store.put_back([Record("result", ("new",), b'{"result": 1}')])
    yield lambda: store.set_expiry(store.result_targets(), Expiry(more=5))
    yield lambda: store.replace_config("new", b"1", None)


def fill(folder: Path, **config: Any) -> None:
    write(folder, "agents.json", {"t": [{"name": "a"}]})
    write(folder, "results.json", {"r": record("r")})
    write(folder, "metrics.json", [{"event": "task_received", "saved_at": 1.5}])
    write(folder, "agents.tmp", b"half")
    write(folder, "config.json", {"key": 1, **config})


def test_a_live_omnidaemon_refuses_every_change(store: JsonStore, tmp_path: Path):
    fill(tmp_path, _omnidaemon_start_time=NOW)
    os.utime(tmp_path / "config.json")
    before = content(tmp_path)
    assert "stop the runner" in store.owned_by()
    assert "nothing changed" not in store.owned_by()
    assert store.owner_unproven() == ""
    for change in every_change(store):
        with pytest.raises(StoreBusy, match="stop the runner"):
            change()
        with store.owner_stated_stopped(), pytest.raises(StoreBusy, match="stop the runner"):
            change()
    assert content(tmp_path) == before


def test_what_cannot_be_proven_needs_a_statement(store: JsonStore, tmp_path: Path):
    fill(tmp_path, _omnidaemon_start_time=NOW)
    before = content(tmp_path)
    assert store.owned_by() == ""
    assert "cannot be proven" in store.owner_unproven()
    changes = list(every_change(store))
    for change in changes:
        with pytest.raises(StoreBusy, match="cannot be proven"):
            change()
    assert content(tmp_path) == before
    with store.owner_stated_stopped():
        assert [change().done for change in changes] == [1] * len(changes)
        assert "cannot be proven" in store.owner_unproven()


def test_a_stopped_omnidaemon_owns_nothing(store: JsonStore, tmp_path: Path):
    fill(tmp_path, _omnidaemon_start_time=None)
    assert store.owned_by() == store.owner_unproven() == ""
    assert [change().done for change in every_change(store)] == [1] * 8


def test_who_plays_the_runner_owns_the_directory(tmp_path: Path):
    fill(tmp_path, _omnidaemon_start_time=NOW)
    runner = open_store(f"json://{quote(str(tmp_path))}", as_runner=True)
    assert runner.owned_by() == runner.owner_unproven() == ""
    assert runner.consuming("t", "a") is None
