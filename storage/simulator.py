"""A small company that runs OmniDaemon: writes sample data as the real runner would.

Everything follows from a seed and the time, so that the same start gives the same picture.
"""

from __future__ import annotations

import fcntl
import heapq
import math
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from storage import StoreURL
from storage.base import StoreError
from storage.json_store import JsonStore
from storage.json_store.batch import Batch
from storage.simulated_company import AGENTS, CONFIG, ERRORS, SUPERVISED, SimulatedAgent, answer

MARK = ".omnidash-sample"
HOUR, DAY = 3600.0, 86_400.0
TASKS_A_MINUTE = 65.0  # two events each: an hour of them stays under the cap of 10,000
RESULTS_A_MINUTE = 1.0
# Mostly OmniDaemon's own 24 hours; the others so that something is always about to expire.
LIFETIMES = [(1800, 25), (7200, 25), (21_600, 20), (int(DAY), 30)]
HEARTBEAT = 15.0
CRASHES_EVERY = 600.0  # seconds, in the mean
KEPT_EXPIRED = 3

Event = dict[str, Any]


class NotASample(Exception):
    """The directory holds something that we did not write, or another simulator writes it."""


@contextmanager
def claimed(directory: str) -> Iterator[None]:
    """The directory is ours while this lasts; what is there and is no sample stays untouched."""
    os.makedirs(directory, exist_ok=True)
    mark = os.path.join(directory, MARK)
    if not os.path.lexists(mark) and os.listdir(directory):
        raise NotASample(f"{directory} holds files that no simulator wrote; nothing was changed")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(mark, flags, 0o600), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotASample(f"another simulator is writing {directory}") from None
        yield


@dataclass(slots=True)
class Supervisor:
    """A process of its own for one agent, and what becomes of it."""

    name: str
    pid: int
    start_time: float
    crashes: bool = False
    state: str = "running"
    next_change: float = math.inf
    restarts: int = 0
    requests: int = 0
    beat: float = 0.0

    def record(self, chance: random.Random, now: float) -> dict[str, Any]:
        busy = self.state == "running"
        return {
            "agent_name": self.name,
            "state": self.state,
            "healthy": busy,
            "pid": self.pid if busy else None,
            "start_time": self.start_time,
            "cpu_percent": round(chance.uniform(0.2, 14), 1) if busy else 0.0,
            "memory_mb": round(chance.uniform(58, 96), 2) if busy else 0.0,
            "total_requests": self.requests,
            "restart_count": self.restarts,
            "last_heartbeat": self.beat,
            "last_updated": now,
        }


@dataclass(slots=True)
class World:
    """What is going on at a moment, and what is about to happen."""

    chance: random.Random
    now: float
    runner_id: str
    start_time: float
    upcoming: list[tuple[float, int, Event, Event | None]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    next_task: float = 0.0
    expires: dict[str, float] = field(default_factory=dict)
    supervisors: list[Supervisor] = field(default_factory=list)

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))


def new_world(seed: int, now: float) -> World:
    """The state of affairs an hour before `now`."""
    chance = random.Random(seed)  # noqa: S311  nothing here is a secret
    world = World(chance, now - HOUR, "", now - 26.4 * HOUR)
    world.runner_id = world.new_id()
    world.next_task = world.now
    for position, name in enumerate(SUPERVISED):
        supervisor = Supervisor(name, chance.randrange(2000, 30_000), world.start_time + position)
        supervisor.crashes = position == 0
        supervisor.requests = chance.randrange(2000, 9000)
        world.supervisors.append(supervisor)
    world.supervisors[0].next_change = world.now + CRASHES_EVERY
    return world


# Events


def _rate(now: float) -> float:
    """Tasks a second: a slow wave with a faster one on it."""
    wave = 0.18 * math.sin(now / 900 * math.tau) + 0.06 * math.sin(now / 130 * math.tau)
    return TASKS_A_MINUTE / 60 * (1 + wave)


