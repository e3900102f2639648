"""How far something is that takes a while."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """What is being done, and how far that is; `total` None: nobody knows. Nothing is done yet by
    it: what was accomplished is a `storage.changes.Change`."""

    what: str
    done: int = 0
    total: int | None = None
