"""As a new user would: OmniDaemon's own data backed up, wiped, restored, moved to the other kind of
store, and there OmniDaemon lists its agents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from omnidash.models import Run
from omnidash.stores import registry
from tests.backups.asking import backed_up, did, fill, finished, restored, started
from tests.backups.test_restore import of_theirs
from tests.pages import serving
from tests.stores import JsonBackend, RedisBackend, let_it_rest
from tests.upstream import Upstream

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


def names(listed: dict[str, list[dict[str, Any]]]) -> set[tuple[str, str]]:
    return {(topic, one["name"]) for topic, agents in listed.items() for one in agents}


def test_redis_and_from_there_to_json(
    redis_fixture: RedisBackend, json_backend: JsonBackend
) -> None:
    with serving(prod=redis_fixture.url, other=json_backend.url):
        made, before = backed_up(), of_theirs(redis_fixture)
        redis_fixture.client.flushall()
        restored(made)
        assert of_theirs(redis_fixture) == before
        agents = names(registry()["prod"].store.list_all_agents())
        run = did("copy-store", "other", mode="replace", **{"from": "prod"})
    assert re.search("Compared afterwards: all (else )?is there", run.message)
    theirs = names(Upstream(json_backend).list_all_agents())
    assert len(theirs) == 17 and theirs < agents, "one of the two that share a record is left out"


def test_json_and_from_there_to_redis(
    json_fixture: JsonBackend, redis_backend: RedisBackend
) -> None:
    json_fixture.write("config.json", {"kept": [1, 2.50]})
    let_it_rest(json_fixture.folder)
    with serving(prod=json_fixture.url, other=redis_backend.url):
        before = {one.name: one.read_bytes() for one in json_fixture.folder.glob("*.json")}
        made = backed_up()
        for name, empty in (("agents", {}), ("results", {}), ("metrics", []), ("config", {})):
            json_fixture.write(f"{name}.json", empty)
        let_it_rest(json_fixture.folder)
        restored(made)
        after = {one.name: one.read_bytes() for one in json_fixture.folder.glob("*.json")}
        assert {name for name in before if before[name] != after[name]} <= {"results.json"}
        agents = names(registry()["prod"].store.list_all_agents())
        run = did("copy-store", "other", mode="replace", **{"from": "prod"})
    assert re.search("Compared afterwards: all (else )?is there", run.message)
    theirs = names(Upstream(redis_backend).list_all_agents())
    assert len(theirs) == 17 and theirs < agents


def test_a_copy_brings_no_agent_and_no_key_that_was_not_shown(
    redis_backend: RedisBackend, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    with serving(prod=redis_backend.url, other=f"json://{tmp_path}/copy"):
        origin, target = registry()["prod"].store, registry()["other"].store
        fill(origin)
        run = started("copy-store", "other", mode="replace", **{"from": "prod"})
        origin.save_config("mine", "poison")
        run = finished(run)
        assert run.state == Run.State.REFUSED
        assert "look again" in run.message
        assert (target.counts().config, target.counts().results) == (0, 0)


def test_results_that_come_before_a_copy_are_copied_and_counted(
    redis_backend: RedisBackend, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    with serving(prod=redis_backend.url, other=f"json://{tmp_path}/copy"):
        fill(registry()["prod"].store)
        run = started("copy-store", "other", mode="replace", **{"from": "prod"})
        registry()["prod"].store.save_result("late", {"agent": "a"}, 3600)
        shown, run = run.total, finished(run)
        assert (run.state, run.done) == (Run.State.DONE, shown + 1)
        assert f"{shown} were shown" in run.message
        assert registry()["other"].store.get_result("late") == {"agent": "a"}
