"""OmniDaemon's JSON directory: agents.json, results.json, metrics.json and config.json."""

from __future__ import annotations

from storage.json_store.agents import JsonAgents
from storage.json_store.batch import JsonBatch
from storage.json_store.changes import JsonChanges
from storage.json_store.config import JsonConfig
from storage.json_store.inspection import JsonInspection
from storage.json_store.metrics import JsonMetrics
from storage.json_store.results import JsonResults
from storage.json_store.staging import JsonRestore

__all__ = ["JsonStore"]


class JsonStore(
    JsonAgents,
    JsonChanges,
    JsonResults,
    JsonMetrics,
    JsonConfig,
    JsonInspection,
    JsonBatch,
    JsonRestore,
):
    """A store in a directory of JSON files."""

    def clear_all(self) -> dict[str, int]:
        return {
            "agents": self.clear_agents(),
            "results": self.clear_results(),
            "metrics": self.clear_metrics(),
            "config": self._clear_config(),
        }
