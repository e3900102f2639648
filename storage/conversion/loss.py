"""What records lose on their way to another backend, and how their values are read on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from storage.changes import Kind, Names, Record
from storage.records import doubled_keys, parse_json

NAMED = 1000

# Why a record is refused …
NO_UTF8 = "has a name that is not UTF-8"
NO_UTF8_TEXT = "holds text that is not UTF-8"
NO_JSON = "is no JSON"
NO_OBJECT = "is no JSON object"
NO_NAME = "has no name, or one that is no text"
NO_LIST = "is a topic that is no list of agents"
TWICE = "is the second of its name in its topic"
SHARED = "would share its record with another agent: topic and name of both make the same key"
ANOTHERS = "has a record that describes another agent: topic and name of both make the same key"
NO_RECORD = "is an agent without a record"
WRONG_TYPE = "is of another type than OmniDaemon stores"
LOOSE = "belongs to nothing, and has no place in a JSON directory"
TRIMMED = "is older than the 10,000 events that a JSON directory holds"
# … and what another loses or gets.
CALLBACK = "loses 'callback', which is only the text of a Python object"
FIELDS = "loses fields that OmniDaemon does not keep in Redis"
TEXT = "gets text in the place of another value"
DEFAULTS = "gets what OmniDaemon puts where a field is missing"
DOUBLED = "loses the earlier of two equal keys"
NO_TIME = "loses a date that is none"
EXPIRY = "loses an expiry that cannot be kept"
PLACE = "gets another place in the index of results, by when it was saved"
DATED = "gets the time of its id, having none of its own"


@dataclass(slots=True)
class Loss:
    """`refused` and `altered` count records by kind and reason; the first 1,000 of all of them are
    `named`, with the reason and what it concerns."""

    refused: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    altered: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    named: list[tuple[Kind, Names, str]] = field(default_factory=list)

    def refuse(self, record: Record, reason: str) -> None:
        self.refused[record.kind, reason] += 1
        self._name(record, reason)

    def alter(self, record: Record, reason: str, *details: str) -> None:
        self.altered[record.kind, reason] += 1
        self._name(record, f"{reason}: {', '.join(details)}" if details else reason)

    def _name(self, record: Record, said: str) -> None:
        if len(self.named) < NAMED:
            self.named.append((record.kind, record.names, said))


class Refused(Exception):
    """A record that cannot be taken over; the text is the reason."""


def text_value(record: Record) -> Any:
    """The JSON value of a record."""
    if record.form != "text":
        raise Refused(WRONG_TYPE)
    return parsed(record.raw)


def parsed(raw: bytes) -> Any:
    value, problem = parse_json(raw)
    if problem:
        raise Refused(NO_UTF8_TEXT if problem.startswith("not UTF-8") else NO_JSON)
    return value


def object_value(record: Record) -> dict[str, Any]:
    value = text_value(record)
    if not isinstance(value, dict):
        raise Refused(NO_OBJECT)
    return value


def require_utf8(texts: Iterable[str], reason: str = NO_UTF8) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Refused(reason) from None


def note_doubled(loss: Loss, record: Record, raw: bytes, quotes: int) -> None:
    """`quotes` that its value has when written anew: as many if no key is gone, and looking at the
    number costs almost nothing."""
    if raw.count(b'"') != quotes and (doubled := doubled_keys(raw)):
        loss.alter(record, DOUBLED, *doubled)
