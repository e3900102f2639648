"""Records move from one backend to the other, and what they lose on the way is said."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.archive import ArchiveReader
from storage.changes import Record
from storage.comparison import compare, identical
from storage.conversion import Loss, converted, convertible
from storage.conversion import loss as reasons
from storage.json_store.encoding import encode
from tests.listed import Listed

PAIRS = b'[["YQ==", ""]]'  # a field that is empty
BACKUPS = Path(__file__).parent / "data" / "backups"


def moved(records: Iterable[Record], source: str, target: str) -> tuple[list[Record], Loss]:
    loss = Loss()
    return list(converted(records, source, target, loss)), loss


def to_redis(*records: Record) -> tuple[list[Record], Loss]:
    return moved(records, "json", "redis")


def to_json(*records: Record) -> tuple[list[Record], Loss]:
    return moved(records, "redis", "json")


def agent(own_topic: str, name: str, /, **fields: Any) -> Record:
    """As OmniDaemon stores one in a JSON directory."""
    value = {
        "callback_name": "f", "name": name, "tools": ["a"], "description": "d", "config": {"n": 1},
        **fields,
    }  # fmt: skip
    return Record("agent", (own_topic, name), encode(value), score="0")


def hashed(topic: str, agent_name: str, /, **fields: Any) -> Record:
    """As OmniDaemon stores one in Redis; None leaves a field out."""
    value = {
        "name": agent_name, "callback_name": "f", "tools": '["a"]', "description": "d",
        "config": '{"n": 1}', "topic": topic, "created_at": "1764000000.25", **fields,
    }  # fmt: skip
    pairs = [
        [base64.b64encode(part.encode("utf-8", "surrogateescape")).decode() for part in pair]
        for pair in value.items() if pair[1] is not None
    ]  # fmt: skip
    return Record("agent", (topic, agent_name), json.dumps(pairs).encode(), "hash")


def fields_of(record: Record) -> dict[str, str]:
    assert record.form == "hash"
    pairs = [[base64.b64decode(part).decode() for part in one] for one in json.loads(record.raw)]
    return dict(pairs)


def value_of(record: Record) -> Any:
    return json.loads(record.raw)


def result(name: str, value: object, **fields: Any) -> Record:
    return Record("result", (name,), json.dumps(value).encode(), **fields)


def event(value: object, stream_id: str | None = None) -> Record:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record("metrics", (stream_id or "0-0000",), raw, stream_id=stream_id)


def said(loss: Loss) -> dict[str, int]:
    return {reason: count for (_, reason), count in (loss.refused + loss.altered).items()}


# Which can be moved


def test_a_backend_keeps_its_own_records_as_they_are():
    records = [Record("file", ("agents.json",), b"{"), Record("config", ("c",), b"\xff")]
    assert moved(records, "json", "json") == (records, Loss())
    assert convertible("redis", "redis")
    assert convertible("json", "redis")
    assert not convertible("json", "mongodb")


def test_what_no_backend_knows_is_refused():
    with pytest.raises(ValueError, match="mongodb"):
        converted([], "json", "mongodb", Loss())


# From a JSON directory to Redis


def test_an_agent_gets_the_fields_that_omnidaemon_keeps_in_redis():
    (found,), loss = to_redis(agent("t", "a"))
    assert fields_of(found) == {
        "name": "a", "callback_name": "f", "tools": '["a"]', "description": "d",
        "config": '{"n": 1}', "topic": "t",
    }  # fmt: skip
    assert found.score is None
    assert loss == Loss()


def test_what_redis_does_not_keep_of_an_agent_is_named():
    given = agent("t", "a", callback="<function f at 0x7f>", owner=1, topic="t", created_at=5.5)
    (found,), loss = to_redis(given)
    assert fields_of(found)["created_at"] == "5.5"
    assert "owner" not in fields_of(found)
    assert said(loss) == {reasons.CALLBACK: 1, reasons.FIELDS: 1}
    assert ("agent", ("t", "a"), f"{reasons.FIELDS}: owner, topic") in loss.named
    assert not loss.refused


@pytest.mark.parametrize("created_at", [0, -1, "soon", "5.5", None, True, float("nan"), 1e300])
def test_a_date_that_is_none_is_not_invented(created_at: object):
    (found,), loss = to_redis(agent("t", "a", created_at=created_at))
    assert "created_at" not in fields_of(found)
    assert said(loss) == {reasons.NO_TIME: 1}


def test_values_that_are_missing_or_no_text_become_what_omnidaemon_would_make_of_them():
    raw = b'{"name": "a", "callback_name": null, "config": [NaN]}'
    (found,), loss = to_redis(Record("agent", ("t", "a"), raw))
    assert fields_of(found) == {
        "name": "a", "callback_name": "", "tools": "[]", "description": "", "config": "[NaN]",
        "topic": "t",
    }  # fmt: skip
    assert said(loss) == {reasons.DEFAULTS: 1, reasons.TEXT: 1}
    assert loss.named[0][2] == f"{reasons.TEXT}: callback_name"


def test_of_two_agents_whose_topics_and_names_make_one_key_the_second_is_refused():
    given = [agent("a:b", "c"), agent("a", "b:c"), agent("a", "b"), agent("a:b", "d")]
    found, loss = to_redis(*given)
    assert [one.names for one in found] == [("a:b", "c"), ("a", "b"), ("a:b", "d")]
    assert loss.refused == {("agent", reasons.SHARED): 1}
    assert loss.named == [("agent", ("a", "b:c"), reasons.SHARED)]


def test_of_two_agents_of_one_name_the_first_is_kept_as_omnidaemon_finds_it():
    found, loss = to_redis(agent("t", "a"), agent("t", "a", description="other"))
    assert [fields_of(one)["description"] for one in found] == ["d"]
    assert loss.refused == {("agent", reasons.TWICE): 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("agent", ("t", ""), b'"no list"'), reasons.NO_LIST),
        (Record("agent", ("t", "[0]"), b"{}"), reasons.NO_NAME),
        (Record("agent", ("t", "[0]"), b"5"), reasons.NO_OBJECT),
        (Record("agent", ("t", "a"), b'{"name": "a"'), reasons.NO_JSON),
        (agent("t", "\ud800"), reasons.NO_UTF8),
        (agent("t", "a", description="\ud800"), reasons.NO_UTF8_TEXT),
        (Record("result", ("r",), b"[1]"), reasons.NO_OBJECT),
        (Record("result", ("r",), b"{'a': 1}"), reasons.NO_JSON),
        (Record("result", ("r",), b'{"a": "\xff"}'), reasons.NO_UTF8_TEXT),
        (result("\udc80", {}), reasons.NO_UTF8),
        (Record("metrics", ("0-0000",), b"[1]"), reasons.NO_OBJECT),
        (Record("metrics", ("0-0000",), b"{"), reasons.NO_JSON),
        (Record("config", ("c",), b"{"), reasons.NO_JSON),
        (Record("config", ("c",), b"[" * 5000 + b"]" * 5000), reasons.NO_JSON),
        (Record("config", ("c",), b"\x0e\x01", "dump"), reasons.WRONG_TYPE),
        (Record("entry", ("e",), form="none", score="5"), reasons.WRONG_TYPE),
    ],
)
def test_what_redis_cannot_hold_is_refused_with_the_reason(record: Record, reason: str):
    found, loss = to_redis(record)
    assert found == []
    assert loss.refused == {(record.kind, reason): 1}
    assert loss.named == [(record.kind, record.names, reason)]


def test_the_files_of_a_directory_are_left_out_without_a_word():
    assert to_redis(Record("file", ("agents.json",), b"{")) == ([], Loss())


def test_a_result_carries_its_expiry_beside_it_in_redis():
    value = {"task_id": "r", "result": {"n": 1 << 70, "x": float("inf")}, "saved_at": 1764000000.25}
    given = Record("result", ("r",), encode({**value, "expires_at": 1764086400.1234}))
    (found,), loss = to_redis(given)
    assert found.raw == json.dumps(value).encode()
    assert (found.expires_at_ms, found.score) == (1764086400123, "1764000000.25")
    assert loss == Loss()


@pytest.mark.parametrize("expires_at", [None, 0, "soon", True, float("nan"), 1e300])
def test_a_result_whose_expiry_is_none_does_not_expire(expires_at: object):
    given = {"task_id": "r", "result": 1, "saved_at": 5, "expires_at": expires_at}
    (found,), loss = to_redis(result("r", given))
    assert found.expires_at_ms is None
    assert "expires_at" not in value_of(found)
    assert said(loss) == {reasons.EXPIRY: 1}


@pytest.mark.parametrize("saved_at", [None, "soon", -1])
def test_a_result_without_a_date_stands_last_in_the_index(saved_at: object):
    (found,), _ = to_redis(result("r", {"saved_at": saved_at}))
    assert found.score == "0"


def test_the_earlier_of_two_equal_keys_is_missed():
    raw = b'{"task_id": "r", "result": {"a": 1, "a": 2}, "expires_at": 1764086400}'
    (found,), loss = to_redis(Record("result", ("r",), raw))
    assert value_of(found)["result"] == {"a": 2}
    assert loss.named == [("result", ("r",), f"{reasons.DOUBLED}: a")]


def test_events_get_ids_by_the_time_when_they_were_saved_and_their_number_in_it():
    given = [
        event({"n": 0}), event({"n": 1, "saved_at": 5.0}), event({"n": 2, "saved_at": 5.0009}),
        event({"n": 3}), event({"n": 4, "saved_at": 4.0}), event({"n": 5, "saved_at": "x"}),
    ]  # fmt: skip
    found, loss = to_redis(*given, Record("config", ("c",), b"1"))
    assert [one.kind for one in found] == ["metrics"] * 6 + ["config"]
    assert [(one.stream_id, value_of(one)["n"]) for one in found[:-1]] == [
        ("0-1", 0), ("4000-0", 4), ("4000-1", 5), ("5000-0", 1), ("5000-1", 2), ("5000-2", 3),
    ]  # fmt: skip
    assert all(one.names == (one.stream_id,) for one in found[:-1])
    assert loss == Loss()


# From Redis to a JSON directory


def test_an_agent_of_redis_stands_as_omnidaemon_writes_it_in_a_directory():
    (found,), loss = to_json(hashed("t", "a", more="x"))
    assert value_of(found) == {
        "callback_name": "f", "name": "a", "tools": ["a"], "description": "d", "config": {"n": 1},
        "more": "x", "created_at": 1764000000.25,
    }  # fmt: skip
    assert found.raw == encode(value_of(found))
    assert (found.form, loss) == ("text", Loss())


@pytest.mark.parametrize("created_at", ["", "soon", "nan", "0", "1e300"])
def test_a_date_of_redis_that_is_none_is_lost(created_at: str):
    (found,), loss = to_json(hashed("t", "a", created_at=created_at))
    assert "created_at" not in value_of(found)
    assert said(loss) == {reasons.NO_TIME: 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("agent", ("t", "a"), form="none"), reasons.NO_RECORD),
        (Record("agent", ("t", "a"), b"\x0e", "dump"), reasons.WRONG_TYPE),
        (Record("agent", ("t", "a"), hashed("t:x", "y").raw, "hash"), reasons.ANOTHERS),
        (hashed("t", ""), reasons.NO_NAME),
        (hashed("t", "a", tools="[1"), reasons.NO_JSON),
        (hashed("t", "a", description="\udcff"), reasons.NO_UTF8_TEXT),
        (hashed("t", "a\udcff"), reasons.NO_UTF8),
        (Record("result", ("r",), b"\xff"), reasons.NO_UTF8_TEXT),
        (Record("result", ("r",), b"{"), reasons.NO_JSON),
        (Record("result", ("r",), b"5"), reasons.NO_OBJECT),
        (Record("result", ("r",), b"\x0e", "dump"), reasons.WRONG_TYPE),
        (Record("config", ("c",), b"\xff"), reasons.NO_UTF8_TEXT),
        (Record("config", ("c",), b"\x0e", "dump"), reasons.WRONG_TYPE),
        (event(b"{", "5-0"), reasons.NO_JSON),
        (event([1], "5-0"), reasons.NO_OBJECT),
        (Record("metrics", ("5-0",), PAIRS, "hash", stream_id="5-0"), reasons.WRONG_TYPE),
        (Record("entry", ("e",), form="none", score="5"), reasons.LOOSE),
        (Record("member", ("t", "a"), form="none"), reasons.LOOSE),
        (Record("hash", ("t", "a"), PAIRS, "hash"), reasons.LOOSE),
        (Record("topic", ("t",), form="none"), reasons.LOOSE),
    ],
)  # fmt: skip
def test_what_has_no_place_in_a_directory_is_refused_with_the_reason(record: Record, reason: str):
    found, loss = to_json(record)
    assert found == []
    assert loss.refused == {(record.kind, reason): 1}
    assert loss.named == [(record.kind, record.names, reason)]


def test_a_result_holds_its_expiry_in_a_directory():
    value = {"task_id": "r", "result": "ü", "saved_at": 1764000000.25}
    given = result("r", value, expires_at_ms=1764086400123, score="1764000000.2507")
    (found,), loss = to_json(given)
    assert found.raw == encode({**value, "expires_at": 1764086400.123})
    assert (found.expires_at_ms, found.score) == (1764086400123, None)
    assert loss == Loss()


def test_an_expiry_within_a_value_of_redis_is_none():
    (found,), loss = to_json(result("r", {"saved_at": 5, "expires_at": 6}, score="5"))
    assert value_of(found) == {"saved_at": 5}
    assert said(loss) == {reasons.EXPIRY: 1}


@pytest.mark.parametrize("score", [None, "9", "inf"])
def test_a_place_in_the_index_that_is_not_by_its_date_is_missed(score: str | None):
    (_,), loss = to_json(result("r", {"saved_at": 5}, score=score))
    assert said(loss) == {reasons.PLACE: 1}


def test_expiries_of_what_does_not_expire_in_a_directory_are_missed():
    ttl = {"expires_at_ms": 5}
    agents = Record("agent", ("t", "a"), hashed("t", "a").raw, "hash", **ttl)  # type: ignore[arg-type]
    _, loss = to_json(agents, Record("config", ("c",), b"1", expires_at_ms=5))
    assert loss.altered == {("agent", reasons.EXPIRY): 1, ("config", reasons.EXPIRY): 1}


def test_of_too_many_events_the_newest_are_kept_as_omnidaemon_would():
    given = [event({"saved_at": n}, f"{n}-0") for n in range(10_003)]
    found, loss = to_json(*given)
    assert [value_of(one)["saved_at"] for one in found] == list(range(3, 10_003))
    assert all(one.stream_id is None for one in found)
    assert loss.refused == {("metrics", reasons.TRIMMED): 3}
    assert loss.named[0] == ("metrics", ("0-0",), reasons.TRIMMED)


def test_an_event_without_a_date_gets_that_of_its_id():
    (found,), loss = to_json(event({"event": "x"}, "1764000000123-4"))
    assert value_of(found) == {"event": "x", "saved_at": 1764000000.123}
    assert said(loss) == {reasons.DATED: 1}


def test_only_the_first_thousand_losses_are_named_but_all_are_counted():
    _, loss = to_json(*(Record("topic", (str(n),), form="none") for n in range(1005)))
    assert loss.refused == {("topic", reasons.LOOSE): 1005}
    assert len(loss.named) == 1000


# There and back

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(["a", "b", "a:b", "b:a", "翻訳 🚀", "\ud800", "", "[0]"])
TIMES = st.integers(1, 4_000_000_000_000).map(lambda ms: ms / 1000)
ODD_TIMES = TIMES | VALUES


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each of the fields or not."""
    return st.fixed_dictionaries({}, optional=fields)


