"""The overview: is it running, how fast, how well, what is about to be lost."""

from __future__ import annotations

import time

from django.http import HttpResponse

from omnidash import health
from omnidash.capacity import fills
from omnidash.charts import TASKS, Charts, numbers
from omnidash.history import answers
from omnidash.history.answers import Figures
from omnidash.history.levels import HOUR, Span, last
from omnidash.htmx import page
from omnidash.models import Source
from omnidash.protection import protection_of
from omnidash.sections import Sections
from omnidash.stores import Entry, StoreRequest
from storage.base import Counts, ResultQuery, Runner

_ROWS = 6


def overview(request: StoreRequest, store: str) -> HttpResponse:
    entry, now = request.entry, time.time()
    inspection = entry.inspection(max_age=10)
    sections = Sections()
    read = sections.read
    read("metrics", entry.history.look, None)
    source, hour = entry.history.source(), last(HOUR, now)
    counts = read("counts", entry.counts, Counts())
    runner = read("runner", entry.store.runner, Runner())
    supervisors = read("supervisors", entry.store.supervisors, [])
    expiring = read("results", lambda: entry.store.expiring(health.SOON), None)
    soonest = ResultQuery(order="expiring", limit=_ROWS)
    points = answers.points(source, hour)
    # What was known before is on the charts; it is no figure of the last hour.
    lately = answers.UNKNOWN if "metrics" in sections.unread else answers.figures(points)
    minutes = answers.minutes_known(points)
    troubles = inspection.troubles + sections.troubles
    status = health.status(runner, supervisors, source.newest, counts, troubles, now)
    protection = protection_of(entry.name)
    context = {
        "counts": counts,
        "runner": runner,
        "inspection": inspection,
        "troubles": troubles,
        "status": status,
        "protection": protection,
        "backup_old": protection.is_old(now),
        "lately": lately,
        "per_minute": None if lately is answers.UNKNOWN else lately.ended / minutes,
        "sparks": numbers(points),
        "charts": Charts("range=1h", "last hour", (TASKS,)),
        "expiring": expiring,
        "attention": health.attention(
            counts, expiring, supervisors, lately, troubles, inspection.risks, now,
            capacity=fills(source, counts, inspection.facts, now),
            silent=status if status.word == "Degraded" and not troubles else None,
            backups=protection.lines(now),
        ),
        "busiest": []
        if "metrics" in sections.unread
        else read("agents", lambda: _busiest(entry, source, hour, minutes, now), []),
        "next": read("results", lambda: entry.store.result_page(soonest), None),
        "unread": sections.unread,
        "minutes": minutes,
        "source": source,
    }  # fmt: skip
    return page(request, "overview/index.html", "overview/_board.html", context)


def _busiest(
    entry: Entry, source: Source, hour: Span, minutes: float, now: float
) -> list[tuple[Figures, float, health.State | None]]:
    """The agents with most tasks, each with its tasks a minute, and its state; None if it is not
    registered."""
    rows, _ = answers.by_agent(source, hour, order="ended", limit=_ROWS)
    agents = entry.store.agents_by_name([(row.topic, row.agent) for row in rows])
    states = {(found.topic, found.name): health.agent_state(found, now) for found in agents}
    return [
        (
            row,
            row.ended / minutes,
            states.get((row.topic, row.agent)),
        )
        for row in rows
    ]
