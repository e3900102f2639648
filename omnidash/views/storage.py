"""Storage: health with its evidence, fill levels, and everything that cannot be read."""

from __future__ import annotations

import time

from django.http import HttpResponse

from omnidash.capacity import fills
from omnidash.htmx import page
from omnidash.sections import Sections
from omnidash.stores import StoreRequest
from storage.base import Counts, Fact


def storage(request: StoreRequest, store: str) -> HttpResponse:
    entry = request.entry
    inspection = entry.inspection(max_age=2)
    facts: dict[str, list[Fact]] = {}
    for fact in inspection.facts:
        facts.setdefault(fact.group, []).append(fact)
    sections = Sections()
    counts = sections.read("counts", entry.counts, Counts())
    context = {
        "inspection": inspection,
        "troubles": inspection.troubles + sections.troubles,
        "facts": facts.items(),
        "counts": counts,
        "fills": fills(entry.history.source(), counts, inspection.facts, time.time()),
    }
    return page(request, "storage/index.html", "storage/_board.html", context)
