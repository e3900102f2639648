"""Many records in one write a file: what a process needs that plays the runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.json_store.layout import Listing, Objects
from storage.json_store.metrics import CAP
from storage.json_store.store import JsonFiles


@dataclass(slots=True)
class Batch:
    """Whole records as they are stored; times are the caller's. `replace` forgets all others."""

    agents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped_results: list[str] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    replace: bool = False


class JsonBatch(JsonFiles):
    """The batch's part of the store."""

    def write_batch(self, batch: Batch) -> None:
        """Put all of it, each file written at most once."""

        def put(values: dict[str, Any], drop: list[str], found: Objects) -> tuple[Objects, None]:
            base = Objects(b"{}", {}) if batch.replace else found
            return base.changed(values, drop), None

        def append(found: Listing) -> tuple[Listing, None]:
            base = Listing(b"[]", []) if batch.replace else found
            return base.extended(batch.metrics, CAP), None

        drop = batch.dropped_results
        if batch.config or batch.replace:
            self._change(self._config, lambda found: put(batch.config, [], found))
        if batch.agents or batch.replace:
            self._change(self._agents, lambda found: put(batch.agents, [], found))
        if batch.results or drop or batch.replace:
            self._change(self._results, lambda found: put(batch.results, drop, found))
        if batch.metrics or batch.replace:
            self._change(self._metrics, append)
