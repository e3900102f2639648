"""A connection of somebody's own: what is watched on it stays watched until the transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis import exceptions as driver

from storage.base import StoreError, StoreUnavailable
from storage.redis_store.client import (
    TIMEOUT,
    Client,
    Command,
    ResponseError,
    exchange,
    receive,
    send,
)
from storage.redis_store.replies import require_no_error, unexpected

_QUEUED = 500  # commands sent at once
_EACH = 0.0002  # seconds that a command of a transaction may take at most, on a busy machine

_BECAUSE = "discarded because of: "  # Redis' word before why it refused a whole transaction

LOST = "the connection that watched the store was lost; nothing was changed"


class Lease:
    """Not for two threads at once. It is never connected again: what was watched would not be."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._link: Any = client.own_connection()
        self._lost = False
        self._guarded(self._link.connect)

    def close(self) -> None:
        self._lost = True
        self._link.disconnect()

    def read(self, commands: Sequence[Command]) -> list[Any]:
        """As `Client.pipe`."""
        replies: list[Any] = self._guarded(exchange, self._link, commands) if commands else []
        self._client.check(replies, commands)
        return replies

    def execute(self, commands: Sequence[Command]) -> bool:
        """All of the commands in one transaction; False if a watched key changed. An error before
        Redis was told to execute changes nothing; StoreUnavailable after it leaves open whether it
        happened."""
        try:
            self.read([("MULTI",)])
            self._guarded(self._queue, commands)
            replies = self._guarded(self._exec, TIMEOUT + len(commands) * _EACH)
        finally:
            self.close()
        if isinstance(replies, ResponseError):
            cause = ResponseError(str(replies).partition(_BECAUSE)[2] or str(replies))
            raise self._client.refused(cause, ("EXEC",)) or unexpected(replies, ("EXEC",))
        require_no_error(replies or (), commands)
        return replies is not None

    def _queue(self, commands: Sequence[Command]) -> None:
        """Redis takes some while the next are packed."""
        before: Sequence[Command] = ()
        for start in range(0, len(commands) + _QUEUED, _QUEUED):
            some = commands[start : start + _QUEUED]
            if some:
                send(self._link, some)
            replies = receive(self._link, len(before))
            self._client.check(replies, before)
            require_no_error(replies, before)
            before = some

    def _exec(self, patience: float) -> Any:
        send(self._link, [("EXEC",)])
        try:
            return self._link.read_response(timeout=patience)
        except ResponseError as error:
            return error

    def _guarded(self, work: Any, *arguments: Any) -> Any:
        if self._lost:
            raise StoreUnavailable(LOST)
        started = time.monotonic()
        try:
            return work(*arguments)
        except (driver.RedisError, OSError) as error:
            self.close()
            failed: StoreError = self._client.failure(error, time.monotonic() - started)
            raise failed from None
        except BaseException:
            self.close()
            raise
