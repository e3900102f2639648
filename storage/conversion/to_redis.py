"""Records of a JSON directory as OmniDaemon would store them in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from storage.changes import Record
from storage.conversion.loss import (
    CALLBACK,
    DEFAULTS,
    EXPIRY,
    FIELDS,
    NO_LIST,
    NO_NAME,
    NO_TIME,
    NO_UTF8_TEXT,
    SHARED,
    TEXT,
    TWICE,
    WRONG_TYPE,
    Loss,
    Refused,
    note_doubled,
    object_value,
    require_utf8,
    text_value,
)
from storage.records import moment, number, text_of
from storage.redis_store.stored import pack_fields

_KEPT = {"name", "callback_name", "tools", "description", "config", "created_at"}
_MOST_MS = 1 << 53  # beyond, a float of seconds is not exact to the millisecond


class ToRedis:
    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._agents = set[tuple[str, ...]]()
        self._keys = set[str]()
        self._events: list[tuple[int, Record]] = []

    def take(self, record: Record) -> Record | None:
        """None for what is no record of Redis, and for an event, which comes with `events`."""
        if record.kind == "file":
            return None
        if record.kind == "metrics":
            self._event(record)
            return None
        require_utf8(record.names)
        if record.kind == "agent":
            return self._agent(record)
        if record.kind == "result":
            return self._result(record)
        if record.kind == "config":
            value = text_value(record)
            return Record("config", record.names, self._written(record, value))
        raise Refused(WRONG_TYPE)

    def _written(self, record: Record, value: Any, gone: int = 0) -> bytes:
        """As OmniDaemon writes it; `gone` quotes fewer than were read."""
        text = json.dumps(value).encode("ascii")
        note_doubled(self._loss, record, record.raw, text.count(b'"') + gone)
        return text

    # Agents

    def _agent(self, record: Record) -> Record:
        topic, name = record.names
        if not name:
            raise Refused(NO_LIST)
        value = object_value(record)
        if value.get("name") != name:
            raise Refused(NO_NAME)
        self._require_own_key(topic, name)
        found: dict[str, str] = {"name": name}
        lost: dict[str, list[str]] = {}
        found["callback_name"] = _text(value, "callback_name", lost)
        found["tools"] = _json(value, "tools", [], lost)
        found["description"] = _text(value, "description", lost)
        found["config"] = _json(value, "config", {}, lost)
        found["topic"] = topic
        require_utf8(found.values(), NO_UTF8_TEXT)
        if "created_at" in value:
            created = value["created_at"]
            if number(created) is not None and isinstance(moment(created), float):
                found["created_at"] = repr(created)
            else:
                lost[NO_TIME] = ["created_at"]
        if "callback" in value:
            lost[CALLBACK] = []
        if more := value.keys() - _KEPT - {"callback"}:
            lost[FIELDS] = sorted(more)
        self._agents.add(record.names)
        self._keys.add(f"{topic}:{name}")
        for reason, fields in lost.items():
            self._loss.alter(record, reason, *fields)
        note_doubled(self._loss, record, record.raw, -1)
        parts = [part.encode("utf-8") for pair in found.items() for part in pair]
        return Record("agent", record.names, pack_fields(parts), "hash")

    def _require_own_key(self, topic: str, name: str) -> None:
        """OmniDaemon finds the first of two agents of one name; a key holds one record."""
        if (topic, name) in self._agents:
            raise Refused(TWICE)
        if f"{topic}:{name}" in self._keys:
            raise Refused(SHARED)

    # Results

    def _result(self, record: Record) -> Record:
        value = object_value(record)
        expires, gone = None, 0
        if "expires_at" in value:
            seconds = value.pop("expires_at")
            gone = 2
            expires = _milliseconds(seconds)
            if expires is None:
                self._loss.alter(record, EXPIRY)
        saved_at = moment(value.get("saved_at"))
        # Where there is none, OmniDaemon's list of a JSON directory takes 0.
        score = repr(saved_at) if isinstance(saved_at, float) else "0"
        raw = self._written(record, value, gone)
        return Record("result", record.names, raw, expires_at_ms=expires, score=score)

    # Events

    def _event(self, record: Record) -> None:
        value = object_value(record)
        saved_at = moment(value.get("saved_at"))
        if isinstance(saved_at, float):
            milliseconds = int(saved_at * 1000)
        else:  # it belongs to the one before it
            milliseconds = self._events[-1][0] if self._events else 0
        raw = self._written(record, value)
        self._events.append((milliseconds, Record("metrics", record.names, raw)))

    def events(self) -> Iterator[Record]:
        """By their times, with ids as Redis would have made them then."""
        events, self._events = sorted(self._events, key=lambda event: event[0]), []
        before, sequence = 0, 0  # no event may be 0-0
        for milliseconds, record in events:
            sequence = sequence + 1 if milliseconds == before else 0
            before = milliseconds
            name = f"{milliseconds}-{sequence}"
            yield replace(record, names=(name,), stream_id=name)


def _text(value: dict[str, Any], field: str, lost: dict[str, list[str]]) -> str:
    found = value.get(field)
    if field not in value:
        lost.setdefault(DEFAULTS, []).append(field)
    elif not isinstance(found, str):
        lost.setdefault(TEXT, []).append(field)
    return text_of(found)


def _json(value: dict[str, Any], field: str, default: Any, lost: dict[str, list[str]]) -> str:
    if field not in value:
        lost.setdefault(DEFAULTS, []).append(field)
    return json.dumps(value.get(field, default))


def _milliseconds(seconds: object) -> int | None:
    found = number(seconds)
    fits = found and abs(found) * 1000 < _MOST_MS
    return round(found * 1000) if found and fits else None
