"""OmniDaemon's own stores, driven from ordinary tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

# Importing OmniDaemon makes its default store, which would create a folder here if it were JSON.
with mock.patch.dict(os.environ, STORAGE_BACKEND="redis"):
    from omnidaemon import OmniDaemonSDK as OmniDaemonSDK
    from omnidaemon.storage.base import BaseStore
    from omnidaemon.storage.json_store import JSONStore
    from omnidaemon.storage.redis_store import RedisStore

from tests.stores import Backend, JsonBackend, RedisBackend, let_it_rest


class Upstream:
    """`theirs.add_agent(…)`: one call of OmniDaemon's store, opened and closed around it. A JSON
    directory then lies as if it had been let alone for long, so that ours may write."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def make(self) -> BaseStore:
        if isinstance(self.backend, JsonBackend):
            return JSONStore(str(self.backend.folder))
        assert isinstance(self.backend, RedisBackend)
        return RedisStore(self.backend.server, self.backend.prefix)

    def run(self, work: Callable[[BaseStore], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            store = self.make()
            await store.connect()
            try:
                return await work(store)
            finally:
                if self.backend.name == "redis" or self.wrote(store):
                    await store.close()

        answer = asyncio.run(opened())
        if isinstance(self.backend, JsonBackend):
            let_it_rest(self.backend.folder)
        return answer

    @staticmethod
    def wrote(store: BaseStore) -> bool:
        """Closing a JSON store writes all its files, which one that was only read need not."""
        return bool(getattr(store, "_metrics_dirty", False))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            return self.run(lambda store: getattr(store, name)(*arguments, **named))

        return call
