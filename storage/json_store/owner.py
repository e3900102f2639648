"""Who owns the directory: a running OmniDaemon keeps these files in memory and writes them whole,
so that a change from outside is undone, and a second writer loses data of the first."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.json_store.layout import Unreadable
from storage.records import Supervisor, read_supervisor

_START = "_omnidaemon_start_time"  # set by the first agent that registers, null after a clean stop
QUIET = 120.0  # two heartbeats of OmniDaemon: no change for longer says that nobody writes
_CLOSING = 10.0  # a clean stop clears its start time first and writes the other files after it
_START_SLACK = 60.0  # a supervisor notes its start this long after its process began, at most


@dataclass(frozen=True, slots=True)
class Owner:
    """`live`: a runner is at work. `unproven`: something may be, or may have crashed. `free`: no
    runner is registered, and nobody has written after it stopped, or lately."""

    state: Literal["live", "unproven", "free"]
    evidence: list[str] = field(default_factory=list)


def judge(
    config: Mapping[str, Any] | None,
    changes: Mapping[str, float],
    stopped: float | None,
    now: float,
) -> Owner:
    """`config` None: it cannot be read. `changes`: when somebody other than ourselves changed which
    file. `stopped`: when config.json was last written by others, as a clean stop does."""
    if config is None:
        return Owner("unproven", ["config.json cannot be read, so nothing tells whether one runs"])
    alive = [
        f"supervisor {item.agent_name!r} runs as process {item.pid}"
        for item in supervisors_of(config)
        if process_lives(item)
    ]
    if alive:
        return Owner("live", alive)
    if config.get(_START) is not None:
        return _judge_started(config[_START], max(changes.values(), default=None), now)
    if _START in config and stopped is not None:
        later = {name: at for name, at in changes.items() if at > stopped + _CLOSING}
        return _judge_unregistered("the runner was stopped cleanly", later, now)
    return _judge_unregistered("no runner is registered", changes, now)


def _judge_started(started: object, last_change: float | None, now: float) -> Owner:
    begun = f"it was started {_date(started, now)} and has not said that it stopped"
    if last_change is None:
        return Owner("unproven", [begun, "nobody has changed a file since we did"])
    age = max(0.0, now - last_change)
    if age <= QUIET:
        return Owner("live", [begun, f"a file changed {words(age)} ago"])
    return Owner("unproven", [begun, f"no file has changed for {words(age)}"])


def _judge_unregistered(why: str, changes: Mapping[str, float], now: float) -> Owner:
    """A program may use the files without a runner, and a runner registers only after its agent."""
    name = max(changes, key=lambda one: changes[one], default=None)
    age = math.inf if name is None else max(0.0, now - changes[name])
    if age > QUIET:
        return Owner("free", [f"{why}, and nobody else writes here"])
    return Owner("unproven", [f"{why}, but {name} changed {words(age)} ago"])


def _date(started: object, now: float) -> str:
    """An age, since a reader's clock is of a zone that is not known here."""
    if isinstance(started, (int, float)) and 0 < started < 1e11:
        return f"{words(max(0.0, now - started))} ago"
    return "at an unreadable time"


def words(seconds: float) -> str:
    """In its largest unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def supervisors_of(config: Mapping[str, Any]) -> Iterator[Supervisor]:
    """All that have a state; an unregistered one has left null behind."""
    for key, value in config.items():
        if not key.startswith("supervisor:") or value is None:
            continue
        name = key.removeprefix("supervisor:")
        if isinstance(value, Unreadable):
            yield Supervisor(name, problem=value.reason)
        else:
            yield read_supervisor(name, value)


def process_lives(supervisor: Supervisor) -> bool:
    """True if its process exists on this host and is not another one with the same number: it has
    to have begun shortly before the start that the supervisor noted."""
    noted = supervisor.start_time
    if not supervisor.pid or supervisor.pid < 1:
        return False
    begun = process_start(supervisor.pid)
    if begun is None:
        return False
    return not isinstance(noted, float) or abs(begun - noted) <= _START_SLACK


def process_start(pid: int) -> float | None:
    """When a process began in Unix seconds; None if there is none, or it is only a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything, parentheses included.
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/uptime", "rb") as file:
            uptime = float(file.read().split()[0])
        if fields[0] in (b"Z", b"X"):
            return None
        ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - (uptime - ticks)
