"""Any sequence of changes leaves a store that answers as a few dictionaries would."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from storage.base import AgentQuery, ResultQuery
from tests.stores import Backend, JsonBackend, RedisBackend, settled

# No colons, which would let two agents share one Redis hash.
topics = st.sampled_from(["t", "t*", "é", ""])
names = st.sampled_from(["a", "a?", "b/c"])
task_ids = st.sampled_from(["1", "../1", "", "[1]", "é"])
keys = st.sampled_from(["k", "k*", "", "é"])
values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just({"a": [1]})


class Changes(RuleBasedStateMachine):
    """Two instances write and read in turn, as two processes would."""

    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        self.stores = [self.backend.open(), self.backend.open()]
        self.agents: dict[tuple[str, str], Any] = {}
        self.results: dict[str, Any] = {}
        self.order: list[str] = []  # oldest first
        self.config: dict[str, Any] = {}
        self.events: list[str] = []
        self.cursor: str | None = None
        self.followed: list[str] = []

    @property
    def store(self):
        self.stores.reverse()
        return self.stores[0]

    @rule(topic=topics, name=names, description=st.text(max_size=5))
    def add_agent(self, topic, name, description):
        self.store.add_agent(topic, {"name": name, "description": description})
        self.agents[topic, name] = description

    @rule(topic=topics, name=names)
    def delete_agent(self, topic, name):
        there = self.agents.pop((topic, name), None) is not None
        assert self.store.delete_agent(topic, name) is there

    @rule(topic=topics)
    def delete_topic(self, topic):
        gone = [pair for pair in self.agents if pair[0] == topic]
        assert self.store.delete_topic(topic) == len(gone)
        for pair in gone:
            del self.agents[pair]

    @rule(task_id=task_ids, value=values, ttl=st.sampled_from([None, 0, 3600]))
    def save_result(self, task_id, value, ttl):
        self.store.save_result(task_id, value, ttl)
        self.results[task_id] = (value, bool(ttl))
        self.order = [*(other for other in self.order if other != task_id), task_id]

    @rule(task_id=task_ids)
    def delete_result(self, task_id):
        there = self.results.pop(task_id, None) is not None
        self.order = [other for other in self.order if other != task_id]
        assert self.store.delete_result(task_id) is there

    @rule(key=keys, value=values)
    def save_config(self, key, value):
        self.store.save_config(key, value)
        self.config[key] = value

    @rule()
    def save_metric(self):
        task_id = str(uuid.uuid4())
        self.store.save_metric({"event": "e", "task_id": task_id})
        self.events.append(task_id)

    @rule(limit=st.integers(1, 3))
    def follow_metrics(self, limit):
        batch = self.store.metrics_after(self.cursor, limit)
        assert not batch.gap
        self.cursor = batch.cursor
        self.followed += [metric.task_id for metric in batch.events]
        assert self.followed == self.events[: len(self.followed)]
        assert batch.more == (len(self.followed) < len(self.events))

    @rule()
    def clear_agents(self):
        assert self.store.clear_agents() == len(self.agents)
        self.agents = {}

    @rule()
    def clear_results(self):
        assert self.store.clear_results() == len(self.results)
        self.results, self.order = {}, []

    @invariant()
    def agents_agree(self):
        listed = self.store.list_all_agents()
        assert {
            (topic, agent["name"]): agent["description"]
            for topic in listed
            for agent in listed[topic]
        } == self.agents
        assert sum(map(len, listed.values())) == len(self.agents)
        for topic, name in self.agents:
            assert self.store.agent(topic, name).description == self.agents[topic, name]
        rows = self.store.agent_page(AgentQuery(limit=100)).rows
        assert {(row.topic, row.name) for row in rows} == set(self.agents)

    @invariant()
    def results_agree(self):
        for task_id in ("1", "../1", "", "[1]", "é"):
            assert self.store.get_result(task_id) == self.results.get(task_id, (None,))[0]
        assert [found["task_id"] for found in self.store.list_results()] == self.order[::-1]
        assert set(self.store.results_by_id(self.results)) == set(self.results)

    @invariant()
    def configuration_and_metrics_agree(self):
        for key in ("k", "k*", "", "é"):
            assert self.store.get_config(key, "none") == self.config.get(key, "none")
        assert [event["task_id"] for event in self.store.get_metrics()] == self.events[::-1]

    def teardown(self) -> None:
        """What is learnt in the background agrees too, once it is learnt."""
        fresh = self.backend.open()
        counts = settled(fresh)
        assert (counts.agents, counts.results) == (len(self.agents), len(self.results))
        assert (counts.config, counts.metrics) == (len(self.config), len(self.events))
        assert counts.forever == sum(not mortal for _, mortal in self.results.values())
        rows = fresh.result_page(ResultQuery()).rows
        assert [row.task_id for row in rows] == self.order[::-1]
        self.backend.close()


def check(machine: type[Changes]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_json_store_answers_as_dictionaries_would(tmp_path: Path):
    class JsonChanges(Changes):
        def __init__(self) -> None:
            self.backend = JsonBackend(Path(tempfile.mkdtemp(dir=tmp_path)))
            super().__init__()

        def teardown(self) -> None:
            super().teardown()
            assert isinstance(self.backend, JsonBackend)
            shutil.rmtree(self.backend.folder)

    check(JsonChanges)


def test_a_redis_answers_as_dictionaries_would(redis_url: str):
    class RedisChanges(Changes):
        def __init__(self) -> None:
            self.backend = RedisBackend(redis_url, f"omni-{uuid.uuid4()}")
            super().__init__()

    check(RedisChanges)
