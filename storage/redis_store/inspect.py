"""The store looked at closely: the server's state, what is unreadable, and how much there is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from storage.base import Counts, Fact, Inspection, StoreDenied, StoreError
from storage.records import Broken, to_bytes, to_text
from storage.redis_store.clear import ClearPart
from storage.redis_store.client import ResponseError, parse_info
from storage.redis_store.config import ConfigPart
from storage.redis_store.metrics import METRICS_CAP, MetricPart
from storage.redis_store.result_reading import clock_difference, kinds
from storage.redis_store.results import ResultPart
from storage.redis_store.server_facts import Situation, figures, risks, troubles

_SURVEY = 0.04  # seconds that an inspection walks the keys; the next goes on from there
_ELSEWHERE = 0.1  # seconds spent on looking for data under other prefixes
_LISTED = 200  # broken records of one kind that are listed; the rest is counted
_PREVIEW = 80  # bytes
_MARKS = (b":topics", b":results:index", b":metrics:stream")  # one key of every OmniDaemon


class InspectPart(ResultPart, MetricPart, ConfigPart, ClearPart):
    def health_check(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"status": "unhealthy", "backend": self.backend,
                                  "redis_url": self.address, "connected": False}  # fmt: skip
        try:
            answer["latency_ms"] = round(self._latency(), 2)
            answer |= {"status": "healthy", "connected": True}
            info = parse_info(self._client.call("INFO"))
        except StoreDenied:
            return answer
        except StoreError as error:
            return {**answer, "status": "unhealthy", "error": str(error)}
        return {
            **answer,
            "redis_version": info.get("redis_version"),
            "used_memory": info.get("used_memory_human"),
            "connected_clients": int(info.get("connected_clients", 0)),
        }

    def _latency(self) -> float:
        """Milliseconds to an answer, by a question that no user of this store is forbidden."""
        self.connect()
        started = time.perf_counter()
        self.connect()
        return (time.perf_counter() - started) * 1000

    def counts(self) -> Counts:
        self._survey.step()
        self._index.look()
        self._registry.look()
        metrics = self._client.pipe([("XLEN", self._keys.metrics)])[0]
        config = self.config_count()
        topics = self._registry.topics()
        index = self._index
        with index.lock:
            return Counts(
                agents=sum(number for _, number in topics),
                topics=len(topics),
                results=len(index.shelf),
                results_indexed=index.indexed,
                orphans=len(index.shelf.gone),
                expired=0,
                forever=index.shelf.forever,
                unreadable=len(index.shelf.broken),
                metrics=metrics if isinstance(metrics, int) else None,
                metrics_cap=METRICS_CAP,
                config=config,
                complete=index.complete,
                learnt=index.learnt,
            )

    def inspect(self) -> Inspection:
        found = Inspection(self.backend, self.address, round(self._latency(), 2))
        self._ask_server(found)
        self._survey.step(_SURVEY)
        self._index.look()
        self._registry.look()
        keys = list(self._broken_keys())
        found.broken = [*keys, *self._broken_records()]
        found.troubles += [f"{broken.key}: {broken.reason}" for broken in keys]
        found.scan_complete = (
            self._survey.complete and self._index.complete and self.config_is_read()
        )
        found.scanned = self._survey.scan.seen
        strangers = len(self._survey.strangers)
        if strangers:
            found.facts.append(
                Fact("keyspace", "unrecognised under the prefix", strangers, "count")
            )
        if found.scan_complete and not self._survey.scan.seen:
            found.risks.append(self._nothing_here())
        return found

    def _ask_server(self, found: Inspection) -> None:
        info: dict[str, str] = {}
        saves: str | None = None
        reply = self._ask(found, "INFO")
        if reply is not None:
            info = parse_info(reply)
        else:
            found.facts.append(Fact("server", "INFO", None, note="this user may not run INFO"))
        reply = self._ask(found, "CONFIG", "GET", "save")
        if isinstance(reply, list) and len(reply) == 2:
            saves = to_text(reply[1])
        situation = Situation(saves, clock_difference(self._client))
        found.version = info.get("redis_version", "")
        found.facts += figures(info, self._where.db, situation) if info else []
        found.troubles += troubles(info)
        found.risks += risks(info, situation)

    def _ask(self, found: Inspection, *command: str) -> Any:
        """A reply, or None if this user may not ask or the server does not know the question."""
        reply = self._client.pipe([command], denied_ok=True)[0]
        if isinstance(reply, ResponseError):
            found.denied.append(" ".join(command[:2]))
            return None
        return reply

    def _nothing_here(self) -> str:
        """Perhaps the wrong prefix or database: what else there is."""
        where = f"no OmniDaemon data under prefix {self._where.prefix} in db {self._where.db}"
        prefixes: set[str] = set()
        deadline, cursor = time.monotonic() + _ELSEWHERE, b"0"
        while True:
            cursor, keys = self._client.call("SCAN", cursor, "MATCH", "*:*", "COUNT", 2000)
            for key in keys:
                for mark in _MARKS:
                    if key.endswith(mark):
                        prefixes.add(to_text(key.removesuffix(mark)))
            if cursor == b"0" or time.monotonic() >= deadline:
                break
        seen = ", ".join(sorted(prefixes)[:10])
        return f"{where}; prefixes seen: {seen}" if seen else where

    # What is unreadable or inconsistent

    def _broken_records(self) -> list[Broken]:
        return [*self._broken_agents(), *self._broken_results(),
                *self._broken_config(), *self._unindexed()]  # fmt: skip

    def _broken_keys(self) -> Iterable[Broken]:
        expected = ((self._keys.topics, "set"), (self._keys.results_index, "zset"),
                    (self._keys.metrics, "stream"))  # fmt: skip
        types = kinds(self._client, [key for key, _ in expected])
        for (key, kind), found in zip(expected, types, strict=True):
            if found not in (kind, "none"):
                yield Broken(to_text(key), f"expected {kind}, is {found}")
        for key, reason in self._registry.broken_keys.items():
            if key != self._keys.topics:
                yield Broken(to_text(key), reason)

    def _broken_agents(self) -> Iterable[Broken]:
        registry = self._registry
        bad = [agent for agent in list(registry.agents.values()) if agent.problem]
        for agent in bad[:_LISTED]:
            key = self._keys.agent(to_bytes(agent.topic), to_bytes(agent.name))
            yield Broken(to_text(key), agent.problem)
        for stray in sorted(registry.stray_topics):
            where = to_text(self._keys.topic(stray))
            yield Broken(where, "inconsistent index: the set of topics does not name this one")
        for key, (topic, _) in sorted(self._survey.orphans.items())[:_LISTED]:
            reason = f"inconsistent index: the set of topic {topic} does not name this agent"
            yield Broken(to_text(key), reason)
        sharing = sorted(registry.shared.items())[:_LISTED]
        for (topic, name), others in sharing:
            where = to_text(self._keys.agent(to_bytes(topic), to_bytes(name)))
            also = ", ".join(f"topic {one} name {two}" for one, two in others)
            yield Broken(where, f"topic {topic} name {name} shares this one record with {also}")

    def _broken_results(self) -> Iterable[Broken]:
        shelf = self._index.shelf
        with self._index.lock:
            some = [(one, shelf.entries[one].problem) for one in list(shelf.broken)[:_LISTED]]
        keys = [self._keys.result(task_id) for task_id, _ in some]
        previews = self._client.pipe([("GETRANGE", key, 0, _PREVIEW - 1) for key in keys])
        for key, (_, problem), preview in zip(keys, some, previews, strict=True):
            yield Broken(to_text(key), problem, preview if isinstance(preview, bytes) else b"")

    def _broken_config(self) -> Iterable[Broken]:
        for entry in self.broken_config():
            if entry.problem:
                key = to_text(self._keys.config(to_bytes(entry.key)))
                yield Broken(key, entry.problem, entry.raw[:_PREVIEW])

    def _unindexed(self) -> Iterable[Broken]:
        with self._index.lock:
            loose = self._index.loose[:_LISTED]
        for task_id in loose:
            key = to_text(self._keys.result(task_id))
            yield Broken(key, "inconsistent index: not in the index of results")
