"""Agents: OmniDaemon's own operations, and pages over the learnt registry."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from storage.base import AgentQuery, Page, RecordNotFound
from storage.garbage import collector_paused
from storage.records import (
    Agent,
    Supervisor,
    has_long_integer,
    parse_json,
    read_supervisor,
    text_of,
    to_bytes,
    to_text,
)
from storage.redis_store.client import Command, ResponseError
from storage.redis_store.part import RedisPart
from storage.redis_store.registry import LARGE, Pair, to_agent

_FIELDS = (b"name", b"callback_name", b"tools", b"description", b"config", b"topic", b"created_at")
_READ = 1000  # keys in one round trip
_UNLINKED = 500  # keys in one UNLINK
_JOINED = 2.0  # seconds that many agents' joined records are shared

Names = list[tuple[bytes, bytes]]


class AgentPart(RedisPart):
    # OmniDaemon's contract

    def add_agent(self, topic: str, agent_data: dict[str, Any]) -> None:
        name = agent_data.get("name")
        if not name:
            raise ValueError("an agent needs a name")
        raw_topic, raw_name = to_bytes(topic), to_bytes(str(name))
        fields: dict[bytes, bytes] = {
            b"name": raw_name,
            b"callback_name": to_bytes(text_of(agent_data.get("callback_name"))),
            b"tools": json.dumps(agent_data.get("tools", [])).encode(),
            b"description": to_bytes(text_of(agent_data.get("description"))),
            b"config": json.dumps(agent_data.get("config", {})).encode(),
            b"topic": raw_topic,
            b"created_at": repr(time.time()).encode(),
        }
        pairs = (part for pair in fields.items() for part in pair)
        self._client.write([
            ("HSET", self._keys.agent(raw_topic, raw_name), *pairs),
            ("SADD", self._keys.topic(raw_topic), raw_name),
            ("SADD", self._keys.topics, raw_topic),
        ])  # fmt: skip
        self._registry.stale()

    def get_agent(self, topic: str, agent_name: str) -> dict[str, Any] | None:
        key = self._keys.agent(to_bytes(topic), to_bytes(agent_name))
        return _plain(self._client.pipe([("HMGET", key, *_FIELDS)])[0])

    def get_agents_by_topic(self, topic: str) -> list[dict[str, Any]]:
        return self._read_topics([to_bytes(topic)]).get(topic, [])

    def list_all_agents(self) -> dict[str, list[dict[str, Any]]]:
        return self._read_topics(self._members(self._keys.topics))

    def _members(self, key: bytes) -> list[bytes]:
        reply = self._client.pipe([("SMEMBERS", key)])[0]
        return [] if isinstance(reply, ResponseError) else sorted(reply)

    def _read_topics(self, topics: list[bytes]) -> dict[str, list[dict[str, Any]]]:
        sets = self._client.pipe([("SMEMBERS", self._keys.topic(topic)) for topic in topics])
        names = [
            (to_text(topic), self._keys.agent(topic, name))
            for topic, members in zip(topics, sets, strict=True)
            if not isinstance(members, ResponseError) for name in sorted(members)
        ]  # fmt: skip
        found: dict[str, list[dict[str, Any]]] = {}
        with collector_paused(len(names)):
            batches = [names[start : start + _READ] for start in range(0, len(names), _READ)]
            asked = ([("HMGET", key, *_FIELDS) for _, key in batch] for batch in batches)
            for batch, replies in zip(batches, self._client.stream(asked), strict=True):
                for (topic, _), reply in zip(batch, replies, strict=True):
                    agent = _plain(reply)
                    if agent is not None:
                        found.setdefault(topic, []).append(agent)
        return found

    def delete_agent(self, topic: str, agent_name: str) -> bool:
        raw_topic, raw_name = to_bytes(topic), to_bytes(agent_name)
        members, key = self._keys.topic(raw_topic), self._keys.agent(raw_topic, raw_name)
        kept = False

        def plan(read: Callable[[Sequence[Command]], list[Any]]) -> list[Command]:
            nonlocal kept
            kept = bool(self._borrowed(read, [(raw_topic, raw_name)]))
            size, member = read([("SCARD", members), ("SISMEMBER", members, raw_name)])
            commands: list[Command] = [("EXISTS", key) if kept else ("DEL", key)]
            if not isinstance(size, ResponseError):
                commands.append(("SREM", members, raw_name))
                if size == (1 if member else 0):  # Redis removes an empty set by itself
                    commands.append(("SREM", self._keys.topics, raw_topic))
            return commands

        replies = self._client.transact([members, key], plan)
        self._registry.stale()
        return bool(replies[0])

    def delete_topic(self, topic: str) -> int:
        raw_topic = to_bytes(topic)
        members = self._keys.topic(raw_topic)

        def plan(read: Callable[[Sequence[Command]], list[Any]]) -> list[Command]:
            names = read([("SMEMBERS", members)])[0]
            pairs = [] if isinstance(names, ResponseError) else [(raw_topic, one) for one in names]
            borrowed = self._borrowed(read, pairs)
            keys = [self._keys.agent(*pair) for pair in pairs if pair not in borrowed]
            unlinks: list[Command] = [
                ("UNLINK", *keys[start : start + _UNLINKED])
                for start in range(0, len(keys), _UNLINKED)
            ]
            return [*unlinks, ("DEL", members), ("SREM", self._keys.topics, raw_topic)]

        replies = self._client.transact([members], plan)
        self._registry.stale()
        return sum(replies[:-2])

    def _borrowed(
        self, read: Callable[[Sequence[Command]], list[Any]], pairs: Names
    ) -> set[tuple[bytes, bytes]]:
        """Those whose hash describes another registered agent: (a:b, c) and (a, b:c) share a key,
        and deleting the one must not destroy the record of the other."""
        unsure = [pair for pair in pairs if b":" in pair[0] or b":" in pair[1]]
        if not unsure:
            return set()
        owners = read([("HMGET", self._keys.agent(*pair), "topic", "name") for pair in unsure])
        others = [
            (pair, owner) for pair, owner in zip(unsure, owners, strict=True)
            if isinstance(owner, list) and None not in owner and tuple(owner) != pair
            and self._keys.agent(*owner) == self._keys.agent(*pair)
        ]  # fmt: skip
        if not others:
            return set()
        members = read([("SISMEMBER", self._keys.topic(one[0]), one[1]) for _, one in others])
        return {pair for (pair, _), member in zip(others, members, strict=True) if member == 1}

    # Pages

    def topics(self) -> list[tuple[str, int]]:
        self._survey.step()
        self._registry.look()
        return self._registry.topics()

    def agent_page(
        self, query: AgentQuery, keep: Callable[[Agent], bool] | None = None
    ) -> Page[Agent]:
        self._survey.step()
        for _ in range(3):
            self._registry.look()
            pairs = self._matching(query)
            if keep is not None:
                joined = self._joined(pairs)
                pairs = [pair for pair in pairs if keep(joined[pair])]
            shown = pairs[query.offset : query.offset + query.limit]
            rows = self._rows(shown)
            if len(rows) == len(shown):
                break
            self._registry.stale()  # somebody was deleted since the last look
        return Page(rows, len(pairs), True, len(pairs), len(self._registry.agents))

    def _matching(self, query: AgentQuery) -> list[Pair]:
        registry = self._registry
        agents = registry.agents
        pairs = registry.by_name if query.order == "name" else registry.by_topic
        if query.topic is not None:
            pairs = [pair for pair in pairs if pair[0] == query.topic]
        if query.text:
            wanted = query.text.casefold()
            pairs = [pair for pair in pairs if wanted in pair[1].casefold()]
        if query.tool is not None:
            tool = query.tool
            pairs = [
                pair for pair in pairs
                if any(text_of(found) == tool for found in agents[pair].tools)
            ]  # fmt: skip
        if query.order == "newest":
            pairs = sorted(pairs, key=lambda pair: _age(agents[pair]))
        return pairs[::-1] if query.descending else pairs

    def _rows(self, pairs: list[Pair]) -> list[Agent]:
        """These agents as they are now; without those that are no longer registered."""
        raw = [(to_bytes(topic), to_bytes(name)) for topic, name in pairs]
        members = self._client.pipe(
            [("SISMEMBER", self._keys.topic(topic), name) for topic, name in raw]
        )
        there = [pair for pair, member in zip(pairs, members, strict=True) if member == 1]
        read = self._registry.read(there)
        self._registry.learn(read)
        return self._join(_copy(agent) for agent in read.values())

    def _joined(self, pairs: list[Pair]) -> dict[Pair, Agent]:
        """Copies of known agents with their subscription and supervisor; shared for a short time,
        because it costs a look at each of them."""
        registry = self._registry
        if len(pairs) <= LARGE:
            rows = self._join(_copy(registry.agents[pair]) for pair in pairs)
            return dict(zip(pairs, rows, strict=True))
        until, version, joined = self._joined_cache
        if time.monotonic() >= until or version != registry.version:
            version, agents = registry.version, registry.agents
            with collector_paused(len(agents)):
                rows = self._join(_copy(agent) for agent in list(agents.values()))
            joined = {(row.topic, row.name): row for row in rows}
            self._joined_cache = (time.monotonic() + _JOINED, version, joined)
        return joined

    _joined_cache: tuple[float, int, dict[Pair, Agent]] = (0.0, -1, {})

    def _join(self, agents: Iterable[Agent]) -> list[Agent]:
        rows = list(agents)
        flags = self._values(
            [self._keys.subscription(to_bytes(row.topic), to_bytes(row.name)) for row in rows]
        )
        names = list(dict.fromkeys(row.name for row in rows))
        states = self._values([self._keys.supervisor(to_bytes(name)) for name in names])
        supervisors = {
            name: to_supervisor(name, raw) for name, raw in zip(names, states, strict=True)
        }
        for row, flag in zip(rows, flags, strict=True):
            row.subscribed = to_flag(flag)
            row.supervisor = supervisors[row.name]
        return rows

    def _values(self, keys: list[bytes]) -> list[bytes | None]:
        """MGET answers None for what is no string, so that one odd key spoils nothing."""
        found: list[bytes | None] = []
        for start in range(0, len(keys), _READ):
            found += self._client.call("MGET", *keys[start : start + _READ])
        return found

    def agents_by_name(self, names: Iterable[tuple[str, str]]) -> list[Agent]:
        return self._rows(list(dict.fromkeys(names)))

    def long_agents(self, length: int) -> list[Pair]:
        self._registry.look()
        return [pair for pair in self._registry.by_topic if len(pair[0]) + len(pair[1]) > length]

    def agent(self, topic: str, name: str) -> Agent:
        self._registry.look()
        raw_topic, raw_name = to_bytes(topic), to_bytes(name)
        key = self._keys.agent(raw_topic, raw_name)
        member, owner = self._client.pipe(
            [("SISMEMBER", self._keys.topic(raw_topic), raw_name), ("HMGET", key, "topic", "name")]
        )
        if member != 1 and owner != [raw_topic, raw_name]:
            raise RecordNotFound("there is no such agent")
        found = self._registry.read([(topic, name)])[topic, name]
        if member != 1 and not found.problem:
            found.problem = "inconsistent index: its topic's set does not name it"
        return self._join([found])[0]


def to_flag(raw: bytes | None) -> bool | None:
    value = parse_json(raw)[0] if raw is not None else None
    return value if isinstance(value, bool) else None


def to_supervisor(name: str, raw: bytes | None) -> Supervisor | None:
    """None where there is none: unregistering leaves `null` behind."""
    if raw is None or raw == b"null":
        return None
    value, problem = parse_json(raw)
    return Supervisor(name, problem=problem) if problem else read_supervisor(name, value)


def _copy(agent: Agent) -> Agent:
    """To be joined with what changes faster; copy.copy() takes five times as long."""
    return Agent(
        agent.topic,
        agent.name,
        agent.callback_name,
        agent.description,
        agent.tools,
        agent.config,
        agent.created_at,
        agent.extra,
        agent.shares_record_with,
        agent.problem,
    )


def _age(agent: Agent) -> float:
    return -agent.created_at if isinstance(agent.created_at, float) else math.inf


def _plain(reply: Any) -> dict[str, Any] | None:
    """An agent as OmniDaemon returns it; None if it is missing or cannot be read."""
    try:  # ten thousand of these are made in one listing, nearly all of them as they should be
        name, callback_name, tools, description, config, topic, created_at = reply
        if not has_long_integer(tools + config):
            return {
                "name": name.decode(),
                "callback_name": callback_name.decode(),
                "tools": orjson.loads(tools),
                "description": description.decode(),
                "config": orjson.loads(config),
                "topic": topic.decode(),
                "created_at": float(created_at),
            }
    except (TypeError, AttributeError, ValueError):
        pass
    return _plain_tolerantly(reply)


def _plain_tolerantly(reply: Any) -> dict[str, Any] | None:
    if isinstance(reply, ResponseError) or reply.count(None) == len(_FIELDS):
        return None
    texts = [None if raw is None else to_text(raw) for raw in reply]
    name, callback_name, _, description, _, topic, created_at = texts
    tools, wrong_tools = parse_json(reply[2]) if reply[2] is not None else ([], "")
    config, wrong_config = parse_json(reply[4]) if reply[4] is not None else ({}, "")
    if wrong_tools or wrong_config:
        return None
    try:
        created = float(created_at or 0)
    except ValueError:
        return None
    return {
        "name": name,
        "callback_name": callback_name,
        "tools": tools,
        "description": description,
        "config": config,
        "topic": topic,
        "created_at": created,
    }


__all__ = ["AgentPart", "to_agent", "to_flag", "to_supervisor"]
