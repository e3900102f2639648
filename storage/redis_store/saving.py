"""The server's own save to its disk."""

from __future__ import annotations

import time
from collections.abc import Iterator

from storage.base import StoreError
from storage.redis_store.client import parse_info
from storage.redis_store.part import RedisPart
from storage.snapshots import Restorable

_LOOK = 0.1  # seconds between two looks
_SECOND = 1.0  # to which the server notes when it saved
_LONGEST = 3600.0  # seconds that a save may take


class SavingPart(RedisPart, Restorable):
    can_save = True

    def save_to_disk(self) -> Iterator[float]:
        began = time.monotonic()
        yield from self._until_free(began)
        before = self._saved_at()
        while self._server_time() <= before:  # a save in the same second would look like that one
            time.sleep(_SECOND / 10)
        # Scheduled: behind a rewrite of the append-only file, instead of being refused for it.
        self._client.call("BGSAVE", "SCHEDULE")
        yield from self._until_free(began)
        # Its answer only says that it begins. What counts is what the server says afterwards.
        status = self._persistence().get("rdb_last_bgsave_status", "unknown")
        if status != "ok":
            raise StoreError(f"the server could not save: its status is {status}, its log says why")
        if self._saved_at() <= before:
            raise StoreError("the server did not save: the time of its last save is as before")

    def _until_free(self, began: float) -> Iterator[float]:
        while any(self._persistence().get(name) == "1" for name in _BUSY):
            if (waited := time.monotonic() - began) > _LONGEST:
                raise StoreError("the server is still saving after an hour")
            yield waited
            time.sleep(_LOOK)

    def _persistence(self) -> dict[str, str]:
        return parse_info(self._client.call("INFO", "persistence"))

    def _saved_at(self) -> int:
        return int(self._client.call("LASTSAVE"))

    def _server_time(self) -> int:
        return int(self._client.call("TIME")[0])


_BUSY = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
