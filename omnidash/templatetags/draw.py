"""Small drawings inside a page: lines of text to the server, no script to the browser."""

from __future__ import annotations

import math
from collections.abc import Sequence

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

_WIDTH, _HEIGHT = 100, 24
_EDGE = 2  # so that a line at the top or the bottom is drawn at its full width


@register.simple_tag
def sparkline(values: Sequence[float | None]) -> SafeString:
    """The form of a series, from zero to its greatest value, as wide and high as its box is; None
    is a gap. The figures stand beside it, so it is hidden from who cannot see it."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return SafeString()
    low, high = min(0.0, *known), max(0.0, *known)
    lines = format_html_join("", '<polyline points="{}"/>', _lines(values, low, high))
    return format_html(
        '<svg class="sparkline" viewBox="0 0 {} {}" preserveAspectRatio="none" '
        'aria-hidden="true">{}</svg>',
        _WIDTH, _HEIGHT, lines,
    )  # fmt: skip


def _lines(values: Sequence[float | None], low: float, high: float) -> list[tuple[str]]:
    """The points of each run of known values."""
    runs: list[list[str]] = [[]]
    across = _WIDTH / max(1, len(values) - 1)
    for place, value in enumerate(values):
        if value is None or not math.isfinite(value):
            runs.append([])
            continue
        share = (value - low) / (high - low) if high > low else 0.0
        up = _EDGE + (1 - share) * (_HEIGHT - 2 * _EDGE)
        runs[-1].append(f"{place * across:.1f},{up:.1f}")
    # A line from a point to itself is drawn as a dot.
    return [(" ".join(run if len(run) > 1 else run * 2),) for run in runs if run]
