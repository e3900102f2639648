"""Which configuration keys are known, and what was last read of them."""

from __future__ import annotations

import threading

from storage.records import ConfigEntry


class KnownConfig:
    """The keys found so far, and each value as it was read last, so that it is parsed once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.keys: dict[bytes, None] = {}
        self.walk: dict[bytes, None] = {}
        self.entries: dict[bytes, ConfigEntry] = {}

    def found(self, keys: list[bytes], ended: bool) -> None:
        with self.lock:
            self.walk.update(dict.fromkeys(keys))
            self.keys.update(dict.fromkeys(keys))
            if ended:  # what a whole walk did not meet is no more
                self.keys, self.walk = self.walk, {}

    def read(self, asked: list[bytes], entries: dict[bytes, ConfigEntry]) -> None:
        """What was read of these names; those without an entry are no more."""
        with self.lock:
            known = {**self.entries, **entries}
            for name in asked:
                if name not in entries:
                    known.pop(name, None)
            self.entries = known

    def add(self, key: bytes, walking: bool) -> None:
        """Written by us. A walk that is under way may have passed its place already."""
        with self.lock:
            self.keys[key] = None
            if walking:
                self.walk[key] = None
