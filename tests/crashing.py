"""Restores of a JSON directory that are killed: `python -m tests.crashing`.

Each line on standard input is a JSON object: the `url` of a store, a `token`, the folder of what is
to be put (`source`), and how it ends: `at` call number so many into the system, or after a `delay`
in seconds, or neither; `then` "check" asks the store for the token instead of restoring, and
`journal` bars the exchange. The answer is the number of calls, 0 if it was killed, -1 if it failed.

The children are forked from a process of one thread that has loaded everything, which takes
milliseconds, and a real SIGKILL ends them.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from storage import open_store
from storage.json_store import JsonStore, exchange

CALLS = (
    "open", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "link", "unlink",
    "mkdir", "rmdir", "chown",
)  # fmt: skip


class Fuse:
    """Kills this process instead of one of its calls into the system."""

    def __init__(self, at: int, calls: Sequence[str] = CALLS) -> None:
        self.at, self.calls = at, 0
        for name in calls:
            setattr(os, name, self.counted(getattr(os, name)))
        if calls:
            exchange.exchange = self.counted(exchange.exchange)  # type: ignore[assignment]

    def counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call


def barred(one: str, other: str) -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), one)


def restore(store: JsonStore, source: JsonStore, token: str) -> None:
    """All of the source in the place of all of the store."""
    with store.stage(token) as staging:
        for records in source.snapshot():
            staging.put(records)
        doomed = [
            (record.kind, record.names)
            for records in store.snapshot()
            for record in records
            if record.kind in ("agent", "result", "config")
        ]
        staging.commit(doomed, keep_events=False)


def run(order: dict[str, Any]) -> int:
    if order.get("journal"):
        exchange.exchange = barred
    fuse = Fuse(order.get("at", 0))
    store, source = open_store(order["url"]), open_store(order["source"])
    assert isinstance(store, JsonStore) and isinstance(source, JsonStore)
    if order.get("then") == "check":
        store.committed(order["token"])
    else:
        restore(store, source, order["token"])
    return fuse.calls


def forked(order: dict[str, Any]) -> int:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        answer = -1
        try:
            answer = run(order)
        except Exception:  # noqa: BLE001 - the parent must not go on in the child
            traceback.print_exc()
        finally:
            print(answer, file=os.fdopen(write, "w"), flush=True)
            os._exit(0)
    os.close(write)
    if "delay" in order:
        time.sleep(order["delay"])
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return int(answer.read() or 0)


def main() -> None:
    for line in sys.stdin:
        print(forked(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
