"""Runs: saved before anything happens, executed once, told truly, and never more than was shown."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import make_user
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError
from django.db.models import QuerySet
from django.test import Client
from django_tasks_db.models import DBTaskResult

from omnidash import bins, runs
from omnidash.actions.catalogue import ACTIONS
from omnidash.asked import again
from omnidash.models import Plan, Run
from omnidash.stores import Entry, registry
from storage.changes import Change
from tests.pages import serving, text_of
from tests.stores import Backend, JsonBackend, RedisBackend, contents, let_it_rest, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def entry(backend: Backend) -> Iterator[Entry]:
    with serving(prod=backend.url):
        yield registry()["prod"]


@pytest.fixture
def operator() -> User:
    return make_user("operator")


def fill(entry: Entry, count: int = 5) -> list[str]:
    ids = [f"task-{number}" for number in range(count)]
    for task_id in ids:
        entry.store.save_result(task_id, {"agent": "a", "topic": "t"}, 3600)
    settled(entry.store)
    return ids


def planned(user: User, entry: Entry, name: str = "delete-results", **params: object) -> Plan:
    return runs.plan(user, ACTIONS[name], entry, params)


def finished(run: Run) -> Run:
    runs.execute.call(run.pk)
    run.refresh_from_db()
    return run


def test_who_may_not_gets_no_plan(entry: Entry) -> None:
    with pytest.raises(runs.NotAllowed):
        planned(make_user("viewer"), entry, ids=fill(entry))


def test_an_account_that_is_off_gets_no_plan(entry: Entry, operator: User) -> None:
    operator.is_active = False
    with pytest.raises(runs.NotAllowed):
        planned(operator, entry, ids=fill(entry))


def test_a_plan_changes_nothing(entry: Entry, operator: User) -> None:
    ids = fill(entry)
    plan = planned(operator, entry, ids=ids[:3])
    assert (plan.count, plan.bytes > 0) == (3, True)
    assert len(entry.store.results_by_id(ids)) == 5
    assert not Run.objects.exists()


def test_a_run_deletes_what_was_shown_and_nothing_else(entry: Entry, operator: User) -> None:
    ids = fill(entry)
    run = finished(runs.start(planned(operator, entry, ids=ids[:3]), operator, "10.0.0.1"))
    assert (run.state, run.done, run.skipped, run.total) == ("done", 3, 0, 3)
    assert (run.who, run.origin, run.message) == ("operator", "10.0.0.1", "3 of 3 done.")
    assert set(entry.store.results_by_id(ids)) == set(ids[3:])


def test_what_changed_since_it_was_shown_is_skipped_and_reported(
    entry: Entry, operator: User
) -> None:
    ids = fill(entry)
    plan = planned(operator, entry, ids=ids)
    entry.store.save_result(ids[0], {"agent": "new"}, 7200)
    entry.store.delete_result(ids[1])
    run = finished(runs.start(plan, operator, ""))
    assert (run.state, run.done, run.skipped) == ("done", 3, 2)
    assert json.loads(run.report)["skipped"] == {
        "changed since it was shown": 1, "was gone already": 1,
    }  # fmt: skip
    assert set(entry.store.results_by_id(ids)) == {ids[0]}


def test_two_clicks_are_one_run(entry: Entry, operator: User) -> None:
    plan = planned(operator, entry, ids=fill(entry))
    first, second = runs.start(plan, operator, ""), runs.start(plan, operator, "")
    assert first == second
    finished(first)
    assert runs.start(plan, operator, "") == first, "and so is Back"
    assert Run.objects.count() == 1


def test_two_people_who_ask_for_the_same_start_one_run(entry: Entry, operator: User) -> None:
    ids, other = fill(entry), make_user("administrator")
    first = runs.start(planned(operator, entry, ids=ids), operator, "")
    assert runs.start(planned(other, entry, ids=ids), other, "") == first


def test_a_run_is_executed_once_whoever_calls(entry: Entry, operator: User) -> None:
    run = finished(runs.start(planned(operator, entry, ids=fill(entry)), operator, ""))
    ended = run.ended_at
    assert finished(run).ended_at == ended


def test_a_run_that_cannot_be_saved_does_nothing(
    entry: Entry, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(entry)
    plan = planned(operator, entry, ids=ids)

    def full(*args: object, **fields: object) -> None:
        raise DatabaseError("database or disk is full")

    monkeypatch.setattr(Run.objects, "create", full)
    with pytest.raises(DatabaseError):
        runs.start(plan, operator, "")
    assert not DBTaskResult.objects.exists()
    assert len(entry.store.results_by_id(ids)) == 5


def test_an_account_that_was_switched_off_meanwhile_changes_nothing(
    entry: Entry, operator: User
) -> None:
    ids = fill(entry)
    run = runs.start(planned(operator, entry, ids=ids), operator, "")
    User.objects.update(is_active=False)
    assert finished(run).state == "refused"
    assert len(entry.store.results_by_id(ids)) == 5


def test_a_dashboard_that_became_read_only_meanwhile_changes_nothing(
    entry: Entry, operator: User, settings: Any
) -> None:
    ids = fill(entry)
    run = runs.start(planned(operator, entry, ids=ids), operator, "")
    settings.OMNIDASH_READ_ONLY = True
    assert finished(run).state == "refused"
    assert ".." not in run.message
    assert len(entry.store.results_by_id(ids)) == 5


def test_a_run_that_has_not_begun_is_stopped_at_once(entry: Entry, operator: User) -> None:
    ids = fill(entry)
    run = runs.start(planned(operator, entry, ids=ids), operator, "")
    runs.ask_to_stop(run, "anna")
    assert finished(run).state == "cancelled"
    assert len(entry.store.results_by_id(ids)) == 5


def test_a_run_that_is_stopped_half_way_tells_the_true_count(
    redis_backend: RedisBackend, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(prod=redis_backend.url):
        entry = registry()["prod"]
        ids = fill(entry, 20)
        monkeypatch.setattr(type(entry.store), "largest_change", 5)
        monkeypatch.setattr(runs.execution, "_ASK", 0.0)
        run = runs.start(planned(operator, entry, ids=ids), operator, "")
        settle, changes = bins.Box.settle, list[Change]()

        def settle_and_ask(box: bins.Box, change: Change) -> None:
            settle(box, change)
            changes.append(change)
            if len(changes) == 2:
                runs.ask_to_stop(run, "anna")

        monkeypatch.setattr(bins.Box, "settle", settle_and_ask)
        assert finished(run).state == "cancelled"
        left = len(entry.store.results_by_id(ids))
        assert (run.done, left) == (10, 10)
        assert run.message == "Stopped by anna. 10 of 20 done; 10 not touched."


def test_a_run_whose_worker_died_is_told(entry: Entry, operator: User) -> None:
    run = runs.start(planned(operator, entry, ids=fill(entry)), operator, "")
    Run.objects.update(state="running", beat_at=time.time() - 24)
    assert runs.note_interrupted(time.time()) == 0
    assert runs.note_interrupted(time.time() + 2) == 1
    run.refresh_from_db()
    assert run.state == "interrupted"


def test_what_was_deleted_is_put_back_exactly(backend: Backend, operator: User) -> None:
    with serving(prod=backend.url):
        entry = registry()["prod"]
        ids = fill(entry)
        before = contents(backend)
        run = finished(runs.start(planned(operator, entry, ids=ids), operator, ""))
        assert contents(backend) != before
        undo = runs.start(
            planned(operator, entry, "put-back", run=run.pk, bin=run.bin, removed=run.done),
            operator, "", undoes=run,
        )  # fmt: skip
        assert finished(undo).done == 5
        assert contents(backend) == before


def test_putting_back_never_overwrites_what_is_newer(entry: Entry, operator: User) -> None:
    ids = fill(entry)
    run = finished(runs.start(planned(operator, entry, ids=ids), operator, ""))
    entry.store.save_result(ids[0], "newer", 60)
    plan = planned(operator, entry, "put-back", run=run.pk, bin=run.bin, removed=run.done)
    undo = finished(runs.start(plan, operator, ""))
    assert (undo.done, undo.skipped) == (4, 1)
    assert entry.store.get_result(ids[0]) == "newer"


def test_a_deletion_that_the_bin_does_not_take_is_refused(
    entry: Entry, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(entry)
    monkeypatch.setattr(bins, "too_large", lambda size: True)
    run = runs.start(planned(operator, entry, ids=ids), operator, "")
    assert finished(run).state == "refused"
    assert len(entry.store.results_by_id(ids)) == 5


def test_a_value_of_configuration_is_not_in_the_log(entry: Entry) -> None:
    user = make_user("administrator")
    plan = planned(user, entry, "set-config", keys=["k"], text='"s3cret-value"')
    run = finished(runs.start(plan, user, ""))
    assert (run.state, run.message) == ("done", "1 of 1 done.")
    assert entry.store.get_config("k") == "s3cret-value"
    assert "s3cret" not in run.params + run.message + run.report
    plan.refresh_from_db()
    assert "s3cret" not in plan.params


@pytest.mark.parametrize("end", ["stopped", "never begun", "killed"])
def test_a_value_of_configuration_is_kept_by_no_run_that_ended(entry: Entry, end: str) -> None:
    user = make_user("administrator")
    plan = planned(user, entry, "set-config", keys=["k"], text='"s3cret-value"')
    run, later = runs.start(plan, user, ""), time.time() + 60
    assert runs.note_interrupted(later) == 0
    plan.refresh_from_db()
    assert "s3cret" in plan.params, "a worker may still come"
    if end == "stopped":
        runs.ask_to_stop(run, "anna")
    else:
        DBTaskResult.objects.update(started_at=datetime.datetime.now(datetime.UTC))
        if end == "killed":
            Run.objects.update(state="running", beat_at=1.0)
        assert runs.note_interrupted(later) == 1
    plan.refresh_from_db()
    assert "s3cret" not in plan.params and '"k"' in plan.params


def test_the_log_cannot_be_read_by_a_viewer(viewer_client: Client, entry: Entry) -> None:
    assert viewer_client.get("/runs/").status_code == 403
    assert Run.objects.get().state == "refused", "and that is written down"


@pytest.mark.parametrize("backend", ["json"], indirect=True)
def test_what_a_runner_undid_after_all_is_a_run_that_failed(
    backend: JsonBackend, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(prod=backend.url):
        entry = registry()["prod"]
        ids = fill(entry)
        held = backend.read("results.json")
        backend.write("config.json", {"_omnidaemon_start_time": 1.0})
        let_it_rest(backend.folder)
        monkeypatch.setattr(runs.execution, "_UNDONE", 0.0)
        run = runs.start(planned(operator, entry, ids=ids), operator, "")
        assert finished(run).state == "failed"
        assert "cannot be proven" in run.message and "0 of 5 done" in run.message
        plan = planned(operator, entry, ids=ids)
        run = runs.start(plan, operator, "", vouched=True)

        def undo(*args: object) -> bool:
            backend.write("results.json", held)
            return False

        monkeypatch.setattr(runs.stopping, "wait", undo)
        assert finished(run).state == "failed"
        assert "5 records changed again" in run.message


@pytest.mark.parametrize("backend", ["json"], indirect=True)
def test_what_somebody_vouched_for_is_in_the_log(
    backend: JsonBackend, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(prod=backend.url):
        entry = registry()["prod"]
        ids = fill(entry)
        backend.write("config.json", {"_omnidaemon_start_time": 1.0})
        let_it_rest(backend.folder)
        monkeypatch.setattr(runs.execution, "_UNDONE", 0.0)
        run = runs.start(planned(operator, entry, ids=ids), operator, "", vouched=True)
        assert finished(run).state == "done"
        assert json.loads(run.params)["vouched"] is True


def test_a_database_that_is_away_for_a_while_loses_no_outcome(
    entry: Entry, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(entry)
    run = runs.start(planned(operator, entry, ids=ids), operator, "")
    monkeypatch.setattr(runs.stopping, "wait", lambda seconds: False)
    updated, failures = QuerySet.update, iter([True, True, True, False])

    def sometimes(query: Any, **fields: Any) -> int:
        if "done" in fields and next(failures, False):
            raise OperationalError("database is locked")
        return updated(query, **fields)

    monkeypatch.setattr(QuerySet, "update", sometimes)
    assert finished(run).state == "done"
    assert run.done == 5
    assert next(failures, None) is None, "it failed for a while"


def test_a_worker_that_died_before_it_began_is_told(entry: Entry, operator: User) -> None:
    run = runs.start(planned(operator, entry, ids=fill(entry)), operator, "")
    later = time.time() + 60
    assert runs.note_interrupted(later) == 0, "it waits for a worker"
    DBTaskResult.objects.update(status="RUNNING", started_at=datetime.datetime.now(datetime.UTC))
    assert runs.note_interrupted(time.time()) == 0, "one has just taken it"
    assert runs.note_interrupted(later) == 1
    assert finished(run).state == "interrupted"
    assert runs.start(planned(operator, entry, ids=fill(entry)), operator, "") != run


def test_what_an_interrupted_run_did_is_counted_by_the_bin(entry: Entry, operator: User) -> None:
    run = finished(runs.start(planned(operator, entry, ids=fill(entry)), operator, ""))
    Run.objects.update(state="running", done=1, beat_at=1.0)
    assert runs.note_interrupted(time.time()) == 1
    run.refresh_from_db()
    assert (run.state, run.done) == ("interrupted", 5)


def test_who_looks_at_a_run_whose_worker_died_is_told_what_happened(
    entry: Entry, operator: User
) -> None:
    removal = finished(runs.start(planned(operator, entry, ids=fill(entry)), operator, ""))
    params = {"run": removal.pk, "bin": removal.bin, "removed": 5}
    run = runs.start(planned(operator, entry, "put-back", **params), operator, "")
    Run.objects.filter(pk=run.pk).update(state="running", done=2, beat_at=1.0)
    client = Client()
    client.force_login(operator, "django.contrib.auth.backends.ModelBackend")
    said = text_of(client.get(f"/runs/{run.pk}/"))
    run.refresh_from_db()
    assert run.state == "interrupted" and run.ended_at
    assert "when it last said so; more may have been. Run it again to do the rest." in said
    assert "Run again" in said


def test_results_do_not_live_longer_twice_because_some_were_skipped(
    entry: Entry, operator: User
) -> None:
    ids = fill(entry)
    plan = planned(operator, entry, "extend-results", ids=ids, more=3600.0)
    entry.store.save_result(ids[0], {"agent": "a"}, 60)
    run = finished(runs.start(plan, operator, ""))
    assert (run.done, run.skipped) == (4, 1)
    assert again(run) == {"ids": [ids[0]], "more": 3600.0}
    run.report = "{}"
    assert again(run) is None, "which were skipped is not known"


def test_an_expiry_that_passed_before_a_worker_came_is_told(entry: Entry, operator: User) -> None:
    at = time.time() + 0.01
    plan = planned(operator, entry, "extend-results", ids=fill(entry), at=at)
    run = runs.start(plan, operator, "")
    while time.time() <= at:
        time.sleep(0.005)
    assert finished(run).state == "failed"
    assert "expiry cannot be set" in run.message


def test_events_beyond_what_one_run_names_are_put_back(
    redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LARGEST", 5)
    user = make_user("administrator")
    redis_backend.put_metrics([{"event": "task_received", "task_id": str(n)} for n in range(20)])
    before = contents(redis_backend)
    with serving(prod=redis_backend.url):
        entry = registry()["prod"]
        run = finished(runs.start(planned(user, entry, "clear", what="metrics"), user, ""))
        assert (run.done, redis_backend.metrics_stored()) == (20, 0)
        found = {"run": run.pk, "bin": run.bin, "removed": run.done}
        undo = finished(runs.start(planned(user, entry, "put-back", **found), user, ""))
        assert undo.done == 20, undo.message
    assert contents(redis_backend) == before


def test_a_bin_that_lost_records_says_so(entry: Entry, operator: User) -> None:
    ids = fill(entry)
    run = finished(runs.start(planned(operator, entry, ids=ids), operator, ""))
    action = ACTIONS["put-back"]
    params = {"run": run.pk, "bin": run.bin, "removed": 9}
    said = action.warns(entry.store, params, action.look(entry.store, params))
    assert any("4 of the 9 removed are missing" in line for line in said)
