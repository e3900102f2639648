"""Small drawings inside a page: lines of text to the server, no script to the browser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from omnidash.history.histogram import Histogram, Mark
from omnidash.templatetags.show import seconds

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


_TOP, _BARS, _AXIS = 46, 110, 20  # pixels: the names of the marks, the bars, the axis
_GAP = 0.15  # of a bar, to the next
_TICKS = 4


@register.simple_tag
def histogram(found: Histogram) -> SafeString:
    """Its bars with the marks above them. Across all is in percent and down in pixels, so that no
    text is stretched; the same numbers stand beside it as a table."""
    if not found.bars:
        return SafeString()
    return format_html(
        '<svg class="histogram" height="{}" role="img" aria-label="Latency: {}">{}{}{}</svg>',
        _TOP + _BARS + _AXIS,
        ", ".join(f"{_quantile(mark)} {seconds(mark.value)}" for mark in found.marks),
        format_html_join(
            "", '<rect x="{}%" y="{}" width="{}%" height="{}"><title>{}</title></rect>',
            _rects(found),
        ),
        format_html_join(
            "",
            '<line x1="{0}%" x2="{0}%" y1="{1}" y2="{2}"/>'
            '<text x="{0}%" dx="{3}" y="{1}" dy="10" text-anchor="{4}">{5}</text>',
            _marks(found),
        ),
        format_html_join(
            "", '<text class="tick" x="{}%" y="{}" text-anchor="{}">{}</text>', _ticks(found)
        ),
    )  # fmt: skip


def _rects(found: Histogram) -> Iterator[tuple[str, str, str, str, str]]:
    wide = 100 / len(found.bars)
    for number, bar in enumerate(found.bars):
        if bar.count:
            high = max(1.5, _BARS * bar.count / found.most)
            yield (
                f"{(number + _GAP / 2) * wide:.2f}", f"{_TOP + _BARS - high:.1f}",
                f"{wide * (1 - _GAP):.2f}", f"{high:.1f}",
                f"{seconds(bar.low)} to {seconds(bar.high)}: {bar.count:,}",
            )  # fmt: skip


def _marks(found: Histogram) -> Iterator[tuple[str, int, int, int, str, str]]:
    """Each name on a line of its own, and towards the middle."""
    for number, mark in enumerate(found.marks):
        left = mark.place > 0.5
        yield (
            f"{100 * mark.place:.2f}", number * (_TOP - 4) // len(found.marks), _TOP + _BARS,
            -4 if left else 4, "end" if left else "start",
            f"{_quantile(mark)} {seconds(mark.value)}",
        )  # fmt: skip


def _ticks(found: Histogram) -> Iterator[tuple[str, int, str, str]]:
    """The bounds of the bars at both ends and evenly between, or all where they are few."""
    bounds = [found.bars[0].low, *(bar.high for bar in found.bars)]
    last = len(found.bars)
    for place in sorted({round(part * last / _TICKS) for part in range(_TICKS + 1)}):
        anchor = "start" if place == 0 else "end" if place == last else "middle"
        yield f"{100 * place / last:.2f}", _TOP + _BARS + 15, anchor, seconds(bounds[place])


def _quantile(mark: Mark) -> str:
    return f"p{mark.share * 100:.0f}"
