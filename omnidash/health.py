"""The judgement: what the figures of a store mean, and what needs a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from omnidash.capacity import Fill
from omnidash.history.answers import Figures
from omnidash.text import printable
from storage.base import Counts, Runner
from storage.records import Agent, Supervisor

Level = Literal["good", "quiet", "warn", "bad"]

HEARTBEAT = 60.0  # seconds between a supervisor's heartbeats (omnidaemon/agent_runner/types.py)
FRESH = 2 * HEARTBEAT  # one missed heartbeat is no alarm
ALIVE = 15 * 60.0  # an idle runner writes nothing; after this long its life is not proven
AHEAD = 600.0  # seconds that another clock may be ahead of ours and still be believed
SOON = 3600.0  # results that expire within the hour need attention
NEARLY_FULL = 0.9
_SEARCHED = 100  # characters of a name that a link searches for

# What OmniDaemon uses where an agent's config leaves a field out
# (omnidaemon/event_bus/redis_stream_bus.py, `subscribe` and the bus's constructor).
SUBSCRIPTION_DEFAULTS = {"consumer_count": 1, "reclaim_idle_ms": 180_000, "dlq_retry_limit": 3}


@dataclass(frozen=True, slots=True)
class Status:
    """The one word on top, what it rests on, and when the newest of that evidence was seen."""

    word: Literal["Running", "Ready", "Stopped", "Degraded", "Down"]
    level: Level
    evidence: str
    seen_at: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """An agent's state as the store tells it. `word` is also the value of the state filter."""

    word: str
    level: Level
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attention:
    """One line of "Needs attention": `subject` is the link to `page` (a URL name) with `query`."""

    level: Level
    subject: str
    text: str
    note: str
    page: str
    query: str = ""
    at: float | None = None


def heartbeat(supervisor: Supervisor, now: float) -> Literal["fresh", "late", "unknown"]:
    """By age alone: nobody updates the record of a supervisor that is dead."""
    last = _last_sign(supervisor)
    if last is None or last > now + AHEAD:
        return "unknown"
    return "fresh" if now - last <= FRESH else "late"


def _last_sign(supervisor: Supervisor) -> float | None:
    moments = (supervisor.last_heartbeat, supervisor.last_updated)
    return max((at for at in moments if isinstance(at, float)), default=None)


STATES: dict[str, Level] = {
    "crashed": "bad",
    "late": "bad",
    "restarting": "warn",
    "starting": "quiet",
    "stopping": "quiet",
    "stopped": "quiet",
    "paused": "warn",
    "running": "good",
    "active": "good",
    "unknown": "quiet",
    "unreadable": "bad",
}


def agent_state(agent: Agent, now: float) -> State:
    """From the subscription flag and, where there is one, the supervisor's record and its age."""
    word, note = _agent_state(agent, now)
    return State(word, STATES[word], note)


def _agent_state(agent: Agent, now: float) -> tuple[str, str]:
    if agent.problem:
        return "unreadable", agent.problem
    if agent.subscribed is False:
        return "paused", "its subscription flag is off, so its consumers stop"
    supervisor = agent.supervisor
    if supervisor and not supervisor.problem:
        word = supervisor.state.lower()
        if word in ("crashed", "restarting", "starting", "stopping", "stopped"):
            return word, "as its supervisor last said"
        age = heartbeat(supervisor, now)
        if age == "late":
            return "late", "its supervisor says running, but its heartbeat is overdue"
        if age == "unknown":
            return "unknown", "its supervisor has sent no heartbeat yet"
        return "running", "its supervisor's heartbeat is fresh"
    if agent.subscribed:
        return "active", "its subscription flag is on; no supervisor reports on it"
    return "unknown", "it has neither a subscription flag nor a supervisor"


def status(
    runner: Runner,
    supervisors: list[Supervisor],
    newest_event: float | None,
    counts: Counts,
    troubles: list[str],
    now: float,
) -> Status:
    """Never from the stored start time alone: a crash leaves it behind. A start time with signs of
    life is Running; without, Degraded, because idle and dead look the same from the store."""
    signs = [t for t in map(_last_sign, supervisors) if t is not None]
    signs += [
        at for at in (newest_event, runner.last_write, runner.start_time) if isinstance(at, float)
    ]
    signs = [t for t in signs if t <= now + AHEAD]  # a clock that is ahead proves nothing
    seen_at = min(max(signs), now) if signs else None
    if troubles:
        return Status("Degraded", "bad", troubles[0], seen_at)
    if runner.start_time is None:
        if counts.agents:
            return Status("Stopped", "quiet", "no runner has a start time in the store", seen_at)
        return Status("Ready", "quiet", "no agent is registered yet", seen_at)
    if seen_at is None:
        return Status("Degraded", "warn", "a runner has started, but left no sign of life since")
    if now - seen_at > ALIVE:
        return Status(
            "Degraded", "warn", "the runner never said that it stopped; idle or dead", seen_at
        )
    return Status("Running", "good", "last sign of life", seen_at)


