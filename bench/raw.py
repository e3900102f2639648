"""The yardstick: a socket, hiredis and orjson, as few round trips as it takes, and no care at all
for what could be wrong with a record."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import hiredis
import orjson

from bench.data import batches

CHUNK = 1000
_READ = 1 << 18


class Lean:
    """Commands in, replies out."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._socket = socket.create_connection((where.hostname, where.port))
        self._reader = hiredis.Reader()
        self.pipe([("SELECT", where.path.strip("/") or "0")])

    def close(self) -> None:
        self._socket.close()

    def pipe(self, commands: Iterable[tuple[bytes | str | int, ...]]) -> list[Any]:
        packed = [hiredis.pack_command(command) for command in commands]
        self._socket.sendall(b"".join(packed))
        return [self._reply() for _ in packed]

    def _reply(self) -> Any:
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(_READ))
        return reply


def agents(lean: Lean) -> list[dict[bytes, Any]]:
    topics = sorted(lean.pipe([("SMEMBERS", "omni:topics")])[0])
    members = lean.pipe([("SMEMBERS", b"omni:agents:topic:" + topic) for topic in topics])
    keys = [
        b"omni:agent:%b:%b" % (topic, name)
        for topic, names in zip(topics, members, strict=True)
        for name in names
    ]
    found = []
    for batch in batches(keys, CHUNK):
        for reply in lean.pipe([("HGETALL", key) for key in batch]):
            fields = dict(zip(reply[::2], reply[1::2], strict=True))
            fields[b"tools"] = orjson.loads(fields[b"tools"])
            fields[b"config"] = orjson.loads(fields[b"config"])
            found.append(fields)
    return found


def results(lean: Lean, limit: int) -> list[Any]:
    ids = lean.pipe([("ZREVRANGE", "omni:results:index", 0, limit - 1)])[0]
    found = []
    for batch in batches(ids, CHUNK):
        [values] = lean.pipe([("MGET", *(b"omni:result:" + task_id for task_id in batch))])
        found += [orjson.loads(value) for value in values if value]
    return found


def metrics(lean: Lean, limit: int) -> list[Any]:
    [entries] = lean.pipe([("XREVRANGE", "omni:metrics:stream", "+", "-", "COUNT", limit)])
    return [orjson.loads(fields[1]) for _, fields in entries]


def clear_results(lean: Lean) -> None:
    ids = lean.pipe([("ZRANGE", "omni:results:index", 0, -1)])[0]
    for batch in batches(ids, CHUNK):
        lean.pipe([("UNLINK", *(b"omni:result:" + task_id for task_id in batch))])
    lean.pipe([("UNLINK", "omni:results:index")])
