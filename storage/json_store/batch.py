"""Many records in one write a file: what a process needs that plays the runner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.json_store.metrics import CAP
from storage.json_store.store import JsonFiles


@dataclass(slots=True)
class Batch:
    """Whole records as they are stored; times are the caller's."""

    agents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped_results: list[str] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)


class JsonBatch(JsonFiles):
    def write_batch(self, batch: Batch) -> None:
        """Put all of it, each file written at most once."""
        if batch.config:
            self._change(self._config, lambda found: (found.changed(batch.config), None))
        if batch.agents:
            self._change(self._agents, lambda found: (found.changed(batch.agents), None))
        if batch.results or batch.dropped_results:
            drop = batch.dropped_results
            self._change(self._results, lambda found: (found.changed(batch.results, drop), None))
        if batch.metrics:
            self._change(self._metrics, lambda found: (found.extended(batch.metrics, CAP), None))
