"""Deleting everything of a kind: exactly what is ours, and nothing that only begins like it.

OmniDaemon deletes what matches a glob of its prefix, and so also what belongs to others. Here the
keys that an index names are deleted; one that only a scan found must prove to be ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from storage.records import parse_json, to_bytes, to_text
from storage.redis_store.client import ResponseError
from storage.redis_store.keys import may_be_anothers
from storage.redis_store.part import RedisPart
from storage.redis_store.scan import KeyScan

_UNLINKED = 500  # keys in one UNLINK

log = logging.getLogger(__name__)


class ClearPart(RedisPart):
    def clear_agents(self) -> int:
        topics = self._client.call("SMEMBERS", self._keys.topics) if self._is_set() else []
        known = [to_text(topic) for topic in topics]
        count = sum(self.delete_topic(topic) for topic in known)
        for keys in self._walk(self._keys.topic_head):
            for key in keys:
                topic = key[len(self._keys.topic_head) :]
                if not may_be_anothers(topic):
                    count += self.delete_topic(to_text(topic))
        for keys in self._walk(self._keys.agent_head):
            names = self._survey.own_names(keys)
            ours = [key for key, pair in zip(keys, names, strict=True) if pair is not None]
            count += self._unlink(ours)
            _report(keys, ours)
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
        for keys in self._walk(self._keys.result_head):
            ours = self._own_results(keys)
            count += self._unlink(ours)
            _report(keys, ours)
        self._client.write([("DEL", self._keys.results_index)], deleting=True)
        self._index.reset()
        return count

    def _own_results(self, keys: list[bytes]) -> list[bytes]:
        """Without those that look like another OmniDaemon's and do not say that they are ours."""
        head = len(self._keys.result_head)
        unsure = [key for key in keys if may_be_anothers(key[head:])]
        values = self._client.pipe([("GETRANGE", key, 0, 64 * 1024) for key in unsure])
        foreign = set()
        for key, value in zip(unsure, values, strict=True):
            record = parse_json(value)[0] if isinstance(value, bytes) else None
            named = record.get("task_id") if isinstance(record, dict) else None
            if not isinstance(named, str) or to_bytes(named) != key[head:]:
                foreign.add(key)
        return [key for key in keys if key not in foreign]

    def clear_metrics(self) -> int:
        length = self._client.pipe([("XLEN", self._keys.metrics)])[0]
        self._client.write([("DEL", self._keys.metrics)], deleting=True)
        return length if isinstance(length, int) else 0

    def _clear_config(self) -> int:
        count = 0
        for keys in self._walk(self._keys.config_head):
            head = len(self._keys.config_head)
            ours = [key for key in keys if not may_be_anothers(key[head:])]
            count += self._unlink(ours)
            _report(keys, ours)
        self._config.reset()
        return count

    def clear_all(self) -> dict[str, int]:
        return {
            "agents": self.clear_agents(),
            "results": self.clear_results(),
            "metrics": self.clear_metrics(),
            "config": self._clear_config(),
        }

    def _walk(self, head: bytes) -> Iterator[list[bytes]]:
        """All keys of a head, in portions; each is checked again, whatever the glob let through."""
        scan = KeyScan(self._client, self._keys.all_of(head))
        ended = False
        while not ended:
            keys, ended = scan.advance(0.0)
            yield list(dict.fromkeys(key for key in keys if key.startswith(head)))

    def _unlink(self, keys: list[bytes]) -> int:
        count = 0
        for start in range(0, len(keys), _UNLINKED):
            some = keys[start : start + _UNLINKED]
            count += self._client.write([("UNLINK", *some)], deleting=True)[0]
        return count


def _report(keys: list[bytes], ours: list[bytes]) -> None:
    left = len(keys) - len(ours)
    if left:
        log.warning("left %d keys alone that begin like ours and are not known to be ours", left)
