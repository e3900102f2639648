"""A plan's records, packed to be kept in the database until they are changed or forgotten."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from storage.changes import Target

LARGEST = 200_000  # records of one plan


def pack(targets: Sequence[Target]) -> bytes:
    """JSON in ASCII, compressed: names may hold lone surrogates and NUL."""
    rows = [[one.kind, one.names, one.mark, one.size, one.count, one.note] for one in targets]
    return zlib.compress(json.dumps(rows, separators=(",", ":")).encode("ascii"), 1)


def unpack(content: bytes) -> list[Target]:
    rows = json.loads(zlib.decompress(content))
    return [Target(kind, tuple(names), *rest) for kind, names, *rest in rows]


def digest_of(parts: Iterable[bytes]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()
