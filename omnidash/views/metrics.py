"""Metrics: any range as charts and as numbers, figures by topic and agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from django.http import HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from omnidash.charts import ALL, LATENCIES, NUMBERS, Charts, Drawing
from omnidash.downloads import Columns, download, moment
from omnidash.history import answers
from omnidash.history.answers import Figures
from omnidash.htmx import page, unchanged
from omnidash.queries import PAGE_ROWS, RANGES, MetricsQuery, Pager
from omnidash.stores import Entry, StoreRequest

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
    entry, asked = request.entry, MetricsQuery.read(request.GET)
    drawing = _drawing(entry, asked)
    if asked.value("format"):
        found, _ = answers.by_agent(
            drawing.source, drawing.span, drawing.whom, asked.value("order")
        )
        return download(request, "metrics", _COLUMNS, found)
    counts = entry.counts()
    version = f"{drawing.version}.{counts.metrics}.{entry.history.behind}.{entry.history.aside}"
    same = unchanged(request, version)
    if same:
        return same
    source, span, whom = drawing.source, drawing.span, drawing.whom
    rows, row_count = answers.by_agent(
        source, span, whom, asked.value("order"), asked.offset, PAGE_ROWS
    )
    errors = answers.failures(source, span, whom)
    context = {
        "asked": asked,
        "ranges": RANGES,
        "source": source,
        "span": span,
        "rows": rows,
        "pager": Pager(asked.offset, len(rows), row_count),
        "charts": Charts(_points_query(request), asked.chosen, ALL),
        "totals": Figures.of(answers.points(source, span, whom).total),
        "before": _before(drawing) if drawing.compare else None,
        "errors": errors[:_ERRORS],
        "error_kinds": len(errors),
        "changes": answers.marks(source, span, _CHANGES),
        "gaps": answers.gaps(source, span),
        "behind": entry.history.behind,
        "aside": entry.history.aside,
        "counts": counts,
        "lag": entry.store.metrics_lag,
    }
    return page(request, "metrics/index.html", "metrics/_board.html", context, version=version)


def _points_query(request: StoreRequest) -> str:
    """What of the page's query its charts depend on."""
    params = request.GET.copy()
    for name in set(params) - {"range", "from", "to", "topic", "agent", "of", "compare"}:
        del params[name]
    return params.urlencode()


def _drawing(entry: Entry, asked: MetricsQuery) -> Drawing:
    compare = bool(asked.cleaned_data.get("compare"))
    source, span = entry.history.look(), asked.span(time.time())
    return Drawing(source, span, asked.whom(entry.store), compare, asked.charts)


def _before(drawing: Drawing) -> Figures:
    points = answers.points(drawing.source, drawing.span.before(), drawing.whom)
    return Figures.of(points.total)


def points(request: StoreRequest, store: str) -> HttpResponse:
    """The columns of the charts as JSON; with the `version` that the reader has only what is new,
    and 204 where nothing is."""
    asked = MetricsQuery.read(request.GET)
    drawing = _drawing(request.entry, asked)
    known = request.GET.get("version", "")
    if known == drawing.version:
        return HttpResponse(status=204)
    return JsonResponse(drawing.columns(drawing.since(known)))


def numbers(request: StoreRequest, store: str) -> HttpResponseBase:
    """What the charts draw, as a table, newest first."""
    asked = MetricsQuery.read(request.GET)
    drawing = _drawing(request.entry, asked)
    columns = drawing.columns()
    agents = columns["agents"]
    rows = [
        {
            "at": row[0],
            **dict(zip(NUMBERS, row[1:], strict=False)),
            "agents": row[1 + len(NUMBERS) :],
        }
        for row in zip(
            *(columns[name] for name in ("times", *NUMBERS)),
            *agents["columns"],
            agents["rest"],
            strict=True,
        )
    ][::-1]
    if asked.value("format"):
        return download(request, "numbers", _number_columns(agents["names"]), rows)
    context = {"asked": asked, "span": drawing.span, "agents": agents["names"], "rows": rows}
    return page(request, "metrics/numbers.html", "metrics/_numbers.html", context)


def _number_columns(agents: list[str]) -> Columns[dict[str, Any]]:
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {"from": lambda row: moment(row["at"])}
    for name in NUMBERS:
        unit = "_seconds" if name in LATENCIES else ""
        columns[f"{name}{unit}"] = itemgetter(name)
    for place, agent in enumerate([*agents, "other agents"]):
        # Two agents of different topics may have one name.
        label = f"ended: {agent}" if agents.count(agent) < 2 else f"ended: {agent} ({place + 1})"
        columns[label] = _of_agent(place)
    return columns


def _of_agent(place: int) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row["agents"][place]
