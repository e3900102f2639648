"""Configuration: every key, what OmniDaemon's own mean, secrets hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.http.response import HttpResponseBase

from omnidash.downloads import Columns, download, whole
from omnidash.htmx import page
from omnidash.queries import PAGE_ROWS, ConfigQuery, Pager
from omnidash.stores import StoreRequest
from omnidash.text import MASK, is_secret, masked, masked_text
from storage.base import Store
from storage.records import ConfigEntry, to_text

# OmniDaemon's own keys and what they do (omnidaemon: agent_runner/runner.py, supervisor_storage.py,
# event_bus/redis_stream_bus.py).
SYSTEM_KEYS = {
    "_omnidaemon_start_time": "When the first agent registered; a clean stop empties it.",
    "_omnidaemon_runner_id": "The runner that set the start time; a clean stop empties it.",
    "_supervisor_registry": "Names of the agents that run in supervised processes.",
}
SYSTEM_PREFIXES = {
    "_subscription_active:": "Consumers of this group stop when it is false or gone.",
    "supervisor:": "What this agent's supervisor last said of itself.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A configuration entry as shown: `meaning` is set for system keys, secrets are masked."""

    key: str
    meaning: str
    value: Any
    preview: str
    size: int
    problem: str
    truncated: bool


_PREVIEW = 200
_READ = 200  # entries of at most 64 KB each that are read at once

# What cannot be parsed or is too large is shown by how it begins, as on the page.
_COLUMNS: Columns[Row] = {
    "key": lambda row: row.key,
    "meaning": lambda row: row.meaning or None,
    "value": lambda row: None if row.problem or row.truncated else row.value,
    "begins_with": lambda row: row.preview[:_PREVIEW] if row.problem or row.truncated else None,
    "size_bytes": lambda row: row.size,
    "problem": lambda row: row.problem or None,
}


def config(request: StoreRequest, store: str) -> HttpResponseBase:
    entry = request.entry
    asked = ConfigQuery.read(request.GET)
    text = asked.value("q").casefold()
    to_file = bool(asked.value("format"))
    known = whole(entry.store.config_keys) if to_file else entry.store.config_keys()
    chosen = [key for key in known.keys if text in key.casefold()]
    chosen.sort(key=lambda key: bool(_meaning(key)))  # the user's own come first
    if to_file:
        return download(request, "config", _COLUMNS, _rows(entry.store, chosen))
    shown = chosen[asked.offset : asked.offset + PAGE_ROWS]
    rows = list(_rows(entry.store, shown))
    context = {
        "asked": asked,
        "rows": rows,
        "pager": Pager(asked.offset, len(rows), len(chosen)),
        "key_count": len(known.keys),
        "complete": known.complete,
    }
    return page(request, "config/index.html", "config/_table.html", context)


def _meaning(key: str) -> str:
    if key in SYSTEM_KEYS:
        return SYSTEM_KEYS[key]
    return next((what for start, what in SYSTEM_PREFIXES.items() if key.startswith(start)), "")


def _rows(store: Store, keys: list[str]) -> Iterator[Row]:
    for start in range(0, len(keys), _READ):
        yield from map(_row, store.config_entries(keys[start : start + _READ]))


def _row(found: ConfigEntry) -> Row:
    meaning = _meaning(found.key)
    # A system key ends in the name of an agent, which says nothing of its value.
    name = "" if meaning else found.key
    beginning = to_text(found.raw[:2000])
    # What cannot be parsed cannot be masked key by key.
    preview = MASK if is_secret(name) or is_secret(beginning) else masked_text(beginning)
    return Row(
        key=found.key,
        meaning=meaning,
        value=masked(found.value, name),
        preview=preview,
        size=found.size,
        problem=found.problem,
        truncated=found.truncated,
    )