def _schedule_task(world: World, at: float) -> None:
    chance = world.chance
    busy = [agent for agent in AGENTS if not agent.paused]
    agent = chance.choices(busy, [agent.weight for agent in busy])[0]
    task_id = world.new_id()
    seconds = min(agent.seconds * math.exp(chance.gauss(0, 0.55)), 40.0)
    head: Event = {"topic": agent.topic, "agent": agent.name, "runner_id": world.runner_id}
    received = {**head, "event": "task_received", "task_id": task_id, "timestamp": at}
    _push(world, at, received)
    end = at + seconds
    if chance.random() < agent.failure_rate:
        error_type, error = chance.choice(ERRORS[agent.errors])
        failed = {**head, "event": "task_failed", "task_id": task_id, "msg_id": None}
        _push(world, end, {**failed, "error": error, "error_type": error_type, "timestamp": end})
        return
    processed = {**head, "event": "task_processed", "task_id": task_id}
    processed = {**processed, "processing_time_sec": seconds, "timestamp": end}
    keep = chance.random() < RESULTS_A_MINUTE / TASKS_A_MINUTE
    _push(world, end, processed, _result(world, agent, task_id, at, end) if keep else None)


def _push(world: World, at: float, event: Event, result: Event | None = None) -> None:
    heapq.heappush(world.upcoming, (at, next(world.numbers), event, result))


def _result(
    world: World, agent: SimulatedAgent, task_id: str, created: float, ended: float
) -> dict[str, Any]:
    """A stored result: the whole message and what the agent answered, as the runner saves it."""
    content, body = answer(agent, world.chance)
    lifetimes, shares = zip(*LIFETIMES, strict=True)
    envelope = {
        "content": content,
        "webhook": None,
        "reply_to": None,
        "topic": agent.topic,
        "task_id": task_id,
        "correlation_id": f"req-{world.chance.getrandbits(32):08x}",
        "causation_id": None,
        "source": world.chance.choice(["web-api", "mobile app", "scheduler", "partner-gateway"]),
        "delivery_attempts": 1,
        "created_at": created - 0.004,
        "processing_consumer": f"consumer:{agent.name}-1",
        "agent": agent.name,
        "runner_id": world.runner_id,
        "status": "completed",
        "result": body,
        "timestamp": ended,
    }
    expires_at = ended + world.chance.choices(lifetimes, shares)[0]
    return {
        "task_id": task_id,
        "result": envelope,
        "saved_at": ended + 0.0004,
        "expires_at": expires_at,
    }


def advance(world: World, now: float) -> Batch:
    """What the runner has written between the last call and `now`."""
    batch = Batch()
    while world.next_task <= now:
        _schedule_task(world, world.next_task)
        world.next_task += world.chance.expovariate(_rate(world.next_task))
    for supervisor in world.supervisors:
        _live_on(world, supervisor, now)
    requests = {supervisor.name: supervisor for supervisor in world.supervisors}
    while world.upcoming and world.upcoming[0][0] <= now:
        at, _, event, result = heapq.heappop(world.upcoming)
        batch.metrics.append({**event, "saved_at": at + 0.00002})
        if event.get("agent") in requests and event["event"] == "task_received":
            requests[event["agent"]].requests += 1
        if result is not None:
            batch.results[result["task_id"]] = result
            world.expires[result["task_id"]] = result["expires_at"]
    gone = sorted((at, key) for key, at in world.expires.items() if at <= now)
    # Somebody asks for an expired result now and then, and only then OmniDaemon removes it.
    for _, key in gone[:-KEPT_EXPIRED]:
        del world.expires[key]
        if batch.results.pop(key, None) is None:
            batch.dropped_results.append(key)
    _beat(world, batch, now)
    world.now = now
    return batch


# Supervisors

_NEXT = {"running": "crashed", "crashed": "restarting", "restarting": "running"}
_LASTS = {"crashed": 25.0, "restarting": 8.0}


def _live_on(world: World, supervisor: Supervisor, now: float) -> None:
    while supervisor.crashes and supervisor.next_change <= now:
        at, old = supervisor.next_change, supervisor.state
        supervisor.state = _NEXT[old]
        if supervisor.state == "running":
            supervisor.restarts += 1
            supervisor.pid, supervisor.start_time = world.chance.randrange(2000, 30_000), at
            supervisor.next_change = at + world.chance.uniform(0.6, 1.4) * CRASHES_EVERY
        else:
            supervisor.next_change = at + _LASTS[supervisor.state]
        change = {"event": "agent_state_change", "agent_name": supervisor.name}
        change |= {"old_state": old, "new_state": supervisor.state}
        _push(world, at, {**change, "timestamp": at})
        supervisor.beat = min(supervisor.beat, at - HEARTBEAT)  # tell it at once


