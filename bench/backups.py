"""Backups: made, verified and restored, beside the least that reading, packing and writing take."""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench import data
from bench.actions import bystander
from bench.application import ACTIONS_DB
from bench.measure import timed
from bench.raw import CHUNK, Lean
from bench.stores import Sizes, n

READ, WRITE = 2.5, 3.0  # times the raw time that a backup and a restore may take
MEMORY, SPEED, WAIT = 150.0, 100.0, 20.0  # MB, MB/s, ms
_ROUNDS = 3


@dataclass
class BackupRow:
    """Medians. `least`: more is better."""

    work: str
    ours: float
    unit: str
    raw: float | None = None
    to_reach: float | None = None
    least: bool = False

    @property
    def verdict(self) -> str:
        if self.to_reach is None:
            return ""
        found = self.ours if self.raw is None else self.ours / self.raw
        met = found >= self.to_reach if self.least else found <= self.to_reach
        sign, unit = "≥" if self.least else "≤", self.unit if self.raw is None else "× raw"
        return f"{sign} {self.to_reach:g} {unit}: {'met' if met else 'MISSED'}"


def backup_rows(server: str, size: Sizes) -> Iterator[BackupRow]:
    url = f"{server}/{ACTIONS_DB}"
    client = redis.Redis.from_url(url)
    try:
        _fill(client, size)
        yield from _made(url, size)
        yield from _restored(client, url, size)
    finally:
        client.flushdb()
        client.close()


def _fill(client: redis.Redis, size: Sizes) -> None:
    client.flushdb()
    now = time.time()
    data.fill_agents(client, size.agents, now)
    data.fill_results(client, size.results, now, size.agents)
    data.fill_metrics(client, size.metrics, now, size.agents)


def _what(size: Sizes) -> str:
    return (
        f"{n(size.agents)} agents, {n(size.results)} results of 1 KB and {n(size.metrics)} events"
    )


def _entry() -> Any:
    from omnidash.stores import registry

    return registry()["actions"]


