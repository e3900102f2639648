"""The lines of an archive: records and header as JSON, and the seal of what was written so far."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import orjson

from storage.changes import Kind, Names, Record
from storage.records import parse_json

FORMAT, VERSION = "omnidash-archive", 1
_KINDS, _FORMS = frozenset(get_args(Kind)), frozenset({"text", "hash", "dump", "none"})
_SEAL = b',"sha256":"'
_MOST_MS = 1 << 62


class ArchiveError(Exception):
    """The file is damaged, no archive, or beyond a limit; the message says which."""


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
    head = _ascii(line)[:-1]
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
        value, _ = parse_json(line)
    if not isinstance(value, dict):
        raise ArchiveError("the archive is damaged: a line is no JSON object")
    return value


def _ascii(value: object) -> bytes:
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
    kind, created_at, about = line.get("kind"), line.get("created_at"), line.get("about")
    backend, address = line.get("backend"), line.get("address")
    if (
        kind not in ("bin", "backup")
        or not isinstance(backend, str)
        or not isinstance(address, str)
        or not isinstance(created_at, (int, float))
        or not isinstance(about, dict)
        or not _is_flat(about, depth)
    ):
        raise ArchiveError("the header of the archive is not as it should be")
    return Header(kind, backend, address, float(created_at), about)


def _is_flat(value: object, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_flat(one, depth - 1) for one in inner)


# Records


def record_line(record: Record) -> bytes:
    line: dict[str, Any] = {"kind": record.kind, "names": names_out(record.names)}
    try:
        line["raw"] = record.raw.decode("utf-8")
    except UnicodeDecodeError:
        line["raw_b64"] = _b64(record.raw)
    if record.form != "text":
        line["form"] = record.form
    if record.expires_at_ms is not None:
        line["expires_at_ms"] = max(-_MOST_MS, min(_MOST_MS, record.expires_at_ms))
    if record.score is not None:
        line["score"] = record.score
    if record.stream_id is not None:
        line["stream_id"] = record.stream_id
    text = _ascii(line)
    if "raw" in line and len(text) > 2 * len(record.raw) + 4096:  # almost nothing but escapes
        line["raw_b64"] = _b64(line.pop("raw").encode("utf-8"))
        text = _ascii(line)
    return text + b"\n"


def record_of(line: Mapping[str, Any]) -> Record:
    try:
        raw = line.get("raw")
        record = Record(
            kind=line["kind"],
            names=names_in(line["names"]),
            raw=_from_b64(line["raw_b64"]) if raw is None else raw.encode("utf-8"),
            form=line.get("form", "text"),
            expires_at_ms=line.get("expires_at_ms"),
            score=line.get("score"),
            stream_id=line.get("stream_id"),
        )
        fits = record.kind in _KINDS and record.form in _FORMS
    except (AttributeError, KeyError, TypeError, ValueError):
        fits = False
    if not fits or not _is_typed(record):
        raise ArchiveError("a record of the archive is not as it should be")
    return record


def _is_typed(record: Record) -> bool:
    texts = (record.score, record.stream_id)
    is_time = record.expires_at_ms is None or type(record.expires_at_ms) is int
    return is_time and all(text is None or isinstance(text, str) for text in texts)


def names_out(names: Names) -> list[str | dict[str, str]]:
    return [_name_out(name) for name in names]


def _name_out(name: str) -> str | dict[str, str]:
    """JSON would make one character of two lone surrogates that stand side by side."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return {"b64": _b64(name.encode("utf-8", "surrogatepass"))}
    return name


def names_in(found: object) -> Names:
    """ValueError or TypeError if they are none."""
    if not isinstance(found, list):
        raise TypeError
    return tuple(
        name if isinstance(name, str) else _from_b64(name["b64"]).decode("utf-8", "surrogatepass")
        for name in found
    )


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _from_b64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def last_versions(
    batches: Sequence[Sequence[Record]], missing: Collection[Names] = ()
) -> list[Record]:
    """Of what was kept for one deletion, perhaps in several goes, the last version of each record,
    but none of those that then were not deleted. Two may have one name if kept in one go."""
    later, found = set(missing), list[list[Record]]()
    for records in reversed(batches):
        found.append([record for record in records if record.names not in later])
        later |= {record.names for record in records}
    return [record for records in reversed(found) for record in records]
