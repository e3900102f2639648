"""One version of a file, record by record: the parsed values and where each lies in the bytes.

OmniDaemon writes with `json.dump(indent=2)`, so that a record of the outermost level starts on a
line of its own after exactly two spaces, and no string holds a line break. That lets one broken
record be one marked record, lets raw text be shown as stored, and lets a change leave all other
records byte for byte as they are. Files in any other layout are read as a whole.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any, TypeVar, cast

import orjson

from storage.json_store.encoding import encode
from storage.records import json_kind, parse_json

DerivedT = TypeVar("DerivedT")
# Not a tuple: the garbage collector, woken by thousands of those, would walk all parsed records.
Span = range

_ONE_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19
_OBJECT_ENTRY = re.compile(rb'\n  (?=")')
_LIST_ENTRY = re.compile(rb"\n  (?=[^ }\]])")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class Corrupt(Exception):
    """The bytes are no file of OmniDaemon; the message says why."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a record's value should be."""

    reason: str


class Document:
    """A complete file. `as_written` is False if not even its layout is OmniDaemon's."""

    root: str

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._derived: dict[object, Any] = {}
        self._lock = threading.RLock()

    def derive(self, make: Callable[[Any], DerivedT]) -> DerivedT:
        """What `make` concludes from this version, concluded once."""
        with self._lock:
            if make not in self._derived:
                self._derived[make] = make(self)
            return cast(DerivedT, self._derived[make])

    def _text(self, span: Span | None, value: object) -> bytes:
        if span is not None:
            return self.raw[span.start : span.stop]
        return b"" if isinstance(value, Unreadable) else encode(value)


class Objects(Document):
    """A file whose root is an object."""

    root = "an object"

    def __init__(
        self, raw: bytes, values: dict[str, Any], spans: dict[str, Span] | None = None
    ) -> None:
        super().__init__(raw)
        self.values = values
        self._spans = spans

    @property
    def spans(self) -> dict[str, Span] | None:
        """Where the value of each key lies; None if the layout is not OmniDaemon's."""
        return self.derive(Objects._find_spans)

    def _find_spans(self) -> dict[str, Span] | None:
        if self._spans is None:
            self._spans = _known_spans(self.raw, self.values)
        if self._spans is None:
            found = _object_spans(self.raw)
            if found is not None and found.keys() == self.values.keys() and _whole(self.raw, found):
                self._spans = found
            else:
                _read_whole_exactly(self)
        return self._spans

    def text(self, key: str) -> bytes:
        """The value's bytes as they are stored, or written anew where they cannot be located."""
        spans = self.spans
        return self._text(spans[key] if spans is not None else None, self.values[key])

    def copy_of(self, key: str) -> Any:
        """The value, for a caller who may change it."""
        return parse_exactly(self.text(key))[0]

    def size(self, key: str) -> int:
        spans = self.spans
        return len(self.text(key) if spans is None else spans[key])

    def changed(self, put: dict[str, Any], drop: Iterable[str] = ()) -> Objects:
        """A new version with values put (in their place, else at the end) and keys dropped."""
        return self.with_texts({key: encode(value) for key, value in put.items()}, drop)

    def with_texts(self, put: dict[str, bytes], drop: Iterable[str] = ()) -> Objects:
        """As `changed`, with values that are JSON already (`as_record`)."""
        texts = {key: self.text(key) for key in self.values}
        for key in drop:
            texts.pop(key, None)
        values = {key: self.values.get(key) for key in texts}
        texts.update(put)
        values.update({key: parse_exactly(text)[0] for key, text in put.items()})
        if any(isinstance(values[key], Unreadable) and not text for key, text in texts.items()):
            raise Corrupt("a record cannot be carried over")
        names = [json.dumps(key).encode("ascii") + b": " for key in texts]
        pieces = [name + text for name, text in zip(names, texts.values(), strict=True)]
        raw, starts = _joined(b"{", pieces, b"}")
        spans = {
            key: range(start + len(name), start + len(piece))
            for key, start, name, piece in zip(texts, starts, names, pieces, strict=True)
        }
        return Objects(raw, values, spans)


