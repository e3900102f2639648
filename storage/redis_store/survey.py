"""What lies under the prefix and no index names: found by walking all keys, a bit at each look."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from storage.records import to_text
from storage.redis_store.client import Client
from storage.redis_store.keys import Keys, may_be_anothers
from storage.redis_store.ownership import Ownership
from storage.redis_store.registry import Pair, Registry
from storage.redis_store.result_index import ResultIndex
from storage.redis_store.scan import KeyScan

_STEP = 1000  # keys a step of an ordinary page looks at


class Survey(Ownership):
    """`orphans` are agents' hashes that no topic's set names; `strangers` are keys that begin like
    ours and are not recognised: perhaps another OmniDaemon's, whose prefix begins with ours. Such
    a neighbour's keys are read once, not at each walk."""

    def __init__(self, client: Client, keys: Keys, index: ResultIndex, registry: Registry) -> None:
        super().__init__(client, keys)
        self._index, self._registry = index, registry
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.scan = KeyScan(self._client, self._keys.everything)
        self.orphans: dict[bytes, Pair] = {}
        self.strangers: set[bytes] = set()
        self._topics: set[bytes] = set()
        self._foreign_topics: set[bytes] = set()
        self._walk: tuple[dict[bytes, Pair], set[bytes]] = ({}, set())

    @property
    def complete(self) -> bool:
        return self.scan.walks > 0

    def forget(self, keys: Sequence[bytes]) -> None:
        """We deleted these hashes ourselves."""
        with self._lock:
            for key in keys:
                self.orphans.pop(key, None)
                self._walk[0].pop(key, None)

    def step(self, budget: float = 0.0) -> None:
        keys, ended = self.scan.advance(budget, _STEP if not budget else 5 * _STEP)
        hashes, topics, results = self._sort(keys)
        orphans, strangers = self._check_hashes(hashes)
        strangers |= self._check_results(results)
        with self._lock:
            self.orphans.update(orphans)
            self.strangers.update(strangers)
            self._walk[0].update(orphans)
            self._walk[1].update(strangers)
            self._topics |= topics
            if ended:  # what this walk did not meet is no more
                self.orphans, self.strangers = self._walk
                self._walk = ({}, set())
                topics, self._topics = self._topics, set()
        if ended:
            self._check_topics(topics)

    def _sort(self, keys: Sequence[bytes]) -> tuple[list[bytes], set[bytes], list[bytes]]:
        ours = self._keys
        hashes, topics, results = [], set(), []
        for key in keys:
            if key.startswith(ours.result_head):
                results.append(key[len(ours.result_head) :])
            elif key.startswith(ours.agent_head):
                hashes.append(key)
            elif key.startswith(ours.topic_head):
                topics.add(key[len(ours.topic_head) :])
        return hashes, topics, results

    def _check_hashes(self, found: list[bytes]) -> tuple[dict[bytes, Pair], set[bytes]]:
        head = len(self._keys.agent_head)
        foreign = {key for key in self.strangers.intersection(found) if may_be_anothers(key[head:])}
        found = [key for key in found if key not in foreign]
        if any(key not in self._registry.hash_keys for key in found):
            self._registry.look()
        unknown = [key for key in found if key not in self._registry.hash_keys]
        named = dict(zip(unknown, self.own_names(unknown), strict=True))
        own = {key: pair for key, pair in named.items() if pair is not None}
        members = self._client.pipe(
            [("SISMEMBER", self._keys.topic(topic), name) for topic, name in own.values()]
        )
        orphans = {
            key: (to_text(topic), to_text(name))
            for (key, (topic, name)), member in zip(own.items(), members, strict=True)
            if member != 1
        }
        return orphans, foreign | {key for key, pair in named.items() if pair is None}

    def _check_results(self, task_ids: list[bytes]) -> set[bytes]:
        """Results that the index does not name (asked again, since it may have grown meanwhile) are
        told to it; the keys that are perhaps no results of ours are returned."""
        unknown = [one for one in task_ids if not self._index.knows(one)]
        foreign = self.strangers.intersection(map(self._keys.result, unknown))
        unknown = [one for one in unknown if self._keys.result(one) not in foreign]
        index = self._keys.results_index
        scores = self._client.pipe([("ZSCORE", index, one) for one in unknown])
        scored = dict(zip(unknown, scores, strict=True))
        self._index.found_indexed(
            (one, float(score)) for one, score in scored.items() if isinstance(score, bytes)
        )
        loose = [one for one, score in scored.items() if not isinstance(score, bytes)]
        ours = self.own_results(loose)
        self._index.found_loose(one for one in loose if one in ours)
        return foreign | {self._keys.result(one) for one in loose if one not in ours}

    def _check_topics(self, found: set[bytes]) -> None:
        """Sets of agents whose topic the set of topics does not name; OmniDaemon lists none."""
        if not found <= self._registry.listed_topics:
            self._registry.look()
        self._foreign_topics &= found
        unsure = sorted(found - self._registry.listed_topics - self._foreign_topics)
        replies = self._client.pipe(
            [("SISMEMBER", self._keys.topics, topic) for topic in unsure]
            + [("TYPE", self._keys.topic(topic)) for topic in unsure]
        )
        members, types = replies[: len(unsure)], replies[len(unsure) :]
        sets = [
            topic for topic, member, kind in zip(unsure, members, types, strict=True)
            if member != 1 and kind == b"set"
        ]  # fmt: skip
        stray = frozenset(self.own_topics(sets))
        self._foreign_topics |= {one for one in unsure if may_be_anothers(one) and one not in stray}
        self._foreign_topics -= self._registry.listed_topics
        self.strangers |= set(map(self._keys.topic, self._foreign_topics))
        if stray != self._registry.stray_topics:
            self._registry.stray_topics = stray
            self._registry.stale()
