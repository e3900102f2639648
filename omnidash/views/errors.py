"""Errors: the kinds of failure of a range, each with the tasks that it led to."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.http.response import HttpResponseBase

from omnidash.charts import ERRORS, Charts
from omnidash.downloads import Columns, download, moment
from omnidash.history import answers
from omnidash.history.errors import Detail, Failure, details, failures, holding
from omnidash.history.recent import Recent
from omnidash.htmx import page, unchanged
from omnidash.queries import PAGE_ROWS, RANGES, ErrorsQuery, Pager
from omnidash.sections import Sections
from omnidash.stores import Entry, StoreRequest
from omnidash.text import masked_text

_COLUMNS: Columns[Failure] = {
    "error_type": lambda row: masked_text(row.error_type),
    "message": lambda row: row.message,
    "count": lambda row: row.count,
    "agents": lambda row: [{"topic": topic, "agent": agent} for topic, agent in row.agents],
    "first_seen_at": lambda row: moment(row.first_seen),
    "last_seen_at": lambda row: moment(row.last_seen),
}


def errors(request: StoreRequest, store: str) -> HttpResponseBase:
    entry, asked, sections = request.entry, ErrorsQuery.read(request.GET), Sections()
    source, read_at, trouble = entry.recall()
    span = asked.span(time.time(), read_at)
    whom = asked.whom(entry.store)
    until = answers.read_until(source, span)
    version = f"{source.version}.{span.start}.{span.end}.{until}.{entry.history.behind}"
    same = unchanged(request, version)
    if same and not trouble:
        return same
    kinds = failures(source, span, whom)
    found = holding(asked.value("q"), kinds)
    if asked.value("order") == "newest":
        found.sort(key=lambda failure: failure.last_seen or 0.0, reverse=True)
    if asked.value("format"):
        if trouble:
            raise trouble
        return download(request, "errors", _COLUMNS, found)
    total = answers.figures(answers.points(source, span, whom))
    failed = total.failed or 0
    shown = found[asked.offset : asked.offset + PAGE_ROWS]
    rows = details(source, span, shown, failed)
    context = {
        "asked": asked,
        "ranges": RANGES,
        "source": source,
        "span": span,
        "whom": whom,
        "total": total,
        "matching": sum(failure.count for failure in found),
        "kinds": len(found),
        "apart": failed - sum(failure.count for failure in kinds),
        "details": rows,
        "stored": sections.read("results", lambda: stored_results(entry, rows), set()),
        "pager": Pager(asked.offset, len(rows), len(found)),
        "charts": Charts(asked.of_charts("q"), asked.chosen, (ERRORS,), "errors"),
        "behind": entry.history.behind,
        "unread": sections.troubles,
    }
    known = "" if sections.troubles else version
    return page(
        request, "errors/index.html", "errors/_board.html", context,
        version=known, trouble=trouble, good_at=source.read_at if trouble else None,
    )  # fmt: skip


def stored_results(entry: Entry, rows: Iterable[Detail], events: Iterable[Recent] = ()) -> set[str]:
    """The tasks of the examples and the events whose results are stored."""
    shown = [*events, *(example.event for row in rows for example in row.examples)]
    return set(entry.store.results_by_id({event.task_id for event in shown} - {""}))
