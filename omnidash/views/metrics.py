"""Metrics: figures by topic and agent, the last hour as a picture, errors by type and text."""

from __future__ import annotations

import time

from django.http import HttpResponse

from omnidash.htmx import page
from omnidash.queries import PAGE_ROWS, MetricsQuery, Pager
from omnidash.stores import StoreRequest

_ERRORS = 50
_CHANGES = 10


def metrics(request: StoreRequest, store: str) -> HttpResponse:
    entry = request.entry
    asked = MetricsQuery.read(request.GET)
    topic = asked.cleaned_data.get("topic") or None
    agent = asked.cleaned_data.get("agent") or None
    now = time.time()
    history = entry.history
    history.refresh()
    rows, row_count = history.by_agent(topic, agent, asked.value("order"), asked.offset, PAGE_ROWS)
    errors = history.errors(topic, agent)
    stored, unreadable = history.stored()
    context = {
        "asked": asked,
        "rows": rows,
        "pager": Pager(asked.offset, len(rows), row_count),
        "totals": history.totals(topic, agent),
        "series": history.series(now, 60, topic, agent),
        "errors": errors[:_ERRORS],
        "error_kinds": len(errors),
        "changes": history.state_changes()[:_CHANGES],
        "stored": stored,
        "unreadable": unreadable,
        "oldest": history.oldest(),
        "counts": entry.counts(),
        "lag": entry.store.metrics_lag,
    }
    return page(request, "metrics/index.html", "metrics/_board.html", context)
