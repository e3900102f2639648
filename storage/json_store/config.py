"""Configuration: `config.json`, and what OmniDaemon's system keys in it say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage.base import ConfigKeys, Runner
from storage.json_store.layout import Objects, Unreadable
from storage.json_store.owner import supervisors_of
from storage.json_store.store import JsonFiles
from storage.records import RAW_LIMIT, ConfigEntry, Supervisor, moment, text_of


def _entry(document: Objects, key: str) -> ConfigEntry:
    value, raw = document.values[key], document.text(key)
    truncated = len(raw) > RAW_LIMIT
    broken = isinstance(value, Unreadable)
    return ConfigEntry(
        key=key,
        value=None if broken or truncated else value,
        raw=raw[:RAW_LIMIT],
        size=len(raw),
        truncated=truncated,
        problem=value.reason if isinstance(value, Unreadable) else "",
    )


class JsonConfig(JsonFiles):
    """The configuration's part of the store."""

    def save_config(self, key: str, value: Any) -> None:
        self._change(self._config, lambda document: (document.changed({key: value}), None))

    def get_config(self, key: str, default: Any = None) -> Any:
        document = self._config.document()
        if key not in document.values or isinstance(document.values[key], Unreadable):
            return default
        return document.copy_of(key)

    def _clear_config(self) -> int:
        return self._change(
            self._config, lambda document: (Objects(b"{}", {}), len(document.values))
        )

    # What the pages ask

    def config_keys(self) -> ConfigKeys:
        return ConfigKeys(sorted(self._config.document().values))

    def config_entries(self, keys: Iterable[str]) -> list[ConfigEntry]:
        document = self._config.document()
        return [_entry(document, key) for key in keys if key in document.values]

    def supervisors(self) -> list[Supervisor]:
        values = self._config.document().values
        found = {item.agent_name: item for item in supervisors_of(values)}
        registry = values.get("_supervisor_registry")
        for name in registry if isinstance(registry, list) else []:
            # A key that is null was unregistered; one that never came is worth a look.
            if isinstance(name, str) and f"supervisor:{name}" not in values:
                found.setdefault(name, Supervisor(name, problem="registered without a state"))
        return [found[name] for name in sorted(found)]

    def runner(self) -> Runner:
        values = self._config.document().values
        start_time = values.get("_omnidaemon_start_time")
        runner_id = values.get("_omnidaemon_runner_id")
        return Runner(
            start_time=moment(None if isinstance(start_time, Unreadable) else start_time),
            runner_id="" if isinstance(runner_id, Unreadable) else text_of(runner_id),
            last_write=self._last_change(),
        )
