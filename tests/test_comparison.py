"""A restore is a difference: what it would add, replace and delete, and what it leaves."""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.changes import Kind, Names, Record
from storage.comparison import (
    DOWNLOAD,
    FUTURE,
    LOOSE,
    NAMED,
    NO_EVENT,
    VOLATILE,
    Comparison,
    Difference,
    Mode,
    Tally,
    compare,
    identical,
)
from tests.listed import Listed

NOW_MS = round(time.time() * 1000)
SOON = NOW_MS + 3_600_000_000
MODES: list[Mode] = ["merge", "replace"]


def result(name: str, saved_at: object = 100.0, **fields: Any) -> Record:
    raw = json.dumps({"task_id": name, "result": 1, "saved_at": saved_at}).encode()
    return Record("result", (name,), raw, **fields)


def agent(name: str, created_at: float | None = 100.0, topic: str = "t", note: str = "") -> Record:
    """As a JSON directory holds it."""
    value = {"name": name, "description": note}
    if created_at is not None:
        value["created_at"] = created_at  # type: ignore[assignment]
    return Record("agent", (topic, name), json.dumps(value).encode(), score="0")


def hashed(agent_name: str, /, **fields: str) -> Record:
    """As Redis holds it."""
    pairs = [[base64.b64encode(part.encode()).decode() for part in pair] for pair in fields.items()]
    return Record("agent", ("t", agent_name), json.dumps(pairs).encode(), "hash")


def config(key: str, value: object = 1) -> Record:
    return Record("config", (key,), json.dumps(value).encode())


def event(stream_id: str, value: object = 1) -> Record:
    return Record("metrics", (stream_id,), json.dumps(value).encode(), stream_id=stream_id)


def listed_event(value: object) -> Record:
    return Record("metrics", ("0-0000",), json.dumps(value).encode())


def difference(
    archived: list[Record], stored: list[Record], mode: Mode, **options: Any
) -> Difference:
    return compare(archived, Listed(stored), mode, **options)


def only(kind: Kind, **counts: int) -> dict[Kind, Tally]:
    return {**Difference().tallies, kind: Tally(**counts)}


def restored(archived: list[Record], stored: list[Record], mode: Mode) -> list[Record]:
    """What a store would hold that does as it is told."""
    found = difference(archived, stored, mode)
    put = list(found.chosen(archived))
    gone: set[tuple[Kind, Names]] = {*found.deleted, *((one.kind, one.names) for one in put)}
    stays = [
        one for one in stored
        if (one.kind, one.names) not in gone and (found.keep_events or one.kind != "metrics")
    ]  # fmt: skip
    return stays + put


# What becomes of a record


@pytest.mark.parametrize("mode", MODES)
def test_what_is_only_in_the_archive_is_added(mode: Mode):
    archived = [agent("a"), result("r"), event("5-0"), config("c")]
    found = difference(archived, [], mode)
    for kind in ("agent", "result", "metrics", "config"):
        assert found.tallies[kind] == Tally(added=1)
    assert list(found.chosen(archived)) == archived
    assert found.deleted == []


@pytest.mark.parametrize("mode", MODES)
def test_what_is_in_both_is_left_alone(mode: Mode):
    same = [agent("a"), result("r", expires_at_ms=SOON), event("5-0"), config("c")]
    found = difference(same, list(same), mode)
    for kind in ("agent", "result", "metrics", "config"):
        assert found.tallies[kind] == Tally(unchanged=1)
    assert list(found.chosen(same)) == []
    assert (found.deleted, found.keep_events) == ([], True)


def test_what_is_only_in_the_store_stays_in_a_merge_and_goes_in_a_replacement():
    stored = [agent("a"), result("r"), event("5-0"), config("c"), Record("entry", ("e",))]
    merged, replaced = (difference([], stored, mode) for mode in MODES)
    assert (merged.deleted, merged.keep_events) == ([], True)
    assert merged.tallies == Difference().tallies
    assert sorted(replaced.deleted) == [
        ("agent", ("t", "a")), ("config", ("c",)), ("entry", ("e",)), ("result", ("r",)),
    ]  # fmt: skip
    assert not replaced.keep_events
    assert replaced.tallies["metrics"] == Tally(deleted=1)


