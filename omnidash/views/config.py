"""Configuration: every key, what OmniDaemon's own mean, secrets hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.http.response import HttpResponseBase

from omnidash import audit
from omnidash.actions.catalogue import ACTIONS
from omnidash.asked import BadQuestion, key_of, params_of
from omnidash.downloads import Columns, download, whole
from omnidash.htmx import page
from omnidash.meanings import beginning_of, meaning_of
from omnidash.queries import PAGE_ROWS, ConfigQuery, Pager
from omnidash.roles import reserved
from omnidash.stores import StoreRequest
from omnidash.sudo import require_recent
from omnidash.text import is_secret, masked
from omnidash.views.actions import act, refusal, unclear
from storage.base import Store
from storage.records import ConfigEntry, to_text


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
    chosen.sort(key=lambda key: bool(meaning_of(key)))  # the user's own come first
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


def edit(request: StoreRequest, store: str) -> HttpResponseBase:
    """A form for one key; what is posted leads to the confirmation of setting it."""
    if not request.user.has_perm("omnidash.edit_config"):
        why = reserved(ACTIONS["set-config"].label, "edit_config")
        audit.refused(request, "set-config", why)
        return refusal(request, "You may not do this", why, 403)
    asked = request.POST if request.method == "POST" else request.GET
    if "plan" in asked:
        return act(request, store, "set-config")
    if request.method != "POST":  # before somebody writes anything
        answer = require_recent(request, request.get_full_path())
        if answer is not None:
            return answer
    try:
        key, problem = key_of(request.entry.store, asked), ""
    except BadQuestion as error:
        return unclear(request, error)
    if request.method == "POST":
        try:
            params_of(ACTIONS["set-config"], request.entry, request.POST, {})
            if not asked.get("of") and request.entry.store.config_entries([key]):
                raise BadQuestion("There is such a key already; edit it in the list.")
            return act(request, store, "set-config")
        except BadQuestion as error:
            problem = str(error)
    known = request.entry.store.config_entries([key]) if key else []
    # Cut off, what is shown would be stored as the whole.
    hidden = any(
        one.truncated or is_secret(one.key) or masked(one.value, one.key) != one.value
        for one in known
    )
    text = asked.get("text", "" if hidden or not known else to_text(known[0].raw))
    context = {
        "key": key, "text": text, "is_new": not known, "meaning": meaning_of(key),
        "problem": problem, "masked": hidden and not problem,
    }  # fmt: skip
    return page(
        request, "config/edit.html", "config/_edit.html", context, status=422 if problem else 200
    )


def _rows(store: Store, keys: list[str]) -> Iterator[Row]:
    for start in range(0, len(keys), _READ):
        yield from map(_row, store.config_entries(keys[start : start + _READ]))


def _row(found: ConfigEntry) -> Row:
    meaning = meaning_of(found.key)
    # A system key ends in the name of an agent, which says nothing of its value.
    name = "" if meaning else found.key
    return Row(
        key=found.key,
        meaning=meaning,
        value=masked(found.value, name),
        preview=beginning_of(found.key, to_text(found.raw)),
        size=found.size,
        problem=found.problem,
        truncated=found.truncated,
    )
