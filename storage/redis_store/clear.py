"""Deleting everything of a kind: exactly what is ours, and nothing that only begins like it.

OmniDaemon deletes what matches a glob of its prefix, and so also what belongs to others. Here the
keys that an index names are deleted. One that only a scan found and that could be another
OmniDaemon's, whose prefix begins with ours (`omni:result:eu`), must prove to be ours: an agent or a
result by its own record, a topic's set by one of its agents. Configuration has no such proof, so a
key such as `my:config:key` is left alone. What is left alone is counted in the log.
"""

from __future__ import annotations

import logging

from storage.records import to_text
from storage.redis_store.client import ResponseError
from storage.redis_store.keys import config_may_be_anothers
from storage.redis_store.part import RedisPart
from storage.redis_store.scan import walk

_UNLINKED = 500  # keys in one UNLINK

log = logging.getLogger(__name__)


class ClearPart(RedisPart):
    def clear_agents(self) -> int:
        topics = self._client.call("SMEMBERS", self._keys.topics) if self._is_set() else []
        known = [to_text(topic) for topic in topics]
        count = sum(self.delete_topic(topic) for topic in known)
        for keys in walk(self._client, self._keys.topic_head):
            found = [key[len(self._keys.topic_head) :] for key in keys]
            own = self._survey.own_topics(found)
            count += sum(self.delete_topic(to_text(topic)) for topic in found if topic in own)
            _report(len(found) - len(own))
        for keys in walk(self._client, self._keys.agent_head):
            names = self._survey.own_names(keys)
            ours = [key for key, pair in zip(keys, names, strict=True) if pair is not None]
            count += self._unlink(ours)
            _report(len(keys) - len(ours))
        self._client.write([("DEL", self._keys.topics)], deleting=True)
        self._registry.stale()
        return count

    def _is_set(self) -> bool:
        return bool(self._client.call("TYPE", self._keys.topics) == b"set")

    def clear_results(self) -> int:
        count = 0
        while True:  # in portions, so that whatever is stopped half-way leaves index and keys even
            ids = self._client.pipe([("ZRANGE", self._keys.results_index, 0, _UNLINKED - 1)])[0]
            if isinstance(ids, ResponseError) or not ids:
                break
            keys = [self._keys.result(task_id) for task_id in ids]
            done = self._client.write(
                [("UNLINK", *keys), ("ZREM", self._keys.results_index, *ids)], deleting=True
            )
            count += done[0]
        for keys in walk(self._client, self._keys.result_head):
            own = self._survey.own_results([key[len(self._keys.result_head) :] for key in keys])
            count += self._unlink([self._keys.result(task_id) for task_id in own])
            _report(len(keys) - len(own))
        self._client.write([("DEL", self._keys.results_index)], deleting=True)
        self._index.reset()
        return count

    def clear_metrics(self) -> int:
        length = self._client.pipe([("XLEN", self._keys.metrics)])[0]
        self._client.write([("DEL", self._keys.metrics)], deleting=True)
        return length if isinstance(length, int) else 0

    def _clear_config(self) -> int:
        count = 0
        for keys in walk(self._client, self._keys.config_head):
            head = len(self._keys.config_head)
            ours = [key for key in keys if not config_may_be_anothers(key[head:])]
            count += self._unlink(ours)
            _report(len(keys) - len(ours))
        self._config.reset()
        return count

    def clear_all(self) -> dict[str, int]:
        return {
            "agents": self.clear_agents(),
            "results": self.clear_results(),
            "metrics": self.clear_metrics(),
            "config": self._clear_config(),
        }

    def _unlink(self, keys: list[bytes]) -> int:
        count = 0
        for start in range(0, len(keys), _UNLINKED):
            some = keys[start : start + _UNLINKED]
            count += self._client.write([("UNLINK", *some)], deleting=True)[0]
        return count


def _report(left: int) -> None:
    if left:
        log.warning("left %d keys alone that begin like ours and are not known to be ours", left)
