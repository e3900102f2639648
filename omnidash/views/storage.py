"""Storage: health with its evidence, fill levels, and everything that cannot be read."""

from __future__ import annotations

from itertools import groupby

from django.http import HttpResponse

from omnidash.htmx import page
from omnidash.stores import StoreRequest


def storage(request: StoreRequest, store: str) -> HttpResponse:
    entry = request.entry
    inspection = entry.inspection()
    facts = [
        (group, list(members)) for group, members in groupby(inspection.facts, lambda f: f.group)
    ]
    context = {"inspection": inspection, "facts": facts, "counts": entry.counts()}
    return page(request, "storage/index.html", "storage/_board.html", context)
