"""Which configuration keys are known, and what was last read of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from storage.records import ConfigEntry
from storage.redis_store.keys import is_under

_KEPT = 32 * 1024 * 1024  # bytes of values that are kept; what is beyond is read when it is shown


class KnownConfig:
    """The keys found so far, and values as they were read last, so that they are parsed once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.keys: dict[bytes, None] = {}
        self.walk: dict[bytes, None] = {}
        self.entries: dict[bytes, ConfigEntry] = {}
        self._size = 0
        self._judged: dict[bytes, bool] = {}  # names that were read, and whether they are broken
        self._neighbours: set[bytes] = set()
        self._met: set[bytes] = set()

    def found(self, names: list[bytes], neighbours: set[bytes], ended: bool) -> None:
        """Names that a walk met. `neighbours` are what other OmniDaemons' prefixes add to ours, by
        marks among these names; what is theirs is not kept."""
        with self.lock:
            self._met |= neighbours
            if not neighbours <= self._neighbours:
                self._neighbours |= neighbours
                self.keys, self.walk = self._ours(self.keys), self._ours(self.walk)
                self._forget_entries()
            ours = self._ours(names)
            self.walk.update(ours)
            self.keys.update(ours)
            if ended:  # what a whole walk did not meet is no more
                self.keys, self.walk = self.walk, {}
                self._neighbours, self._met = self._met, set()
                if len(self._judged) > len(self.keys):
                    self._forget_entries()

    def _forget_entries(self) -> None:
        """Of keys that are no more, or not ours."""
        self.entries = {name: found for name, found in self.entries.items() if name in self.keys}
        self._judged = {name: bad for name, bad in self._judged.items() if name in self.keys}
        self._size = sum(len(found.raw) for found in self.entries.values())

    def _ours(self, names: Iterable[bytes]) -> dict[bytes, None]:
        return {name: None for name in names if not is_under(name, self._neighbours)}

    def read(self, asked: list[bytes], entries: dict[bytes, ConfigEntry]) -> None:
        """What was read of these names; those without an entry are no more."""
        with self.lock:
            known = dict(self.entries)  # others may be reading the former one
            for name in asked:
                former, entry = known.pop(name, None), entries.get(name)
                self._size -= len(former.raw) if former else 0
                if entry is None:
                    self._judged.pop(name, None)
                    continue
                self._judged[name] = bool(entry.problem)
                if self._size + len(entry.raw) <= _KEPT:
                    known[name] = entry
                    self._size += len(entry.raw)
            self.entries = known

    def unread(self) -> list[bytes]:
        with self.lock:
            return [name for name in self.keys if name not in self._judged]

    def broken(self) -> list[bytes]:
        """Those that could not be read last time, sorted."""
        with self.lock:
            return sorted(name for name, bad in self._judged.items() if bad)

    def add(self, key: bytes, walking: bool) -> None:
        """Written by us. A walk that is under way may have passed its place already."""
        with self.lock:
            self.keys[key] = None
            if walking:
                self.walk[key] = None

    def forget(self, names: Iterable[bytes]) -> None:
        """Deleted by us."""
        gone = list(names)
        self.read(gone, {})
        with self.lock:
            for name in gone:
                self.keys.pop(name, None)
                self.walk.pop(name, None)
