"""One factory a backend, and what a test needs to look behind a store's back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
import redis

from storage import open_store
from storage.base import Counts, Inspection, Store
from storage.records import ConfigEntry, to_bytes

AnswerT = TypeVar("AnswerT")
DATA = Path(__file__).parent / "data"

AWKWARD = {
    "unicode": "翻訳エージェント-日本語 🚀",
    "combining": "e\u0301 is not \u00e9",
    "query": "chat/assistant?v=2#beta",
    "glob": "alerts.[prod]*",
    "parent folder": "../../1807",
    "slash": "/",
    "question mark": "?",
    "hash sign": "#",
    "percent": "%2F",
    "colon": ":",
    "colons": "tenant:acme:",
    "space": " ",
    "nul": "a\0b",
    "line breaks": "a\r\nERROR forged",
    "bidi": "\u202etxt.exe",
    "ansi": "\x1b[31mred",
    "html": "\"><svg onload=1>'&amp;",
    "backslash": "a\\b\\u0041",
    "number": "0",
    "json": '{"a": [null]}',
    "megabyte": "x" * 1_000_000,
    "lone surrogate": "\ud800",
    "bytes that are not UTF-8": "\udcff\udc80",
}


@dataclass
class Backend(ABC):
    """Where one store lies; every `open` is another instance, as of another process."""

    name: str
    url: str
    opened: list[Store] = field(default_factory=list)

    def open(self) -> Store:
        store = open_store(self.url)
        self.opened.append(store)
        return store

    def close(self) -> None:
        for store in self.opened:
            store.close()

    def python(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A process of its own: `store` is open, `arguments` are what follows."""
        head = (
            "import sys; from storage import open_store\n"
            "store = open_store(sys.argv[1]); arguments = sys.argv[2:]\n"
        )
        command = [sys.executable, "-c", head + code, self.url, *arguments]
        return subprocess.Popen(command, cwd=Path(__file__).parent.parent)

    @abstractmethod
    def photograph(self) -> object:
        """All that is stored, with dates and expiries; equal only if nothing was touched."""

    @abstractmethod
    def put_results(self, expiries: Mapping[str, float | None]) -> None:
        """Results by id that expire at these moments (None: never), in place of all others."""

    @abstractmethod
    def put_metrics(self, events: list[dict[str, Any]]) -> None:
        """Many events at once, as OmniDaemon would have left them."""

    @abstractmethod
    def trim_metrics(self, keep: int) -> None:
        """Drop all but the newest events, as OmniDaemon does at its cap."""

    @abstractmethod
    def metrics_stored(self) -> int: ...

    @abstractmethod
    def metrics_photograph(self) -> Any:
        """All events, to be put back later as a backup of the storage would."""

    @abstractmethod
    def put_back_metrics(self, photograph: Any) -> None: ...


class JsonBackend(Backend):
    def __init__(self, folder: Path) -> None:
        super().__init__("json", f"json://{quote(str(folder))}")
        self.folder = folder

    def photograph(self) -> object:
        stat = self.folder.stat()
        files = {
            path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
            for path in self.folder.iterdir()
        }
        return stat.st_mtime_ns, files

    def write(self, name: str, value: Any) -> None:
        """One of OmniDaemon's files, replaced as OmniDaemon does."""
        half = self.folder / f"{name}.by-test"
        half.write_text(value if isinstance(value, str) else json.dumps(value, indent=2), "utf-8")
        os.replace(half, self.folder / name)

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text("utf-8"))

    def put_results(self, expiries: Mapping[str, float | None]) -> None:
        saved = {
            name: {"task_id": name, "result": {}, "saved_at": time.time()} for name in expiries
        }
        mortal = {name: {"expires_at": at} for name, at in expiries.items() if at is not None}
        self.write("results.json", {name: saved[name] | mortal.get(name, {}) for name in saved})

    def put_metrics(self, events: list[dict[str, Any]]) -> None:
        """And was then let alone, so that the store is free."""
        path = self.folder / "metrics.json"
        before = self.read("metrics.json") if path.exists() else []
        self.write("metrics.json", before + events)
        let_it_rest(self.folder)

    def trim_metrics(self, keep: int) -> None:
        events = self.read("metrics.json")
        self.write("metrics.json", events[len(events) - keep :])

    def metrics_stored(self) -> int:
        return len(self.read("metrics.json"))

    def metrics_photograph(self) -> Any:
        return self.read("metrics.json")

    def put_back_metrics(self, photograph: Any) -> None:
        self.write("metrics.json", photograph)