class Listing(Document):
    """A file whose root is a list."""

    root = "a list"

    def __init__(self, raw: bytes, values: list[Any], spans: list[Span] | None = None) -> None:
        super().__init__(raw)
        self.values = values
        self._spans = spans

    @property
    def spans(self) -> list[Span] | None:
        return self.derive(Listing._find_spans)

    def _find_spans(self) -> list[Span] | None:
        if self._spans is None:
            found = _list_spans(self.raw)
            if found is not None and len(found) == len(self.values):
                self._spans = found
        return self._spans

    def text(self, position: int) -> bytes:
        spans = self.spans
        return self._text(spans[position] if spans is not None else None, self.values[position])

    def copy_of(self, position: int) -> Any:
        return parse_exactly(self.text(position))[0]

    def extended(self, values: list[Any], cap: int) -> Listing:
        """A new version with values at the end, and of all only the last `cap`."""
        first = max(0, len(self.values) + len(values) - cap)
        pieces = [self.text(position) for position in range(first, len(self.values))]
        fresh = [encode(value) for value in values]
        kept = self.values[first:] + [parse_exactly(text)[0] for text in fresh]
        return Listing.of((pieces + fresh)[-cap:], kept[-cap:])

    @staticmethod
    def of(texts: list[bytes], values: list[Any]) -> Listing:
        """A list of records whose JSON (`as_record`) and values are known."""
        raw, starts = _joined(b"[", texts, b"]")
        spans = [range(start, start + len(text)) for start, text in zip(starts, texts, strict=True)]
        return Listing(raw, values, spans)


def _joined(opening: bytes, pieces: list[bytes], closing: bytes) -> tuple[bytes, list[int]]:
    """The file as `json.dump(indent=2)` would write it, and where each piece starts in it."""
    if not pieces:
        return opening + closing, []
    starts, position = [], len(opening) + 3
    for piece in pieces:
        starts.append(position)
        position += len(piece) + 4
    return opening + b"\n  " + b",\n  ".join(pieces) + b"\n" + closing, starts


def as_record(raw: bytes) -> bytes | None:
    """JSON as it may stand one level deep: byte for byte, unless a line of it could be taken for
    another record. None if it is no JSON, which would make the whole file unreadable."""
    value, problem = parse_exactly(raw)
    if problem:
        return None
    alone = raw == raw.strip() and not _LIST_ENTRY.search(raw)
    return raw if alone else encode(value)


def parse_exactly(raw: bytes) -> tuple[Any, str]:
    """(value, problem) as `parse_json`, at a lower price for what OmniDaemon usually writes."""
    if not _has_long_integer(raw):
        value = _parse_fast(raw)
        if value is not None:
            return value, ""
    return parse_json(raw)


def parse_objects(raw: bytes, exact: bool = True) -> Objects:
    """The file's records by key, or Corrupt. If not `exact`, integers beyond 64 bits may have
    become floats in `values`, but never in `text` and `copy_of`."""
    values = _parse_fast(raw)
    if values is None:
        spans = _object_spans(raw)
        if spans is not None:
            return Objects(raw, {key: _one(raw, span) for key, span in spans.items()}, spans)
        values = _parse_whole(raw)
    if not isinstance(values, dict):
        raise Corrupt(f"expected an object, is {json_kind(values)}")
    document = Objects(raw, values)
    # To look for them costs a quarter of the parsing.
    if (exact or not _may_be_as_written(raw, b"{}")) and _has_long_integer(raw):
        _read_exactly(document)
    return document


def parse_list(raw: bytes) -> Listing:
    """The file's records in order, or Corrupt."""
    values = _parse_fast(raw)
    if values is None:
        spans = _list_spans(raw)
        if spans is not None:
            return Listing(raw, [_one(raw, span) for span in spans], spans)
        values = _parse_whole(raw)
    if not isinstance(values, list):
        raise Corrupt(f"expected a list, is {json_kind(values)}")
    document = Listing(raw, values)
    if _has_long_integer(raw):
        _read_list_exactly(document)
    return document


def _parse_fast(raw: bytes) -> Any | None:
    try:
        return cast(Any, orjson.loads(raw))
    except orjson.JSONDecodeError:
        return None


def _parse_whole(raw: bytes) -> Any:
    if not raw.strip():
        raise Corrupt("the file is empty" if not raw else "the file holds only blanks")
    if raw.startswith(_BYTE_ORDER_MARKS):
        raise Corrupt("the file starts with a byte order mark or is UTF-16")
    value, problem = parse_json(raw)
    if problem:
        raise Corrupt(problem)
    return value


def _one(raw: bytes, span: Span) -> Any:
    value, problem = parse_exactly(raw[span.start : span.stop])
    return Unreadable(problem) if problem else value


