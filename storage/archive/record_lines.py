"""A record as a line of an archive, and what a line must be to be a record."""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from storage.archive.lines import ArchiveError, as_ascii
from storage.changes import Kind, Names, Record

_MOST_MS = 1 << 62
_FORMS = frozenset({"text", "hash", "dump", "none"})
_PARTS: dict[Kind, tuple[int, ...]] = {
    "agent": (2,),
    "member": (2,),
    "hash": (2,),
    "file": (1, 2),
    "result": (1,),
    "config": (1,),
    "entry": (0, 1),
    "topic": (0, 1),
    "metrics": (0, 1),
}
"""How many names a record of each kind has. A DUMP without one lies where all of its kind should;
the second of a file is the number of a further piece."""
_SCORE = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][+-]?[0-9]{1,4})?|inf)")
_STREAM_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_USUAL_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


def record_line(record: Record) -> bytes:
    line: dict[str, Any] = {"kind": record.kind, "names": record.names}
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
    try:
        text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a name holds lone surrogates
        line["names"] = names_out(record.names)
        text = as_ascii(line) + b"\n"
    if not text.isascii():
        text = as_ascii(line) + b"\n"
    if "raw" in line and len(text) > 2 * len(record.raw) + 4096:  # almost nothing but escapes
        line["raw_b64"] = _b64(line.pop("raw").encode("utf-8"))
        text = as_ascii(line) + b"\n"
    return text


def record_of(line: Mapping[str, Any]) -> Record:
    check_record(line)
    get = line.get
    raw = get("raw")
    return Record(
        line["kind"],
        names_in(line["names"]),
        _from_b64(line["raw_b64"]) if raw is None else raw.encode("utf-8"),
        get("form", "text"),
        get("expires_at_ms"),
        get("score"),
        get("stream_id"),
    )


def kind_of(line: Mapping[str, Any]) -> str:
    """Of a line that is a record."""
    check_record(line)
    return str(line["kind"])


def check_record(line: Mapping[str, Any]) -> None:
    """ArchiveError unless every field is there, known, and such that a backend can store it."""
    fits = True
    try:
        for field, value in line.items():  # all() would take half as long again
            if not _FIELDS[field](value):
                fits = False
        fits = fits and ("raw" in line) != ("raw_b64" in line)
        fits = fits and len(line["names"]) in _PARTS[line["kind"]]
        fits = fits and (line["names"] != [] or line.get("form") == "dump")
        if fits and line.get("form") == "hash":
            fits = _is_hash(line["raw"])
        if fits and line["kind"] == "file":
            fits = _is_file_name(*names_in(line["names"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ArchiveError("a record of the archive is not as it should be")


def _is_names(value: object) -> bool:
    if type(value) is not list:
        return False
    for name in value:
        if type(name) is not str:
            names_in([name])
    return True


def _is_text(value: Any) -> bool:
    return value.isascii() or bool(value.encode("utf-8"))


def _is_b64(value: Any) -> bool:
    return _from_b64(value) is not None


def _is_expiry(value: object) -> bool:
    return type(value) is int and -_MOST_MS <= value <= _MOST_MS


def _is_stream_id(value: Any) -> bool:
    if _USUAL_ID.fullmatch(value):
        return True
    found = _STREAM_ID.fullmatch(value)
    return found is not None and max(int(found[1]), int(found[2])) < 1 << 64


_FIELDS: dict[str, Callable[[Any], object]] = {
    "kind": _PARTS.__contains__,
    "names": _is_names,
    "raw": _is_text,
    "raw_b64": _is_b64,
    "form": _FORMS.__contains__,
    "expires_at_ms": _is_expiry,
    "score": _SCORE.fullmatch,
    "stream_id": _is_stream_id,
}


def _is_hash(raw: str) -> bool:
    pairs = orjson.loads(raw)
    return bool(pairs) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_b64, pair)) for pair in pairs
    )


def _is_file_name(name: str, piece: str = "2") -> bool:
    fits = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    return fits and piece.isascii() and piece.isdecimal()


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
    """KeyError, TypeError or ValueError if they are none."""
    if not isinstance(found, list):
        raise TypeError
    if {str}.issuperset(map(type, found)):
        return tuple(found)
    return tuple(
        name if isinstance(name, str) else _from_b64(name["b64"]).decode("utf-8", "surrogatepass")
        for name in found
    )


def _b64(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).decode("ascii")


def _from_b64(text: str) -> bytes:
    return a2b_base64(text, strict_mode=True)


def last_versions(
    batches: Sequence[Sequence[Record]], missing: Collection[Names] = ()
) -> list[Record]:
    """Of what was kept for one deletion, perhaps in several goes, the last version of each record,
    but none of those that then were not deleted. Two may have one name if kept in one go."""
    if len(batches) == 1 and not missing:
        return list(batches[0])
    later, found = set(missing), list[list[Record]]()
    for records in reversed(batches):
        found.append([record for record in records if record.names not in later])
        later |= {record.names for record in records}
    return [record for records in reversed(found) for record in records]
