"""The overview: is it running, how fast, how well, what is about to be lost."""

from __future__ import annotations

import time

from django.http import HttpResponse

from omnidash import health
from omnidash.figures import Figures
from omnidash.htmx import page
from omnidash.sections import Sections
from omnidash.stores import Entry, StoreRequest
from storage.base import Counts, ResultQuery, Runner

WINDOW = 60  # minutes that the figures on top and the chart cover
_ROWS = 6


def overview(request: StoreRequest, store: str) -> HttpResponse:
    entry, now = request.entry, time.time()
    inspection = entry.inspection(max_age=10)
    sections = Sections()
    read = sections.read
    read("metrics", entry.history.refresh, None)
    counts = read("counts", entry.counts, Counts())
    runner = read("runner", entry.store.runner, Runner())
    supervisors = read("supervisors", entry.store.supervisors, [])
    expiring = read("results", lambda: entry.store.expiring(health.SOON), None)
    soonest = ResultQuery(order="expiring", limit=_ROWS)
    lately = entry.history.lately(now, WINDOW)
    troubles = inspection.troubles + sections.troubles
    context = {
        "counts": counts,
        "runner": runner,
        "inspection": inspection,
        "troubles": troubles,
        "status": health.status(runner, supervisors, entry.history.newest(), counts, troubles, now),
        "lately": lately,
        "series": entry.history.series(now, WINDOW),
        "expiring": expiring,
        "attention": health.attention(
            counts, expiring, supervisors, lately, troubles, inspection.risks, now
        ),
        "busiest": read("agents", lambda: _busiest(entry, now), []),
        "next": read("results", lambda: entry.store.result_page(soonest), None),
        "unread": sections.unread,
        "covered": entry.history.covered(now, WINDOW),
        "window": WINDOW,
        "events": entry.history.stored()[0],
    }
    return page(request, "overview/index.html", "overview/_board.html", context)


def _busiest(entry: Entry, now: float) -> list[tuple[Figures, health.State | None]]:
    """The agents with most tasks, each with its state; None if it is not registered."""
    rows = entry.history.busiest(now, WINDOW, _ROWS)
    agents = entry.store.agents_by_name([(row.topic, row.agent) for row in rows])
    states = {(found.topic, found.name): health.agent_state(found, now) for found in agents}
    return [(row, states.get((row.topic, row.agent))) for row in rows]
