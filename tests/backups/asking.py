"""Actions of backups as somebody asks for them, to their end."""

from __future__ import annotations

from typing import Any

from conftest import make_user
from django.contrib.auth.models import User

from omnidash import runs
from omnidash.actions.catalogue import ACTIONS
from omnidash.models import Backup, Run
from omnidash.stores import registry
from storage.base import Store
from tests.stores import settled


def administrator() -> User:
    found = User.objects.filter(username="administrator").first()
    return found or make_user("administrator")


def started(name: str, store: str = "prod", user: User | None = None, **params: Any) -> Run:
    who = user or administrator()
    plan = runs.plan(who, ACTIONS[name], registry()[store], params)
    return runs.start(plan, who, "")


def finished(run: Run) -> Run:
    runs.execute.call(run.pk)
    run.refresh_from_db()
    return run


def did(name: str, store: str = "prod", user: User | None = None, **params: Any) -> Run:
    """The run at its end, done."""
    run = finished(started(name, store, user, **params))
    assert run.state == "done", run.message
    return run


def backed_up(store: str = "prod") -> Backup:
    run = did("back-up", store)
    return Backup.objects.get(run=run)


def restored(backup: Backup, store: str = "prod", mode: str = "replace") -> Run:
    return did("restore", store, backup=backup.pk, mode=mode, volatile=True)


def fill(store: Store, count: int = 5) -> list[str]:
    ids = [f"task-{number}" for number in range(count)]
    for task_id in ids:
        store.save_result(task_id, {"agent": "a", "topic": "t"}, 3600)
    for name in ("a", "b"):
        store.add_agent("t", {"name": name})
    store.save_config("mine", {"x": 1})
    store.save_metric({"event": "task_received", "topic": "t", "agent": "a", "task_id": "1"})
    settled(store)
    return ids
