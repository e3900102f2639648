"""Stored results: the list, one result, and its download."""

from __future__ import annotations

import re
import time

from django.http import Http404, HttpResponse
from django.utils.functional import SimpleLazyObject

from omnidash.expiry import forecast
from omnidash.htmx import page
from omnidash.queries import PAGE_ROWS, Pager, ResultsQuery
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.text import from_ref
from storage.base import Counts, ResultQuery, Store
from storage.records import Result, doubled_keys, to_text

_SEARCH = 0.1  # seconds that a look may search payloads for text
_DEEP_SEARCH = 2.0  # seconds when the reader asked to look further
_SUGGESTIONS = 200


def results(request: StoreRequest, store: str) -> HttpResponse:
    entry = request.entry
    asked = ResultsQuery.read(request.GET)
    text = asked.value("q")
    found = entry.store.result_page(_query(asked))
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
    within = asked.value("within")
    expires_from, expires_before = asked.expires
    return ResultQuery(
        order=asked.value("order"),
        agent=asked.cleaned_data.get("agent") or None,
        topic=asked.cleaned_data.get("topic") or None,
        status=asked.cleaned_data.get("status") or None,
        text=asked.value("q"),
        within=within * 60 if within else None,
        expires_from=expires_from,
        expires_before=expires_before,
        life=asked.value("life"),
        offset=asked.offset,
        limit=PAGE_ROWS,
        budget=_DEEP_SEARCH if asked.value("deep") else _SEARCH,
    )


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
    try:
        (task_id,) = from_ref(ref, 1)
    except ValueError:
        raise Http404 from None
    found: Result = request.entry.store.result(task_id)
    return found
