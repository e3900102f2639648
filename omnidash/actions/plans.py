"""A plan's records, packed to be kept in the database until they are changed or forgotten."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import orjson

from storage.changes import Target
from storage.garbage import collector_paused

LARGEST = 200_000  # records of one plan


def pack(targets: Sequence[Target]) -> bytes:
    """JSON in ASCII, compressed: names may hold lone surrogates and NUL."""
    rows = [(one.kind, one.names, one.mark, one.size, one.count, one.note) for one in targets]
    try:
        text = orjson.dumps(rows)
    except TypeError:
        text = b""
    if not text or not text.isascii():
        text = json.dumps(rows, separators=(",", ":")).encode("ascii")
    return zlib.compress(text, 1)


def unpack(content: bytes) -> list[Target]:
    text = zlib.decompress(content)
    with collector_paused(len(text) // 100):
        try:
            rows = orjson.loads(text)
        except orjson.JSONDecodeError:  # lone surrogates
            rows = json.loads(text)
        return [
            Target(kind, tuple(names), mark, size, count, note)
            for kind, names, mark, size, count, note in rows
        ]


def digest_of(parts: Iterable[bytes]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()