def _to_the_end(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# Made


def _made(url: str, size: Sizes) -> Iterator[BackupRow]:
    from omnidash import backups
    from omnidash.models import Backup

    ours, raw, waits = [], [], []
    made = _to_the_end(backups.create(_entry(), Backup.Reason.ASKED, None))
    for _ in range(_ROUNDS):
        raw.append(timed(lambda: _read_and_packed(url)))
        with bystander(url) as waited:
            ours.append(timed(lambda: _to_the_end(backups.create(_entry(), "asked", None))))
        waits += waited
    what = _what(size)
    yield BackupRow(
        f"back up {what}, read back included (raw: read in pipelines and packed)",
        statistics.median(ours), "ms", statistics.median(raw), READ,
    )  # fmt: skip
    yield BackupRow(
        "longest wait of another client of Redis meanwhile", max(waits), "ms", to_reach=WAIT
    )
    yield BackupRow("memory of the process that makes it", _peak(), "MB", to_reach=MEMORY)
    checks = [timed(lambda: _to_the_end(backups.check(made))) for _ in range(_ROUNDS)]
    speed = made.unpacked / 1e6 / (statistics.median(checks) / 1000)
    yield BackupRow("verify the file", speed, "MB/s", to_reach=SPEED, least=True)
    trial = timed(lambda: _to_the_end(backups.trial(made)))
    yield BackupRow("restore it for trial and compare every record", trial, "ms")


def _read_and_packed(url: str) -> None:
    lean, gzip = Lean(url), zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    with tempfile.TemporaryFile() as file:
        for values in _values(lean):
            file.write(gzip.compress(b"\n".join(values)))
        file.write(gzip.flush())
    lean.close()


def _values(lean: Lean) -> Iterator[list[bytes]]:
    """All that is stored and worth keeping, in as few round trips as it takes."""
    topics = lean.pipe([("SMEMBERS", "omni:topics")])[0]
    members = lean.pipe([("SMEMBERS", b"omni:agents:topic:" + topic) for topic in topics])
    hashes = [
        b"omni:agent:%b:%b" % (topic, name)
        for topic, names in zip(topics, members, strict=True)
        for name in names
    ]
    for batch in data.batches(hashes, CHUNK):
        found = lean.pipe([("HGETALL", key) for key in batch])
        yield [part for one in found for part in one]
    ids = lean.pipe([("ZRANGE", "omni:results:index", 0, -1)])[0]
    for batch in data.batches(ids, CHUNK):
        keys = [b"omni:result:" + one for one in batch]
        found = lean.pipe([(word, key) for key in keys for word in ("GET", "PEXPIRETIME")])
        yield [one if isinstance(one, bytes) else b"%d" % one for one in found if one]
    start = b"-"
    while True:
        [entries] = lean.pipe([("XRANGE", "omni:metrics:stream", start, "+", "COUNT", CHUNK)])
        if not entries:
            return
        yield [part for entry, fields in entries for part in (entry, fields[1])]
        start = b"(" + entries[-1][0]


# Of the process itself: what its parent takes is counted by wait4, too.
_COMMAND = """
import re, django
django.setup()
from django.core.management import call_command
call_command("backup", "actions")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def _peak() -> float:
    """Megabytes, of a command that makes a backup."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND], cwd=Path(__file__).parent.parent, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) / 1000


# Restored


def _restored(client: redis.Redis, url: str, size: Sizes) -> Iterator[BackupRow]:
    from omnidash import backups
    from omnidash.backups import restoring
    from omnidash.models import Backup

    made = _to_the_end(backups.create(_entry(), Backup.Reason.ASKED, None))
    source = restoring.of_backup(made)
    commands = list(_written(source.records()))
    staged, raw = [], []
    for _ in range(_ROUNDS):
        client.flushdb()
        raw.append(timed(lambda: _write(url, commands)))
        client.flushdb()
        _entry().store.close()
        staged.append(timed(lambda: _staged(_entry().store, source)))
        assert client.xlen("omni:metrics:stream") == size.metrics
    commands.clear()
    yield BackupRow(
        f"restore {_what(size)}: read, staged and made at once (raw: written in pipelines)",
        statistics.median(staged), "ms", statistics.median(raw), WRITE,
    )  # fmt: skip
    client.flushdb()
    _entry().store.close()
    yield BackupRow(
        "the whole run of it: checked, a safety backup, compared before and after",
        timed(lambda: _run(made)), "ms",
    )  # fmt: skip


def _staged(store: Any, source: Any) -> None:
    from omnidash.backups import restoring

    with store.stage(secrets.token_hex(16)) as staging:
        _to_the_end(restoring.put(staging, source.records(), None))
        staging.commit([], True)


def _written(records: Any) -> Iterator[tuple[Any, ...]]:
    """What a lean client would send for these."""
    from storage.redis_store.stored import unpack_fields

    for record in records:
        match record.kind:
            case "agent":
                topic, name = record.names
                yield ("HSET", f"omni:agent:{topic}:{name}", *unpack_fields(record.raw))
                yield ("SADD", f"omni:agents:topic:{topic}", name)
                yield ("SADD", "omni:topics", topic)
            case "result":
                key = f"omni:result:{record.names[0]}"
                yield ("SET", key, record.raw, "PXAT", record.expires_at_ms)
                yield ("ZADD", "omni:results:index", record.score, record.names[0])
            case "metrics":
                yield ("XADD", "omni:metrics:stream", record.stream_id, "data", record.raw)
            case "config":
                yield ("SET", f"omni:config:{record.names[0]}", record.raw)


def _write(url: str, commands: list[tuple[Any, ...]]) -> None:
    lean = Lean(url)
    for batch in data.batches(commands, CHUNK):
        lean.pipe(batch)
    lean.close()


def _run(made: Any) -> None:
    from django.contrib.auth.models import User

    from omnidash import runs
    from omnidash.actions.catalogue import ACTIONS

    params = {"backup": made.pk, "mode": "replace", "volatile": True, "extend": 0.0}
    user = User.objects.get()
    run = runs.start(runs.plan(user, ACTIONS["restore"], _entry(), params), user, "")
    runs.execute.call(run.pk)
    run.refresh_from_db()
    assert run.state == "done", run.message
