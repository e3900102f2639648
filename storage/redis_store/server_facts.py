"""Redis' own INFO, as figures with units and as troubles in plain words."""

from __future__ import annotations

import time
from dataclasses import dataclass

from storage.base import Fact

_SKEWED = 2.0  # seconds of difference between two clocks that confuse ages and expiries
_FULL = 0.9  # share of maxmemory from which memory is short

# group, INFO's name, ours, unit
_FIGURES = (
    ("memory", "used_memory", "used", "bytes"),
    ("memory", "used_memory_peak", "peak", "bytes"),
    ("memory", "maxmemory", "limit", "bytes"),
    ("memory", "maxmemory_policy", "eviction policy", "text"),
    ("memory", "mem_fragmentation_ratio", "fragmentation", "ratio"),
    ("persistence", "rdb_last_save_time", "last save", "moment"),
    ("persistence", "rdb_last_bgsave_status", "last save status", "text"),
    ("persistence", "rdb_changes_since_last_save", "changes since last save", "count"),
    ("persistence", "rdb_bgsave_in_progress", "saving now", "flag"),
    ("persistence", "aof_enabled", "append-only file", "flag"),
    ("persistence", "aof_last_write_status", "append-only file status", "text"),
    ("persistence", "aof_last_bgrewrite_status", "append-only rewrite status", "text"),
    ("persistence", "loading", "loading", "flag"),
    ("clients", "connected_clients", "connected", "count"),
    ("clients", "maxclients", "limit", "count"),
    ("clients", "blocked_clients", "blocked", "count"),
    ("clients", "rejected_connections", "rejected since start", "count"),
    ("replication", "role", "role", "text"),
    ("replication", "connected_slaves", "replicas", "count"),
    ("replication", "master_link_status", "link to master", "text"),
    ("replication", "master_last_io_seconds_ago", "master heard", "seconds"),
    ("server", "redis_version", "version", "text"),
    ("server", "redis_mode", "mode", "text"),
    ("server", "tcp_port", "port", "text"),
    ("server", "uptime_in_seconds", "uptime", "seconds"),
    ("stats", "instantaneous_ops_per_sec", "operations per second", "count"),
    ("stats", "keyspace_hits", "hits", "count"),
    ("stats", "keyspace_misses", "misses", "count"),
    ("stats", "expired_keys", "expired keys", "count"),
    ("stats", "evicted_keys", "evicted keys", "count"),
)


@dataclass(frozen=True, slots=True)
class Situation:
    """What INFO does not tell."""

    saves: str | None = None  # CONFIG GET save; None if it may not be asked
    clock_ahead: float | None = None  # seconds that the server's clock is ahead of ours


def figures(info: dict[str, str], db: int, situation: Situation) -> list[Fact]:
    found = [
        Fact(group, name, _shown(info, key, unit), unit, _note(info, key))
        for group, key, name, unit in _FIGURES
        if key in info
    ]
    keys = _keyspace(info, db)
    found.append(Fact("keyspace", "keys in this database", keys, "count"))
    ahead = situation.clock_ahead
    note = "" if ahead is not None else "the server does not tell its time"
    found.append(Fact("server", "clock ahead of ours", ahead, "seconds", note))
    return found


def troubles(info: dict[str, str]) -> list[str]:
    """What goes wrong now."""
    said = []
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    if limit and used >= limit and _policy(info) == "noeviction":
        said.append("Redis is out of memory and refuses writes; deleting still works")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        said.append("the last save to disk failed; Redis may refuse writes until one succeeds")
    if info.get("aof_last_write_status", "ok") != "ok":
        said.append("writing the append-only file failed; Redis refuses writes")
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        said.append("rewriting the append-only file failed")
    if info.get("master_link_status") == "down":
        said.append("the replica has lost its master: what it shows may be old")
    return said


def risks(info: dict[str, str], situation: Situation) -> list[str]:
    """What may go wrong later."""
    said = _memory_risks(info)
    if situation.saves == "" and info.get("aof_enabled") == "0":
        said.append("nothing is saved to disk: a restart of Redis loses everything")
    if info.get("role") == "slave" and info.get("slave_read_only", "1") == "1":
        said.append("this is a read-only replica: nothing can be changed here")
    ahead = situation.clock_ahead
    if ahead is not None and abs(ahead) > _SKEWED:
        which = "ahead of" if ahead > 0 else "behind"
        said.append(f"the clock differs: the server's is {abs(ahead):.0f} s {which} ours")
    return said


def _memory_risks(info: dict[str, str]) -> list[str]:
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    said = []
    if limit and _policy(info) != "noeviction":
        said.append(
            "Redis may evict OmniDaemon's records: "
            f"its memory is limited and the policy is {_policy(info)}"
        )
    if limit and limit * _FULL < used < limit:
        said.append(f"Redis has used {used / limit:.0%} of its memory limit")
    evicted = _number(info, "evicted_keys")
    if evicted:
        said.append(f"Redis has evicted {evicted:.0f} keys since it started")
    return said


def _policy(info: dict[str, str]) -> str:
    return info.get("maxmemory_policy", "noeviction")


def _shown(info: dict[str, str], key: str, unit: str) -> float | str | bool | None:
    no_limit = key == "maxmemory" and not _number(info, key)
    return None if no_limit else _value(info[key], unit)


def _value(text: str, unit: str) -> float | str | bool | None:
    if unit == "flag":
        return text == "1"
    if unit == "text":
        return text
    try:
        return float(text)
    except ValueError:
        return None


def _note(info: dict[str, str], key: str) -> str:
    if key == "maxmemory" and not _number(info, key):
        return "no limit"
    if key == "rdb_last_save_time" and _number(info, key) >= time.time() - _uptime(info):
        # Redis counts its own start as a save
        return "or the start of the server" if _number(info, key) <= _started(info) + 1 else ""
    return ""


def _uptime(info: dict[str, str]) -> float:
    return _number(info, "uptime_in_seconds") + 2


def _started(info: dict[str, str]) -> float:
    return time.time() - _number(info, "uptime_in_seconds")


def _keyspace(info: dict[str, str], db: int) -> float:
    for part in info.get(f"db{db}", "").split(","):
        name, _, value = part.partition("=")
        if name == "keys":
            return float(value)
    return 0.0


def _number(info: dict[str, str], key: str) -> float:
    try:
        return float(info.get(key, "0"))
    except ValueError:
        return 0.0