def _beat(world: World, batch: Batch, now: float) -> None:
    for supervisor in world.supervisors:
        if now - supervisor.beat >= HEARTBEAT:
            if supervisor.state == "running":
                supervisor.beat = now
            batch.config[f"supervisor:{supervisor.name}"] = supervisor.record(world.chance, now)


# The store


def first_batch(world: World, now: float) -> Batch:
    """The last hour of events, the last day of results, and all that was set up."""
    older = _older_results(world, now)
    world.expires = {
        key: found["expires_at"] for key, found in older.items() if "expires_at" in found
    }
    batch = advance(world, now)
    results = {**older, **batch.results}
    for key in batch.dropped_results:
        del results[key]
    batch.dropped_results = []
    batch.results = dict(sorted(results.items(), key=lambda item: item[1]["saved_at"]))
    for agent in AGENTS:
        batch.agents.setdefault(agent.topic, []).append(agent.record())
        flag = f"_subscription_active:group:{agent.topic}:{agent.name}"
        batch.config[flag] = not agent.paused
    batch.config = {
        "_omnidaemon_start_time": world.start_time,
        "_omnidaemon_runner_id": world.runner_id,
        "_supervisor_registry": list(SUPERVISED),
        **batch.config,
        **CONFIG,
    }
    batch.replace = True
    return batch


def _older_results(world: World, now: float) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    at = now - DAY
    while at < now - HOUR:
        at += world.chance.expovariate(RESULTS_A_MINUTE / 60)
        result = _result(world, world.chance.choice(AGENTS), world.new_id(), at - 1.5, at)
        if result["expires_at"] > now:
            found[result["task_id"]] = result
    for number in range(KEPT_EXPIRED):
        ended = now - DAY - 60 * (number + 1)
        result = _result(world, AGENTS[number], world.new_id(), ended - 1, ended)
        found[result["task_id"]] = {**result, "expires_at": ended + DAY}
    kept = _result(world, AGENTS[0], "quarterly-report-kept", now - 9 * HOUR, now - 9 * HOUR)
    del kept["expires_at"]
    found[kept["task_id"]] = kept
    return found


def _stop(world: World, store: JsonStore) -> None:
    """A clean stop as the runner leaves it behind."""
    last: dict[str, Any] = {f"supervisor:{each.name}": None for each in world.supervisors}
    last |= {"_supervisor_registry": []}
    last |= {"_omnidaemon_start_time": None, "_omnidaemon_runner_id": None}
    store.write_batch(Batch(config=last))


def simulate(directory: str, stop: threading.Event, seed: int, once: bool = False) -> None:
    """Fill the directory with a living store and go on writing it until `stop` is set or the
    process that started us is gone. `once` fills it and leaves the runner looking alive."""
    parent = os.getppid()
    path = os.path.abspath(directory)
    with claimed(path):
        store = JsonStore(StoreURL(scheme="json", backend="json", path=path), as_runner=True)
        _forget_unreadable(store, path)
        now = time.time()
        world = new_world(seed, now)
        store.write_batch(first_batch(world, now))
        if once:
            return
        try:
            while not stop.wait(1.0) and os.getppid() == parent:
                store.write_batch(advance(world, time.time()))
        finally:
            _stop(world, store)


def _forget_unreadable(store: JsonStore, directory: str) -> None:
    """An earlier start may have been cut off by a power failure: sample data is made anew."""
    reads: dict[str, Callable[[], object]] = {
        "agents.json": store.topics,
        "results.json": store.result_facets,
        "metrics.json": lambda: store.metrics_after(None),
        "config.json": store.config_listing,
    }
    for name, read in reads.items():
        try:
            read()
        except StoreError:
            os.unlink(os.path.join(directory, name))