JSON_AGENTS = st.dictionaries(
    st.tuples(WORDS, WORDS),
    some(
        callback_name=st.text() | VALUES, tools=VALUES, description=st.text() | VALUES,
        config=VALUES, callback=st.text(), created_at=ODD_TIMES, owner=VALUES,
    ),
    max_size=4,
).map(
    lambda found: [
        Record("agent", names, encode({**value, "name": names[1]}))
        for names, value in found.items()
    ]
)  # fmt: skip
ENVELOPES = some(task_id=WORDS, result=VALUES, saved_at=ODD_TIMES)


def keyed(kind: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Record]]:
    return st.dictionaries(WORDS, values, max_size=4).map(
        lambda found: [Record(kind, (key,), encode(value)) for key, value in found.items()]
    )


JSON_RESULTS = keyed(
    "result", st.tuples(ENVELOPES, some(expires_at=ODD_TIMES)).map(lambda two: two[0] | two[1])
)
EVENTS = st.lists(some(event=st.text(), saved_at=ODD_TIMES, topic=VALUES), max_size=5)
JSON_EVENTS = EVENTS.map(
    lambda found: [
        Record("metrics", (f"x-{n}",), encode({**one, "number": n})) for n, one in enumerate(found)
    ]
)
JSON_STORES = st.tuples(JSON_AGENTS, JSON_RESULTS, JSON_EVENTS, keyed("config", VALUES)).map(
    lambda parts: [record for part in parts for record in part]
)


