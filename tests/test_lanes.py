"""Removal on two lanes: the next batch is read ahead, and not one record of it is deleted ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from omnidash.actions import Work, batches, remove
from omnidash.actions.lanes import remove_on_lanes
from omnidash.history import History
from omnidash.models import Run
from omnidash.stores import Entry
from storage.base import Store, StoreError
from storage.changes import Change, Keep, Record, Target
from tests.stores import RedisBackend, settled

pytest_plugins = ["tests.store_fixtures"]


@pytest.fixture
def store(redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Ten results, removed by three."""
    found = redis_backend.open()
    monkeypatch.setattr(type(found), "largest_change", 3)
    for number in range(10):
        found.save_result(f"t{number}", {"agent": "a", "topic": "t"})
    settled(found)
    return found


def removed(store: Store, targets: Sequence[Target], keep: Keep) -> Iterator[Change]:
    """As a run does it."""
    for one in remove(
        Work(Entry("s", store, History(store)), Run(), keep, len(targets)), targets, {}
    ):
        assert isinstance(one, Change)
        yield one


def left(store: Store) -> int:
    return len(store.results_by_id([f"t{number}" for number in range(10)]))


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("remove")]


def test_each_batch_is_kept_and_deleted_in_order_in_the_thread_that_asked(store: Store) -> None:
    targets = store.result_targets()
    kept: list[list[str]] = []
    callers: set[threading.Thread] = set()

    def keep(records: Sequence[Record]) -> None:
        callers.add(threading.current_thread())
        kept.append([record.names[0] for record in records])
        assert left(store) == 10 - 3 * (len(kept) - 1), "nothing goes before it is kept"

    for number, change in enumerate(removed(store, targets, keep), 1):
        assert left(store) == max(0, 10 - 3 * number)
        assert change.done == min(3, 10 - 3 * (number - 1))
    names = [target.names[0] for target in targets]
    assert kept == [names[:3], names[3:6], names[6:9], names[9:]]
    assert callers == {threading.current_thread()}
    assert threads() == []


def test_the_next_batch_is_read_while_the_present_one_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, read = store.remove, threading.Semaphore(0)

    def telling(batch: Sequence[Target], keep: Keep) -> Change:
        def told(records: Sequence[Record]) -> None:
            read.release()
            keep(records)

        return removing(batch, told)

    monkeypatch.setattr(store, "remove", telling)
    ahead: list[bool] = []

    def keep(records: Sequence[Record]) -> None:
        if not ahead:  # this one and the next have been read
            ahead.append(read.acquire(timeout=60) and read.acquire(timeout=60))

    list(removed(store, store.result_targets(), keep))
    assert ahead == [True]


def test_a_batch_that_is_not_asked_for_any_more_stays_as_it_was(store: Store) -> None:
    kept: list[int] = []
    for _ in removed(store, store.result_targets(), lambda records: kept.append(len(records))):
        break
    assert (kept, left(store)) == ([3], 7)
    assert threads() == []


def test_what_cannot_be_kept_is_not_deleted_and_ends_it(store: Store) -> None:
    kept: list[int] = []

    def keep(records: Sequence[Record]) -> None:
        if kept:
            raise StoreError("the disk is full")
        kept.append(len(records))

    with pytest.raises(StoreError, match="the disk is full"):
        list(removed(store, store.result_targets(), keep))
    assert left(store) == 7
    assert threads() == []


def test_no_batch_is_no_change(store: Store) -> None:
    assert list(remove_on_lanes(store, [], lambda records: None)) == []


def test_agents_that_share_a_record_are_never_divided(store: Store) -> None:
    for topic, name in (("a", "b:c"), ("a", "x"), ("a", "y"), ("a:b", "c"), ("z", "z")):
        store.add_agent(topic, {"name": name})
    targets = store.agent_targets()
    cut = [[target.names for target in batch] for batch in batches(store, targets)]
    assert cut == [
        [("a", "b:c"), ("a:b", "c"), ("a", "x")], [("a", "y"), ("z", "z")]
    ]  # fmt: skip
    moved = [targets[2], targets[3], *targets[:2]]
    cut = [[target.names for target in batch] for batch in batches(store, moved)]
    assert cut == [
        [("a", "x"), ("a", "y")], [("a", "b:c"), ("a:b", "c")]
    ]  # fmt: skip
    done = sum(change.done for change in removed(store, moved, lambda records: None))
    assert done == 4
