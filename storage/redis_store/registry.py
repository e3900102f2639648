"""The learnt registry: every agent's record, kept in memory and followed from look to look."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from storage.records import Agent, parse_json, read_agent, to_bytes, to_text
from storage.redis_store.client import Client, ResponseError
from storage.redis_store.keys import Keys
from storage.redis_store.result_reading import kinds

Pair = tuple[str, str]  # topic and name

_READ = 1000  # hashes read in one round trip
_SLICE = 300  # known hashes read again at each look, so that changes are noticed in turn
LARGE = 2000  # agents from which a look costs enough …
SHARED = 0.5  # … to be good for so many seconds, for all parts of a page and all its viewers


class Registry:
    """Shared by all threads. A look replaces whole objects and never changes one that is shown."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.version = 0
        self._client, self._keys = client, keys
        self._turn = threading.Lock()
        self.stray_topics: frozenset[bytes] = frozenset()  # sets that the set of topics lacks
        self.reset()

    def reset(self) -> None:
        self._fresh_until = 0.0
        self._looked = -1.0  # when the last look began
        self._names: dict[bytes, frozenset[bytes]] = {}
        self._round: Iterator[Pair] = iter(())
        self.agents: dict[Pair, Agent] = {}
        self.by_topic: list[Pair] = []
        self.by_name: list[Pair] = []
        self.shared: dict[Pair, list[Pair]] = {}
        self.hash_keys: set[bytes] = set()
        self.registered: frozenset[Pair] = frozenset()  # and each name with "" for any topic
        self.listed_topics: frozenset[bytes] = frozenset()
        self.broken_keys: dict[bytes, str] = {}
        self.version += 1  # never the number of something else before

    def stale(self) -> None:
        """Something was written: the next look must ask again."""
        self._fresh_until = 0.0

    def look(self) -> None:
        asked = time.monotonic()
        with self._turn:
            started = time.monotonic()
            if asked <= self._looked or started < self._fresh_until:
                return  # another thread looked while this one waited
            names = self._read_names()
            if names != self._names:
                self._renew(names)
            self._reread()
            self._looked = started
            self._fresh_until = started + SHARED if len(self.agents) > LARGE else 0.0

    def topics(self) -> list[tuple[str, int]]:
        return sorted((to_text(topic), len(names)) for topic, names in self._names.items())

    def _read_names(self) -> dict[bytes, frozenset[bytes]]:
        broken: dict[bytes, str] = {}
        found = self._client.pipe([("SMEMBERS", self._keys.topics)])[0]
        if isinstance(found, ResponseError):
            broken[self._keys.topics] = (
                f"expected set, is {kinds(self._client, [self._keys.topics])[0]}"
            )
            found = []
        self.listed_topics = frozenset(found)
        topics = sorted(self.listed_topics | self.stray_topics)
        replies = self._client.pipe([("SMEMBERS", self._keys.topic(topic)) for topic in topics])
        names: dict[bytes, frozenset[bytes]] = {}
        for topic, reply in zip(topics, replies, strict=True):
            if isinstance(reply, ResponseError):
                key = self._keys.topic(topic)
                broken[key] = f"expected set, is {kinds(self._client, [key])[0]}"
                reply = []
            if reply or topic in self.listed_topics:
                names[topic] = frozenset(reply)
        self.broken_keys = broken
        return names

    def _renew(self, names: dict[bytes, frozenset[bytes]]) -> None:
        """Membership changed: read what is new, forget what is gone, put all in order."""
        pairs = {
            (to_text(topic), to_text(name)): self._keys.agent(topic, name)
            for topic, members in names.items() for name in members
        }  # fmt: skip
        new = [pair for pair in pairs if pair not in self.agents]
        read = self.read(new)
        agents = {pair: self.agents.get(pair) or read[pair] for pair in pairs}
        under: defaultdict[bytes, list[Pair]] = defaultdict(list)
        for pair, key in pairs.items():
            under[key].append(pair)
        self.shared = {
            pair: sorted(other for other in sharing if other != pair)
            for sharing in under.values() if len(sharing) > 1 for pair in sharing
        }  # fmt: skip
        self.hash_keys = set(under)
        self.registered = frozenset(pairs).union(("", name) for _, name in pairs)
        self.by_topic = sorted(pairs)
        self.by_name = sorted(pairs, key=lambda pair: (pair[1], pair[0]))
        for pair, agent in agents.items():
            agent.shares_record_with = self.shared.get(pair, [])
        self.agents, self._names = agents, names
        self.version += 1

    def _reread(self) -> None:
        some = list(islice(self._round, _SLICE))
        if len(some) < _SLICE:
            self._round = iter(self.by_topic)
            some += islice(self._round, min(_SLICE, len(self.by_topic)) - len(some))
        known = [pair for pair in dict.fromkeys(some) if pair in self.agents]
        self.learn(self.read(known))

    def learn(self, read: dict[Pair, Agent]) -> None:
        """Records just read; others may be reading `agents` meanwhile."""
        for pair, agent in read.items():
            known = self.agents.get(pair)
            if known is not None and known != agent:
                self.agents[pair] = agent
                self.version += 1

    def read(self, pairs: Iterable[Pair]) -> dict[Pair, Agent]:
        """The records of these agents as they are now, whatever is there."""
        wanted = list(pairs)
        found: dict[Pair, Agent] = {}
        for start in range(0, len(wanted), _READ):
            some = wanted[start : start + _READ]
            keys = [self._keys.agent(to_bytes(topic), to_bytes(name)) for topic, name in some]
            replies = self._client.pipe([("HGETALL", key) for key in keys])
            for pair, reply in zip(some, replies, strict=True):
                agent = to_agent(*pair, reply)
                agent.shares_record_with = self.shared.get(pair, [])
                found[pair] = agent
            odd = {
                pair: key
                for pair, key, reply in zip(some, keys, replies, strict=True)
                if isinstance(reply, ResponseError)
            }
            names = kinds(self._client, list(odd.values()))
            for pair, kind in zip(odd, names, strict=True):
                found[pair].problem = f"expected hash, is {kind}"
        return found


def to_agent(topic: str, name: str, reply: Any) -> Agent:
    """From the reply to HGETALL."""
    if isinstance(reply, ResponseError):
        return Agent(topic, name, problem=str(reply)[:200])
    if not reply:
        return Agent(topic, name, problem="no record: the topic's set names an agent without one")
    parts = iter(reply)
    value: dict[str, Any] = {to_text(key): found for key, found in zip(parts, parts, strict=True)}
    problem = ""
    for key in ("tools", "config"):
        if key in value:
            value[key], wrong = parse_json(value[key])
            problem = problem or (wrong and f"{key}: {wrong}")
    agent = read_agent(topic, name, value)
    agent.extra = {key: to_text(found) for key, found in agent.extra.items()}
    agent.problem = agent.problem or problem
    return agent
