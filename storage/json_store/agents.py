"""Agents: `agents.json`, joined with the subscriptions and supervisors of `config.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.base import AgentQuery, Page, RecordNotFound, StoreError, StoreUnavailable
from storage.json_store.layout import Objects, Unreadable
from storage.json_store.owner import supervisors_of
from storage.json_store.store import JsonFiles
from storage.records import Agent, Supervisor, json_kind, read_agent, text_of


@dataclass(slots=True)
class AgentIndex:
    """The rows of one version of the file, by topic and name."""

    rows: list[Agent]
    by_name: dict[tuple[str, str], Agent]
    topics: list[tuple[str, int]]


def index_agents(document: Objects) -> AgentIndex:
    rows: list[Agent] = []
    topics = []
    for topic, value in document.values.items():
        found = _rows_of(topic, value)
        if found:
            rows += found
            topics.append((topic, len(found)))
    by_name: dict[tuple[str, str], Agent] = {}
    for row in rows:
        first = by_name.setdefault((row.topic, row.name), row)
        if first is not row:
            first.problem = row.problem = row.problem or "this topic has two agents of this name"
    rows.sort(key=lambda row: (row.topic, row.name))
    return AgentIndex(rows, by_name, sorted(topics))


def _rows_of(topic: str, value: object) -> list[Agent]:
    if isinstance(value, Unreadable):
        return [Agent(topic, "", problem=value.reason)]
    if not isinstance(value, list):
        problem = f"expected a list of agents, is {json_kind(value)}"
        return [Agent(topic, "", problem=problem)]
    return [_row(topic, position, item) for position, item in enumerate(value)]


def own_name(value: object) -> str | None:
    name = _name(value)
    return name if isinstance(name, str) and name else None


def listed_name(position: int, value: object) -> str:
    """Without a name of its own an agent is told apart by its place in the list."""
    return own_name(value) or f"[{position}]"


def _row(topic: str, position: int, value: object) -> Agent:
    name = own_name(value)
    if name is not None:
        try:
            return read_agent(topic, name, value)
        except RecursionError:
            return Agent(topic, name, problem="nested too deep")
    row = read_agent(topic, listed_name(position, value), value)
    if not row.problem:
        named = _name(value)
        row.problem = f"its name is {json_kind(named)}, not text" if named else "has no name"
    return row


@dataclass(slots=True)
class Joined:
    """What the configuration says of agents."""

    flags: Mapping[str, Any]
    supervisors: dict[str, Supervisor]

    def row(self, agent: Agent) -> Agent:
        """OmniDaemon joins supervisors by the agent's name alone, whatever the topic."""
        flag = self.flags.get(f"_subscription_active:group:{agent.topic}:{agent.name}")
        return replace(
            agent,
            subscribed=flag if isinstance(flag, bool) else None,
            supervisor=self.supervisors.get(agent.name),
        )


def joined(document: Objects) -> Joined:
    return Joined(
        document.values, {item.agent_name: item for item in supervisors_of(document.values)}
    )


def _has_tool(agent: Agent, tool: str) -> bool:
    return any(text_of(item) == tool for item in agent.tools)


def _ordered(rows: list[Agent], query: AgentQuery) -> list[Agent]:
    if query.order == "name":
        rows = sorted(rows, key=lambda row: (row.name, row.topic))
    elif query.order == "newest":
        rows = sorted(
            rows,
            key=lambda row: row.created_at if isinstance(row.created_at, float) else 0.0,
            reverse=True,
        )
    return rows[::-1] if query.descending else rows


