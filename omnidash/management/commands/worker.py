"""Run a worker: it executes the runs that people and schedules have asked for."""

from __future__ import annotations

import logging
import time
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError, connection
from django.utils.crypto import get_random_string
from django_tasks_db.management.commands.db_worker import Worker
from django_tasks_db.models import DBTaskResult

from omnidash import runs

_LOOK = 0.5  # seconds between two looks for something to do
_AWAY = 2.0  # seconds before a database that is away is asked again

log = logging.getLogger("omnidash.worker")


class _Worker(Worker):
    """Django-tasks' worker, which lets a run come to the end of its batch when it is to end."""

    def run(self) -> None:
        """Without its database it waits for it, and says so once."""
        said = False
        while self.running:
            try:
                super().run()
                return
            except (DatabaseError, InterfaceError) as error:
                if not said:
                    log.warning("the database cannot be used: %s", " ".join(str(error).split()))
                said = True
                connection.close()
                time.sleep(_AWAY)

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
