"""What is ours among keys that only begin like ours: it must say so itself where it looks like the
key of another OmniDaemon, whose prefix begins with ours."""

from __future__ import annotations

import json
from collections.abc import Sequence

from storage.records import parse_json, to_bytes, to_text
from storage.redis_store.client import Client
from storage.redis_store.keys import Keys, may_be_anothers

_PROOF = 4096  # bytes of a result that are read to find its own id: it is written first …
_ESCAPED = 6  # … at most so many times as long as it is
_WITNESSES = 10  # agents of a topic that are asked whether it is ours


class Ownership:
    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def own_names(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes] | None]:
        """Topic and name that agents' hashes hold, where these make up exactly their key."""
        replies = self._client.pipe([("HMGET", key, "topic", "name") for key in keys])
        named: list[tuple[bytes, bytes] | None] = []
        for key, reply in zip(keys, replies, strict=True):
            pair = tuple(reply) if isinstance(reply, list) else (None, None)
            own = None not in pair and self._keys.agent(*pair) == key
            named.append((pair[0], pair[1]) if own else None)
        return named

    def own_results(self, task_ids: Sequence[bytes]) -> set[bytes]:
        """Without those that look like another OmniDaemon's and do not say that they are ours."""
        unsure = [one for one in task_ids if may_be_anothers(one)]
        sizes = [max(_PROOF, _ESCAPED * len(one)) for one in unsure]
        values = self._client.pipe([
            ("GETRANGE", self._keys.result(one), 0, size - 1)
            for one, size in zip(unsure, sizes, strict=True)
        ])  # fmt: skip
        own = {
            one for one, value in zip(unsure, values, strict=True)
            if isinstance(value, bytes) and names_itself(one, value)
        }  # fmt: skip
        return own.union(set(task_ids).difference(unsure))

    def own_topics(self, topics: Sequence[bytes]) -> set[bytes]:
        """The same of topics: an agent's hash says that it is of this one."""
        unsure = [one for one in topics if may_be_anothers(one)]
        members = self._client.pipe(
            [("SRANDMEMBER", self._keys.topic(one), _WITNESSES) for one in unsure]
        )
        pairs = [
            (topic, name) for topic, names in zip(unsure, members, strict=True)
            if isinstance(names, list) for name in names
        ]  # fmt: skip
        named = self.own_names([self._keys.agent(*pair) for pair in pairs])
        own = {pair[0] for pair, found in zip(pairs, named, strict=True) if found == pair}
        return own.union(set(topics).difference(unsure))


def names_itself(task_id: bytes, value: bytes) -> bool:
    """Whether a result, or how it begins, holds its own id, as OmniDaemon writes it."""
    if value.startswith(b'{"task_id": ' + json.dumps(to_text(task_id)).encode("ascii")):
        return True
    record = parse_json(value)[0]
    named = record.get("task_id") if isinstance(record, dict) else None
    return isinstance(named, str) and to_bytes(named) == task_id
