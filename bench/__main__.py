"""`python -m bench`: print how fast we are, beside OmniDaemon and beside a lean client."""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import redis

from bench.actions import action_rows
from bench.application import application
from bench.backups import BackupRow, backup_rows
from bench.history import HistoryRow, history_rows
from bench.measure import Row
from bench.pages import TARGET_MS, PageRow, page_rows
from bench.servers import Upstream, redis_server
from bench.stores import QUICK, Sizes, store_rows

PAGES, HISTORY, ACTIONS, BACKUPS = "pages", "history", "actions", "backups"
INTRO = """# Benchmarks

`make bench` measures this again. Every row is the median of interleaved runs on the same data in
the same process: OmniDaemon's own store, ours, and *raw*, the least that Python can do to fetch and
parse the same data (a socket, hiredis, orjson, as few round trips as it takes, and no care for
broken records). Raw is a yardstick, not a physical limit. The garbage collector runs for all three,
but over what they make, not over what was imported before. Only ratios within one run mean
something; other machines have other milliseconds, and small differences come and go.
"""
PAGES_INTRO = """## Pages

Whole pages of the application, templates and middleware included, asked for by a logged-in reader.
*Cold* is the first request of a new process. *Warm* is the median of later ones, each made more
than a second after the one before and after new events and results were written, so that no
answer was kept from before. To reach: {target:g} ms warm.
"""
HISTORY_INTRO = """## History

Reading a store's events into the roll-ups, and answering from them: after the first rows, from a
month of 200 agents, each with five tasks a minute, in SQLite. Pages and points are whole requests
of a logged-in reader. OmniDaemon's figure is its SDK's `metrics`, which reads and sums all stored
events again.
"""


ACTIONS_INTRO = """## Actions

A run begins with what was looked at and ends with the log: permission, the recycle bin (each batch
synced to the disk before it is deleted), progress and outcome. OmniDaemon's own clearing keeps
nothing. Whoever else uses Redis meanwhile waits as long as the row says, the scheduling of a busy
machine included.
"""


BACKUPS_INTRO = """## Backups

A backup is written, synced and read back before it counts. Raw reads the same values in pipelines
and packs them, or writes them in pipelines, and proves nothing. The memory is that of the whole
process of `manage.py backup`.
"""


def number(value: float | None) -> str:
    """Three digits or so: more would pretend to a precision that is not there."""
    if value is None:
        return "–"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def store_table(rows: list[Row]) -> list[list[str]]:
    head = [
        "work",
        "OmniDaemon ms",
        "ours ms",
        "raw ms",
        "times faster",
        "times of raw",
        "to reach",
    ]
    return [head] + [
        [
            row.work,
            number(row.theirs),
            number(row.ours),
            number(row.raw),
            number(row.faster),
            number(row.times_raw),
            row.verdict,
        ]
        for row in rows
    ]


def page_table(rows: list[PageRow]) -> list[list[str]]:
    head = ["page", "cold ms", "warm ms", "KB", f"≤ {TARGET_MS:g} ms"]
    return [head] + [
        [row.page, number(row.cold), number(row.median), f"{row.kilobytes:.0f}", row.verdict]
        for row in rows
    ]


def history_table(rows: list[HistoryRow]) -> list[list[str]]:
    head = ["work", "OmniDaemon ms", "ours ms", "times faster", "to reach"]
    return [head] + [
        [
            row.work,
            number(statistics.median(row.theirs) if row.theirs else None),
            number(row.ours),
            number(row.faster),
            row.verdict,
        ]
        for row in rows
    ]


def backup_table(rows: list[BackupRow]) -> list[list[str]]:
    head = ["work", "ours", "raw", "times of raw", "to reach"]
    return [head] + [
        [
            row.work,
            f"{number(row.ours)} {row.unit}",
            "–" if row.raw is None else f"{number(row.raw)} {row.unit}",
            number(row.ours / row.raw if row.raw else None),
            row.verdict,
        ]
        for row in rows
    ]


