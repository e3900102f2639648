"""A table as a file: all rows that match, as CSV or JSON, streamed, harmless in a spreadsheet.

A file is whole or visibly not: a store that fails before the first row is an outage as on any page,
one that fails later leaves a broken end and a connection that was cut.
"""

from __future__ import annotations

import csv
import datetime
import errno
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from django.http import HttpRequest, StreamingHttpResponse

from omnidash.text import printable
from storage.base import Page, StoreError
from storage.patience import left, patience
from storage.records import LATEST, Invalid, Moment

logger = logging.getLogger(__name__)

RowT = TypeVar("RowT")
Columns = Mapping[str, Callable[[RowT], Any]]
"""Name of a column -> its value in a row: text, number, flag, None for unknown, or JSON. Names say
the unit: `size_bytes`, `p95_seconds`; times are `moment(…)`."""

_CHUNK = 500  # rows that are held and written at once …
_CHUNK_SECONDS = 10.0  # … and how long all questions for them may take
_STRETCH = 1000  # rows of a listing asked for at once …
_OVERLAP = 100  # … of which so many again, to see whether the list has moved
_MARGIN = 0.3  # seconds that a last look may take
# What a spreadsheet takes for the beginning of a formula, or skips to find one.
_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠")


def download(
    request: HttpRequest, noun: str, columns: Columns[RowT], rows: Iterable[RowT]
) -> StreamingHttpResponse:
    """All `rows` in the format that the address asks for, which its form has checked. `rows` may
    ask the store as it goes on; it must not set a `patience` of its own around a `yield`."""
    kind = request.GET["format"]
    content_type, write = _FORMATS[kind]
    source = iter(rows)
    # Within the page's own time, and where StoreMiddleware can still answer for the store.
    first = list(islice(source, _CHUNK))
    chunks = chain([first] if first else [], _chunks(source))
    entry = getattr(request, "entry", None)
    what = f"{entry.name}-{noun}" if entry else noun
    body = _encoded(write(columns, chunks), what)
    made = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    # Not compressed: a reader may take a compressed stream without an end for a whole one.
    request.META.pop("HTTP_ACCEPT_ENCODING", None)
    return StreamingHttpResponse(
        body if request.method == "GET" else (),
        content_type=content_type,
        headers={"Content-Disposition": f'attachment; filename="{what}-{made}.{kind}"'},
    )


def _chunks(source: Iterator[RowT]) -> Iterator[list[RowT]]:
    while True:
        # The page's patience ended with the view. A yield within this one would hand it on.
        with patience(_CHUNK_SECONDS):
            chunk = list(islice(source, _CHUNK))
        if not chunk:
            return
        yield chunk


def _encoded(pieces: Iterator[str], what: str) -> Iterator[bytes]:
    try:
        for piece in pieces:
            yield piece.encode()
    except StoreError as error:
        logger.warning("the download %s ended half-way: %s", what, error)
        # For who sits behind a proxy that ends every answer well: in both formats a text without
        # an end. The server cuts the connection at an error of this kind without another word.
        yield b'"INCOMPLETE: the store failed here'
        raise ConnectionResetError(errno.ECONNRESET, "the store failed half-way") from error


# --- Rows ---


class _Answer(Protocol):
    complete: bool


AnswerT = TypeVar("AnswerT", bound=_Answer)


class Incomplete(StoreError):
    """The store has not been looked through yet, so that the file would lack rows."""


def whole(question: Callable[[], AnswerT]) -> AnswerT:
    """The answer once it is complete. Incomplete if that takes longer than the reader waits."""
    while not (answer := question()).complete:
        if left() < _MARGIN:
            raise Incomplete(
                "Not everything could be looked through in the time there is, and a download has "
                "all or nothing. Try again in a while, or with a narrower filter."
            )
        time.sleep(0.05)
    return answer


def every(
    ask: Callable[[int, int], Page[RowT]], key: Callable[[RowT], Hashable], stretch: int = _STRETCH
) -> Iterator[RowT]:
    """Each row of a listing once; `ask` answers a stretch of it by offset and limit.

    The list moves while it is read. Each stretch begins with the last rows of the one before: what
    came to stand before them is known and left out; if none of them is there, so many rows have
    gone that others may have slipped through, and it looks further back.
    """
    recent: deque[set[Hashable]] = deque(maxlen=3)
    offset = 0
    while True:
        found = whole(partial(ask, offset, stretch))
        keys = [key(row) for row in found.rows]
        known = [any(one in seen for seen in recent) for one in keys]
        if offset and not any(known[:_OVERLAP]):
            offset = max(0, offset - stretch)
            continue
        recent.append(set(keys))
        yield from (row for row, seen in zip(found.rows, known, strict=True) if not seen)
        if found.total is None or offset + stretch >= found.total:
            return
        offset += stretch - _OVERLAP


# --- Values ---


def moment(at: Moment) -> str | None:
    """ISO 8601 in UTC."""
    if at is None:
        return None
    if isinstance(at, Invalid):
        return f"invalid: {at}"
    if at >= LATEST:
        return "after the year 2100"
    when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    """The value as every JSON reader takes it: no NaN, only text that UTF-8 can carry."""
    if isinstance(value, str):
        return printable(value, lines=True)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {printable(str(name), lines=True): _plain(found) for name, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(found) for found in value]
    return value if value is None or isinstance(value, (bool, int)) else printable(str(value))


def _json_text(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def cell(value: Any) -> str:
    """As one of CSV, and never a formula."""
    if isinstance(value, str):
        return ("'" if value.startswith(_FORMULA) else "") + printable(value, lines=True)
    plain = _plain(value)
    return "" if plain is None else _json_text(plain)


# --- Formats ---


class _Echo:
    """A file that hands back what is written to it."""

    @staticmethod
    def write(text: str) -> str:
        return text


def _csv(columns: Columns[RowT], chunks: Iterable[list[RowT]]) -> Iterator[str]:
    """RFC 4180."""
    line = csv.writer(_Echo(), lineterminator="\r\n").writerow
    yield line(columns)
    for chunk in chunks:
        cells = ([cell(read(row)) for read in columns.values()] for row in chunk)
        yield "".join(map(line, cells))


def _json(columns: Columns[RowT], chunks: Iterable[list[RowT]]) -> Iterator[str]:
    """An array of objects, one a line."""
    yield "["
    joint = "\n"
    for chunk in chunks:
        objects = ({name: read(row) for name, read in columns.items()} for row in chunk)
        yield joint + ",\n".join(map(_json_text, objects))
        joint = ",\n"
    yield "\n]\n"


_FORMATS = {
    "csv": ("text/csv; charset=utf-8; header=present", _csv),
    "json": ("application/json; charset=utf-8", _json),
}
