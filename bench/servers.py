"""What is measured against: a Redis of our own, and OmniDaemon's own stores."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import redis

# Importing OmniDaemon makes its default store, which would create a folder here if it were JSON.
with mock.patch.dict(os.environ, STORAGE_BACKEND="redis"):
    from omnidaemon.sdk import OmniDaemonSDK
    from omnidaemon.storage.json_store import JSONStore
    from omnidaemon.storage.redis_store import RedisStore

__all__ = ["JSONStore", "OmniDaemonSDK", "RedisStore", "Upstream", "redis_server"]

StoreT = TypeVar("StoreT", JSONStore, RedisStore)


@contextmanager
def redis_server() -> Iterator[str]:
    """URL (without database) of a Redis on a free port that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is missing: install it with apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="omnidash-bench-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 10
    with redis.Redis(port=port) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


class Upstream:
    """OmniDaemon's stores are asynchronous: one loop for all, so that connections stay open."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self._runner.run(awaited())

    def call(self, method: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        return self.run(method(*arguments, **named))

    def connected(self, store: StoreT) -> StoreT:
        self.run(store.connect())
        return store

    def close(self) -> None:
        self._runner.close()
