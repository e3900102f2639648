"""What the frame of every page needs: the stores to switch between, and where the reader is."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from omnidash.stores import registry


def frame(request: HttpRequest) -> dict[str, Any]:
    """For pages of a store (and its error pages) and those that stand beside the stores, which have
    the frame of one; empty for the door."""
    entry = getattr(request, "entry", None) or getattr(request, "beside", None)
    if entry is None:
        return {"now": time.time()}
    match = request.resolver_match
    return {
        "now": time.time(),
        "entry": entry,
        "of_store": hasattr(request, "entry") or getattr(request, "of_store", False),
        "entries": list(registry().values()),
        "noun": (match.url_name or "").partition("-")[0] if match else "",
        "sample": settings.OMNIDASH_SAMPLE,
        "version": settings.OMNIDASH_VERSION,
    }