def text(value: Any) -> str:
    """NaN equals nothing, but its text does."""
    return json.dumps(value, sort_keys=True)


def known_by(record: Record) -> tuple[str, object]:
    """The same on both ways: an event's name is not."""
    if record.kind == "metrics":
        return record.kind, value_of(record)["number"]
    return record.kind, record.names


def by_name(records: Iterable[Record]) -> dict[tuple[str, object], Record]:
    found = {known_by(one): one for one in records}
    assert len(found) == len(list(records))
    return found


def without(value: Any, *fields: str) -> str:
    return text({key: found for key, found in value.items() if key not in fields})


@given(JSON_STORES)
@settings(deadline=None, max_examples=150)
def test_there_and_back_a_directory_is_the_same_but_for_what_was_named(given: list[Record]):
    in_redis, going = moved(given, "json", "redis")
    back, coming = moved(in_redis, "redis", "json")
    assert not coming.refused
    refused = {(kind, names) for kind, names, why in going.named if (kind, why) in going.refused}
    altered = {(kind, names) for kind, names, _ in going.named} - refused
    assert sum(going.refused.values()) == len(refused)
    before, after = by_name(given), by_name(back)
    undated = {names for kind, names, _ in coming.named if kind == "metrics"}
    ids = {known_by(one): one.names for one in in_redis}
    for known, record in before.items():
        if (record.kind, record.names) in refused:
            assert known not in after
            continue
        old, new = value_of(record), value_of(after.pop(known))
        if record.kind == "metrics" and ids[known] in undated:
            assert text(new | {"saved_at": 0}) == text(old | {"saved_at": 0})
        elif record.kind == "result" and (record.kind, record.names) not in altered:
            assert without(new, "expires_at") == without(old, "expires_at")
            assert abs(new.get("expires_at", 0) - old.get("expires_at", 0)) <= 0.001
        elif (record.kind, record.names) not in altered:
            assert text(new) == text(old)
        else:
            named = [why for _, names, why in going.named if names == record.names]
            lost = {name for why in named for name in why.partition(": ")[2].split(", ")}
            lost |= {"callback", "expires_at"}  # which the reason itself names
            assert without(new, *lost) == without(old, *lost)
    assert after == {}