def _long_integers(raw: bytes) -> Iterator[int]:
    """Where integers that may not fit 64 bits start, which orjson would turn into floats. Fractions
    with many digits are left out: OmniDaemon's processing times are full of them."""
    zeros = raw.translate(_ONE_ZERO)  # 15 ms for 18 MB; a regular expression takes 180
    position = zeros.find(_LONG)
    while position >= 0:
        if raw[position - 1 : position] != b".":
            yield position
        while zeros[position : position + 1] == b"0":
            position += 1
        position = zeros.find(_LONG, position)


def _has_long_integer(raw: bytes) -> bool:
    return next(_long_integers(raw), None) is not None


def _read_exactly(document: Objects) -> None:
    """Read the records with long integers anew, in exact numbers."""
    spans = document.spans
    if spans is None:
        return  # to look for them has read all of it anew
    for key in _owners(document.raw, list(spans.items())):
        document.values[key] = _one(document.raw, spans[key])


def _read_whole_exactly(document: Objects) -> None:
    value, _ = parse_json(document.raw)
    if isinstance(value, dict):
        document.values = value


def _read_list_exactly(document: Listing) -> None:
    spans = document.spans
    if spans is None:
        value, _ = parse_json(document.raw)
        document.values = value if isinstance(value, list) else document.values
        return
    for position in _owners(document.raw, list(enumerate(spans))):
        document.values[position] = _one(document.raw, spans[position])


KeyT = TypeVar("KeyT")


def _owners(raw: bytes, spans: list[tuple[KeyT, Span]]) -> list[KeyT]:
    """The keys of the records that hold a long integer."""
    spans = sorted(spans, key=lambda item: item[1].start)
    owners: list[KeyT] = []
    at = 0
    for position in _long_integers(raw):
        while at < len(spans) and spans[at][1].stop <= position:
            at += 1
        if at < len(spans) and spans[at][1].start <= position:
            owners.append(spans[at][0])
            at += 1
    return owners


def _entries(raw: bytes, entry: re.Pattern[bytes], brackets: bytes) -> list[Span] | None:
    """The outermost entries in OmniDaemon's layout, or None if this is not it."""
    if raw == brackets:
        return []
    if not _may_be_as_written(raw, brackets):
        return None
    starts = [match.end() for match in entry.finditer(raw)]
    if not starts or starts[0] != 4:
        return None
    ends = [start - 4 for start in starts[1:]]
    if any(raw[end] != 44 for end in ends):  # each but the last ends with a comma
        return None
    return list(map(range, starts, [*ends, len(raw) - 2]))


def _may_be_as_written(raw: bytes, brackets: bytes) -> bool:
    return raw.startswith(brackets[:1] + b"\n  ") and raw.endswith(b"\n" + brackets[1:])


def _list_spans(raw: bytes) -> list[Span] | None:
    return _entries(raw, _LIST_ENTRY, b"[]")


def _known_spans(raw: bytes, values: dict[str, Any]) -> dict[str, Span] | None:
    """The spans of keys that are known already, in their order: three times faster than reading
    the keys. None if any of them is not where it should be."""
    entries = _entries(raw, _OBJECT_ENTRY, b"{}")
    if entries is None or len(entries) != len(values):
        return None
    spans: dict[str, Span] = {}
    for key, entry in zip(values, entries, strict=True):
        start = entry.start
        name = encode_basestring_ascii(key).encode("ascii") + b": "
        if not raw.startswith(name, start):
            return None
        spans[key] = range(start + len(name), entry.stop)
    return spans


def _object_spans(raw: bytes) -> dict[str, Span] | None:
    entries = _entries(raw, _OBJECT_ENTRY, b"{}")
    if entries is None:
        return None
    spans: dict[str, Span] = {}
    for entry in entries:
        colon = _key_end(raw, entry.start, entry.stop)
        if colon < 0:
            return None
        key, problem = parse_json(raw[entry.start : colon])
        if problem or not isinstance(key, str):
            return None
        spans[key] = range(colon + 2, entry.stop)  # the last of equal keys counts
    return spans


def _whole(raw: bytes, spans: dict[str, Span]) -> bool:
    """Whether each is JSON, and no line of another record was taken for its start."""
    return all(not parse_exactly(raw[span.start : span.stop])[1] for span in spans.values())


def _key_end(raw: bytes, start: int, end: int) -> int:
    """Behind the closing quote of the key, or -1."""
    position = raw.find(b'": ', start + 1, end)
    while position >= 0:
        slashes = position
        while raw[slashes - 1] == 92:
            slashes -= 1
        if (position - slashes) % 2 == 0:
            return position + 1
        position = raw.find(b'": ', position + 1, end)
    return -1