class JsonAgents(JsonFiles):
    """The agents' part of the store."""

    def add_agent(self, topic: str, agent_data: dict[str, Any]) -> None:
        name = agent_data.get("name")
        if not name:
            raise ValueError("Agent data must include 'name' field")

        def edit(document: Objects) -> tuple[Objects, None]:
            others = [item for item in self._list_of(document, topic) if _name(item) != name]
            return document.changed({topic: [*others, agent_data]}), None

        self._change(self._agents, edit)

    @staticmethod
    def _list_of(document: Objects, topic: str) -> list[Any]:
        """The topic's agents to be changed, in exact numbers."""
        value = document.values.get(topic, [])
        if not isinstance(value, list):
            raise StoreUnavailable(f"agents.json: topic {topic!r} is unreadable; nothing changed")
        return value

    def get_agent(self, topic: str, agent_name: str) -> dict[str, Any] | None:
        for agent in self.get_agents_by_topic(topic):
            if agent.get("name") == agent_name:
                return agent
        return None

    def get_agents_by_topic(self, topic: str) -> list[dict[str, Any]]:
        document = self._agents.document()
        return _readable(document.copy_of(topic)) if topic in document.values else []

    def list_all_agents(self) -> dict[str, list[dict[str, Any]]]:
        document = self._agents.document()
        values = {topic: document.copy_of(topic) for topic in document.values}
        found = {topic: _readable(value) for topic, value in values.items()}
        return {topic: agents for topic, agents in found.items() if agents}

    def delete_agent(self, topic: str, agent_name: str) -> bool:
        def edit(document: Objects) -> tuple[Objects | None, bool]:
            if topic not in document.values:
                return None, False
            present = self._list_of(document, topic)
            left = [item for item in present if _name(item) != agent_name]
            if len(left) == len(present):
                return None, False
            changed = document.changed({topic: left}) if left else document.changed({}, [topic])
            return changed, True

        return self._change(self._agents, edit)

    def delete_topic(self, topic: str) -> int:
        def edit(document: Objects) -> tuple[Objects | None, int]:
            if topic not in document.values:
                return None, 0
            return document.changed({}, [topic]), len(_rows_of(topic, document.values[topic]))

        return self._change(self._agents, edit)

    def clear_agents(self) -> int:
        def edit(document: Objects) -> tuple[Objects | None, int]:
            return Objects(b"{}", {}), len(document.derive(index_agents).rows)

        return self._change(self._agents, edit)

    # What the pages ask

    def topics(self) -> list[tuple[str, int]]:
        return list(self._agents.document().derive(index_agents).topics)

    def agent_page(
        self, query: AgentQuery, keep: Callable[[Agent], bool] | None = None
    ) -> Page[Agent]:
        index = self._agents.document().derive(index_agents)
        rows = index.rows
        if query.topic is not None:
            rows = [row for row in rows if row.topic == query.topic]
        if query.text:
            wanted = query.text.casefold()
            rows = [row for row in rows if wanted in row.name.casefold()]
        if query.tool is not None:
            rows = [row for row in rows if _has_tool(row, query.tool)]
        rows = _ordered(rows, query)
        join = self._joined()
        if keep is not None:
            rows = [row for row in map(join.row, rows) if keep(row)]
        shown = rows[query.offset : query.offset + query.limit]
        if keep is None:
            shown = [join.row(row) for row in shown]
        return Page(shown, len(rows), searched=len(index.rows), of=len(index.rows))

    def agents_by_name(self, names: Iterable[tuple[str, str]]) -> list[Agent]:
        by_name = self._agents.document().derive(index_agents).by_name
        join = self._joined()
        return [join.row(by_name[pair]) for pair in dict.fromkeys(names) if pair in by_name]

    def long_agents(self, length: int) -> list[tuple[str, str]]:
        by_name = self._agents.document().derive(index_agents).by_name
        return [pair for pair in by_name if len(pair[0]) + len(pair[1]) > length]

    def agent(self, topic: str, name: str) -> Agent:
        found = self._agents.document().derive(index_agents).by_name.get((topic, name))
        if found is None:
            raise RecordNotFound(f"no agent {name!r} is registered for topic {topic!r}")
        return self._joined().row(found)

    def _joined(self) -> Joined:
        try:
            return self._config.document().derive(joined)
        except StoreError:  # agents are worth showing without it: their state is unknown
            return Joined({}, {})


def _name(agent: object) -> object:
    return agent.get("name") if isinstance(agent, dict) else None


def _readable(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]