def attention(
    counts: Counts,
    expiring: int | None,
    supervisors: list[Supervisor],
    lately: Figures,
    troubles: list[str],
    risks: list[str],
    now: float,
    capacity: Sequence[Fill] = (),
    silent: Status | None = None,
    backups: Sequence[Attention] = (),
) -> list[Attention]:
    """What needs a person, worst first. `silent`: the status, if it is that of a runner which gives
    no sign of life. `backups`: what is known of these already."""
    lines = [Attention("bad", "Storage", trouble, "", "storage") for trouble in troubles]
    if silent:
        text = "gives no sign of life: idle or dead"
        lines.append(Attention("warn", "Runner", text, "last sign", "agents", at=silent.seen_at))
    lines += [Attention("quiet", "Storage", risk, "", "storage") for risk in risks]
    lines += _supervisor_lines(supervisors, now)
    if lately.failed:
        share = lately.failed / lately.ended
        level: Level = "bad" if share > 0.1 else "warn"
        tasks = _plural(lately.failed, "task")
        text = f"failed in the last hour, {share * 100:.1f} % of those that ended"
        lines.append(Attention(level, tasks, text, "", "errors", "range=1h", at=lately.last_seen))
    if expiring:
        results = _plural(expiring, "result")
        verb = "expires" if expiring == 1 else "expire"
        query = "order=expiring&within=60"
        lines.append(Attention("warn", results, f"{verb} within the hour", "", "results", query))
    lines += [*_storage_lines(counts), *_capacity_lines(capacity), *backups]
    order = {"bad": 0, "warn": 1, "quiet": 2, "good": 3}
    return sorted(lines, key=lambda line: order[line.level])


def _supervisor_lines(supervisors: list[Supervisor], now: float) -> list[Attention]:
    lines = []
    for supervisor in supervisors:
        text = ""
        if supervisor.problem:
            text = f"supervisor record unreadable: {supervisor.problem}"
        elif supervisor.state.lower() in ("crashed", "restarting"):
            text = f"is {supervisor.state.lower()}"
            if supervisor.restart_count:
                text += f", restarted {_plural(supervisor.restart_count, 'time')}"
        elif heartbeat(supervisor, now) == "late" and supervisor.state.lower() == "running":
            text = "says running, but its heartbeat is overdue"
        if text:
            query = urlencode({"q": printable(supervisor.agent_name)[:_SEARCHED]})
            at = _last_sign(supervisor)
            lines.append(
                Attention("bad", supervisor.agent_name, text, "last heartbeat", "agents", query, at)
            )
    return lines


def _storage_lines(counts: Counts) -> list[Attention]:
    lines = []
    if counts.metrics is not None and counts.metrics_cap:
        fill = counts.metrics / counts.metrics_cap
        if fill >= NEARLY_FULL:
            text = f"are at {min(fill, 1.0):.0%} of what OmniDaemon keeps; the oldest are dropped"
            lines.append(Attention("quiet", "Metric events", text, "", "metrics"))
    if counts.unreadable:
        records = _plural(counts.unreadable, "result")
        lines.append(Attention("warn", records, "cannot be read", "", "results", "life=unreadable"))
    if counts.orphans:
        entries = _plural(counts.orphans, "index entry", "index entries")
        verb = "points" if counts.orphans == 1 else "point"
        text = f"{verb} to results that are gone"
        lines.append(Attention("quiet", entries, text, "", "storage"))
    if counts.expired:
        results = _plural(counts.expired, "expired result")
        verb = "is" if counts.expired == 1 else "are"
        query = "life=expired"
        lines.append(Attention("quiet", results, f"{verb} still on disk", "", "results", query))
    return lines


def _capacity_lines(capacity: Sequence[Fill]) -> list[Attention]:
    """What is full within a day. A ring then drops its oldest, which is how it is meant."""
    lines = []
    for fill in capacity:
        if fill.is_soon_full and not fill.is_ring:
            lines.append(Attention("warn", fill.name, fill.forecast.words, "", "storage"))
        elif fill.is_soon_full and fill.limit and fill.value < NEARLY_FULL * fill.limit:
            text = f"{fill.forecast.words}; then the oldest are dropped"
            lines.append(Attention("quiet", fill.name, text, "", "storage"))
    return lines


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
