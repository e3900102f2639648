"""Run a worker: it executes the runs that people and schedules have asked for."""

from __future__ import annotations

from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.crypto import get_random_string
from django_tasks_db.management.commands.db_worker import Worker
from django_tasks_db.models import DBTaskResult

from omnidash import runs

_LOOK = 0.5  # seconds between two looks for something to do


class _Worker(Worker):
    """Django-tasks' worker, which lets a run come to the end of its batch when it is to end."""

    def shutdown(self, signum: int, frame: FrameType | None) -> None:
        runs.stopping.set()
        super().shutdown(signum, frame)

    def run_task(self, db_task_result: DBTaskResult) -> None:
        super().run_task(db_task_result)
        db_task_result.delete()  # the run tells all that there is to know


class Command(BaseCommand):
    help = "Execute the runs that were asked for, until told to stop. Several may run at once."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        worker = _Worker(
            queue_names=["runs"], interval=_LOOK, batch=False, backend_name="default",
            startup_delay=False, max_tasks=None, worker_id=get_random_string(32),
            excluded_queue_names=[],
        )  # fmt: skip
        worker.configure_signals()
        worker.run()
