"""The agent registry, and one agent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase

from omnidash import health
from omnidash.charts import FLIGHT, LATENCY, TASKS, Charts
from omnidash.downloads import Columns, download, every, moment
from omnidash.history import answers
from omnidash.history.answers import Figures, Points, Whom
from omnidash.history.errors import details, failures
from omnidash.history.histogram import histogram
from omnidash.history.levels import DAY, last
from omnidash.htmx import page
from omnidash.models import Source
from omnidash.queries import PAGE_ROWS, AgentsQuery, Pager
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.text import from_ref, masked
from omnidash.views.errors import stored_results
from storage.base import AgentQuery, Page, RecordNotFound, ResultQuery
from storage.records import Agent

_RECENT = 10
_KINDS = 8
_POINTS = 48  # of a sparkline
_AT_ONCE = 500  # agents whose figures are asked for together
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

    sections = Sections()
    sections.read("metrics", entry.history.look, None)
    source = entry.history.source()
    if asked.value("format"):
        found_all = every(stretch, lambda agent: (agent.topic, agent.name))
        columns = {**_COLUMNS, **(_UNKNOWN if sections.unread else _FIGURES)}
        rows = _with_figures(source, found_all, now, not sections.unread)
        return download(request, "agents", columns, rows)
    found = stretch(asked.offset, PAGE_ROWS)
    topics = entry.store.topics()
    context = {
        "asked": asked,
        "found": found,
        "rows": list(_with_figures(source, found.rows, now, not sections.unread)),
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


@dataclass(frozen=True, slots=True)
class Row:
    """An agent as listed: its figures and points are those of the last day."""

    agent: Agent
    state: health.State
    points: Points
    figures: Figures


def _with_figures(
    source: Source, agents: Iterable[Agent], now: float, readable: bool
) -> Iterator[Row]:
    """Asked for many agents at a time. No figures if events are not `readable` now."""
    rest = iter(agents)
    while some := list(islice(rest, _AT_ONCE)):
        found = answers.of_agents(
            source, last(DAY, now, _POINTS), [(one.topic, one.name) for one in some]
        )
        for one in some:
            points = found[one.topic, one.name]
            state = health.agent_state(one, now)
            figures = answers.figures(points) if readable else answers.UNKNOWN
            yield Row(one, state, points, figures)


_COLUMNS: Columns[Row] = {
    "topic": lambda row: row.agent.topic,
    "name": lambda row: row.agent.name,
    "state": lambda row: row.state.word,
    "description": lambda row: row.agent.description,
    "callback": lambda row: row.agent.callback_name,
    "tools": lambda row: row.agent.tools,
    "registered_at": lambda row: moment(row.agent.created_at),
    "shares_record_with": lambda row: row.agent.shares_record_with,
    "problem": lambda row: row.agent.problem or None,
}
_FIGURES: Columns[Row] = {
    "received_24h": lambda row: row.figures.received,
    "failed_24h": lambda row: row.figures.failed,
    "p95_24h_seconds": lambda row: row.figures.p95,
    "last_seen_at": lambda row: moment(row.points.last_seen),
}
_UNKNOWN: Columns[Row] = dict.fromkeys(_FIGURES, lambda row: None)


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
    newest = ResultQuery(topic=topic, agent=name, limit=_RECENT)
    points = answers.points(source, span, Whom(topic, name))
    figures = answers.UNKNOWN if sections.unread else answers.figures(points)
    total = points.total
    kinds = failures(source, span, Whom(topic, name))
    rows = details(source, span, kinds[:_KINDS], total.failed)
    events = answers.recent(source, (topic, name))[:_RECENT]
    context = {
        "agent": found,
        "state": health.agent_state(found, now),
        "settings": _settings(found),
        "extra": masked(found.extra).items(),
        "heartbeat": found.supervisor and health.heartbeat(found.supervisor, now),
        "ref": ref,
        "figures": figures,
        "histogram": histogram(total),
        "seen": answers.last_seen(source, (topic, name)),
        "charts": Charts(f"range=24h&of={ref}", "last 24 h", (TASKS, LATENCY, FLIGHT)),
        "events": events,
        "details": rows,
        "kinds": len(kinds),
        "stored": sections.read("results", lambda: stored_results(entry, rows, events), set()),
        "results": sections.read(
            "results", lambda: entry.store.result_page(newest), Page([], None)
        ),
        "unread": sections.troubles,
        "since": source.since,
    }
    return page(request, "agents/agent.html", "agents/_agent.html", context)


def _settings(agent: Agent) -> list[tuple[str, Any, int | None]]:
    """Name, value and OmniDaemon's default of what the agent's subscription can set, and of what
    else its config holds."""
    known = [
        (key, masked(agent.config.get(key), key), default)
        for key, default in health.SUBSCRIPTION_DEFAULTS.items()
    ]
    others = [
        (key, masked(value, key), None)
        for key, value in agent.config.items()
        if key not in health.SUBSCRIPTION_DEFAULTS
    ]
    return [*known, *others]