@pytest.mark.parametrize(
    ("archived", "stored", "outcome"),
    [
        (result("r", 200.0), result("r", 100.0), "replaced"),
        (result("r", 100.0), result("r", 200.0), "kept"),
        (result("r", "never"), result("r", 100.0), "kept"),
        (result("r", 200.0), result("r", None), "kept"),
        (result("r", 200.0), Record("result", ("r",), b"\xff"), "kept"),
        (result("r", 200.0), Record("result", ("r",), b"\xff", "dump"), "kept"),
        (result("r", expires_at_ms=SOON), result("r"), "kept"),
        (agent("a", 200.0), agent("a", 100.0), "replaced"),
        (agent("a", 100.0), agent("a", 200.0), "kept"),
        (agent("a", None, note="x"), agent("a", None), "kept"),
        (agent("a", 200.0), agent("a", None), "kept"),
        (hashed("a", created_at="200.5"), hashed("a", created_at="100"), "replaced"),
        (hashed("a", created_at="100"), hashed("a", created_at="200.5"), "kept"),
        (hashed("a", created_at=""), hashed("a", created_at="2"), "kept"),
        (config("c", 2), config("c", 1), "kept"),
    ],
)
def test_in_a_merge_the_newer_wins_and_the_stores_own_where_it_cannot_be_told(
    archived: Record, stored: Record, outcome: str
):
    found = difference([archived], [stored], "merge")
    assert found.tallies == only(archived.kind, **{outcome: 1})
    assert list(found.chosen([archived])) == ([archived] if outcome == "replaced" else [])


def test_a_replacement_asks_nobody_who_is_newer():
    archived = [result("r", 100.0), agent("a", 1.0), config("c", 1)]
    stored = [result("r", 200.0), agent("a", 2.0), config("c", 2)]
    found = difference(archived, stored, "replace")
    assert list(found.chosen(archived)) == archived
    assert sum(one.replaced for one in found.tallies.values()) == 3
    assert found.deleted == []


@pytest.mark.parametrize(("apart", "same"), [(0, True), (10, True), (11, False)])
def test_expiries_within_ten_milliseconds_are_equal(apart: int, same: bool):
    archived = [result("r", expires_at_ms=SOON)]
    found = difference(archived, [result("r", expires_at_ms=SOON + apart)], "replace")
    assert found.tallies["result"] == (Tally(unchanged=1) if same else Tally(replaced=1))
    without = difference(archived, [result("r")], "replace")
    assert without.tallies["result"] == Tally(replaced=1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("5.0", "5", True),
        ("5.004", "5.0", True),
        ("5.5", "5.0", False),
        ("inf", "inf", True),
        ("inf", "5", False),
        (None, "5", False),
    ],
)
def test_places_in_the_index_are_compared_as_numbers(one: str | None, other: str, same: bool):
    found = difference([result("r", score=one)], [result("r", score=other)], "replace")
    assert found.tallies["result"] == (Tally(unchanged=1) if same else Tally(replaced=1))


def test_the_fields_of_a_hash_may_stand_in_any_order():
    one, other = hashed("a", name="a", topic="t"), hashed("a", topic="t", name="a")
    assert difference([one], [other], "replace").tallies == only("agent", unchanged=1)
    swapped = hashed("a", topic="a", name="t")
    assert difference([one], [swapped], "replace").tallies == only("agent", replaced=1)


@pytest.mark.parametrize("mode", MODES)
def test_what_has_expired_is_not_stored_again(mode: Mode):
    past = result("r", expires_at_ms=NOW_MS - 1)
    assert difference([past], [], mode).tallies == only("result", expired=1)
    assert list(difference([past], [], mode).chosen([past])) == []
    # A directory shows what has expired until somebody asks for it.
    assert difference([past], [past], mode).tallies == only("result", unchanged=1)


