"""Whole Redis stores of the tests: what OmniDaemon would write, and what it never would."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence

import redis

from storage.base import Store
from storage.changes import Kind, Names, Record
from storage.snapshots import Staging
from tests.stores import RedisBackend, contents


def fill_with_anything(raw: redis.Redis, prefix: str = "omni") -> None:
    """Every kind of record in every form that a store can hold it in."""
    soon = round(time.time() * 1000) + 86_400_123

    def hash_of(key: bytes | str, topic: bytes | str, name: bytes | str) -> None:
        raw.hset(f"{prefix}:agent:".encode() + _raw(key), mapping={"topic": topic, "name": name})

    raw.sadd(f"{prefix}:topics", "t", "a:b", "a", b"\xff\x00", "empty", "odd", "")
    raw.sadd(f"{prefix}:agents:topic:t", "plain", "phantom", "list")
    hash_of("t:plain", "t", "plain")
    raw.pexpireat(f"{prefix}:agent:t:plain", soon)
    raw.hset(f"{prefix}:agent:t:plain", mapping={b"\xfe": b"\xfd" * 200, "": ""})
    raw.rpush(f"{prefix}:agent:t:list", "x", b"\xff")
    raw.sadd(f"{prefix}:agents:topic:a:b", "c")  # these two share one record
    raw.sadd(f"{prefix}:agents:topic:a", "b:c")
    hash_of("a:b:c", "a", "b:c")
    raw.sadd(f"{prefix}:agents:topic:".encode() + b"\xff\x00", b"\xfe\r\n")
    hash_of(b"\xff\x00:\xfe\r\n", b"\xff\x00", b"\xfe\r\n")
    raw.sadd(f"{prefix}:agents:topic:", "")
    hash_of(":", "", "")
    raw.set(f"{prefix}:agents:topic:odd", "not a set")
    raw.sadd(f"{prefix}:agents:topic:unlisted", "stray", "ghost")
    hash_of("unlisted:stray", "unlisted", "stray")
    hash_of("t:orphan", "t", "orphan")
    raw.hset(f"{prefix}:agent:who:knows", "x", "y")
    raw.set(f"{prefix}:agent:t:string", "z", pxat=soon)

    index = f"{prefix}:results:index"
    for number, value in enumerate((b"{}", b"", b"\xff" * 9, b"9" * 70_000, b"z" * 16_384)):
        raw.set(f"{prefix}:result:r{number}", value, pxat=soon + number)
        raw.zadd(index, {f"r{number}": 1.7e9 + number / 3})
    raw.set(f"{prefix}:result:".encode() + b"\x80\xff", "{}")
    raw.zadd(index, {b"\x80\xff": float("-inf"), "gone": 1e22, "gone too": 0.1})
    raw.set(f"{prefix}:result:loose", "{", pxat=soon)
    raw.set(f"{prefix}:result:", "{}")
    raw.rpush(f"{prefix}:result:list", "x")
    raw.pexpireat(f"{prefix}:result:list", soon)
    raw.zadd(index, {"list": 3})

    for number in range(5):
        raw.xadd(f"{prefix}:metrics:stream", {"data": b"\xff%d" % number}, id=f"{number + 1}-7")
    raw.xadd(f"{prefix}:metrics:stream", {"a": b"\xfe", "b": ""}, id=f"{soon - 86_400_123}-0")

    raw.set(f"{prefix}:config:key", b"\xff", pxat=soon)
    raw.set(f"{prefix}:config:", "")
    raw.set(f"{prefix}:config:big", b"b" * 20_000)
    raw.sadd(f"{prefix}:config:set", "x")
    raw.set(f"{prefix}:config:supervisor:x", "{}")


def _raw(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def all_records(store: Store) -> list[Record]:
    return [record for batch in store.snapshot() for record in batch]


def named(records: list[Record]) -> dict[Kind, list[Names]]:
    found: dict[Kind, list[Names]] = {}
    for record in records:
        found.setdefault(record.kind, []).append(record.names)
    return {kind: sorted(names) for kind, names in found.items()}


def held(backend: RedisBackend) -> dict[bytes, object]:
    """All that is stored, whenever and in whatever order it was written, without what OmniDash
    remembers of a change for a day."""
    found = contents(backend)
    assert isinstance(found, dict)
    return {
        key: value for key, value in found.items() if not key.startswith(b"omnidash:restore:done:")
    }


def staged_keys(raw: redis.Redis) -> list[bytes]:
    return [
        key for key in raw.scan_iter("omnidash:*", count=1000)
        if not key.startswith(b"omnidash:restore:done:")
    ]  # fmt: skip


def wipe(raw: redis.Redis, prefix: str = "omni") -> None:
    """Everything that begins with the prefix, whosever it is."""
    for key in list(raw.scan_iter(count=1000)):
        if key.startswith(prefix.encode() + b":"):
            raw.delete(key)


def new_token() -> str:
    return uuid.uuid4().hex


def put_all(change: Staging, records: Iterable[Record]) -> list[tuple[Names, str]]:
    """Kind by kind, as an archive holds them."""
    skipped: list[tuple[Names, str]] = []
    some: list[Record] = []
    for record in records:
        if some and (some[-1].kind != record.kind or len(some) == 700):
            skipped += change.put(some).skipped
            some = []
        some.append(record)
    return skipped + change.put(some).skipped


def make_it(store: Store, wanted: Sequence[Record], token: str = "") -> list[tuple[Names, str]]:
    """What a restore that replaces does: only what differs is put, and what is not wanted goes."""
    with store.stage(token or new_token()) as change:
        present = {(one.kind, one.names): one for one in all_records(store)}
        names = {(one.kind, one.names) for one in wanted}
        gone = [key for key in present if key not in names and key[0] != "metrics"]
        skipped = put_all(change, (
            one for one in wanted
            if one.kind == "metrics" or one != present.get((one.kind, one.names))
        ))  # fmt: skip
        change.commit(gone, keep_events=False)
    return skipped
