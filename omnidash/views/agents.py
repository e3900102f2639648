"""The agent registry, and one agent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase

from omnidash import health
from omnidash.downloads import Columns, download, every, moment
from omnidash.figures import Figures
from omnidash.htmx import page
from omnidash.queries import PAGE_ROWS, AgentsQuery, Pager
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.text import from_ref, masked
from storage.base import AgentQuery, Page, ResultQuery
from storage.records import Agent

_RECENT = 10
_TOPICS_SHOWN = 200  # a longer list of suggestions helps nobody


def agents(request: StoreRequest, store: str) -> HttpResponseBase:
    entry = request.entry
    now = time.time()
    asked = AgentsQuery.read(request.GET)
    query, state = _query(asked), asked.value("state")

    def keep(agent: Agent) -> bool:
        return health.agent_state(agent, now).word == state

    def stretch(offset: int, limit: int) -> Page[Agent]:
        wanted = replace(query, offset=offset, limit=limit)
        return entry.store.agent_page(wanted, keep if state else None)

    def row(agent: Agent) -> tuple[Agent, health.State, Figures]:
        figures = entry.history.of_agent(agent.topic, agent.name)
        return agent, health.agent_state(agent, now), figures

    sections = Sections()
    sections.read("metrics", entry.history.refresh, None)
    if asked.value("format"):
        columns = {**_COLUMNS, **(_UNKNOWN if sections.unread else _FIGURES)}
        found_all = every(stretch, lambda agent: (agent.topic, agent.name))
        return download(request, "agents", columns, map(row, found_all))
    found = stretch(asked.offset, PAGE_ROWS)
    topics = entry.store.topics()
    context = {
        "asked": asked,
        "found": found,
        "rows": list(map(row, found.rows)),
        "grouped": query.order == "topic",
        "pager": Pager(asked.offset, len(found.rows), found.total),
        "topics": topics[:_TOPICS_SHOWN],
        "topic_count": len(topics),
        "states": list(health.STATES),
        "unread": sections.troubles,
    }
    return page(request, "agents/index.html", "agents/_table.html", context)


def _query(asked: AgentsQuery) -> AgentQuery:
    order = asked.value("order")
    return AgentQuery(
        topic=asked.cleaned_data.get("topic") or None,
        text=asked.value("q"),
        tool=asked.cleaned_data.get("tool") or None,
        order=order.lstrip("-"),
        descending=order.startswith("-"),
    )


_Row = tuple[Agent, health.State, Figures]
_COLUMNS: Columns[_Row] = {
    "topic": lambda row: row[0].topic,
    "name": lambda row: row[0].name,
    "state": lambda row: row[1].word,
    "description": lambda row: row[0].description,
    "callback": lambda row: row[0].callback_name,
    "tools": lambda row: row[0].tools,
    "registered_at": lambda row: moment(row[0].created_at),
    "shares_record_with": lambda row: row[0].shares_record_with,
    "problem": lambda row: row[0].problem or None,
}
_FIGURES: Columns[_Row] = {
    "received": lambda row: row[2].received,
    "failed": lambda row: row[2].failed,
    "p95_seconds": lambda row: row[2].p95,
    "last_seen_at": lambda row: moment(row[2].last_seen),
}
_UNKNOWN: Columns[_Row] = dict.fromkeys(_FIGURES, lambda row: None)


def agent(request: StoreRequest, store: str, ref: str) -> HttpResponse:
    entry = request.entry
    now = time.time()
    try:
        topic, name = from_ref(ref, 2)
    except ValueError:
        raise Http404 from None
    sections = Sections()
    sections.read("metrics", entry.history.refresh, None)
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
        "figures": entry.history.of_agent(topic, name),
        "series": entry.history.series(now, 60, topic, name),
        "events": entry.history.recent(topic, name)[:_RECENT],
        "errors": entry.history.errors(topic, name)[:_RECENT],
        "results": sections.read(
            "results", lambda: entry.store.result_page(newest), Page([], None)
        ),
        "unread": sections.troubles,
        "oldest": entry.history.oldest(),
    }
    return page(request, "agents/agent.html", "agents/_agent.html", context)
