"""Storage: health with its evidence, fill levels, and everything that cannot be read."""

from __future__ import annotations

import time

from django.http.response import HttpResponseBase

from omnidash.capacity import fills
from omnidash.downloads import Columns, download, moment, whole
from omnidash.htmx import page
from omnidash.meanings import meaning_of
from omnidash.protection import protection_of
from omnidash.queries import StorageQuery
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from omnidash.templatetags.show import raw_preview
from storage.base import Counts, Fact, Inspection
from storage.records import Broken

_PREVIEW = 120


def _value(fact: Fact) -> float | str | bool | None:
    if fact.unit == "moment" and isinstance(fact.value, (int, float)):
        return moment(fact.value)
    if fact.unit == "milliseconds" and isinstance(fact.value, (int, float)):
        return fact.value / 1000
    return fact.value


_FACTS: Columns[Fact] = {
    "group": lambda fact: fact.group,
    "name": lambda fact: fact.name,
    "value": _value,
    "unit": lambda fact: "seconds" if fact.unit == "milliseconds" else fact.unit,
    "note": lambda fact: fact.note or None,
}
_UNREADABLE: Columns[Broken] = {
    "key": lambda found: found.key,
    "reason": lambda found: found.reason,
    "begins_with": lambda found: raw_preview(found.preview, found.key)[:_PREVIEW] or None,
}


def storage(request: StoreRequest, store: str) -> HttpResponseBase:
    entry = request.entry
    asked = StorageQuery.read(request.GET)
    if asked.value("format"):
        return _download(request, asked.value("table"))
    inspection = entry.inspection(max_age=2)
    facts: dict[str, list[Fact]] = {}
    for fact in inspection.facts:
        facts.setdefault(fact.group, []).append(fact)
    sections = Sections()
    counts = sections.read("counts", entry.counts, Counts())
    protection, now = protection_of(entry.name), time.time()
    context = {
        "own_keys": _clearable(request) if request.user.has_perm("omnidash.clear_store") else None,
        "inspection": inspection,
        "troubles": inspection.troubles + sections.troubles,
        "facts": facts.items(),
        "counts": counts,
        "fills": fills(entry.history.source(), counts, inspection.facts, now),
        "protection": protection,
        "backup_old": protection.is_old(now),
    }
    return page(request, "storage/index.html", "storage/_board.html", context)


def _clearable(request: StoreRequest) -> int | None:
    """Keys that clearing the configuration deletes; None while not all are found."""
    found = Sections().read("configuration", request.entry.store.config_keys, None)
    if found is None or not found.complete:
        return None
    return sum(not meaning_of(key) for key in found.keys)


class _Walked:
    """An inspection that is complete once it has looked at every record."""

    def __init__(self, inspection: Inspection) -> None:
        self.broken, self.complete = inspection.broken, inspection.scan_complete


def _download(request: StoreRequest, table: str) -> HttpResponseBase:
    entry = request.entry
    if table == "facts":
        return download(request, "facts", _FACTS, entry.inspection(max_age=2).facts)
    walked = whole(lambda: _Walked(entry.inspection(max_age=0)))
    return download(request, "unreadable", _UNREADABLE, walked.broken)
