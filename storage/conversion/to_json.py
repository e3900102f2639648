"""Records of Redis as OmniDaemon would store them in a JSON directory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from storage.changes import Record
from storage.conversion.loss import (
    ANOTHERS,
    DATED,
    DEFAULTS,
    EXPIRY,
    LOOSE,
    NO_NAME,
    NO_RECORD,
    NO_TIME,
    NO_UTF8_TEXT,
    PLACE,
    TRIMMED,
    WRONG_TYPE,
    Loss,
    Refused,
    note_doubled,
    object_value,
    parsed,
    require_utf8,
    text_value,
)
from storage.json_store.encoding import encode
from storage.json_store.metrics import CAP
from storage.records import moment, number
from storage.redis_store.stored import unpack_fields

_FIELDS = ("callback_name", "name", "tools", "description", "config")  # in OmniDaemon's order
_LATER = 1.0  # seconds between the saving of a result and its entry in the index, at most


class ToJson:
    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._events = deque[Record]()

    def take(self, record: Record) -> Record | None:
        """None for an event, which comes with `events`."""
        if record.kind == "metrics":
            self._event(record)
            return None
        if record.kind in ("entry", "member", "hash", "topic"):
            raise Refused(LOOSE)
        require_utf8(record.names)
        if record.kind == "agent":
            return self._agent(record)
        if record.kind == "result":
            return self._result(record)
        if record.kind == "config":
            value = text_value(record)
            if record.expires_at_ms is not None:
                self._loss.alter(record, EXPIRY)
            return Record("config", record.names, self._written(record, value))
        raise Refused(WRONG_TYPE)

    def _written(self, record: Record, value: Any, more: int = 0) -> bytes:
        """As OmniDaemon writes it; `more` quotes than were read."""
        text = encode(value)
        note_doubled(self._loss, record, record.raw, text.count(b'"') - more)
        return text

    # Agents

    def _agent(self, record: Record) -> Record:
        topic, name = record.names
        fields = _hash_of(record)
        if fields.get("name", name) != name or fields.get("topic", topic) != topic:
            raise Refused(ANOTHERS)
        if not name:
            raise Refused(NO_NAME)
        if missing := {"name", "topic"} - fields.keys():
            self._loss.alter(record, DEFAULTS, *sorted(missing))
        created_at = fields.pop("created_at", None)
        fields["name"] = name
        fields.pop("topic", None)
        agent: dict[str, Any] = {
            field: self._field(record, field, fields.pop(field))
            for field in _FIELDS
            if field in fields
        }
        agent |= fields  # what OmniDaemon does not know is text there, and stays it
        if created_at is not None:
            if isinstance(moment(created_at), float):
                agent["created_at"] = _number(created_at)
            else:
                self._loss.alter(record, NO_TIME, "created_at")
        if record.expires_at_ms is not None:
            self._loss.alter(record, EXPIRY)
        return Record("agent", record.names, encode(agent))

    def _field(self, record: Record, field: str, text: str) -> Any:
        if field not in ("tools", "config"):
            return text
        raw = text.encode("utf-8")
        value = parsed(raw)
        note_doubled(self._loss, record, raw, -1)
        return value

    # Results

    def _result(self, record: Record) -> Record:
        value = object_value(record)
        more = 0
        if "expires_at" in value:  # OmniDaemon's Redis never looks at it
            del value["expires_at"]
            more -= 2
            self._loss.alter(record, EXPIRY)
        if record.expires_at_ms is not None:
            value["expires_at"] = record.expires_at_ms / 1000
            more += 2
        saved_at = moment(value.get("saved_at"))
        place = float(saved_at) if isinstance(saved_at, float) else 0.0
        if record.score is None or not abs(float(record.score) - place) <= _LATER:
            self._loss.alter(record, PLACE)
        raw = self._written(record, value, more)
        return Record("result", record.names, raw, expires_at_ms=record.expires_at_ms)

    # Events

    def _event(self, record: Record) -> None:
        value = object_value(record)
        more = 0
        if "saved_at" not in value:
            value["saved_at"] = int((record.stream_id or "0").partition("-")[0]) / 1000
            more = 2
            self._loss.alter(record, DATED)
        if len(self._events) == CAP:
            self._loss.refuse(self._events.popleft(), TRIMMED)
        self._events.append(Record("metrics", record.names, self._written(record, value, more)))

    def events(self) -> Iterator[Record]:
        events, self._events = self._events, deque()
        yield from events


def _hash_of(record: Record) -> dict[str, str]:
    if record.form == "none":
        raise Refused(NO_RECORD)
    if record.form != "hash":
        raise Refused(WRONG_TYPE)
    try:
        parts = iter([part.decode("utf-8") for part in unpack_fields(record.raw)])
    except UnicodeDecodeError:
        raise Refused(NO_UTF8_TEXT) from None
    return dict(zip(parts, parts, strict=True))


def _number(text: str) -> int | float:
    """What a moment's text says, as JSON would write it."""
    try:
        found = parsed(text.encode("utf-8"))
    except Refused:
        found = None
    return found if number(found) is not None else float(text)
