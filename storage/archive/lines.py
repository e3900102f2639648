"""The lines of an archive that are no records: its header, its notes, and their seals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

from storage.records import number, parse_json

FORMAT, VERSION = "omnidash-archive", 1
_SEAL = b',"sha256":"'
_LONGEST_NOTE = 1 << 16


class ArchiveError(Exception):
    """The file is damaged, no archive, or beyond a limit; the message says which."""


class LimitError(ArchiveError):
    """It is beyond a limit, and may be none the worse for it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an archive says of itself. `address` without secrets, `created_at` Unix seconds; `about`
    is whatever its writer wants to be remembered, as JSON."""

    kind: Literal["bin", "backup"]
    backend: str
    address: str
    created_at: float
    about: dict[str, Any] = field(default_factory=dict)


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def sealed(line: Mapping[str, Any], digest: Digest) -> bytes:
    """A line that ends in the digest of all before it, which then holds the line too."""
    head = as_ascii(line)[:-1]
    digest.update(head)
    seal = _SEAL + digest.hexdigest().encode("ascii") + b'"}\n'
    digest.update(seal)
    return head + seal


def check_seal(line: bytes, digest: Digest) -> None:
    head, _, tail = line.rpartition(_SEAL)
    digest.update(head)
    if tail != digest.hexdigest().encode("ascii") + b'"}':
        raise ArchiveError("the archive is damaged: its checksum is wrong")
    digest.update(_SEAL + tail + b"\n")


def parse_line(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        # What a header or a note says of itself may be beyond it, a record never is.
        value = parse_json(line)[0] if len(line) <= _LONGEST_NOTE else None
    if not isinstance(value, dict):
        raise ArchiveError("the archive is damaged: a line is no JSON object")
    return value


def as_ascii(value: object) -> bytes:
    try:
        line = orjson.dumps(value)
        if line.isascii():
            return line
    except TypeError:  # text that is not UTF-8
        pass
    return json.dumps(value, separators=(",", ":")).encode("ascii")


# Header


def header_line(header: Header) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": header.kind,
        "backend": header.backend,
        "address": header.address,
        "created_at": header.created_at,
        "about": header.about,
    }


def header_of(line: Mapping[str, Any], depth: int) -> Header:
    if line.get("format") != FORMAT:
        raise ArchiveError("this is no archive of OmniDash")
    if line.get("version") != VERSION:
        raise ArchiveError("this archive was written by a later version of OmniDash")
    kind, created_at = line.get("kind"), number(line.get("created_at"))
    backend, address = line.get("backend"), line.get("address")
    if (
        kind not in ("bin", "backup")
        or not isinstance(backend, str)
        or not isinstance(address, str)
        or created_at is None
    ):
        raise ArchiveError("the header of the archive is not as it should be")
    return Header(kind, backend, address, created_at, about_of(line, depth))


def about_of(line: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """What a header or an end says beside what it must; the end need not say anything."""
    about = line.get("about", {})
    if not isinstance(about, dict) or not _is_flat(about, depth):
        raise ArchiveError("what the archive says about itself is not as it should be")
    return about


def _is_flat(value: object, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_flat(one, depth - 1) for one in inner)
