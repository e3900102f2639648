"""Who reads a history: a process of the dashboard, and a browser that puts columns together."""

from __future__ import annotations

import math
from typing import Any

from omnidash.history import History


def read_now(history: History) -> History:
    """Read all that is new, though somebody has read within the last second."""
    history._read_at = -math.inf
    history.refresh()
    return history


def merged(known: dict[str, Any], news: dict[str, Any]) -> dict[str, Any] | None:
    """As `static/js/charts.js` puts an answer into what it has; None where it asks for all."""
    if not news["times"] or news["times"][0] <= news["start"]:
        return news
    if not _fits(known, news):
        return None
    times = known["times"]
    keep = sum(news["start"] <= at < news["times"][0] for at in times)
    skip = next((place for place, at in enumerate(times) if at >= news["start"]), len(times))

    def join(before: list[Any], after: list[Any]) -> list[Any]:
        return [*before[skip : skip + keep], *after]

    def both(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        return {
            name: join(a[name], column) if isinstance(column, list) else column
            for name, column in b.items()
        }

    def parts(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        columns = [join(*pair) for pair in zip(a["columns"], b["columns"], strict=True)]
        return {**b, "columns": columns, "rest": join(a["rest"], b["rest"])}

    special = ("gaps", "marks", "agents", "errors", "before")
    plain = {name: column for name, column in news.items() if name not in special}
    return {
        **news,
        **both(known, plain),
        "before": news["before"] and both(known["before"], news["before"]),
        **{name: parts(known[name], news[name]) for name in ("agents", "errors")},
    }


def _fits(known: dict[str, Any], news: dict[str, Any]) -> bool:
    return (
        known["step"] == news["step"]
        and known["times"][-1] >= news["times"][0] - news["step"]
        and known["times"][0] <= news["start"]
        and bool(known["before"]) == bool(news["before"])
        and all(known[name]["keys"] == news[name]["keys"] for name in ("agents", "errors"))
    )