REDIS_AGENTS = st.dictionaries(
    st.tuples(WORDS, WORDS),
    some(
        callback_name=WORDS, tools=VALUES.map(json.dumps), description=WORDS,
        config=VALUES.map(json.dumps), created_at=TIMES.map(repr),
    ),
    max_size=4,
).map(
    lambda found: [
        hashed(topic, name, **fields) for (topic, name), fields in found.items()
        if "\ud800" not in (topic, name, *fields.values())
    ]
)  # fmt: skip


@st.composite
def redis_results(draw: st.DrawFn) -> list[Record]:
    found = []
    for name in draw(st.sets(st.sampled_from("abc"))):
        saved_at = draw(TIMES)
        value = {"task_id": name, "result": draw(VALUES), "saved_at": saved_at}
        expires = draw(st.none() | st.integers(1, 4_000_000_000_000))
        found.append(result(name, value, expires_at_ms=expires, score=repr(saved_at)))
    return found


@given(REDIS_AGENTS, redis_results(), keyed("config", VALUES))
@settings(deadline=None, max_examples=100)
def test_there_and_back_what_omnidaemon_stores_in_redis_is_the_same(
    agents: list[Record], results: list[Record], config: list[Record]
):
    # Two of one key are one record there, which describes the later of them.
    keys = {":".join(one.names): one for one in agents}
    given = [*keys.values(), *results, *config]
    in_json, going = moved(given, "redis", "json")
    back, coming = moved(in_json, "json", "redis")
    assert not coming.refused
    assert not coming.altered
    refused = {(kind, names) for kind, names, why in going.named if (kind, why) in going.refused}
    before, after = by_name(given), by_name(back)
    assert before.keys() - refused == after.keys()
    for known, record in after.items():
        old = before[known]
        assert (record.expires_at_ms, record.score) == (old.expires_at_ms, old.score)
        if record.kind == "agent":
            mine, theirs = fields_of(record), fields_of(old)
            assert float(mine.pop("created_at")) == float(theirs.pop("created_at"))
            for field in ("tools", "config"):
                assert text(json.loads(mine.pop(field))) == text(json.loads(theirs.pop(field)))
            assert mine == theirs
        else:
            assert text(value_of(record)) == text(value_of(old))


