"""Runs whose process is killed: the child is forked from the test, and a real SIGKILL ends it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from django.db import connections

from omnidash import runs
from omnidash.models import Run
from omnidash.stores import registry
from storage.redis_store import client, lease
from tests.crashing import Fuse


def arm_calls(at: int) -> Fuse:
    """It goes off at a call into the system that opens, writes, syncs, renames or removes."""
    return Fuse(at)


def arm_commands(at: int) -> Fuse:
    """It goes off when something is to be sent to Redis."""
    fuse = Fuse(at, calls=())
    client.send = fuse.counted(client.send)
    lease.send = fuse.counted(lease.send)  # type: ignore[attr-defined]
    return fuse


def in_child(run: Run, arm: Callable[[int], Fuse], at: int = 0, delay: float | None = None) -> int:
    """How often the fuse was met until the end; 0 if it went off, or after so many seconds."""
    connections.close_all()
    for entry in registry().values():
        entry.store.close()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = 0
        try:
            fuse = arm(at)
            runs.execute.call(run.pk)
            answer = fuse.calls
        finally:
            with open(write, "w", encoding="ascii") as pipe:
                pipe.write(str(answer))
            os._exit(0)
    os.close(write)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(read, encoding="ascii") as pipe:
        return int(pipe.read() or 0)
