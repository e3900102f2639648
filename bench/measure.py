"""Timing, fairly: the contestants take turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Work = Callable[[], object]


@dataclass
class Row:
    """Medians in milliseconds. `target` is how many times faster than OmniDaemon we want to be,
    `limit` how many times slower than raw we may be."""

    work: str
    theirs: float | None
    ours: float
    raw: float | None
    target: float | None = None
    limit: float | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def faster(self) -> float | None:
        return None if self.theirs is None else self.theirs / self.ours

    @property
    def times_raw(self) -> float | None:
        return None if self.raw is None else self.ours / self.raw

    @property
    def verdict(self) -> str:
        wanted = []
        if self.target is not None and self.faster is not None:
            wanted.append((f"≥ {self.target:g} × faster", self.faster >= self.target))
        if self.limit is not None and self.times_raw is not None:
            wanted.append((f"≤ {self.limit:g} × raw", self.times_raw <= self.limit))
        return ", ".join(f"{text}: {'met' if met else 'MISSED'}" for text, met in wanted)


def timed(work: Work) -> float:
    """Milliseconds of one call; what it made is let go of before the next one starts."""
    gc.collect()
    start = time.perf_counter()
    made = work()
    elapsed = time.perf_counter() - start
    del made
    return elapsed * 1000


QUICK_TURNS = 3  # of those that are fast, for each of the slow one


def interleaved(contestants: dict[str, Work], runs: int) -> dict[str, list[float]]:
    """Milliseconds of every run by contestant."""
    fast = {name: work for name, work in contestants.items() if name != "theirs"}
    for work in fast.values():
        work()  # the slow one is the same the first time
    gc.collect()
    # What the imports left behind would be walked again and again by the collector.
    gc.freeze()
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        if "theirs" in contestants:
            samples["theirs"].append(timed(contestants["theirs"]))
        for _ in range(QUICK_TURNS):
            for name, work in fast.items():
                samples[name].append(timed(work))
    return samples


def row(
    work: str,
    samples: dict[str, list[float]],
    target: float | None = None,
    limit: float | None = None,
) -> Row:
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return Row(
        work,
        medians.get("theirs"),
        medians["ours"],
        medians.get("raw"),
        target,
        limit,
        samples,
    )
