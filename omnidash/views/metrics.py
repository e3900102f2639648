"""Metrics: any range as charts and as numbers, figures by topic and agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from typing import Any

from django.http import HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from omnidash.charts import ALL, ERRORS, LATENCIES, NUMBERS, Charts, Drawing
from omnidash.downloads import Columns, download, moment
from omnidash.history import answers, errors
from omnidash.history.answers import Figures
from omnidash.htmx import page, unchanged
from omnidash.queries import PAGE_ROWS, RANGES, MetricsQuery, Pager, PointsQuery
from omnidash.sections import Sections
from omnidash.stores import Entry, StoreRequest
from storage.base import StoreError

_ERRORS = 8
_CHANGES = 8


_COLUMNS: Columns[Figures] = {
    "topic": lambda row: row.topic,
    "agent": lambda row: row.agent,
    "received": lambda row: row.received,
    "processed": lambda row: row.processed,
    "failed": lambda row: row.failed,
    "success_rate": lambda row: row.success_rate,
    "mean_seconds": lambda row: row.mean,
    "p50_seconds": lambda row: row.p50,
    "p95_seconds": lambda row: row.p95,
    "p99_seconds": lambda row: row.p99,
    "max_seconds": lambda row: row.max,
    "last_seen_at": lambda row: moment(row.last_seen),
}


def metrics(request: StoreRequest, store: str) -> HttpResponseBase:
    entry, asked, sections = request.entry, MetricsQuery.read(request.GET), Sections()
    drawing, trouble = _drawing(entry, asked)
    if asked.value("format"):
        if trouble:
            raise trouble
        found, _ = answers.by_agent(
            drawing.source, drawing.span, drawing.whom, asked.value("order")
        )
        return download(request, "metrics", _COLUMNS, found)
    counts = sections.read("counts", entry.counts, entry.known_counts())
    version = f"{drawing.version}.{counts.metrics}.{entry.history.behind}.{entry.history.aside}"
    same = unchanged(request, version)
    if same and not trouble:
        return same
    source, span, whom = drawing.source, drawing.span, drawing.whom
    rows, row_count = answers.by_agent(
        source, span, whom, asked.value("order"), asked.offset, PAGE_ROWS
    )
    failures = errors.failures(source, span, whom)
    before, whole_before = _before(drawing) if drawing.compare else (None, True)
    context = {
        "asked": asked,
        "ranges": RANGES,
        "source": source,
        "span": span,
        "rows": rows,
        "pager": Pager(asked.offset, len(rows), row_count),
        "charts": Charts(asked.of_charts("compare"), asked.chosen, ALL),
        "totals": answers.figures(answers.points(source, span, whom)),
        "before": before,
        "whole_before": whole_before,
        "failures": failures[:_ERRORS],
        "failure_kinds": len(failures),
        "changes": answers.marks(source, span, _CHANGES, whom.agent),
        "gaps": answers.gaps(source, span),
        "behind": entry.history.behind,
        "aside": entry.history.aside,
        "counts": counts,
        "lag": entry.store.metrics_lag,
    }
    return page(
        request, "metrics/index.html", "metrics/_board.html", context,
        version=version, trouble=trouble, good_at=source.read_at if trouble else None,
    )  # fmt: skip


def _drawing(entry: Entry, asked: MetricsQuery) -> tuple[Drawing, StoreError | None]:
    """As of the moment when the store was read last, and why that is not now."""
    compare = bool(asked.cleaned_data.get("compare"))
    source, read_at, trouble = entry.recall()
    span = asked.span(time.time(), read_at)
    whom, text = asked.whom(entry.store), asked.value("q")
    return Drawing(source, span, whom, compare, asked.charts, text), trouble


def _before(drawing: Drawing) -> tuple[Figures, bool]:
    """The figures of the period before, and whether all of it is known."""
    points = answers.points(drawing.source, drawing.span.before(), drawing.whom)
    return answers.figures(points), None not in points.tallies


def points(request: StoreRequest, store: str) -> HttpResponse:
    """The columns of the charts as JSON; with the `version` that the reader has only what is new,
    and 204 where nothing is."""
    asked = PointsQuery.read(request.GET)
    drawing, _ = _drawing(request.entry, asked)
    known = request.GET.get("version", "")
    if known == drawing.version:
        return HttpResponse(status=204)
    return JsonResponse(drawing.columns(drawing.since(known)))


def numbers(request: StoreRequest, store: str) -> HttpResponseBase:
    """What the charts draw, as a table, newest first; with kinds of failure in the place of agents
    if these are to be drawn."""
    asked = PointsQuery.read(request.GET)
    drawing, trouble = _drawing(request.entry, asked)
    drawing = replace(drawing, charts=(*ALL, *drawing.charts))
    columns = drawing.columns()
    of_errors = ERRORS in drawing.charts
    parts = columns["errors"] if of_errors else columns["agents"]
    rows = [
        {
            "at": row[0],
            **dict(zip(NUMBERS, row[1:], strict=False)),
            "parts": row[1 + len(NUMBERS) :],
        }
        for row in zip(
            *(columns[name] for name in ("times", *NUMBERS)),
            *parts["columns"],
            parts["rest"],
            strict=True,
        )
    ][::-1]
    names = [*parts["names"], "other failures" if of_errors else "other agents"]
    if asked.value("format"):
        if trouble:
            raise trouble
        named = _number_columns("failed" if of_errors else "ended", names)
        return download(request, "numbers", named, rows)
    context = {
        "asked": asked,
        "span": drawing.span,
        "parts": names,
        "of_errors": of_errors,
        "rows": rows,
    }
    return page(
        request, "metrics/numbers.html", "metrics/_numbers.html", context,
        trouble=trouble, good_at=drawing.source.read_at if trouble else None,
    )  # fmt: skip


def _number_columns(what: str, parts: list[str]) -> Columns[dict[str, Any]]:
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {"from": lambda row: moment(row["at"])}
    for name in NUMBERS:
        unit = "_seconds" if name in LATENCIES else ""
        columns[f"{name}{unit}"] = itemgetter(name)
    for place, part in enumerate(parts):
        # Two agents of different topics may have one name.
        label = f"{what}: {part}" if parts.count(part) < 2 else f"{what}: {part} ({place + 1})"
        columns[label] = _of_part(place)
    return columns


def _of_part(place: int) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row["parts"][place]
