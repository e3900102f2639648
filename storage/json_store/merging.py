"""What was put for a restore, and what becomes of a file with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, cast

from storage.changes import Kind, Names, Record
from storage.json_store.agent_cuts import Put, merged_agents, place_of
from storage.json_store.cuts import FOREIGN, NO_JSON, mark_of, why_not
from storage.json_store.expiry import expiring
from storage.json_store.layout import (
    Corrupt,
    Document,
    Listing,
    Objects,
    as_record,
    parse_exactly,
    parse_list,
    parse_objects,
)
from storage.json_store.results import read_row
from storage.json_store.snapshot import KINDS, PIECE, records_of

_PARSERS: dict[str, Callable[[bytes], Document]] = {
    name: parse_list if kind == "metrics" else parse_objects for name, kind in KINDS.items()
}
_NAMES: dict[Kind, tuple[int, ...]] = {
    "agent": (2,),
    "result": (1,),
    "metrics": (1,),
    "config": (1,),
    "file": (1, 2),
}
_CORRUPT = "is corrupt, and stays in the backup: OmniDaemon would take it for empty"
_NO_EXPIRY = "is no object, so that it cannot expire"


class Puts:
    """What was put so far. In memory, as these files are whenever they are used."""

    def __init__(self) -> None:
        self._agents: dict[str, Put] = {}
        self._keyed: dict[Kind, dict[str, bytes]] = {"result": {}, "config": {}, "metrics": {}}
        self._files: dict[str, bytes] = {}

    def add(self, record: Record) -> str:
        """Why it cannot be stored; empty if it was taken."""
        if len(record.names) not in _NAMES.get(record.kind, ()):
            return FOREIGN
        reason = why_not(record)
        if reason:
            return reason
        if record.kind == "file":
            return self._add_file(record)
        text = as_record(record.raw)
        if text is None:
            return NO_JSON
        if record.kind == "agent":
            topic, name = record.names
            self._agents.setdefault(topic, {}).setdefault(name, []).append((place_of(record), text))
            return ""
        (name,) = record.names
        if record.kind == "result":
            text = _with_expiry(name, text, record.expires_at_ms)
            if text is None:
                return _NO_EXPIRY
        self._keyed[record.kind][name] = text
        return ""

    def _add_file(self, record: Record) -> str:
        name, raw = record.names[0], record.raw
        if name not in KINDS:
            return FOREIGN
        whole = raw if len(record.names) == 1 else self._files.get(name, b"") + raw
        if len(raw) != PIECE and _parsed(name, whole) is None:
            self._files.pop(name, None)
            return _CORRUPT
        self._files[name] = whole
        return ""

    def has_file(self, name: str) -> bool:
        """Whether a file's own bytes were put."""
        return name in self._files

    def asks_for(self, name: str) -> bool:
        """Whether anything of a file was put."""
        kind = KINDS[name]
        return self.has_file(name) or bool(self._agents if kind == "agent" else self._keyed[kind])

    def merged(
        self, name: str, present: Document, deleted: Iterable[Names] = (), keep_events: bool = True
    ) -> bytes:
        """The file with all that was put and without what is deleted. Where it then holds the
        records of the file that was put, and no others, it is that one byte for byte. Corrupt
        where it cannot be."""
        kind, doomed = KINDS[name], set(deleted)
        merged: Document
        if isinstance(present, Listing):
            if not keep_events:
                present = Listing.of([], [])
            merged = _merged_events(present, self._keyed[kind], {name for (name,) in doomed})
        elif kind == "agent":
            pairs = cast("set[tuple[str, str]]", doomed)
            merged = merged_agents(cast(Objects, present), self._agents, pairs)
        else:
            merged = _merged_keys(
                cast(Objects, present), self._keyed[kind], {name for (name,) in doomed}
            )
        saved = self._files.get(name)
        if saved is None or saved == merged.raw:
            return merged.raw
        document = _parsed(name, saved)
        same = document is not None and _content(kind, document) == _content(kind, merged)
        return saved if same else merged.raw


def empty(name: str) -> Document:
    return _PARSERS[name](b"[]" if KINDS[name] == "metrics" else b"{}")


def _parsed(name: str, raw: bytes) -> Document | None:
    try:
        return _PARSERS[name](raw)
    except Corrupt:
        return None


def _content(kind: Kind, document: Document) -> Counter[tuple[Names, str]]:
    """What a file holds, in whatever order and layout."""
    names = 0 if kind == "metrics" else 1  # an event's and an agent's also tell a place
    return Counter(
        (record.names[:names], mark_of(as_record(record.raw) or record.raw))
        for record in records_of(kind, document)
    )


def _with_expiry(name: str, text: bytes, expires_at_ms: int | None) -> bytes | None:
    """A result as it is to expire; None if it cannot."""
    value = parse_exactly(text)[0]
    own = read_row(name, value, 0).expires_at
    if (None if own is None else round(own * 1000)) == expires_at_ms:
        return text
    if not isinstance(value, dict):
        return None
    return expiring(text, None if expires_at_ms is None else expires_at_ms / 1000)


def _merged_keys(present: Objects, put: dict[str, bytes], deleted: set[str]) -> Objects:
    return present.with_texts(put, deleted) if put or deleted else present


def _merged_events(present: Listing, put: dict[str, bytes], deleted: set[str]) -> Listing:
    """By their times, all of both: a name only tells when it was and the how manieth of that time
    in its own file, so that of two events with one name neither is the other. Beyond OmniDaemon's
    cap, too: it cuts the file when it next saves."""
    if not put and not deleted:
        return present
    there = {
        record.names[0]: record.raw
        for record in records_of("metrics", present)
        if record.names[0] not in deleted
    }
    texts = _by_time(_timed(there), _timed(put))
    return Listing.of(texts, [parse_exactly(text)[0] for text in texts])


def _timed(events: dict[str, bytes]) -> list[tuple[float, bytes]]:
    """One whose time is unknown goes with the one before it."""
    found, time = [], -math.inf
    for name, text in events.items():
        time = _time_of(name, parse_exactly(text)[0], time)
        found.append((time, text))
    return found


def _time_of(name: str, value: Any, before: float) -> float:
    saved_at = value.get("saved_at") if isinstance(value, dict) else None
    if isinstance(saved_at, (int, float)) and math.isfinite(saved_at):
        return saved_at
    try:
        time = float(name.rpartition("-")[0])
    except ValueError:
        return before
    return time if math.isfinite(time) else before


def _by_time(there: list[tuple[float, bytes]], fresh: list[tuple[float, bytes]]) -> list[bytes]:
    """Both in their own order, though a clock was set back."""
    found, at = [], 0
    for time, text in there:
        while at < len(fresh) and fresh[at][0] < time:
            found.append(fresh[at][1])
            at += 1
        found.append(text)
    return found + [text for _, text in fresh[at:]]
