"""How values are shown: text made visible, times as <time>, unknown as a dash, JSON as a tree."""

from __future__ import annotations

import datetime
import json
import math
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from omnidash import text
from omnidash.history.names import is_cut
from omnidash.queries import LONGEST_FILTER
from storage.records import LATEST, Invalid, Moment, to_text
from storage.records import moment as read_moment

register = template.Library()

UNKNOWN = "—"
_NODES = 2000  # more would be slow to read for a browser and for a person
_DEEPEST = 40
_LONG_TEXT = 2000
_LONGEST_QUERY = 2000  # characters: servers and proxies refuse addresses of a few thousand
_CLOCKS = 500  # the half hours that pages show again and again
_TIME_KEYS = ("_omnidaemon_start_time",)


@register.filter
def printable(value: object) -> str:
    """One line of text from a store."""
    return text.printable(str(value))


@register.filter
def lines(value: object) -> str:
    """Text from a store that may have several lines."""
    return text.printable(str(value), lines=True)


@register.filter
def short(value: object, limit: int) -> str:
    """One line of text from a store, at most so many characters of it."""
    found = str(value)
    return text.printable(found if len(found) <= limit else found[: limit - 1] + "…")


@register.filter
def masked(value: object) -> str:
    """Free text from a store without the secrets in it; before it is cut."""
    return text.masked_text(str(value))


@register.simple_tag
def ref(*parts: str) -> str:
    """The address segment of a record with these names."""
    return text.ref(*parts)


@register.simple_tag
def agent_ref(topic: str, name: str) -> str:
    """The address segment of an agent of the history; empty if its names were too long to be kept
    whole, so that they lead nowhere."""
    return "" if is_cut(topic) or is_cut(name) else text.ref(topic, name)


@register.filter
def count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


@register.filter
def percent(share: float | None) -> str:
    """A share as percent, never rounded up to 100 or down to 0."""
    if share is None:
        return UNKNOWN
    rounded = round(share * 100, 1)
    if rounded == 100 and share < 1:
        rounded = 99.9
    if rounded == 0 and share > 0:
        rounded = 0.1
    return f"{rounded:.0f}" if rounded in (0, 100) else f"{rounded:.1f}"


@register.filter
def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


@register.filter
def size(value: float | None) -> str:
    """Bytes, in units of 1,024 as Redis counts them."""
    if value is None:
        return UNKNOWN
    amount = float(value)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"


@register.filter
def seconds(value: float | None) -> str:
    """A short duration such as a processing time: µs, ms or s, three digits."""
    if value is None:
        return UNKNOWN
    if value >= 120:
        return duration(value)
    if value >= 1:
        return f"{value:.2f} s"
    if value >= 0.001:
        return f"{value * 1000:.{0 if value >= 0.1 else 1}f} ms"
    return f"{value * 1e6:.0f} µs"


@register.filter
def duration(value: float | None) -> str:
    """A long duration in its two largest units."""
    return UNKNOWN if value is None else text.duration(value)


_FAR = "after the year 2100"


def _is_far(at: float) -> bool:
    return at >= LATEST


