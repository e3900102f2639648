"""The overview: is it running, how fast, how well, what is about to be lost."""

from __future__ import annotations

import time

from django.http import HttpResponse

from omnidash import health
from omnidash.htmx import page
from omnidash.stores import StoreRequest
from storage.base import ResultQuery

WINDOW = 60  # minutes that the figures on top and the chart cover
_ROWS = 6


def overview(request: StoreRequest, store: str) -> HttpResponse:
    entry = request.entry
    now = time.time()
    entry.history.refresh()
    counts, inspection = entry.counts(), entry.inspection()
    supervisors, runner = entry.store.supervisors(), entry.store.runner()
    lately = entry.history.lately(now, WINDOW)
    expiring = entry.store.expiring(health.SOON)
    busiest = entry.history.busiest(now, WINDOW, _ROWS)
    states = {
        (agent.topic, agent.name): health.agent_state(agent, now)
        for agent in entry.store.agents_by_name([(row.topic, row.agent) for row in busiest])
    }
    context = {
        "counts": counts,
        "runner": runner,
        "inspection": inspection,
        "status": health.status(
            runner, supervisors, entry.history.newest(), counts, inspection.troubles, now
        ),
        "lately": lately,
        "series": entry.history.series(now, WINDOW),
        "expiring": expiring,
        "attention": health.attention(
            counts, expiring, supervisors, lately, inspection.troubles, now
        ),
        "busiest": [(row, states.get((row.topic, row.agent))) for row in busiest],
        "next": entry.store.result_page(ResultQuery(order="expiring", limit=_ROWS)),
        "events": entry.history.stored()[0],
        "oldest": entry.history.oldest(),
    }
    return page(request, "overview/index.html", "overview/_board.html", context)
