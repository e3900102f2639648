"""What OmniDaemon would do to a store while somebody looks at it."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

from tests.browser.served import Application
from tests.stores import Backend, JsonBackend, RedisBackend

TOPIC, AGENT = "payments.charge", "payment-processor"


def a_result(backend: Backend, task_id: str = "", seconds_left: float = 86400) -> str:
    """A task has ended: its result is stored."""
    task_id = task_id or f"fresh-{uuid.uuid4()}"
    body: dict[str, Any] = {"task_id": task_id, "topic": TOPIC, "agent": AGENT}
    body |= {"status": "completed", "result": {"ok": True}, "timestamp": time.time()}
    if isinstance(backend, JsonBackend):
        now = time.time()
        record = {"task_id": task_id, "result": body, "saved_at": now}
        stored = backend.read("results.json")
        stored[task_id] = {**record, "expires_at": now + seconds_left}
        backend.write("results.json", stored)
    else:
        backend.open().save_result(task_id, body, int(seconds_left))
    return task_id


def an_agent(backend: Backend, name: str, topic: str = TOPIC) -> None:
    """A runner has registered another agent."""
    agent = {"name": name, "tools": ["t"], "description": "late", "callback_name": "late"}
    agent["config"] = {"consumer_count": 1}  # type: ignore[assignment]
    if isinstance(backend, JsonBackend):
        agents = backend.read("agents.json")
        agents.setdefault(topic, []).append(agent)
        backend.write("agents.json", agents)
    else:
        backend.open().add_agent(topic, agent)


def some_tasks(backend: Backend, count: int = 1, agent: str = AGENT, topic: str = TOPIC) -> None:
    """So many tasks were received and processed in the last whole minutes, which charts show."""
    events: list[dict[str, Any]] = []
    for _ in range(count):
        task = str(uuid.uuid4())
        event = {"topic": topic, "agent": agent, "runner_id": "r", "task_id": task}
        event |= {"timestamp": time.time() - 90, "saved_at": time.time()}
        done = {**event, "event": "task_processed", "processing_time_sec": 0.5}
        events += [{**event, "event": "task_received"}, done]
    backend.put_metrics(events)


def gone(application: Application, backend: Backend) -> None:
    """The store cannot be reached any more."""
    if isinstance(backend, JsonBackend):
        os.rename(backend.folder, backend.folder.with_suffix(".away"))
    else:
        assert isinstance(backend, RedisBackend)
        assert application.redis is not None
        application.redis.stop()


def back(application: Application, backend: Backend) -> None:
    if isinstance(backend, JsonBackend):
        os.rename(backend.folder.with_suffix(".away"), backend.folder)
    else:
        assert isinstance(backend, RedisBackend)
        assert application.redis is not None
        application.redis.start()
        application.redis.load()