def plain(table: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]

    def line(cells: list[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])

    return "\n".join(
        [line(table[0]), "  ".join("-" * width for width in widths)]
        + [line(cells) for cells in table[1:]]
    )


def markdown(table: list[list[str]]) -> str:
    ruler = ["---", *["---:"] * (len(table[0]) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [table[0], ruler, *table[1:]])


def machine(server: str) -> str:
    """What this was measured on, in one line each."""
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
        model = found[1] if found else model
    except OSError:
        pass
    with redis.Redis.from_url(server) as client:
        redis_version = client.info("server")["redis_version"]
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("omnidaemon", "redis", "hiredis", "orjson", "django")
    )
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}: {os.cpu_count()} cores ({model.strip()}), "
        f"Python {platform.python_version()}, Redis {redis_version} on the same machine; "
        f"{packages}."
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: only that it works")
    parser.add_argument("--only", metavar="WORD", action="append", help="groups with this word")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    return parser.parse_args()


@dataclass
class Findings:
    """What was measured, group by group."""

    stores: list[Row] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)
    pages: list[PageRow] = field(default_factory=list)
    actions: list[HistoryRow] = field(default_factory=list)
    backups: list[BackupRow] = field(default_factory=list)

    def sections(self, size: Sizes) -> Iterator[tuple[str, list[list[str]]]]:
        """What introduces a table in the file, and the table."""
        if self.stores:
            yield "## Stores\n", store_table(self.stores)
        if self.history:
            yield HISTORY_INTRO, history_table(self.history)
        if self.actions:
            yield ACTIONS_INTRO, history_table(self.actions)
        if self.backups:
            yield BACKUPS_INTRO, backup_table(self.backups)
        if self.pages:
            sizes = (
                f"{size.agents:,} agents, {size.results:,} results and {size.metrics:,} metrics "
                "in Redis:\n"
            )
            yield PAGES_INTRO.format(target=TARGET_MS) + "\n" + sizes, page_table(self.pages)


def measure(server: str, size: Sizes, asked: argparse.Namespace) -> Findings:
    def wanted(group: str) -> bool:
        found = not asked.only or any(word in group for word in asked.only)
        if found:
            print(f"measuring {group} …", file=sys.stderr, flush=True)
        return found

    findings = Findings()
    for group, rows in store_rows(server, size).items():
        if wanted(group):
            findings.stores += rows()
    with application(server) as browser:
        if wanted(PAGES):
            findings.pages = page_rows(browser, server, size, quick=asked.quick)
        if wanted(ACTIONS):
            findings.actions = list(action_rows(server, size, Upstream()))
        if wanted(BACKUPS):
            findings.backups = list(backup_rows(server, size))
        if wanted(HISTORY):  # fills the database of the application with a month
            rows = history_rows(browser, server, size, Upstream(), quick=asked.quick)
            findings.history = list(rows)
    if asked.quick:  # so little data that fixed costs decide
        for row in findings.stores:
            row.target = row.limit = None
        for found in (*findings.history, *findings.actions):
            found.target = None
        for measured in findings.backups:
            measured.to_reach = None
    return findings


def main() -> None:
    asked = arguments()
    size = QUICK if asked.quick else Sizes()
    with redis_server() as server:
        about, load_before = machine(server), os.getloadavg()[0]
        print(about, flush=True)
        tables = list(measure(server, size, asked).sections(size))
    load = (
        f"Load of the machine before: {load_before:.1f}, after: {os.getloadavg()[0]:.1f}. "
        "The measuring itself makes about 1.5; above that, other work disturbed it."
    )
    for _, table in tables:
        print(f"\n{plain(table)}")
    print(f"\n{load}")
    if asked.markdown:
        parts = [f"{intro}\n{markdown(table)}\n" for intro, table in tables]
        asked.markdown.write_text("\n".join([INTRO, f"{about} {load}\n", *parts]), "utf-8")


main()