def test_in_a_replacement_what_has_expired_is_as_if_it_was_not_in_the_archive():
    past = result("r", expires_at_ms=NOW_MS - 1)
    found = difference([past], [result("r", 200.0)], "replace")
    assert found.tallies["result"] == Tally(expired=1, deleted=1)
    assert found.deleted == [("result", ("r",))]


# Agents of one name


@pytest.mark.parametrize("mode", MODES)
def test_two_agents_of_one_name_are_left_alone_or_replaced_together(mode: Mode):
    twins = [agent("a", 100.0, note="1"), agent("b"), agent("a", 300.0, note="2")]
    assert difference(twins, list(twins), mode).tallies["agent"].unchanged == 3
    found = difference(twins, [twins[0], agent("a", 200.0)], mode)
    assert found.tallies["agent"] == Tally(added=1, replaced=2)
    assert list(found.chosen(twins)) == twins
    assert difference([], twins, "replace").deleted == [
        ("agent", ("t", "a")),
        ("agent", ("t", "b")),
    ]


def test_an_agent_that_only_moved_up_in_its_list_is_the_same():
    archived = Record("agent", ("t", "a"), b"{}", score="1")
    stored = Record("agent", ("t", "a"), b"{}", score="0")
    assert difference([archived], [stored], "replace").tallies == only("agent", unchanged=1)


# Events


def test_events_are_united_by_their_ids():
    archived = [event("1-0"), event("2-0"), event("3-0", "archived")]
    stored = [event("2-0"), event("3-0", "stored"), event("4-0")]
    found = difference(archived, stored, "merge")
    assert found.tallies == only("metrics", added=1, unchanged=1, kept=1)
    assert list(found.chosen(archived)) == archived[:1]
    assert found.keep_events


def test_events_without_ids_are_united_by_what_they_say_as_often_as_it_was_said():
    archived = [listed_event({"a": 1, "b": 2}), listed_event(5), listed_event(5), listed_event(5)]
    laid_out = Record("metrics", ("1-0000",), b'{\n "b": 2,\n "a": 1}')
    stored = [laid_out, listed_event(5), listed_event(7)]
    found = difference(archived, stored, "merge")
    assert found.tallies == only("metrics", added=2, unchanged=2)
    assert list(found.chosen(archived)) == archived[2:]


def test_all_events_are_put_where_one_of_the_store_has_to_go():
    archived = [event("1-0"), event("2-0")]
    found = difference(archived, [event("2-0"), event("3-0")], "replace")
    assert found.tallies == only("metrics", added=1, unchanged=1, deleted=1)
    assert list(found.chosen(archived)) == archived
    assert not found.keep_events
    other = difference(archived, [event("2-0", "other")], "replace")
    assert other.tallies == only("metrics", added=1, replaced=1)
    assert list(other.chosen(archived)) == archived
    assert not other.keep_events


def test_only_what_is_missing_is_put_where_no_event_has_to_go():
    archived = [event("1-0"), event("2-0")]
    found = difference(archived, [event("2-0")], "replace")
    assert list(found.chosen(archived)) == archived[:1]
    assert found.keep_events


@pytest.mark.parametrize("mode", MODES)
def test_an_event_of_the_future_would_poison_all_later_ones(mode: Mode):
    now = round(time.time() * 1000)
    ahead, odd = event(f"{now + 900_000}-0"), event(f"{now + 60_000}-0")
    found = difference([ahead, odd], [], mode)
    assert found.tallies == only("metrics", skipped=1, added=1)
    assert found.skipped == [("metrics", ahead.names, FUTURE)]


# What is skipped


def test_files_are_for_download_only():
    archived = [Record("file", ("agents.json",), b"{")]
    found = difference(archived, [Record("file", ("agents.json",), b"{}")], "replace")
    assert found.tallies == only("file", skipped=1)
    assert found.skipped == [("file", ("agents.json",), DOWNLOAD)]
    assert (list(found.chosen(archived)), found.deleted) == ([], [])