def _utc(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


@register.simple_tag
def moment(at: Moment, never: str = "never") -> SafeString | str:
    """A point in time in UTC; the script shows it in the viewer's zone and says which."""
    if at is None:
        return never
    if isinstance(at, Invalid):
        return format_html('<span class="text-orange" title="{}">invalid</span>', printable(at))
    if _is_far(at):
        return _FAR
    return format_html(
        '<time datetime="{}" data-moment>{} UTC</time>',
        _utc(at).isoformat(timespec="milliseconds"),
        _utc(at).strftime("%Y-%m-%d %H:%M:%S"),
    )


@register.simple_tag
@lru_cache(_CLOCKS)
def clock(at: float, until: float | None = None) -> SafeString:
    """The time of a day that is told elsewhere, or a span of it; the script shows it in the
    viewer's zone."""
    if until is not None:
        return format_html("{}–{}", clock(at), clock(until))
    told = _utc(at)
    return format_html(
        '<time datetime="{}" data-clock>{}</time>', told.isoformat(), told.strftime("%H:%M")
    )


@register.simple_tag(takes_context=True)
def age(context: dict[str, Any], at: Moment, never: str = "never") -> SafeString | str:
    """How long ago, which the script keeps counting; a time in the future is said to be one."""
    if not isinstance(at, (int, float)) or _is_far(at):
        return moment(at, never)
    passed = context["now"] - at
    said = f"{_coarse(passed)} ago" if passed > -2 else f"{_coarse(-passed)} ahead"
    return format_html(
        '<time datetime="{}" data-age>{}</time>', _utc(at).isoformat(timespec="milliseconds"), said
    )


@register.simple_tag(takes_context=True)
def time_left(context: dict[str, Any], at: float) -> SafeString | str:
    """How long until then, which the script counts down and colours."""
    if _is_far(at):
        return _FAR
    left = at - context["now"]
    return format_html(
        '<time datetime="{}" data-left class="{}">{}</time>',
        _utc(at).isoformat(timespec="milliseconds"),
        urgency(left),
        _coarse(left) if left > 0 else "expired",
    )


@register.simple_tag(takes_context=True)
def left_seconds(context: dict[str, Any], at: float) -> int:
    """Whole minutes until then, in seconds, at most a day, for a progress bar."""
    return max(0, min(86400, int((at - context["now"]) // 60 * 60)))


@register.filter
def urgency(left: float) -> str:
    """The class that colours a time left, in seconds; the script uses the same limits."""
    if left <= 0:
        return "left-over"
    return "left-now" if left < 300 else "left-soon" if left < 3600 else "left-later"


def _coarse(passed: float) -> str:
    """Coarse on purpose: the text changes once a minute, so that unchanged data answers 204."""
    return "less than a minute" if abs(passed) < 60 else duration(abs(passed) // 60 * 60)


@register.simple_tag(takes_context=True)
def may(context: dict[str, Any], *codenames: str) -> bool:
    """Whether the reader may do one of these in the store of the page."""
    request, entry = context["request"], context["entry"]
    held = (request.user.has_perm(f"omnidash.{codename}") for codename in codenames)
    return not entry.read_only and any(held)


@register.simple_tag(takes_context=True)
def query(context: dict[str, Any], **changes: Any) -> str:
    """The present address's query with some parameters changed (None removes one)."""
    params = context["request"].GET.copy()
    for name, value in changes.items():
        if value is None or value == "":
            params.pop(name, None)
        else:
            params[name] = str(value)
    return f"?{params.urlencode()}" if params else "?"


@register.simple_tag(takes_context=True)
def query_start(context: dict[str, Any], *without: str) -> str:
    """The present address's query but for some parameters, for others to be written after it."""
    params = context["request"].GET.copy()
    for name in without:
        params.pop(name, None)
    return f"?{params.urlencode()}&" if params else "?"


@register.filter
def json_text(value: Any) -> str:
    """JSON as text with NaN and the like as Python writes them; never raises."""
    try:
        written = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        return "too deep or too long to show"
    return text.printable(written, lines=True)


@register.simple_tag
def json_tree(value: Any) -> SafeString:
    """Nested <details> for a JSON value; what is too deep or too much is said, not shown."""
    budget = [_NODES]
    return _node("", value, budget, 0)


def _node(key: object, value: Any, budget: list[int], depth: int) -> SafeString:
    budget[0] -= 1
    label = format_html('<span class="json-key">{}</span> ', short(key, 200)) if key != "" else ""
    if not isinstance(value, (dict, list)):
        return format_html("<div>{}{}</div>", label, _leaf(value))
    total = len(value)
    kind = "{}" if isinstance(value, dict) else "[]"
    noun = "key" if isinstance(value, dict) else "item"
    said = f"{kind} {total:,} {noun}{'' if total == 1 else 's'}"
    if depth >= _DEEPEST or budget[0] <= 0:
        note = f"{said}, see the raw text"
        return format_html('<div>{}<i class="json-note">{}</i></div>', label, note)
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    inner = []
    for name, found in pairs:
        if budget[0] <= 0:
            inner.append(format_html('<i class="json-note">{}</i>', "more in the raw text"))
            break
        inner.append(_node(name, found, budget, depth + 1))
    is_open = " open" if depth < 3 else ""
    return format_html(
        '<details class="json-node"{}><summary>{}<span class="json-note">{}</span></summary>{}'
        "</details>",
        is_open,
        label,
        said,
        format_html_join("", "{}", ((item,) for item in inner)),
    )


def _leaf(value: Any) -> SafeString:
    if isinstance(value, str):
        cut = value if len(value) <= _LONG_TEXT else value[:_LONG_TEXT] + "…"
        return format_html('<bdi class="json-text">{}</bdi>', lines(cut))
    if isinstance(value, float) and not math.isfinite(value):
        return format_html('<span class="json-odd">{}</span>', json.dumps(value))
    try:
        written = json.dumps(value)
    except ValueError:
        written = "a number with too many digits"
    return format_html('<span class="json-value">{}</span>', written)


@register.filter
def latency(milliseconds: float) -> str:
    """Rounded, so that a refresh of unchanged data answers 204."""
    return "under 1 ms" if milliseconds < 1 else f"{milliseconds:,.0f} ms"


@register.filter
def label(name: str) -> str:
    """The name of a fact or group as a label; a file's name stays as it is."""
    shown = text.printable(name)
    return shown if "." in shown else shown.replace("_", " ").capitalize()


@register.filter
def backend_name(backend: str) -> str:
    return {"json": "JSON files"}.get(backend, backend.capitalize())


@register.filter
def raw_preview(raw: bytes, key: str) -> str:
    """How a record begins, unless it or its key looks like a secret."""
    beginning = to_text(raw)
    if text.is_secret(key) or text.is_secret(beginning):
        return text.MASK
    return text.masked_text(beginning)


@register.simple_tag
def filters(**values: str) -> str:
    """A query with these filters, which may be what UTF-8 cannot carry; empty where no page would
    take them, because a name is too long."""
    if any(len(value) > LONGEST_FILTER for value in values.values()):
        return ""
    found = urlencode(values, errors="surrogatepass", quote_via=quote)
    return f"?{found}" if len(found) <= _LONGEST_QUERY else ""


@register.simple_tag
def config_value(key: str, value: Any) -> SafeString:
    """A configuration value in short: times as times, the rest as JSON."""
    if key.endswith(_TIME_KEYS) and isinstance(value, (int, float)):
        return format_html("{}", moment(read_moment(value)))
    if isinstance(value, (dict, list)) and value:
        return format_html('<div class="json-tree">{}</div>', _node("", value, [_NODES // 10], 2))
    return _leaf(value)
