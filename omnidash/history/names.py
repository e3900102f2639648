"""Names as they are kept: a program may make up names of any length, a database is not to hold
them. What subjects are told apart by is the digest of their whole names (`ingest.key_of`)."""

from __future__ import annotations

import re
from hashlib import blake2b

from storage.records import to_bytes, to_text

LONGEST = 1000  # bytes of a name
_DIGITS = 12
_ROOM = LONGEST - len("…".encode()) - _DIGITS
_CUT = re.compile(rf"…[0-9a-f]{{{_DIGITS}}}\Z")


def shortened(name: str) -> str:
    """The name, or its beginning and a digest, so that two long ones still differ."""
    raw = to_bytes(name)
    if len(raw) <= LONGEST:
        return name
    end = _ROOM
    while raw[end] & 0xC0 == 0x80 and end > _ROOM - 4:  # within a character
        end -= 1
    return f"{to_text(raw[:end])}…{blake2b(raw, digest_size=_DIGITS // 2).hexdigest()}"


def is_cut(name: str) -> bool:
    """Whether a kept name is not the whole, so that it leads to no record of a store."""
    return bool(_CUT.search(name)) and len(to_bytes(name)) > LONGEST - 4
