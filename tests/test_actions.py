"""Actions as a browser asks for them: who may, what is shown before, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import PASSWORD, client_of
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from omnidash import runs
from omnidash.models import Plan, Run
from omnidash.stores import registry
from omnidash.text import ref
from tests.pages import HTMX, elements, get_part, links, serving, text_of
from tests.stores import Backend, JsonBackend, contents, let_it_rest, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

IDS = ["task-1", "../../etc/passwd", '"><svg onload=1>', "翻訳 🚀"]


@pytest.fixture(autouse=True)
def served(backend: Backend) -> Iterator[None]:
    with serving(prod=backend.url):
        store = registry()["prod"].store
        for task_id in IDS:
            store.save_result(task_id, {"agent": "a", "topic": "t"}, 3600)
        for name in ("a", "b"):
            store.add_agent("t", {"name": name})
        store.save_config("mine", {"x": 1})
        store.save_config("_subscription_active:group:t:a", True)
        settled(store)
        yield


def asked(client: Client, address: str, **data: Any) -> Any:
    return client.get(f"/prod/{address}", data)


def token_of(answer: Any) -> str:
    found = re.search(r'name="plan" value="([^"]+)"', answer.content.decode())
    assert found, text_of(answer)
    return found[1]


def confirmed(client: Client, address: str, answer: Any, **more: str) -> Any:
    return client.post(f"/prod/{address}", {"plan": token_of(answer), **more})


def outcome(answer: Any) -> Run:
    run = Run.objects.get(pk=int(answer["Location"].split("/")[-2]))
    runs.execute.call(run.pk)
    run.refresh_from_db()
    return run


ADDRESSES: dict[str, tuple[str, dict[str, Any], str]] = {
    "delete-agents": ("agents/delete", {"of": ref("t", "a")}, "operator"),
    "delete-topic": ("agents/delete-topic", {"of": ref("t")}, "administrator"),
    "delete-results": ("results/delete", {"of": ref("task-1")}, "operator"),
    "delete-matching": ("results/delete-matching", {"agent": "a"}, "administrator"),
    "extend-results": ("results/expiry", {"of": ref("task-1"), "expiry": "1h"}, "operator"),
    "delete-config": ("config/delete", {"of": ref("mine")}, "administrator"),
    "clean-up": ("cleanup/run", {"line": "old", "days": "0.01"}, "operator"),
    "clear": ("clear/results", {}, "administrator"),
}
RANK = ["viewer", "operator", "administrator"]


@pytest.mark.parametrize("role", RANK)
@pytest.mark.parametrize("name", ADDRESSES)
def test_each_action_is_for_its_role(role: str, name: str) -> None:
    address, data, least = ADDRESSES[name]
    answer = asked(client_of(role), address, **data)
    if RANK.index(role) < RANK.index(least):
        assert answer.status_code == 403
        assert not Plan.objects.exists()
        refusal = Run.objects.get()
        assert (refusal.state, refusal.who) == ("refused", role)
    else:
        assert answer.status_code == 200, text_of(answer)
        assert not Run.objects.exists(), "nothing happens before it is confirmed"


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_forged_confirmation_does_nothing(name: str) -> None:
    """With the token of a plan that somebody else was shown."""
    address, data, _ = ADDRESSES[name]
    token = token_of(asked(client_of("administrator"), address, **data))
    for role in ("viewer", "operator"):
        answer = client_of(role).post(f"/prod/{address}", {"plan": token, "typed": "prod"})
        assert answer.status_code in (400, 403)
    assert set(Run.objects.values_list("state", flat=True)) <= {"refused"}


@pytest.mark.parametrize("name", ADDRESSES)
def test_nothing_can_be_asked_of_a_read_only_store(name: str, backend: Backend) -> None:
    address, data, _ = ADDRESSES[name]
    joint = "&" if "?" in backend.url else "?"
    with serving(prod=f"{backend.url}{joint}mode=read-only"):
        settled(registry()["prod"].store)
        answer = asked(client_of("administrator"), address, **data)
    assert answer.status_code == 409
    assert "read-only" in text_of(answer)


def test_what_is_shown_is_exact_and_nothing_is_done_before_it_is_confirmed() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=[ref(one) for one in IDS[:2]])
    said = text_of(answer)
    assert "Delete 2 results?" in said
    assert "task-1" in said and "../../etc/passwd" in said
    assert "can be put back" in said
    assert len(registry()["prod"].store.results_by_id(IDS)) == 4


def test_the_name_of_the_store_is_typed_where_more_than_one_record_goes() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=[ref(one) for one in IDS])
    refused = confirmed(client, "results/delete", answer, typed="PROD")
    assert refused.status_code == 422
    assert not Run.objects.exists()
    run = outcome(confirmed(client, "results/delete", refused, typed="prod"))
    assert (run.state, run.done) == ("done", 4)
    assert registry()["prod"].store.results_by_id(IDS) == {}


def test_hostile_names_are_escaped_wherever_they_are_shown() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref(IDS[2]))
    assert "<svg onload" not in answer.content.decode()
    run = outcome(confirmed(client, "results/delete", answer))
    for address in (f"/runs/{run.pk}/", "/runs/"):
        for headers in ({}, HTMX):
            assert "<svg onload" not in client.get(address, headers=headers).content.decode()
    assert "svg onload" in text_of(client.get(f"/runs/{run.pk}/"))


def test_a_record_that_is_not_there_is_said() -> None:
    answer = asked(client_of("operator"), "results/delete", of="not~an~address")
    assert answer.status_code == 400
    gone = asked(client_of("administrator"), "results/delete", of=ref("never"))
    assert "Delete 0 results?" in text_of(gone)


def test_an_expiry_is_moved_set_and_taken_away() -> None:
    client, store = client_of("operator"), registry()["prod"].store
    before = store.result("task-1").expires_at

    def extended(**data: str) -> float | None:
        answer = asked(client, "results/expiry", of=ref("task-1"), **data)
        run = outcome(confirmed(client, "results/expiry", answer))
        assert (run.state, run.done) == ("done", 1), run.message
        return store.result("task-1").expires_at

    later = extended(expiry="24h")
    assert before and later and abs(later - before - 86_400) < 1
    assert extended(expiry="at", at="2099-01-01T00:00:00") == 4070908800
    in_tokyo = extended(expiry="at", at="2099-01-01T09:00:00", zone="Asia/Tokyo")
    assert in_tokyo == 4070908800, "as the reader's clock says"
    assert extended(expiry="forever") is None
    assert extended(expiry="1h") is not None


@pytest.mark.parametrize(
    "data",
    [{}, {"expiry": "2h"}, {"expiry": "at"}, {"expiry": "at", "at": "yesterday"},
     {"expiry": "at", "at": "2099-01-01T00:00", "zone": "Nowhere/Else"},
     {"expiry": "at", "at": "2099-01-01T00:00", "zone": "../../etc/passwd"},
     {"expiry": "at", "at": "2001-01-01T00:00"}, {"expiry": "at", "at": "9999-01-01T00:00"}],
)  # fmt: skip
def test_an_expiry_that_cannot_be_is_refused(data: dict[str, str]) -> None:
    answer = asked(client_of("operator"), "results/expiry", of=ref("task-1"), **data)
    assert answer.status_code == 400


def test_all_that_match_are_extended() -> None:
    client = client_of("operator")
    answer = asked(client, "results/expiry", matching="on", agent="a", expiry="1h")
    run = outcome(confirmed(client, "results/expiry", answer))
    assert (run.state, run.done) == ("done", 4)


def test_a_filter_that_cannot_be_read_means_no_more_than_nothing() -> None:
    answer = asked(client_of("administrator"), "results/delete-matching", life="nonsense")
    assert answer.status_code == 400


def test_clearing_configuration_keeps_what_consumers_need() -> None:
    client = client_of("administrator")
    answer = asked(client, "clear/config")
    assert "consumers stop" in text_of(answer)
    run = outcome(confirmed(client, "clear/config", answer, typed="prod"))
    assert (run.state, run.done) == ("done", 1)
    assert registry()["prod"].store.get_config("_subscription_active:group:t:a") is True


def test_everything_is_cleared_and_put_back(backend: Backend) -> None:
    client = client_of("administrator")
    before = contents(backend)
    answer = asked(client, "clear/everything")
    run = outcome(confirmed(client, "clear/everything", answer, typed="prod"))
    assert run.state == "done", run.message
    counts = settled(registry()["prod"].store)
    assert (counts.agents, counts.results, counts.metrics) == (0, 0, 0)
    undo = asked(client, "put-back", run=run.pk)
    assert outcome(confirmed(client, "put-back", undo)).state == "done"
    assert contents(backend) == before


def test_clearing_asks_the_password_again_after_a_while() -> None:
    client = client_of("administrator")
    session = client.session
    session.pop("password_shown_at", None)
    session["password_shown_at"] = 0
    session.save()
    answer = asked(client, "clear/results")
    assert answer.status_code == 302
    assert answer["Location"].startswith(reverse("confirm-password"))


def grown_old(client: Client) -> None:
    """The password was given long ago."""
    session = client.session
    session["password_shown_at"] = 0
    session.save()


def password_given(client: Client, answer: Any) -> Any:
    """Goes the way that the answer leads, through the password, and on to where that leads."""
    there = answer.headers.get("HX-Redirect") or answer["Location"]
    assert there.startswith(reverse("confirm-password"))
    user = User.objects.get(username="administrator")
    user.set_password(PASSWORD)
    user.save()
    client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    (back,) = parse_qs(urlsplit(there).query)["next"]
    confirmed = client.post(reverse("confirm-password"), {"password": PASSWORD, "next": back})
    return client.get(confirmed["Location"])


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_after_the_password_one_is_back_at_what_was_asked_for(headers: dict[str, str]) -> None:
    client = client_of("administrator")
    grown_old(client)
    answer = password_given(client, client.get("/prod/clear/results", headers=headers))
    assert "Clear 4 records?" in text_of(answer)
    plan = Plan.objects.get()
    assert token_of(answer) == plan.token
    grown_old(client)
    late = client.post(
        "/prod/clear/results", {"plan": plan.token, "typed": "prod"}, headers=headers
    )
    assert not Run.objects.exists()
    answer = password_given(client, late)
    assert token_of(answer) == plan.token == Plan.objects.get().token
    assert outcome(confirmed(client, "clear/results", answer, typed="prod")).done == 4
    done = client.get("/prod/clear/results", {"plan": plan.token})
    assert "confirmed already" in text_of(done)


def test_a_value_that_was_written_is_not_lost_to_the_password() -> None:
    client = client_of("administrator")
    grown_old(client)
    form = password_given(client, client.get("/prod/config/edit", {"of": ref("mine")}))
    assert '"x": 1' in text_of(form)
    grown_old(client)
    late = client.post("/prod/config/edit", {"of": ref("mine"), "text": "[1, 2]"})
    answer = password_given(client, late)
    assert outcome(confirmed(client, "config/edit", answer)).state == "done"
    assert registry()["prod"].store.get_config("mine") == [1, 2]


def test_the_plan_of_another_person_is_not_shown() -> None:
    token = token_of(asked(client_of("administrator"), "results/delete", of=ref("task-1")))
    answer = asked(client_of("operator"), "results/delete", plan=token)
    assert answer.status_code == 400
    assert "task-1" not in text_of(answer)


def test_a_refusal_says_for_whom_it_is_in_words() -> None:
    answer = asked(client_of("viewer"), "put-back", run="1")
    assert "Put back is for operators and administrators." in text_of(answer)
    answer = asked(client_of("operator"), "clear/results")
    assert "Clear is for administrators." in text_of(answer)
    log = text_of(client_of("administrator").get("/runs/"))
    assert "put_back" not in log and "clear_store" not in log


def test_a_key_is_set_edited_and_deleted() -> None:
    client, store = client_of("administrator"), registry()["prod"].store
    for key, text in ({"key": "new"}, '{"y": [1, 2]}'), ({"of": ref("new")}, "3"):
        answer = client.post("/prod/config/edit", {**key, "text": text})
        assert outcome(confirmed(client, "config/edit", answer)).state == "done"
    assert store.get_config("new") == 3
    twice = client.post("/prod/config/edit", {"key": "new", "text": "4"})
    assert (twice.status_code, "such a key already" in text_of(twice)) == (422, True)
    answer = asked(client, "config/delete", of=ref("new"))
    assert outcome(confirmed(client, "config/delete", answer)).state == "done"
    assert store.get_config("new") is None


@pytest.mark.parametrize("text", ["", "{", "NaN", "'x'", "[1,]", "1" * 1_000_001])
def test_a_value_that_is_no_json_is_told_and_not_taken(text: str) -> None:
    client = client_of("administrator")
    answer = client.post("/prod/config/edit", {"of": ref("mine"), "text": text})
    assert answer.status_code == 422
    assert not Plan.objects.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{oops", "in line 1, at character 2, a name in double quotes is missing"),
        ('{\n "a": 1\n "b": 2}', "in line 3, at character 2, a comma or the end is missing"),
        ("[1] 2", "in line 1, at character 5, something follows the value"),
        ("fast", "a text stands in double quotes"),
        ('"\\x"', "a backslash"),
        ("NaN", "which knows no NaN"),
        ("1e999", "a number is too large"),
        ("[" * 100_000, "too deeply nested"),
    ],
)
def test_what_is_wrong_with_json_is_said_in_plain_words(text: str, told: str) -> None:
    client = client_of("administrator")
    answer = client.post("/prod/config/edit", {"of": ref("mine"), "text": text})
    assert told in text_of(answer)


def test_a_value_that_is_not_shown_whole_is_not_offered_to_be_stored() -> None:
    client, store = client_of("administrator"), registry()["prod"].store
    store.save_config("large", "x" * 100_000)
    store.save_config("secret", {"password": "hunter2"})
    for key in ("large", "secret"):
        page = client.get("/prod/config/edit", {"of": ref(key)}).content.decode()
        assert "xxxx" not in page and "hunter2" not in page
        assert "is not shown" in page


def test_deleting_a_key_of_omnidaemon_says_what_it_means() -> None:
    answer = asked(
        client_of("administrator"), "config/delete", of=ref("_subscription_active:group:t:a")
    )
    assert "Consumers of this group stop" in text_of(answer)


def test_cleanup_counts_before_anything_is_touched(backend: Backend) -> None:
    client = client_of("operator")
    before = contents(backend)
    answer = client.get("/prod/cleanup/", {"days": "0.0000001"})
    assert answer.status_code == 200
    assert "Old results" in text_of(answer)
    assert contents(backend) == before


def test_the_same_can_be_asked_again_from_the_log() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref("task-1"))
    run = outcome(confirmed(client, "results/delete", answer))
    registry()["prod"].store.save_result("task-1", {"agent": "a"}, 60)
    settled(registry()["prod"].store)
    again = asked(client, "again", run=run.pk)
    assert "Delete 1 result?" in text_of(again)
    assert outcome(confirmed(client, "results/delete", again)).done == 1


@pytest.mark.parametrize("number", ["", "x", "-1", "999999", "9" * 30])
def test_a_run_that_is_not_there_is_not_found(number: str) -> None:
    client = client_of("operator")
    assert asked(client, "again", run=number).status_code == 404
    assert asked(client, "put-back", run=number).status_code == 400


def test_the_log_is_filtered_and_downloaded() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref("task-1"))
    run = outcome(confirmed(client, "results/delete", answer))
    for data in ({"action": "delete-results"}, {"who": "operator"}, {"state": "done"}):
        assert f'id="run-{run.pk}"' in client.get("/runs/", data).content.decode()
    for data in ({"action": "clear"}, {"who": "x"}, {"state": "failed"}, {"to": "2001-01-01"}):
        assert f'id="run-{run.pk}"' not in client.get("/runs/", data).content.decode()
    csv = b"".join(client.get("/runs/?format=csv")).decode()
    assert "delete-results" in csv and "operator" in csv
    records = b"".join(client.get(f"/runs/{run.pk}/?format=json")).decode()
    assert '"task-1"' in records and '"done"' in records


def test_the_log_of_all_stores_has_the_marks_of_none(backend: Backend) -> None:
    joint = "&" if "?" in backend.url else "?"
    with serving(prod=f"{backend.url}{joint}env=production"):
        client = client_of("operator")
        run = outcome(confirmed(
            client, "results/delete", asked(client, "results/delete", of=ref("task-1"))
        ))  # fmt: skip
        tinted = {
            address: "topbar-production" in client.get(address).content.decode()
            for address in ("/runs/", "/runs/?store=prod", f"/runs/{run.pk}/", "/prod/")
        }
    assert list(tinted.values()) == [False, True, True, True]


def test_the_log_calls_things_by_their_names() -> None:
    client = client_of("administrator")
    answer = asked(client, "results/expiry", of=ref("task-1"), expiry="1h")
    run = outcome(confirmed(client, "results/expiry", answer))
    page = client.get("/runs/")
    labels = {one.get("value"): one.text for one in elements(page, "option") if one.get("value")}
    assert labels["extend-results"] == "Set expiry"
    assert labels["log-in"] == "Log in"
    assert not [label for label in labels.values() if "-" in label or "_" in label]
    assert "Set expiry" in text_of(client.get(f"/runs/{run.pk}/"))


def buttons(answer: Any) -> list[tuple[str, bool]]:
    """Those that delete, each with whether it can be pressed."""
    found = [
        ("".join(one.itertext()).strip(), one.get("disabled") is None)
        for one in elements(answer, "button")
    ]
    return [button for button in found if button[0].startswith("Delete")]


def test_what_is_set_is_shown_beside_what_is_lost() -> None:
    client = client_of("administrator")
    said = text_of(client.post("/prod/config/edit", {"of": ref("mine"), "text": '{"x": 22}'}))
    assert '{"x": 1}' in said.replace("\n", "").replace("  ", "") or '"x": 1' in said
    assert '{"x": 22}' in said and "cannot be put back" in said
    said = text_of(client.post("/prod/config/edit", {"key": "supervisor:q", "text": "null"}))
    assert "no such key yet" in said and "supervisor last said" in said
    registry()["prod"].store.save_config("api_token", "hunter2")
    for data in ({"of": ref("api_token"), "text": '"hunter3"'},
                 {"of": ref("mine"), "text": '{"password": "hunter4"}'}):  # fmt: skip
        assert "hunter" not in text_of(client.post("/prod/config/edit", data))


def test_a_new_expiry_says_what_it_comes_to() -> None:
    client, store = client_of("operator"), registry()["prod"].store
    store.save_result(IDS[1], {"agent": "a"}, 7200)
    expiries = [store.result(one).expires_at for one in IDS[:2]]
    answer = asked(client, "results/expiry", of=[ref(one) for one in IDS[:2]], expiry="1h")
    times = [one.get("datetime") for one in elements(answer, "time") if one.get("datetime")]
    told = [datetime.fromisoformat(one).timestamp() for one in times]
    assert told == pytest.approx([at + 3600 for at in expiries if isinstance(at, float)], abs=0.01)
    assert "cannot be put back" in text_of(answer)
    forever = asked(client, "results/expiry", of=ref(IDS[0]), expiry="forever")
    assert "until somebody deletes them" in text_of(forever)


@pytest.mark.parametrize("backend", ["redis"], indirect=True)
def test_an_agent_that_cannot_be_deleted_alone_is_not_offered_to_be() -> None:
    client, store = client_of("operator"), registry()["prod"].store
    store.add_agent("t:x", {"name": "y"})
    store.add_agent("t", {"name": "x:y"})
    alone = asked(client, "agents/delete", of=ref("t", "x:y"))
    assert buttons(alone) == [("Delete 1 agent", False)]
    assert "Select what shares the record, too" in text_of(alone)
    assert confirmed(client, "agents/delete", alone).status_code == 422
    both = asked(client, "agents/delete", of=[ref("t", "x:y"), ref("t:x", "y")])
    assert buttons(both) == [("Delete 2 agents", True)]


@pytest.mark.parametrize("backend", ["json"], indirect=True)
def test_what_only_an_administrator_can_state_is_no_button_of_an_operator(
    backend: JsonBackend,
) -> None:
    backend.write("config.json", {"_omnidaemon_start_time": 1.0})
    let_it_rest(backend.folder)
    address = "results/delete"
    answer = asked(client_of("operator"), address, of=ref("task-1"))
    assert buttons(answer) == [("Delete 1 result", False)]
    assert "only an administrator can state" in text_of(answer)
    answer = asked(client_of("administrator"), address, of=ref("task-1"))
    assert buttons(answer) == [("Delete 1 result", True)]


def test_clearing_everything_says_how_much_of_what_and_offers_a_backup() -> None:
    answer = asked(client_of("administrator"), "clear/everything")
    assert "agents: 2 · results: 4 · keys: 1" in text_of(answer)
    assert "/prod/backups/create" in links(answer, "/prod/backups/")
    alone = asked(client_of("operator"), "results/delete", of=ref("task-1"))
    assert not links(alone, "/prod/backups/create")


def state_and_links(client: Client, run: Run) -> tuple[str, int, bool]:
    """The words of its state, how far its bar is, and whether it can be run again."""
    page = client.get(f"/runs/{run.pk}/")
    (bar,) = elements(page, "progress")
    said = text_of(page)
    state = "done in part" if "done in part" in said else run.state
    return state, int(bar.get("value")), "Run again" in said


def test_a_run_that_skipped_records_is_no_clean_success() -> None:
    client, store = client_of("operator"), registry()["prod"].store
    answer = asked(client, "results/delete", of=[ref(one) for one in IDS[:2]])
    store.save_result(IDS[0], {"agent": "a"}, 60)
    run = outcome(confirmed(client, "results/delete", answer, typed="prod"))
    assert (run.state, run.done, run.skipped) == ("done", 1, 1)
    assert state_and_links(client, run) == ("done in part", 50, True)
    assert "done in part" in text_of(client.get("/runs/"))
    settled(store)
    again = outcome(confirmed(client, "results/delete", asked(client, "again", run=run.pk)))
    assert (again.done, again.skipped) == (1, 0)
    assert state_and_links(client, again) == ("done", 100, False)


def test_what_was_skipped_is_counted_once() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref("task-1"))
    run = outcome(confirmed(client, "results/delete", answer))
    registry()["prod"].store.save_result("task-1", {"agent": "a"}, 60)
    settled(registry()["prod"].store)
    undo = outcome(confirmed(client, "put-back", asked(client, "put-back", run=run.pk)))
    said = text_of(client.get(f"/runs/{undo.pk}/"))
    assert "0 of 1 done" in said
    assert said.count("1 skipped") == 1
    assert said.count("0 of 1") == 1


def test_the_side_bar_counts_what_a_run_has_left() -> None:
    client = client_of("operator")
    asked(client, "")
    answer = asked(client, "results/delete", of=ref("task-1"))
    run = outcome(confirmed(client, "results/delete", answer))
    part = get_part(client, f"/runs/{run.pk}/")
    assert parse_qs(part.headers["X-Counts"])["results"] == ["3"]


def test_of_the_configuration_the_keys_that_would_go_are_counted() -> None:
    page = text_of(client_of("administrator").get("/prod/storage/"))
    assert "1 of 2 keys; OmniDaemon's own stay" in page


def test_a_failed_login_is_in_the_log() -> None:
    client_of("operator")
    Client().post("/login/", {"username": "operator", "password": PASSWORD + "x"})
    run = Run.objects.get()
    assert (run.action, run.state, run.who) == ("log-in", "refused", "operator")


@pytest.mark.parametrize("backend", ["json"], indirect=True)
def test_a_running_omnidaemon_owns_its_files(backend: JsonBackend) -> None:
    backend.write("config.json", {"_omnidaemon_start_time": 1.0})
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref("task-1"))
    assert "running OmniDaemon" in text_of(answer)
    assert confirmed(client, "results/delete", answer).status_code == 422
    let_it_rest(backend.folder)
    answer = asked(client, "results/delete", of=ref("task-1"))
    assert "cannot be proven" in text_of(answer)
    assert confirmed(client, "results/delete", answer).status_code == 422
    assert Run.objects.count() == 0
    refused = client.post("/prod/results/delete", {"plan": token_of(answer), "vouched": "on"})
    assert refused.status_code == 422, "only an administrator can state it"
    administrator = client_of("administrator")
    answer = asked(administrator, "results/delete", of=ref("task-1"))
    assert confirmed(administrator, "results/delete", answer, vouched="on").status_code == 302


@pytest.mark.parametrize("key", ["a\udcff", "a\0b", "x" * 3000])
def test_a_key_is_never_taken_for_another(key: str) -> None:
    client, store = client_of("administrator"), registry()["prod"].store
    twin = "a\ufffd"
    store.save_config(key, 1)
    store.save_config(twin, 2)
    page = client.get("/prod/config/")
    assert f"config/delete?of={ref(key)}" in page.content.decode()
    answer = client.post("/prod/config/edit", {"of": ref(key), "text": "3"})
    assert outcome(confirmed(client, "config/edit", answer)).state == "done"
    assert (store.get_config(key), store.get_config(twin)) == (3, 2)
    answer = asked(client, "config/delete", of=ref(key))
    assert outcome(confirmed(client, "config/delete", answer)).done == 1
    assert (store.get_config(key), store.get_config(twin)) == (None, 2)


@pytest.mark.parametrize("text", ["1e999", "[-1e400]"])
def test_a_number_that_json_cannot_hold_is_not_stored(text: str) -> None:
    client = client_of("administrator")
    assert client.post("/prod/config/edit", {"key": "k", "text": text}).status_code == 422


def test_a_run_is_not_undone_or_repeated_on_another_store(tmp_path: Path) -> None:
    client = client_of("operator")
    run = outcome(
        confirmed(client, "results/delete", asked(client, "results/delete", of=ref("task-1")))
    )
    (tmp_path / "other").mkdir()
    with serving(prod=f"json://{tmp_path}/other"):
        for address in ("put-back", "again"):
            answer = asked(client, address, run=run.pk)
            assert answer.status_code == 400
            assert "That was done to" in text_of(answer)


def test_what_was_refused_cannot_be_asked_again() -> None:
    asked(client_of("viewer"), "results/delete", of=ref("task-1"))
    run = Run.objects.get()
    assert asked(client_of("operator"), "again", run=run.pk).status_code == 404


def test_a_plan_is_not_confirmed_after_an_hour() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref("task-1"))
    Plan.objects.update(made_at=1.0)
    assert confirmed(client, "results/delete", answer).status_code == 400
    assert client.post("/prod/results/delete", {"plan": "\0"}).status_code == 400
    assert not Run.objects.exists()


def test_more_than_one_run_takes_is_said_and_done_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LARGEST", 3)
    client = client_of("administrator")
    answer = asked(client, "clear/results")
    assert "1 more are there" in text_of(answer)
    assert outcome(confirmed(client, "clear/results", answer, typed="prod")).done == 3
    answer = asked(client, "clear/results")
    assert outcome(confirmed(client, "clear/results", answer, typed="prod")).done == 1


def test_the_records_of_an_entry_outlive_the_account_that_made_it() -> None:
    client = client_of("operator")
    answer = asked(client, "results/delete", of=ref("task-1"))
    run = outcome(confirmed(client, "results/delete", answer))
    run.user.delete()
    page = client_of("administrator").get(f"/runs/{run.pk}/")
    assert "task-1" in text_of(page) and "operator" in text_of(page)
