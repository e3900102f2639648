"""What runs out when: how many results expire in each half hour of the next day."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from omnidash.health import SOON
from storage.base import Store
from storage.changes import Expiry, Target

_ASKED = 500  # results whose new expiry is told
SPAN = 1800  # seconds of a bar: whole half hours by the clock, so that time moves no bar
BARS = 49  # the running one and those of 24 h: what was saved just now for a day is in the last
_TALLEST, _SMALLEST = 72, 3  # pixels; one result among thousands is still seen
_MARK = 6 * SPAN  # a time is written under every sixth bar …
_ROOM = 3  # … but not where "now" is, nor where the line ends


def lives_until(
    store: Store, expiry: Expiry, targets: Sequence[Target]
) -> tuple[float, float] | None:
    """When the first and the last of these results would expire (Unix seconds); None where they
    would not, or are too many to be asked."""
    if expiry.at is not None:
        return expiry.at, expiry.at
    if expiry.more is None or not 0 < len(targets) <= _ASKED:
        return None
    now, found = time.time(), store.results_by_id([one.names[0] for one in targets])
    before = [
        one.expires_at if isinstance(one.expires_at, float) else now for one in found.values()
    ]
    return (min(before) + expiry.more, max(before) + expiry.more) if before else None


@dataclass(frozen=True, slots=True)
class Bar:
    """The results that expire in the half hour from `start` (Unix seconds)."""

    start: int
    count: int
    height: int
    urgency: str
    marked: bool
    chosen: bool

    @property
    def end(self) -> int:
        return self.start + SPAN

    @property
    def shown(self) -> bool:
        """What was chosen stays to be unchosen."""
        return self.chosen or self.count > 0

    @property
    def name(self) -> str:
        return f"expiry-{self.start}"

    @property
    def query(self) -> str:
        return f"expires_from={self.start}&expires_before={self.end}"


@dataclass(frozen=True, slots=True)
class Forecast:
    """The bars from the running half hour on; how many results expire before `SOON` is over, and
    how many after the last bar."""

    bars: list[Bar]
    soon: int
    later: int

    @property
    def end(self) -> int:
        return self.bars[-1].end

    @property
    def total(self) -> int:
        return sum(bar.count for bar in self.bars)

    @property
    def filled(self) -> list[Bar]:
        return [bar for bar in self.bars if bar.count]

    @property
    def chosen(self) -> Bar | None:
        return next((bar for bar in self.bars if bar.chosen), None)


def forecast(store: Store, now: float, chosen: tuple[int | None, int | None]) -> Forecast | None:
    """Of all results, whatever the list is filtered by; `chosen` is the half hour, from and before,
    that it is filtered by. None while the store is still learning."""
    first = int(now // SPAN) * SPAN
    starts = range(first, first + BARS * SPAN, SPAN)
    soon, end = now + SOON, starts.stop
    edges = sorted({*starts, end, soon, math.inf})
    counts = store.expiry_histogram(edges)
    if counts is None:
        return None
    before = dict(zip(edges, accumulate(counts, initial=0), strict=True))
    per_bar = [before[start + SPAN] - before[start] for start in starts]
    bars = [
        Bar(
            start=start,
            count=count,
            height=_height(count, max(per_bar)),
            urgency=("bar-now", "bar-soon")[place] if place < 2 else "",
            marked=start % _MARK == 0 and _ROOM <= place <= BARS - _ROOM,
            chosen=chosen == (start, start + SPAN),
        )
        for place, (start, count) in enumerate(zip(starts, per_bar, strict=True))
    ]
    return Forecast(bars, soon=before[soon], later=before[math.inf] - before[end])


def _height(count: int, most: int) -> int:
    return max(_SMALLEST, round(_TALLEST * count / most)) if count else 0