class RedisBackend(Backend):
    def __init__(self, server: str, prefix: str = "omni") -> None:
        super().__init__("redis", f"{server}?prefix={quote(prefix, safe='')}")
        self.server = server
        self.client = redis.Redis.from_url(server)
        self.prefix = prefix

    def close(self) -> None:
        super().close()
        self.client.close()

    def key(self, *parts: str) -> bytes:
        return to_bytes(":".join((self.prefix, *parts)))

    def photograph(self) -> object:
        keys = sorted(self.client.scan_iter(count=1000))
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.dump(key)
            pipeline.execute_command("PEXPIRETIME", key)
        answers = pipeline.execute()
        return dict(zip(keys, zip(answers[::2], answers[1::2], strict=True), strict=True))

    def changes(self) -> int:
        """How often the data of this server was changed so far."""
        return int(self.client.info("persistence")["rdb_changes_since_last_save"])

    def put_results(self, expiries: Mapping[str, float | None]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        pipeline.delete(self.key("results", "index"), *self.client.keys(self.key("result", "*")))
        for name, at in expiries.items():
            record = json.dumps({"task_id": name, "result": {}, "saved_at": time.time()})
            pxat = None if at is None else round(at * 1000)
            pipeline.set(self.key("result", name), record, pxat=pxat)
            pipeline.zadd(self.key("results", "index"), {name: time.time()})
        pipeline.execute()

    def put_metrics(self, events: list[dict[str, Any]]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(self.key("metrics", "stream"), {"data": json.dumps(event)})
        pipeline.execute()

    def trim_metrics(self, keep: int) -> None:
        self.client.xtrim(self.key("metrics", "stream"), maxlen=keep, approximate=False)

    def metrics_stored(self) -> int:
        return int(self.client.xlen(self.key("metrics", "stream")))

    def metrics_photograph(self) -> Any:
        return self.client.dump(self.key("metrics", "stream"))

    def put_back_metrics(self, photograph: Any) -> None:
        self.client.restore(self.key("metrics", "stream"), 0, photograph, replace=True)
        time.sleep(0.002)  # an event of the same millisecond would not be told from the lost ones


def contents(backend: Backend) -> object:
    """All that is stored, whenever and in whatever order it was written."""
    if isinstance(backend, JsonBackend):
        return {path.name: json.loads(path.read_bytes()) for path in backend.folder.glob("*.json")}
    assert isinstance(backend, RedisBackend)
    raw, found = backend.client, {}
    read = {
        b"string": raw.get,
        b"hash": raw.hgetall,
        b"set": raw.smembers,
        b"zset": lambda key: raw.zrange(key, 0, -1, withscores=True),
        b"stream": raw.xrange,
    }
    for key in raw.scan_iter(count=1000):
        kind = raw.type(key)
        found[key] = (kind, read.get(kind, raw.dump)(key), raw.execute_command("PEXPIRETIME", key))
    return found


def let_it_rest(folder: Path, age: float = 3600) -> None:
    """As if nobody had written into a JSON directory for so many seconds."""
    for path in folder.iterdir():
        os.utime(path, (time.time() - age, time.time() - age))


def settled(store: Store) -> Counts:
    """The counts once the store has learnt all its results."""
    return _when_complete(store.counts, lambda counts: counts.complete)


def all_config(store: Store) -> list[ConfigEntry]:
    """All configuration entries once the store has searched for them everywhere."""
    return _when_complete(store.config_listing, lambda listing: listing.complete).entries


def inspected(store: Store) -> Inspection:
    """The inspection once the store has walked all its keys."""
    return _when_complete(store.inspect, lambda found: found.scan_complete)


def eventually(question: Callable[[], object], expected: object) -> None:
    """What another process changed is seen within seconds, on a busy machine within more."""
    deadline = time.monotonic() + 60
    while (found := question()) != expected:
        if time.monotonic() > deadline:
            raise AssertionError(f"still {found!r} instead of {expected!r}")
        time.sleep(0.05)


def time_passes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """As if so much time had passed, for all that is remembered for a while."""
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)


@contextmanager
def waited() -> Iterator[Callable[[], float]]:
    """The seconds that the block took, but for those in which its thread was ready and had no
    processor: others' work is no matter of a promise."""

    def clock() -> float:
        queued = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]
        return time.monotonic() - int(queued) / 1e9

    before, end = clock(), None
    try:
        yield lambda: (clock() if end is None else end) - before
    finally:
        end = clock()


def _when_complete(question: Callable[[], AnswerT], complete: Callable[[AnswerT], bool]) -> AnswerT:
    deadline = time.monotonic() + 60
    while not complete(answer := question()):
        if time.monotonic() > deadline:
            raise TimeoutError("the store never came to the end of its search")
        time.sleep(0.01)
    return answer
