"""The agent registry, and one agent."""

from __future__ import annotations

import time
from typing import Any

from django.http import Http404, HttpResponse

from omnidash import health
from omnidash.charts import FLIGHT, LATENCY, TASKS, Charts
from omnidash.history import answers
from omnidash.history.answers import Figures, Whom
from omnidash.history.levels import DAY, last
from omnidash.htmx import page
from omnidash.queries import PAGE_ROWS, AgentsQuery, Pager
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.text import from_ref, masked
from storage.base import AgentQuery, Page, RecordNotFound, ResultQuery
from storage.records import Agent

_RECENT = 10
_POINTS = 48  # of a sparkline
_TOPICS_SHOWN = 200  # a longer list of suggestions helps nobody


def agents(request: StoreRequest, store: str) -> HttpResponse:
    entry = request.entry
    now = time.time()
    asked = AgentsQuery.read(request.GET)
    order = asked.value("order")
    query = AgentQuery(
        topic=asked.cleaned_data.get("topic") or None,
        text=asked.value("q"),
        tool=asked.cleaned_data.get("tool") or None,
        order=order.lstrip("-"),
        descending=order.startswith("-"),
        offset=asked.offset,
        limit=PAGE_ROWS,
    )
    state = asked.value("state")

    def keep(agent: Agent) -> bool:
        return health.agent_state(agent, now).word == state

    sections = Sections()
    sections.read("metrics", entry.history.look, None)
    found = entry.store.agent_page(query, keep if state else None)
    points = answers.of_agents(
        entry.history.source(),
        last(DAY, now, _POINTS),
        [(agent.topic, agent.name) for agent in found.rows],
    )
    rows = [
        (
            agent,
            health.agent_state(agent, now),
            points[agent.topic, agent.name],
            Figures.of(points[agent.topic, agent.name].total),
        )
        for agent in found.rows
    ]
    topics = entry.store.topics()
    context = {
        "asked": asked,
        "found": found,
        "rows": rows,
        "grouped": order == "topic",
        "pager": Pager(asked.offset, len(rows), found.total),
        "topics": topics[:_TOPICS_SHOWN],
        "topic_count": len(topics),
        "states": list(health.STATES),
        "unread": sections.troubles,
    }
    return page(request, "agents/index.html", "agents/_table.html", context)


def agent(request: StoreRequest, store: str, ref: str) -> HttpResponse:
    entry = request.entry
    now = time.time()
    try:
        names = from_ref(ref, 2, entry.store.long_agents)
    except ValueError:
        raise Http404 from None
    if names is None:
        raise RecordNotFound("there is no such agent")
    topic, name = names
    sections = Sections()
    sections.read("metrics", entry.history.look, None)
    source, span = entry.history.source(), last(DAY, now)
    found = entry.store.agent(topic, name)
    settings: list[tuple[str, Any, int | None]] = [
        (key, masked(found.config.get(key), key), default)
        for key, default in health.SUBSCRIPTION_DEFAULTS.items()
    ]
    settings += [
        (key, masked(value, key), None)
        for key, value in found.config.items()
        if key not in health.SUBSCRIPTION_DEFAULTS
    ]
    newest = ResultQuery(topic=topic, agent=name, limit=_RECENT)
    context = {
        "agent": found,
        "state": health.agent_state(found, now),
        "settings": settings,
        "extra": masked(found.extra).items(),
        "heartbeat": found.supervisor and health.heartbeat(found.supervisor, now),
        "figures": Figures.of(answers.points(source, span, Whom(topic, name)).total),
        "seen": answers.last_seen(source, (topic, name)),
        "charts": Charts(f"range=24h&of={ref}", "last 24 h", (TASKS, LATENCY, FLIGHT)),
        "events": answers.recent(source, (topic, name))[:_RECENT],
        "errors": answers.failures(source, span, Whom(topic, name))[:_RECENT],
        "results": sections.read(
            "results", lambda: entry.store.result_page(newest), Page([], None)
        ),
        "unread": sections.troubles,
        "since": source.since,
    }
    return page(request, "agents/agent.html", "agents/_agent.html", context)
