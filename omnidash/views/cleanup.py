"""Cleanup: what could go, exactly counted, and the schedules of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

from django.http.response import HttpResponseBase

from omnidash import audit
from omnidash.actions import Params
from omnidash.actions.cleanup import Line, Look, lines_of
from omnidash.asked import limits_of
from omnidash.htmx import page
from omnidash.models import Schedule
from omnidash.schedules import words
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.views.actions import LOOK_SECONDS, refusal
from storage.changes import Names, Target
from storage.patience import patience


@dataclass(frozen=True, slots=True)
class Row:
    """A line as shown; `count` None is unknown."""

    line: Line
    limit: str
    count: int | None
    bytes: int | None

    @classmethod
    def of(cls, line: Line, limits: Params, found: list[Target] | None) -> Row:
        limit = f"{limits[line.asks]:.10g}" if line.asks else ""
        if found is None:
            return cls(line, limit, None, None)
        return cls(line, limit, sum(t.count for t in found), sum(t.size for t in found))


def cleanup(request: StoreRequest, store: str) -> HttpResponseBase:
    if not request.user.has_perm("omnidash.clean_up"):
        audit.refused(request, "clean-up", "clean-up needs the permission clean_up")
        return refusal(
            request, "You may not do this", "Cleanup is for operators and administrators.", 403
        )
    entry, limits = request.entry, limits_of(request.GET)
    values, sections, rows = limits.values, Sections(), []
    look = Look(entry.store, values)
    distinct: dict[tuple[str, Names], Target] = {}
    with patience(LOOK_SECONDS):
        for line in lines_of(entry.store):
            found = sections.read(line.title, partial(look.at, line), None)
            rows.append(Row.of(line, values, found))
            distinct |= {(one.kind, one.names): one for one in found or ()}
    sections.read("counts", entry.counts, None)  # for the side bar
    context = {
        "rows": rows,
        "limits": limits,
        "total": sum(one.count for one in distinct.values()),
        "bytes": sum(one.size for one in distinct.values()),
        "unread": sections.troubles,
        "busy": entry.store.owned_by(),
        "unproven": entry.store.owner_unproven(),
        "schedules": [
            (one, words(one), json.loads(one.params).get("lines", []))
            for one in Schedule.objects.filter(store=entry.name).select_related("last_run", "user")
        ],
    }
    return page(request, "cleanup/index.html", "cleanup/_board.html", context)
