"""Results as they lie in Redis, read many at a time and never more of one than is needed."""

from __future__ import annotations

import math
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from typing import Any

import orjson

from storage.base import StoreDenied
from storage.records import RAW_LIMIT, parse_json, read_result, to_text
from storage.redis_store.client import Client, Command, ResponseError, is_wrong_type
from storage.redis_store.keys import Keys
from storage.redis_store.result_shelf import Entry

WHOLE = 1024 * 1024  # bytes up to which a value is read whole and parsed
_CLOCK_EVERY = 30.0  # seconds between looks at the server's clock
_SAME_CLOCK = 1.0  # seconds; a smaller difference is the network's, not the clock's
_JITTER = 2.0  # seconds that an expiry may seem to move where only PTTL can tell it

Range = tuple[float, float]  # scores from, inclusive, to, exclusive unless infinite


class Expiries:
    """When keys expire, by the server's clock: a moment that does not change between looks."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._verb = ""
        self._measured = float("-inf")
        self._skew = 0.0

    def command(self, key: bytes) -> Command:
        return (self._verb or self._choose(key), key)

    def read(self, reply: Any) -> float | None:
        """Unix seconds, or None for never. Only for keys that exist."""
        if not isinstance(reply, int) or reply < 0:
            return None
        if self._verb == "PEXPIRETIME":
            return reply / 1000
        return time.time() + self.skew() + reply / 1000

    def read_ms(self, reply: Any) -> int | None:
        """The same in Unix milliseconds."""
        if not isinstance(reply, int) or reply < 0:
            return None
        if self._verb == "PEXPIRETIME":
            return reply
        return round((time.time() + self.skew()) * 1000) + reply

    def same(self, one: float | None, other: float | None) -> bool:
        if one is None or other is None or self._verb == "PEXPIRETIME":
            return one == other
        return abs(one - other) < _JITTER

    def skew(self) -> float:
        """Seconds that the server's clock is ahead of ours; 0.0 where they agree."""
        with self._lock:
            if time.monotonic() - self._measured < _CLOCK_EVERY:
                return self._skew
            self._measured = time.monotonic()
        difference = clock_difference(self._client)
        self._skew = difference if difference and abs(difference) > _SAME_CLOCK else 0.0
        return self._skew

    def _choose(self, key: bytes) -> str:
        """PEXPIRETIME came with Redis 7. Asked with a key that this user may read."""
        try:
            reply = self._client.pipe([("PEXPIRETIME", key)], denied_ok=True)[0]
        except StoreDenied:
            reply = None
        self._verb = "PEXPIRETIME" if isinstance(reply, int) else "PTTL"
        return self._verb


def clock_difference(client: Client) -> float | None:
    """Seconds that the server's clock is ahead of ours; None if it does not tell."""
    before = time.time()
    try:
        reply = client.pipe([("TIME",)], denied_ok=True)[0]
    except StoreDenied:
        return None
    if isinstance(reply, ResponseError):
        return None
    seconds, micros = reply
    return int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2


def read_entries(
    client: Client, keys: Keys, expiries: Expiries, task_ids: Sequence[bytes]
) -> dict[bytes, Entry | None]:
    """What is stored under each id; None where there is nothing. Scores are for the caller."""
    commands: list[Command] = []
    for task_id in task_ids:
        key = keys.result(task_id)
        commands += (("GETRANGE", key, 0, RAW_LIMIT - 1), expiries.command(key))
    replies = iter(client.pipe(commands))
    found: dict[bytes, Entry | None] = {}
    large: list[bytes] = []
    odd: list[bytes] = []
    for task_id, value, expiry in zip(task_ids, replies, replies, strict=True):
        if expiry == -2:
            found[task_id] = None
            continue
        if isinstance(value, ResponseError):
            odd.append(task_id)
            entry = Entry(task_id, 0.0, None, 0, problem=str(value)[:200])
        elif len(value) == RAW_LIMIT:
            large.append(task_id)
            entry = Entry(task_id, 0.0, None, RAW_LIMIT, truncated=True)
        else:
            entry = to_entry(task_id, value)
        entry.expires = expiries.read(expiry)
        found[task_id] = entry
    _name_kinds(client, keys, found, odd)
    _read_large(client, keys, found, large)
    return found


def to_entry(task_id: bytes, value: bytes) -> Entry:
    """From a whole value. A field `expires_at` in it means nothing: Redis keeps the expiry."""
    try:  # exact long integers do not matter here
        parsed, problem = orjson.loads(value), ""
    except orjson.JSONDecodeError:
        parsed, problem = parse_json(value)
    digest = zlib.crc32(value)
    if problem:
        return Entry(task_id, 0.0, None, len(value), problem=problem, digest=digest)
    result = read_result(to_text(task_id), parsed, len(value))
    return Entry(
        task_id, 0.0, None, len(value), sys.intern(result.agent), sys.intern(result.topic),
        sys.intern(result.status), result.saved_at, result.problem, digest=digest,
    )  # fmt: skip


def kinds(client: Client, keys: Sequence[bytes]) -> list[str]:
    """What Redis calls the types of keys; "none" where there is no such key."""
    replies = client.pipe([("TYPE", key) for key in keys])
    return [reply.decode() if isinstance(reply, bytes) else "unknown" for reply in replies]


def _name_kinds(
    client: Client, keys: Keys, found: dict[bytes, Entry | None], odd: list[bytes]
) -> None:
    names = kinds(client, [keys.result(task_id) for task_id in odd])
    for task_id, kind in zip(odd, names, strict=True):
        entry = found[task_id]
        if entry is not None and kind not in ("string", "none"):
            entry.problem = f"expected string, is {kind}"


def _read_large(
    client: Client, keys: Keys, found: dict[bytes, Entry | None], large: list[bytes]
) -> None:
    sizes = client.pipe([("STRLEN", keys.result(task_id)) for task_id in large])
    for task_id, size in zip(large, sizes, strict=True):
        entry = found[task_id]
        if entry is None or not isinstance(size, int):
            continue
        entry.size = size
        if size > WHOLE:
            continue
        value = client.call("GETRANGE", keys.result(task_id), 0, WHOLE - 1)
        expires = entry.expires
        found[task_id] = entry = to_entry(task_id, value)
        entry.expires = expires


def gone(reply: Any, size: Any) -> bool:
    """Whether an expiry reply and a length say that there is no such key."""
    return reply == -2 or (isinstance(reply, ResponseError) and not is_wrong_type(size))


def scored(reply: list[bytes]) -> list[tuple[bytes, float]]:
    """The pairs of a flat reply with scores."""
    numbers = iter(reply)
    return [(task_id, float(score)) for task_id, score in zip(numbers, numbers, strict=True)]


def bounds(piece: Range) -> tuple[str, str]:
    """As Redis writes them."""
    low, high = piece
    return ("-inf" if low == -math.inf else repr(low), "+inf" if high == math.inf else f"({high!r}")
