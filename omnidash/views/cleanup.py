"""Cleanup: what could go, exactly counted, and the schedules of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from django.http.response import HttpResponseBase

from omnidash import audit
from omnidash.actions import Params
from omnidash.actions.cleanup import CLEAN_UP, Line, Look, lines_of
from omnidash.asked import limits_of
from omnidash.htmx import page
from omnidash.roles import reserved
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.views.actions import refusal
from omnidash.views.schedules import form_of, listed
from storage.base import Counts
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
        why = reserved(CLEAN_UP.label, "clean_up")
        audit.refused(request, CLEAN_UP.name, why)
        return refusal(request, "You may not do this", why, 403)
    entry, sections = request.entry, Sections()
    limits, rows = limits_of(request.GET), []
    counts = sections.read("counts", entry.counts, Counts())
    values = limits.values(counts)
    look = Look(entry.store, values)
    distinct: dict[tuple[str, Names], Target] = {}
    with patience(CLEAN_UP.patience):
        for line in lines_of(entry.store):
            found = sections.read(line.title, partial(look.at, line), None)
            rows.append(Row.of(line, values, found))
            distinct |= {(one.kind, one.names): one for one in found or ()}
    titles = {row.line.asks: row.line.title for row in rows}
    context = {
        "rows": rows,
        "wrong": [f"{titles[name]}: {found[0]}" for name, found in limits.errors.items()],
        "total": sum(one.count for one in distinct.values()),
        "bytes": sum(one.size for one in distinct.values()),
        "unread": sections.troubles,
        "busy": entry.store.owned_by(),
        "unproven": entry.store.owner_unproven(),
        "schedules": listed(entry.name, "cleanup"),
        **form_of(entry, request.GET, values),
    }
    return page(request, "cleanup/index.html", "cleanup/_board.html", context)