@pytest.mark.parametrize("mode", MODES)
def test_volatile_configuration_is_left_alone_unless_it_is_asked_for(mode: Mode):
    archived, stored = [config("supervisor:a", 1)], [config("supervisor:b", 2)]
    found = difference(archived, stored, mode, volatile=lambda key: key.startswith("supervisor:"))
    assert found.tallies == only("config", skipped=1)
    assert found.skipped == [("config", ("supervisor:a",), VOLATILE)]
    assert found.deleted == []
    asked = difference(archived, stored, mode)
    assert asked.tallies["config"].added == 1


def test_a_merge_brings_no_loose_ends_back():
    loose = [
        Record("member", ("t", "a"), form="none"),
        Record("hash", ("t", "b"), b'[["YQ==",""]]', "hash"),
        Record("topic", ("t",), form="none"),
        Record("entry", ("e",), form="none", score="5"),
    ]
    merged, replaced = (difference(loose, [], mode) for mode in MODES)
    assert list(merged.chosen(loose)) == []
    assert merged.reasons == {(one.kind, LOOSE): 1 for one in loose}
    assert list(replaced.chosen(loose)) == loose


def test_what_lies_where_the_events_should_comes_back_in_a_replacement_alone():
    odd = [Record("metrics", (), b"\x0e", "dump")]
    merged, replaced = (difference(odd, [event("5-0")], mode) for mode in MODES)
    assert merged.reasons == {("metrics", NO_EVENT): 1}
    assert list(merged.chosen(odd)) == []
    assert list(replaced.chosen(odd)) == odd
    assert not replaced.keep_events
    assert difference(odd, odd, "replace").tallies == only("metrics", unchanged=1)


def test_only_the_first_of_many_are_named_but_all_are_counted():
    files = [Record("file", (str(number),)) for number in range(NAMED + 5)]
    many = [result(str(number)) for number in range(NAMED + 5)]
    found = difference(files + many, [], "merge")
    assert len(found.skipped) == len(found.changes) == NAMED
    assert found.reasons == {("file", DOWNLOAD): NAMED + 5}
    assert found.tallies["result"].added == NAMED + 5


# The second pass, and the state it was made from


def test_of_each_record_it_is_said_what_becomes_of_it():
    archived = [
        Record("file", ("a.json",)), result("new"), result("same"), result("other", saved_at=900.0),
        result("older", saved_at=1.0), result("gone", expires_at_ms=1), event("5-0"), event("6-0"),
    ]  # fmt: skip
    stored = [archived[2], result("other"), result("older"), archived[6]]
    found = difference(archived, stored, "merge")
    assert [said for _, said, _ in found.judged(archived)] == [
        DOWNLOAD, "added", "unchanged", "replaced", "kept", "expired", "unchanged", "added",
    ]  # fmt: skip


@pytest.mark.parametrize("change", [lambda some: some[:-1], lambda some: [*some, some[0]]])
def test_another_archive_is_noticed_in_the_second_pass(
    change: Callable[[list[Record]], list[Record]],
):
    archived = [result("a"), result("b")]
    found = difference(archived, [], "merge")
    with pytest.raises(ValueError, match="argument 2 is"):
        list(found.chosen(change(archived)))


