"""Stored results: the list, one result, and its download."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from omnidash import downloads
from omnidash.asked import result_query
from omnidash.downloads import moment
from omnidash.expiry import forecast
from omnidash.htmx import page
from omnidash.queries import PAGE_ROWS, Pager, ResultsQuery
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.text import from_ref
from storage.base import Counts, Page, RecordNotFound, ResultQuery, Store
from storage.records import Result, doubled_keys, to_text

_SEARCH = 0.1  # seconds that a look may search payloads for text
_DEEP_SEARCH = 2.0  # seconds when the reader asked to look further
_SUGGESTIONS = 200


def results(request: StoreRequest, store: str) -> HttpResponseBase:
    entry = request.entry
    asked = ResultsQuery.read(request.GET)
    text, query = asked.value("q"), _query(asked)
    if asked.value("format"):
        return _download(request, query)
    found = entry.store.result_page(query)
    sections = Sections()
    context = {
        "asked": asked,
        "found": found,
        "exact": list(entry.store.results_by_id([text]).values()) if text else [],
        "counts": sections.read("counts", entry.counts, Counts()),
        "forecast": forecast(entry.store, time.time(), asked.expires),
        "unread": sections.troubles,
        "pager": Pager(asked.offset, len(found.rows), found.total),
        "facets": SimpleLazyObject(lambda: _facets(entry.store)),
        "filtered": asked.filters,
    }
    return page(request, "results/index.html", "results/_board.html", context)


def _facets(store: Store) -> dict[str, list[str]]:
    """Suggestions for the filter, which only the whole page has."""
    return {name: values[:_SUGGESTIONS] for name, values in store.result_facets().items()}


def _query(asked: ResultsQuery) -> ResultQuery:
    budget = _DEEP_SEARCH if asked.value("deep") else _SEARCH
    return replace(result_query(asked), offset=asked.offset, limit=PAGE_ROWS, budget=budget)


_COLUMNS: downloads.Columns[Result] = {
    "task_id": lambda result: result.task_id,
    "agent": lambda result: result.agent or None,
    "topic": lambda result: result.topic or None,
    "status": lambda result: result.status or None,
    "size_bytes": lambda result: result.size,
    "saved_at": lambda result: moment(result.saved_at),
    "expires_at": lambda result: moment(result.expires_at),
    "indexed": lambda result: result.indexed,
    "problem": lambda result: result.problem or None,
}
_FOUND_AT_ONCE = 10_000  # matches of a text, since each stretch of them searches anew


def _download(request: StoreRequest, query: ResultQuery) -> HttpResponseBase:
    """The rows of the list, and first the one whose id was searched for."""
    store, text = request.entry.store, query.text

    def stretch(offset: int, limit: int) -> Page[Result]:
        wanted = replace(query, offset=offset, limit=limit, budget=_DEEP_SEARCH)
        return store.result_page(wanted)

    size = {"stretch": _FOUND_AT_ONCE} if text else {}
    found = downloads.every(stretch, lambda result: result.task_id, **size)
    if text:
        exact = store.results_by_id([text])
        found = chain(exact.values(), (row for row in found if row.task_id not in exact))
    return downloads.download(request, "results", _COLUMNS, found)


_ENVELOPE = (
    "correlation_id", "causation_id", "source", "delivery_attempts", "processing_consumer",
    "runner_id", "reply_to",
)  # fmt: skip


def result(request: StoreRequest, store: str, ref: str) -> HttpResponse:
    found = _result(request, ref)
    envelope = found.body if isinstance(found.body, dict) else {}
    context = {
        "result": found,
        "expired": found.expired(time.time()),
        "parsed": found.parsed,
        "raw": to_text(found.raw),
        "doubled": doubled_keys(found.raw) if found.parsed else [],
        "envelope_keys": [
            (key.replace("_", " ").capitalize(), envelope[key])
            for key in _ENVELOPE
            if envelope.get(key) is not None
        ],
    }
    return page(request, "results/result.html", "results/_result.html", context)


def download(request: StoreRequest, store: str, ref: str) -> HttpResponse:
    """The stored text as it is."""
    found = _result(request, ref)
    if found.truncated:
        raise Http404
    return HttpResponse(
        found.raw,
        content_type="application/json; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{_file_name(found.task_id)}"'},
    )


def _file_name(task_id: str) -> str:
    """The task's id as far as it is harmless in a header and on a disk."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", task_id)[:80].strip("._-")
    return f"result-{plain}.json" if plain else "result.json"


def _result(request: StoreRequest, ref: str) -> Result:
    store = request.entry.store

    def long_ids(length: int) -> Iterator[tuple[str]]:
        return ((task_id,) for task_id in store.long_results(length))

    try:
        names = from_ref(ref, 1, long_ids)
    except ValueError:
        raise Http404 from None
    if names is None:
        raise RecordNotFound("there is no such result")
    return store.result(names[0])
