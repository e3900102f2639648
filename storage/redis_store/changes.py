"""The contract of changes: each kind of record has its part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from storage.base import StoreDenied
from storage.changes import Change, Keep, Kind, Record, Target
from storage.records import to_bytes, to_text
from storage.redis_store.agent_changes import AgentChanges
from storage.redis_store.client import ResponseError
from storage.redis_store.config_changes import ConfigChanges
from storage.redis_store.metric_changes import MetricChanges
from storage.redis_store.result_changes import ResultChanges
from storage.redis_store.survey import Survey

_STEP = 0.1  # seconds of one step of a walk over all keys
_SILENT = 600_000  # milliseconds without a sign after which a consumer is not at work

Removal = Callable[[Sequence[Target], Keep], Change]
Return = Callable[[Sequence[Record]], Change]


class ChangePart(ResultChanges, AgentChanges, MetricChanges, ConfigChanges):
    largest_change = 500
    removed_apart = frozenset[Kind]({"result"})  # agents of a topic share its set of names

    def remove(self, targets: Sequence[Target], keep: Keep) -> Change:
        kinds: dict[str, Removal] = {
            "agent": self._remove_agents,
            "result": self._remove_results,
            "entry": self._remove_entries,
            "member": self._remove_members,
            "hash": self._remove_hashes,
            "metrics": self._remove_metrics,
            "config": self._remove_config,
        }
        return kinds[self._kind(targets, kinds)](targets, keep) if targets else Change()

    def put_back(self, records: Sequence[Record]) -> Change:
        """Events may be any number at once: each call writes all that are stored anew."""
        kinds: dict[str, Return] = {
            "agent": self._put_back_agents,
            "result": self._put_back_results,
            "entry": self._put_back_entries,
            "member": self._put_back_members,
            "hash": self._put_back_agents,
            "metrics": self._put_back_metrics,
            "config": self._put_back_config,
        }
        return kinds[self._kind(records, kinds)](records) if records else Change()

    def loose_ends(self) -> list[Target]:
        survey = Survey(self._client, self._keys, self._index, self._registry)
        while not survey.complete:
            survey.step(_STEP)
        self._registry.stale()
        self._registry.look()
        return [
            *self._entry_targets(), *self._member_targets(), *self._hash_targets(survey.orphans)
        ]  # fmt: skip

    def consuming(self, topic: str, agent: str) -> bool | None:
        """A consumer that waits for messages counts as idle before Redis 7.2 (XINFO then has no
        `inactive`), and is not even listed before its first one. There only that nobody at all
        reads for a group proves that it is not at work."""
        group = b"group:" + to_bytes(topic) + b":" + to_bytes(agent)
        asked = ("XINFO", "CONSUMERS", b"omni-stream:" + to_bytes(topic), group)
        try:
            reply = self._client.pipe([asked])[0]
        except StoreDenied:
            return None
        if isinstance(reply, ResponseError):
            return False if _says_none(reply) else None
        consumers = [dict(zip(facts[::2], facts[1::2], strict=True)) for facts in reply]
        if any(facts[b"idle"] < _SILENT for facts in consumers):
            return True
        if consumers and all(b"inactive" in facts for facts in consumers):
            return False
        return None if self._somebody_reads() else False

    def waiting(self, topic: str, agent: str) -> tuple[int, int | None] | None:
        """Only from Redis 7 on is the lag of a group known."""
        group = b"group:" + to_bytes(topic) + b":" + to_bytes(agent)
        try:
            reply = self._client.pipe([("XINFO", "GROUPS", b"omni-stream:" + to_bytes(topic))])[0]
        except StoreDenied:
            return None
        for facts in reply if isinstance(reply, list) else ():
            known = dict(zip(facts[::2], facts[1::2], strict=True))
            if known.get(b"name") == group:
                return known[b"pending"], known.get(b"lag")
        return None

    def _somebody_reads(self) -> bool:
        """True also if it cannot be told."""
        try:
            clients = self._client.pipe([("CLIENT", "LIST")])[0]
        except StoreDenied:
            return True
        return isinstance(clients, ResponseError) or "cmd=xreadgroup" in to_text(clients)


def _says_none(reply: ResponseError) -> bool:
    return str(reply).startswith(("no such key", "NOGROUP"))