ARCHIVED = [result("r", 150.0), result("new"), agent("a", 150.0), event("5-0"), config("c")]
STORED = [
    result("r", 100.0), result("more"), agent("a", 100.0), agent("b"), event("5-0"), config("c"),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_stores_records_means_nothing(mode: Mode):
    one, other = difference(ARCHIVED, STORED, mode), difference(ARCHIVED, STORED[::-1], mode)
    assert one.digest == other.digest
    assert len(one.digest) == 32


@pytest.mark.parametrize(
    ("stored", "modes"),
    [
        ([result("r", 101.0), *STORED[1:]], MODES),  # would be lost in another version
        ([*STORED[:2], agent("a", 100.0, note="x"), *STORED[3:]], MODES),
        ([*STORED[:5], config("c", 2)], MODES),  # would be kept
        (STORED[:5], MODES),  # would be added
        ([*STORED, config("d")], ["replace"]),  # would be deleted
        ([*STORED, event("6-0")], ["replace"]),
    ],
)
def test_a_state_that_is_another_has_another_digest(stored: list[Record], modes: list[Mode]):
    for mode in MODES:
        seen = difference(ARCHIVED, STORED, mode).digest
        assert (difference(ARCHIVED, stored, mode).digest != seen) == (mode in modes)


def test_an_unchanged_result_that_expires_meanwhile_does_not_change_the_digest():
    lasting = [result("x", expires_at_ms=SOON)]
    seen = difference(ARCHIVED + lasting, STORED + lasting, "merge").digest
    gone = [result("x", expires_at_ms=NOW_MS - 1)]
    assert difference(ARCHIVED + gone, STORED, "merge").digest == seen


# Any stores

RAWS = st.integers(0, 3).map(
    lambda n: json.dumps({"saved_at": n + 1, "created_at": n + 1}).encode()
)
NAMES = st.sampled_from("abc")
STORES = st.builds(
    lambda keyed, events: [*keyed.values(), *events.values()],
    st.dictionaries(
        st.tuples(st.sampled_from(["agent", "result", "config"]), NAMES), RAWS, max_size=7
    ).map(
        lambda found: {
            (kind, name): Record(kind, (name, name) if kind == "agent" else (name,), raw)
            for (kind, name), raw in found.items()
        }
    ),
    st.dictionaries(NAMES.map("abc".index), RAWS, max_size=3).map(
        lambda found: {
            number: Record("metrics", (f"{number}-0",), raw, stream_id=f"{number}-0")
            for number, raw in found.items()
        }
    ),
)


def as_set(records: list[Record]) -> set[Record]:
    assert len(set(records)) == len(records)
    return set(records)


@given(STORES, STORES)
@settings(deadline=None, max_examples=200)
def test_a_replaced_store_is_what_the_archive_holds(archived: list[Record], stored: list[Record]):
    assert as_set(restored(archived, stored, "replace")) == as_set(archived)
    assert identical(archived, Listed(restored(archived, stored, "replace"))).differing == 0


@given(STORES, STORES)
@settings(deadline=None, max_examples=200)
def test_a_merge_loses_nothing_that_is_newer_and_happens_once(
    archived: list[Record], stored: list[Record]
):
    merged = restored(archived, stored, "merge")
    assert as_set(restored(archived, merged, "merge")) == as_set(merged)
    by_name = {(one.kind, one.names): one for one in merged}
    assert by_name.keys() == {(one.kind, one.names) for one in archived + stored}
    for one in stored:
        found = by_name[one.kind, one.names]
        if one.kind in ("agent", "result"):
            assert json.loads(found.raw)["saved_at"] >= json.loads(one.raw)["saved_at"]
        else:
            assert found == one


# A trial restore


def test_a_trial_that_is_what_the_archive_says_is_identical():
    records = [agent("a"), result("r", expires_at_ms=SOON), event("5-0"), config("c")]
    found = identical(records, Listed(records[::-1]))
    assert (found.compared, found.differing, found.named) == (4, 0, [])


def test_the_first_records_that_are_not_the_same_are_named():
    archived = [agent("a"), result("r"), result("s"), event("5-0")]
    found = identical(archived, Listed([result("r", 1.0), result("s"), event("6-0")]))
    assert found.compared == 4
    assert found.differing == 4
    assert sorted(found.named) == [
        ("agent", ("t", "a"), "is missing"),
        ("metrics", ("5-0",), "is missing"),
        ("metrics", ("6-0",), "was never in the archive"),
        ("result", ("r",), "is not the same"),
    ]


def test_what_expired_during_a_trial_need_not_be_there():
    found = identical([result("r", expires_at_ms=NOW_MS - 1)], Listed([]))
    assert (found.compared, found.differing) == (1, 0)


def test_little_is_held_of_each_record():
    raw = b'{"saved_at": 5, "x": "' + b"y" * 5000 + b'"}'
    comparison = Comparison("merge")
    tracemalloc.start()
    try:
        for number in range(4000):
            comparison.stored([Record("result", (f"task-{number}",), raw + b" " * (number % 7))])
        assert tracemalloc.get_traced_memory()[0] < 4000 * 350
    finally:
        tracemalloc.stop()
