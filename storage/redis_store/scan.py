"""A walk over all keys of a pattern, a bit at each look."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from storage.redis_store.client import Client
from storage.redis_store.keys import escape_glob

_FEW = 1000  # keys that Redis looks at before others have their turn


class KeyScan:
    """Keeps its place between looks, so that a keyspace of any size is walked without any one look
    being long. SCAN may name a key twice, and promises those that were there all the time."""

    def __init__(self, client: Client, pattern: bytes) -> None:
        self._client = client
        self._pattern = pattern
        self._cursor: bytes | int = 0
        self._turn = threading.Lock()
        self.walks = 0  # whole walks so far
        self.seen = 0  # keys found in the present or the last walk
        self.started = False

    def advance(self, budget: float, batch: int = 5000) -> tuple[list[bytes], bool]:
        """The keys found in about so many seconds (one batch at least), and whether a walk ended:
        one look never begins a second one. Another thread's walk is not waited for."""
        if not self._turn.acquire(blocking=False):
            return [], False
        try:
            return self._advance(time.monotonic() + budget, batch)
        finally:
            self._turn.release()

    def _advance(self, deadline: float, batch: int) -> tuple[list[bytes], bool]:
        keys: list[bytes] = []
        if not self.started:
            self.seen, self.started = 0, True
        while True:
            cursor, found = self._client.call(
                "SCAN", self._cursor, "MATCH", self._pattern, "COUNT", batch
            )
            self._cursor = cursor
            keys += found
            self.seen += len(found)
            if cursor == b"0":
                self.walks += 1
                self.started = False
                return keys, True
            if time.monotonic() >= deadline:
                return keys, False


def walk(client: Client, head: bytes) -> Iterator[list[bytes]]:
    """All keys that begin so, in portions. Each is checked again, whatever the glob let through;
    one may be named twice."""
    scan = KeyScan(client, escape_glob(head) + b"*")
    ended = False
    while not ended:
        keys, ended = scan.advance(0.0, _FEW)
        yield list(dict.fromkeys(key for key in keys if key.startswith(head)))
