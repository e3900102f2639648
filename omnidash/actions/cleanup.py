"""Cleanup: what belongs to nothing any more, and what has outlived its use, line by line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omnidash.actions import Action, Params, remove
from omnidash.actions.records import all_keys
from omnidash.meanings import SUBSCRIPTION, SUPERVISOR
from storage.base import Counts, ResultQuery, Store
from storage.changes import Kind, Names, Target
from storage.records import ConfigEntry

_QUIET = 600.0  # seconds without a heartbeat after which a supervisor of no agent is stale
DAY, MEGABYTE = 86_400.0, 1_000_000
DEFAULTS = {"days": 30, "megabytes": 1, "metric_days": 30, "newest": 50_000}
"""Of the lines that ask for a limit."""


def defaults_of(counts: Counts) -> dict[str, float]:
    """Those of a store: of events, half of what OmniDaemon keeps there."""
    cap = counts.metrics_cap
    return {**DEFAULTS, "newest": cap // 2} if cap else {**DEFAULTS}


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of rubbish. `asks` names the limit that it takes."""

    name: str
    title: str
    says: str
    look: Callable[[Store, Params], list[Target]]
    kinds: tuple[Kind, ...] = ()
    """Of the store's loose ends, which are looked for once for all lines."""
    asks: str = ""
    unit: str = ""
    only: str = ""
    """The question that a store has to answer with yes."""
    worthless: bool = True


def _limit(params: Params, name: str) -> float:
    return float(params.get(name, DEFAULTS[name]))


def _expired(store: Store, params: Params) -> list[Target]:
    return store.result_targets(ResultQuery(life="expired"))


def _old(store: Store, params: Params) -> list[Target]:
    return store.result_targets(
        ResultQuery(saved_before=time.time() - _limit(params, "days") * DAY)
    )


def _large(store: Store, params: Params) -> list[Target]:
    return store.result_targets(ResultQuery(larger=int(_limit(params, "megabytes") * MEGABYTE)))


def _unregistered(store: Store, params: Params) -> list[Target]:
    return store.result_targets(ResultQuery(unregistered=True))


def _old_metrics(store: Store, params: Params) -> list[Target]:
    return store.metric_targets(before=time.time() - _limit(params, "metric_days") * DAY)


def _many_metrics(store: Store, params: Params) -> list[Target]:
    return store.metric_targets(keep=int(_limit(params, "newest")))


def _none(store: Store, params: Params) -> list[Target]:
    return []


def _stale_config(store: Store, params: Params) -> list[Target]:
    """Supervisors that are silent and subscriptions without a consumer, of agents that are not
    registered. A consumer goes on after its agent was deleted, and stops without its flag."""
    registered = {(one.names[0], one.names[1]) for one in store.agent_targets()}
    keys = all_keys(store)
    names = {name for _, name in registered}
    stale = [
        key for key in keys
        if key.startswith(SUPERVISOR) and key.removeprefix(SUPERVISOR) not in names
    ]  # fmt: skip
    alive = {one.agent_name for one in store.supervisors() if _lives(one, time.time())}
    stale = [key for key in stale if key.removeprefix(SUPERVISOR) not in alive]
    stale += [
        key for key in keys
        if key.startswith(SUBSCRIPTION)
        and _ended(store, key.removeprefix(SUBSCRIPTION), registered)
    ]  # fmt: skip
    # Another OmniDaemon's prefix may begin as one of these keys does: a value must be theirs, too.
    own = [one.key for one in store.config_entries(stale) if _is_own(one)]
    return store.config_targets(own)


def _is_own(entry: ConfigEntry) -> bool:
    if entry.problem or entry.truncated:
        return False
    if entry.key.startswith(SUBSCRIPTION):
        return isinstance(entry.value, bool)
    return entry.value is None or (isinstance(entry.value, dict) and "state" in entry.value)


def _lives(supervisor: Any, now: float) -> bool:
    beat = supervisor.last_heartbeat
    return isinstance(beat, float) and now - beat < _QUIET


def _ended(store: Store, group: str, registered: set[tuple[str, str]]) -> bool:
    """Of a group `topic:name`, whichever colon divides it: no such agent, and no consumer. Where
    the bus cannot tell whether one is at work, it may be; a store without a bus is only changed
    while nobody is at work."""
    pairs = [(group[:place], group[place + 1 :]) for place, sign in enumerate(group) if sign == ":"]
    if not pairs or any(pair in registered for pair in pairs):
        return False
    return not store.has_bus or all(store.consuming(*pair) is False for pair in pairs)


LINES = (
    Line("expired", "Expired results, still on disk",
         "OmniDaemon removes one only when somebody asks for its id.", _expired,
         only="keeps_expired"),
    Line("index", "Index entries without a result",
         "Ids that outlived their result; OmniDaemon's listing trips over them.", _none, ("entry",),
         only="has_index"),
    Line("members", "Names without an agent, and agents without a name",
         "Left behind when two writers met: members of a topic whose record is gone, and records "
         "that no topic names.", _none, ("member", "hash"),
         only="has_index"),
    Line("files", "Temporary files of killed writers",
         "Half-written, and never read again.", _none, ("file",), only="keeps_expired"),
    Line("config", "Supervisors and subscriptions of agents that are gone",
         "Only where no heartbeat and no consumer shows any life.", _stale_config),
    Line("unregistered", "Results of agents that are not registered",
         "Results that nobody will add to.", _unregistered, worthless=False),
    Line("old", "Old results", "Saved longer ago than this.", _old, (), "days", "days",
         worthless=False),
    Line("large", "Large results", "Of more than this size.", _large, (), "megabytes", "MB",
         worthless=False),
    Line("old-metrics", "Old metric events",
         "OmniDash's own history keeps what they meant.", _old_metrics, (), "metric_days",
         "days",
         worthless=False),
    Line("many-metrics", "Metric events beyond a number",
         "OmniDash's own history keeps what they meant.", _many_metrics, (), "newest",
         "newest kept",
         worthless=False),
)  # fmt: skip
BY_NAME = {line.name: line for line in LINES}


def lines_of(store: Store) -> list[Line]:
    """Those that this kind of store can have."""
    answers = {
        "": True, "has_index": store.has_index, "keeps_expired": not store.can_expire_natively,
    }  # fmt: skip
    return [line for line in LINES if answers[line.only]]


class Look:
    """What lines would delete. A record that two of them name belongs to the first that asks."""

    def __init__(self, store: Store, params: Params) -> None:
        self._store, self._params = store, params
        self._taken: set[tuple[Kind, Names]] = set()

    @cached_property
    def _loose(self) -> list[Target]:
        return self._store.loose_ends()

    def at(self, line: Line) -> list[Target]:
        found = line.look(self._store, self._params)
        if line.kinds:
            found = found + [one for one in self._loose if one.kind in line.kinds]
        return found

    def further(self, line: Line) -> list[Target]:
        """Without what other lines had before."""
        named = {(one.kind, one.names): one for one in self.at(line)}
        new = named.keys() - self._taken if self._taken else named.keys()
        self._taken |= new
        return [one for name, one in named.items() if name in new]


def _look(store: Store, params: Params) -> list[Target]:
    look = Look(store, params)
    lines = [line for line in lines_of(store) if line.name in params["lines"]]
    return [target for line in lines for target in look.further(line)]


CLEAN_UP = Action("clean-up", "Clean up", "record", "clean_up", _look, remove)
