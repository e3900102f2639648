"""Configuration, and what OmniDaemon keeps in it: its runner, subscriptions and supervisors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from storage.base import ConfigKeys, Runner
from storage.records import (
    RAW_LIMIT,
    ConfigEntry,
    Moment,
    Supervisor,
    moment,
    parse_json,
    text_of,
    to_bytes,
    to_text,
)
from storage.redis_store.agents import to_supervisor
from storage.redis_store.client import Client, ResponseError
from storage.redis_store.keys import Keys, end_of_mark
from storage.redis_store.part import RedisPart
from storage.redis_store.result_reading import kinds

_SEARCH = 0.05  # seconds a listing searches for keys the first time …
_AGAIN = 0.015  # … and for further ones once all were seen
_READ = 500  # values in one MGET
_START, _RUNNER = b"_omnidaemon_start_time", b"_omnidaemon_runner_id"
_REGISTRY = b"_supervisor_registry"
_MARKS = ("set", "zset", "stream")  # what lies under the marks of another OmniDaemon


class ConfigPart(RedisPart):
    def save_config(self, key: str, value: Any) -> None:
        raw_key = to_bytes(key)
        text = json.dumps(value, default=str).encode()
        self._client.write([("SET", self._keys.config(raw_key), text)])
        self._config.add(raw_key, self._config_scan.started)

    def get_config(self, key: str, default: Any = None) -> Any:
        raw = self._client.pipe([("GET", self._keys.config(to_bytes(key)))])[0]
        if not isinstance(raw, bytes):
            return default
        value, problem = parse_json(raw)
        return default if problem else value

    def config_keys(self) -> ConfigKeys:
        walked = self._config_scan.walks > 0
        self._find_keys(_AGAIN if walked else _SEARCH)
        complete = self._config_scan.walks > 0
        with self._config.lock:
            wanted = set(self._config.keys)
        if not complete:
            wanted.update(self._system_keys())
        return ConfigKeys([to_text(name) for name in sorted(wanted)], complete)

    def config_entries(self, keys: Iterable[str]) -> list[ConfigEntry]:
        return self._read_entries([to_bytes(key) for key in keys])

    def broken_config(self) -> list[ConfigEntry]:
        """The unreadable among the entries read so far; each call finds and reads some more."""
        self.config_count()
        self._read_entries(self._config.unread()[:_READ])
        return self._read_entries(self._config.broken())

    def config_is_read(self) -> bool:
        """Whether all keys were searched for and read at least once."""
        return self._config_scan.walks > 0 and not self._config.unread()

    def config_count(self) -> int | None:
        """How many keys there are, once they have been searched for."""
        self._find_keys(0.0)
        return len(self._config.keys) if self._config_scan.walks else None

    def _find_keys(self, budget: float) -> None:
        keys, ended = self._config_scan.advance(budget)
        head = self._keys.config_head
        names = [key[len(head) :] for key in keys if key.startswith(head)]
        neighbours = neighbours_by_mark(self._client, self._keys, names)
        self._config.found(names, neighbours, ended)

    def _system_keys(self) -> list[bytes]:
        """Keys whose names are known are there at once, however long the search takes."""
        head = len(self._keys.config_head)
        self._registry.look()
        names = [to_bytes(name) for name in self._supervised()]
        known = [
            _START,
            _RUNNER,
            _REGISTRY,
            *(self._keys.supervisor(name)[head:] for name in names),
        ]
        known += [
            self._keys.subscription(to_bytes(topic), to_bytes(name))[head:]
            for topic, name in self._registry.by_topic
        ]
        found: list[bytes] = []
        for start in range(0, len(known), _READ):
            some = known[start : start + _READ]
            values = self._client.call("MGET", *map(self._keys.config, some))
            found += [key for key, value in zip(some, values, strict=True) if value is not None]
        return found

    def _read_entries(self, names: list[bytes]) -> list[ConfigEntry]:
        """One value in a thousand may be huge, so new keys are first asked for their length."""
        known = self._config.entries
        small: list[bytes] = []
        odd: list[bytes] = []
        gone: list[bytes] = []
        for name in names:
            entry = known.get(name)
            usual = entry is not None and not entry.truncated and not entry.problem
            (small if usual else odd).append(name)
        entries = self._read_odd(odd)
        for start in range(0, len(small), _READ):
            some = small[start : start + _READ]
            values = self._client.call("MGET", *map(self._keys.config, some))
            for name, raw in zip(some, values, strict=True):
                entry = known[name]
                if raw is None:  # gone, or of another type by now
                    gone.append(name)
                else:
                    entries[name] = entry if entry.raw == raw else _to_entry(name, raw, len(raw))
        entries |= self._read_odd(gone)
        self._config.read(names, entries)
        return [entries[name] for name in names if name in entries]

    def _read_odd(self, names: list[bytes]) -> dict[bytes, ConfigEntry]:
        """Keys of unknown length, type or existence."""
        keys = [self._keys.config(name) for name in names]
        commands = [("GETRANGE", key, 0, RAW_LIMIT - 1) for key in keys]
        replies = self._client.pipe([*commands, *(("STRLEN", key) for key in keys)])
        values, sizes = replies[: len(keys)], replies[len(keys) :]
        unsure = [
            (name, key) for name, key, size in zip(names, keys, sizes, strict=True)
            if size == 0 or isinstance(size, ResponseError)
        ]  # fmt: skip
        types = kinds(self._client, [key for _, key in unsure])
        kind = {name: found for (name, _), found in zip(unsure, types, strict=True)}
        entries: dict[bytes, ConfigEntry] = {}
        for name, value, size in zip(names, values, sizes, strict=True):
            found = kind.get(name, "string")
            if found == "string" and isinstance(value, bytes):
                entries[name] = _to_entry(name, value, max(size, len(value)))
            elif found not in ("string", "none"):
                problem = f"expected string, is {found}"
                entries[name] = ConfigEntry(to_text(name), problem=problem)
        return entries

    def _supervised(self) -> list[str]:
        registry = self.get_config(to_text(_REGISTRY))
        names = registry if isinstance(registry, list) else []
        return sorted({text_of(name) for name in names})

    def supervisors(self) -> list[Supervisor]:
        names = self._supervised()
        keys = [self._keys.supervisor(to_bytes(name)) for name in names]
        values = self._client.call("MGET", *keys) if keys else []
        found = (to_supervisor(name, raw) for name, raw in zip(names, values, strict=True))
        return [supervisor for supervisor in found if supervisor is not None]

    def runner(self) -> Runner:
        keys = [self._keys.config(_START), self._keys.config(_RUNNER)]
        started, runner_id = self._client.call("MGET", *keys)
        found: Moment = None
        if started is not None:
            value, problem = parse_json(started)
            found = moment(started if problem else value)
        name = text_of(parse_json(runner_id)[0]) if runner_id is not None else ""
        return Runner(found, name)


def neighbours_by_mark(client: Client, keys: Keys, names: Iterable[bytes]) -> set[bytes]:
    """What other OmniDaemons' prefixes add to ours, by marks among these keys of configuration."""
    marks = {name: end for name in names if (end := end_of_mark(name)) is not None}
    types = kinds(client, [keys.config(name) for name in marks])
    return {
        name[:end] for (name, end), found in zip(marks.items(), types, strict=True)
        if found in _MARKS
    }  # fmt: skip


def _to_entry(name: bytes, raw: bytes, size: int) -> ConfigEntry:
    entry = ConfigEntry(to_text(name), raw=raw[:RAW_LIMIT], size=size)
    if size > RAW_LIMIT:
        entry.truncated = True
    else:
        entry.value, entry.problem = parse_json(raw)
    return entry
