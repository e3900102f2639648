"""Connections to one Redis, kept between questions.

Not the driver's own pool: that one takes the session tickets that TLS 1.3 sends after the handshake
for a stray answer, and refuses more than half of all new connections.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

from redis import exceptions as driver

CONNECTIONS = 24
FULL = "No connection available"


class Pool:
    """At most so many connections; the one used last is used again first."""

    def __init__(self, kind: Any, options: dict[str, Any], patience: float) -> None:
        self._kind, self._options, self._patience = kind, options, patience
        self._begin()

    def _begin(self) -> None:
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self._idle: deque[Any] = deque()
        self._process = os.getpid()

    def make(self) -> Any:
        """A connection beside the pool, to be closed by the caller."""
        return self._kind(**self._options)

    def take(self) -> Any:
        if self._process != os.getpid():  # a child must not talk on its parent's connections
            self._begin()
        if not self._room.acquire(timeout=self._patience):
            raise driver.ConnectionError(FULL)
        try:
            return self._connected()
        except BaseException:
            self._room.release()
            raise

    def _connected(self) -> Any:
        try:
            link = self._idle.pop()
        except IndexError:
            link = self.make()
        else:
            try:
                link.can_read()  # raises if the server has closed it meanwhile
            except (driver.RedisError, OSError):
                link.disconnect()
        try:
            link.connect()
        except BaseException:
            link.disconnect()
            raise
        return link

    def give(self, link: Any) -> None:
        if self._process != os.getpid():
            return
        if link.is_connected:
            self._idle.append(link)
        self._room.release()

    def close(self) -> None:
        """Close what is idle; what is in use comes back and may be used again."""
        while self._idle:
            self._idle.pop().disconnect()
