"""Stores full of records shaped as OmniDaemon's own, filled quickly."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import redis

TOPICS = 50
DAY = 86_400
_PADDING = 120  # brings a result to about 1.1 KB


def agent_name(number: int) -> str:
    return f"agent-{number:05d}"


def topic_of(number: int) -> str:
    return f"topic.{number % TOPICS:02d}"


def agents(number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(topic, registration)."""
    for index in range(number):
        yield (
            topic_of(index),
            {
                "name": agent_name(index),
                "callback_name": f"callback_{index % 17}",
                "tools": ["search", "read_file", f"tool_{index % 40}"],
                "description": f"Agent number {index}, which looks into things. " * 3,
                "config": {"reclaim_idle_ms": 60_000, "dlq_retry_limit": 3, "consumer_count": 2},
            },
        )


def results(number: int, now: float, of_agents: int) -> Iterator[tuple[str, dict[str, Any], int]]:
    """(task id, stored record, seconds left), oldest first: a day's results as a runner saves
    them, the whole message and its outcome."""
    chance = random.Random(1)
    for index in range(number):
        age = DAY * 0.9 * (number - index) / number
        who = index * 7919 % of_agents
        task_id = str(uuid.UUID(int=chance.getrandbits(128)))
        saved_at = now - age
        envelope = {
            "content": {"question": f"What is {index}?", "note": "words " * (_PADDING // 6)},
            "webhook": None,
            "reply_to": None,
            "topic": topic_of(who),
            "task_id": task_id,
            "correlation_id": str(uuid.UUID(int=chance.getrandbits(128))),
            "causation_id": None,
            "source": "bench",
            "delivery_attempts": 1,
            "created_at": saved_at - 1.5,
            "processing_consumer": f"consumer:{agent_name(who)}-1",
            "agent": agent_name(who),
            "runner_id": "b4d7c1de-0000-4000-8000-000000000000",
            "status": "completed",
            "result": {"answer": index, "text": "lorem ipsum " * 25, "parts": [1, 2.5, None]},
            "timestamp": saved_at,
        }
        record = {"task_id": task_id, "result": envelope, "saved_at": saved_at}
        yield task_id, record, max(60, int(DAY - age))


def metrics(number: int, now: float, of_agents: int) -> Iterator[dict[str, Any]]:
    """Events of the last hour, oldest first: every task received, then processed or failed."""
    chance = random.Random(2)
    for index in range(number):
        task = index // 2
        who = task * 7919 % of_agents
        at = now - 3600 * (number - index) / number
        event: dict[str, Any] = {
            "topic": topic_of(who),
            "agent": agent_name(who),
            "runner_id": "b4d7c1de-0000-4000-8000-000000000000",
            "event": "task_received",
            "task_id": f"task-{task}",
            "timestamp": at,
        }
        if index % 2 and task % 20 == 0:
            event |= {"event": "task_failed", "msg_id": None, "error_type": "TimeoutError"}
            event["error"] = f"no answer within {task % 3 + 1} s"
        elif index % 2:
            event |= {"event": "task_processed", "processing_time_sec": chance.expovariate(5)}
        yield event | {"saved_at": at}


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def fill_agents(client: redis.Redis, number: int, now: float, prefix: str = "omni") -> None:
    for batch in batches(agents(number), 1000):
        pipe = client.pipeline(transaction=False)
        for topic, agent in batch:
            flat = {
                **agent,
                "tools": json.dumps(agent["tools"]),
                "config": json.dumps(agent["config"]),
                "topic": topic,
                "created_at": now - 3600,
            }
            pipe.hset(f"{prefix}:agent:{topic}:{agent['name']}", mapping=flat)
            pipe.sadd(f"{prefix}:agents:topic:{topic}", agent["name"])
            pipe.sadd(f"{prefix}:topics", topic)
            flag = f"{prefix}:config:_subscription_active:group:{topic}:{agent['name']}"
            pipe.set(flag, "true")
        pipe.execute()


def fill_results(
    client: redis.Redis, number: int, now: float, of_agents: int, prefix: str = "omni"
) -> None:
    for batch in batches(results(number, now, of_agents), 1000):
        pipe = client.pipeline(transaction=False)
        scores = {}
        for task_id, record, left in batch:
            pipe.set(f"{prefix}:result:{task_id}", json.dumps(record), ex=left)
            scores[task_id] = record["saved_at"] + 0.001
        pipe.zadd(f"{prefix}:results:index", scores)
        pipe.execute()


def fill_metrics(
    client: redis.Redis, number: int, now: float, of_agents: int, prefix: str = "omni"
) -> None:
    for batch in batches(enumerate(metrics(number, now, of_agents)), 1000):
        pipe = client.pipeline(transaction=False)
        for index, event in batch:
            entry = f"{int(event['saved_at'] * 1000)}-{index}"
            pipe.xadd(f"{prefix}:metrics:stream", {"data": json.dumps(event)}, id=entry)
        pipe.execute()


def write_json(folder: Path, now: float, *, of_agents: int = 0, of_results: int = 0) -> None:
    """A JSON store as OmniDaemon leaves it on disk."""
    by_topic: dict[str, list[dict[str, Any]]] = {}
    for topic, agent in agents(of_agents):
        by_topic.setdefault(topic, []).append({**agent, "callback": "<function f at 0x7f00>"})
    stored = {
        task_id: {**record, "expires_at": now + left}
        for task_id, record, left in results(of_results, now, max(of_agents, 18))
    }
    folder.mkdir(parents=True)
    for name, value in {
        "agents": by_topic,
        "results": stored,
        "metrics": [],
        "config": {},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2), "utf-8")
