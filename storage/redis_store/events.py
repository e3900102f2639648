"""Events of the stream of metrics: their ids, and records of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from storage.base import StoreError
from storage.changes import Record
from storage.records import to_text
from storage.redis_store.client import Client, Command, ResponseError
from storage.redis_store.stored import Read, pack_fields, unpack_fields

_READ = 2000  # events read at once
_LAST = 2**64 - 1  # of both halves of an id

Id = tuple[int, int]
Event = tuple[bytes, list[bytes]]  # id and the flat fields


def id_of(text: bytes | str) -> Id:
    milliseconds, _, sequence = to_text(text).partition("-")
    return int(milliseconds), int(sequence or 0)


def id_text(name: Id) -> str:
    return f"{name[0]}-{name[1]}"


def following_id(name: Id) -> Id:
    return (name[0], name[1] + 1) if name[1] < _LAST else (name[0] + 1, 0)


def event_record(entry_id: bytes, fields: Sequence[bytes]) -> Record:
    name = to_text(entry_id)
    if len(fields) == 2 and fields[0] == b"data":
        return Record("metrics", (name,), fields[1], stream_id=name)
    return Record("metrics", (name,), pack_fields(fields), "hash", stream_id=name)


def read_events(client: Client, key: bytes, start: str = "-", end: str = "+") -> Iterator[Event]:
    while True:
        found = client.pipe([("XRANGE", key, start, end, "COUNT", _READ)])[0]
        if not isinstance(found, list):
            return
        yield from ((entry_id, fields or []) for entry_id, fields in found)
        if len(found) < _READ:
            return
        start = "(" + to_text(found[-1][0])


def stream_facts(read: Read, key: bytes, tolerant: bool = False) -> dict[bytes, Any]:
    """None of a stream that is not there, and `tolerant` of one that is none. StoreError if it
    cannot be replaced by another."""
    reply = read([("XINFO", "STREAM", key)])[0]
    if isinstance(reply, ResponseError):
        if tolerant or "no such key" in str(reply):
            return {}
        raise StoreError("what lies in the place of the metrics is no stream")
    facts = dict(zip(reply[::2], reply[1::2], strict=True))
    if facts.get(b"groups"):
        raise StoreError("a consumer group reads the metrics, and would be lost with them")
    return facts


def event_fields(record: Record) -> list[bytes]:
    return [b"data", record.raw] if record.form == "text" else unpack_fields(record.raw)


def continuing(staging: bytes, last: Id, facts: dict[bytes, Any], added: int) -> Command:
    """Ids go on from the last that there ever was, and so does (Redis 7) the number of events."""
    if b"entries-added" not in facts:
        return ("XSETID", staging, id_text(last))
    return (
        "XSETID", staging, id_text(last), "ENTRIESADDED", facts[b"entries-added"] + added,
        "MAXDELETEDID", facts.get(b"max-deleted-entry-id", b"0-0"),
    )  # fmt: skip