# What OmniDaemon itself wrote


def stored(name: str) -> list[Record]:
    with ArchiveReader(str(BACKUPS / name)) as reader:
        return [record for batch in reader for record in batch.records]


def test_omnidaemons_own_directory_loses_callbacks_and_the_agent_that_shares_a_key():
    found, loss = moved(stored("json-1.odb.gz"), "json", "redis")
    assert loss.refused == {("agent", reasons.SHARED): 1}
    assert loss.altered == {("agent", reasons.CALLBACK): 17}
    again, _ = moved(found, "redis", "json")
    once_more, nothing = moved(again, "json", "redis")
    assert nothing == Loss()
    assert identical(once_more, Listed(found)).differing == 0


def test_a_copy_of_omnidaemons_own_redis_is_found_unchanged_when_it_is_copied_again():
    records = stored("redis-1.odb.gz")
    found, loss = moved(records, "redis", "json")
    assert loss.refused == {
        ("agent", reasons.ANOTHERS): 1,
        ("member", reasons.LOOSE): 1,
        ("hash", reasons.LOOSE): 1,
        ("topic", reasons.LOOSE): 1,
        ("entry", reasons.LOOSE): 3,
        ("config", reasons.NO_UTF8_TEXT): 1,
        ("config", reasons.WRONG_TYPE): 1,
    }
    assert not loss.altered
    again, _ = moved(records, "redis", "json")
    difference = compare(again, Listed(found), "replace")
    assert sum(one.unchanged for one in difference.tallies.values()) == len(found)
    assert list(difference.chosen(again)) == difference.deleted == []
