"""Whole records as they lie in Redis, read in portions so that nobody else waits for them."""

from __future__ import annotations

import json
import zlib
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from storage.changes import Record
from storage.records import to_bytes
from storage.redis_store.client import Command, ResponseError, is_wrong_type
from storage.redis_store.result_reading import WHOLE, Expiries

PORTION = 4 * 1024 * 1024  # bytes of values in one exchange: Redis copies them in a few ms

Read = Callable[[Sequence[Command]], list[Any]]
Skip = tuple[tuple[str, ...], str]  # names, and why


@dataclass(slots=True)
class Stored:
    """What lies under a key. `size` in bytes; of what is of the wrong type it is 0, and `raw` is
    its DUMP."""

    raw: bytes
    form: Literal["text", "hash", "dump"]
    size: int
    expires: float | None = None

    @property
    def shape(self) -> str:
        if self.form == "dump":
            return shape(0, None)
        if self.form == "hash":  # its fields may lie in another order at another time
            return shape(self.size, zlib.crc32(repr(_pairs(self.raw)).encode()))
        return shape(self.size, zlib.crc32(self.raw) if self.size <= WHOLE else None)

    def same_as(self, record: Record) -> bool:
        if self.form == record.form == "hash":
            return _pairs(self.raw) == _pairs(record.raw)
        return (self.form, self.raw) == (record.form, record.raw)


def shape(size: int, digest: int | None) -> str:
    """The part of a mark that tells one value from another. Values that are not read whole for a
    listing have no digest, and of the wrong type only a size of 0."""
    return f"{size} -" if digest is None else f"{size} {digest:08x}"


def result_mark(score: float | None, looks: str, expires: float | None) -> str:
    """The expiry comes last, so that what only PTTL tells can be compared with some jitter."""
    place = "-" if score is None else repr(score)
    return f"{place} {looks} {'-' if expires is None else round(expires * 1000)}"


def same_mark(expiries: Expiries, one: str, other: str) -> bool:
    if one == other:
        return True
    (head, _, first), (tail, _, second) = one.rpartition(" "), other.rpartition(" ")
    if head != tail or "-" in (first, second) or not (first.isdigit() and second.isdigit()):
        return False
    return expiries.same(int(first) / 1000, int(second) / 1000)


def read_values(
    read: Read, expiries: Expiries, wanted: Sequence[tuple[bytes, int]], *, peek: bool = False
) -> list[Stored | None]:
    """What lies under keys, given with their expected sizes; None where there is nothing. A value
    that has grown is cut one byte after its expected size: it is another one in any case. `peek`
    only measures those that a mark has no digest of. A large value is held in memory whole, but
    never leaves Redis in one piece; a large one of the wrong type does (DUMP)."""
    found: list[Stored | None] = []
    for portion in _portions(wanted):
        commands: list[Command] = []
        for key, size in portion:
            unread = peek and size > WHOLE
            commands += (
                ("STRLEN", key) if unread else ("GETRANGE", key, 0, min(size, PORTION)),
                expiries.command(key),
            )
        replies = iter(read(commands))
        for (key, size), value, expiry in zip(portion, replies, replies, strict=True):
            if expiry == -2:
                found.append(None)
            elif isinstance(value, bytes) and len(value) <= PORTION:
                found.append(Stored(value, "text", len(value), expiries.read(expiry)))
            else:
                found.append(_unusual(read, key, size, value, expiries.read(expiry)))
    return found


def _portions(wanted: Sequence[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    some: list[tuple[bytes, int]] = []
    room = PORTION
    for key, size in wanted:
        if some and size > room:
            yield some
            some, room = [], PORTION
        some.append((key, size))
        room -= size
    if some:
        yield some


def _unusual(read: Read, key: bytes, size: int, value: Any, expires: float | None) -> Stored | None:
    """What is only measured, of the wrong type, or large."""
    if isinstance(value, int):
        return Stored(b"", "text", value, expires)
    if isinstance(value, ResponseError):
        return _dumped(read, key, expires) if is_wrong_type(value) else None
    pieces, length = [value], len(value)
    while length <= size:
        piece = read([("GETRANGE", key, length, min(size, length + PORTION))])[0]
        if not isinstance(piece, bytes) or not piece:
            break
        pieces.append(piece)
        length += len(piece)
    return Stored(b"".join(pieces), "text", length, expires)


def _dumped(read: Read, key: bytes, expires: float | None) -> Stored | None:
    dump = read([("DUMP", key)])[0]
    return Stored(dump, "dump", 0, expires) if isinstance(dump, bytes) else None


def read_scores(read: Read, index: bytes, members: Sequence[bytes]) -> list[bytes | None]:
    """In one command where the server has it (Redis 6.2)."""
    reply = read([("ZMSCORE", index, *members)])[0] if members else []
    if isinstance(reply, ResponseError) and not is_wrong_type(reply):
        reply = read([("ZSCORE", index, member) for member in members])
    return [None] * len(members) if isinstance(reply, ResponseError) else reply


def read_hashes(read: Read, expiries: Expiries, keys: Sequence[bytes]) -> list[Stored | None]:
    """Hashes under keys, as records hold them."""
    commands = [part for key in keys for part in (("HGETALL", key), expiries.command(key))]
    replies = iter(read(commands))
    found: list[Stored | None] = []
    for key, fields, expiry in zip(keys, replies, replies, strict=True):
        stored: Stored | None = None
        expires = expiries.read(expiry)
        if isinstance(fields, ResponseError):
            stored = _dumped(read, key, expires) if is_wrong_type(fields) else None
        elif fields:
            stored = Stored(pack_fields(fields), "hash", sum(map(len, fields)), expires)
        found.append(stored)
    return found


def pack_fields(fields: Sequence[bytes]) -> bytes:
    """From a flat reply, in its order."""
    parts = iter([b2a_base64(part, newline=False).decode() for part in fields])
    return json.dumps(list(zip(parts, parts, strict=True))).encode()


def _pairs(raw: bytes) -> list[list[str]]:
    return sorted(json.loads(raw))


def unpack_fields(raw: bytes) -> list[bytes]:
    return [a2b_base64(part) for pair in orjson.loads(raw) for part in pair]


def record_of(kind: Any, names: tuple[str, ...], found: Stored | None, **more: Any) -> Record:
    if found is None:
        return Record(kind, names, form="none", **more)
    return Record(kind, names, found.raw, found.form, to_ms(found.expires), **more)


def to_ms(expires: float | None) -> int | None:
    return None if expires is None else round(expires * 1000)


def weight(record: Record) -> int:
    """Bytes that a deletion of the record frees, as its target counts them."""
    if record.form == "hash":
        return sum(map(len, unpack_fields(record.raw)))
    if record.form == "none":
        return len(to_bytes(record.names[-1]))
    return len(record.raw)


def restoring(key: bytes, record: Record) -> list[Command]:
    """How a record is stored under a key where there is nothing. SET with an expiry to the
    millisecond came with Redis 6.2; in one transaction PEXPIREAT is the same."""
    expires = record.expires_at_ms
    if record.form == "dump":
        return [("RESTORE", key, expires or 0, record.raw, "ABSTTL")]
    store: Command = (
        ("HSET", key, *unpack_fields(record.raw)) if record.form == "hash"
        else ("SET", key, record.raw)
    )  # fmt: skip
    return [store] if expires is None else [store, ("PEXPIREAT", key, expires)]
