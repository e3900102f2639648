"""Processes that read a store into one database, at once, and to be killed at any moment.

`python -m tests.history.forks` is loaded once and forks for each of them, because starting a
hundred would take minutes. It takes a JSON object a line and answers with how each process ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class Forks:
    """Readers of a store, their database in a folder or in a PostgreSQL."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.history.forks"],
            cwd=ROOT,
            env={**os.environ, "OMNIDASH_DATA_DIR": str(folder), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.run(migrate=True) == [0]

    def start(self, **order: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def ended(self) -> list[int]:
        """The exit status of each process that was started last; -9 was killed."""
        assert self.process.stdout is not None
        found: list[int] = json.loads(self.process.stdout.readline())
        return found

    def run(self, **order: Any) -> list[int]:
        """`url`: the store to read. `count`: by how many at once. `at_once`: events in a batch.
        `die_at`: each kills itself before so many statements. `kill_after`: seconds after which
        each is killed. `until`: read again and again, and once more when this file is there."""
        self.start(**order)
        return self.ended()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        children = [_fork(order) for _ in range(order.get("count", 1))]
        if "kill_after" in order:
            time.sleep(order["kill_after"])
            for child in children:
                os.kill(child, signal.SIGKILL)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(ended), flush=True)


def _fork(order: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _work(**order)
        status = 0
    finally:
        os._exit(status)


def _work(
    url: str = "",
    migrate: bool = False,
    at_once: int = 1000,
    die_at: int | None = None,
    until: str = "",
    **_: Any,
) -> None:
    from django.core.management import call_command
    from django.db import connection

    import omnidash.history as history_module
    from storage import open_store
    from tests.history.readers import read_now

    if migrate:
        call_command("migrate", verbosity=0)
        return
    history_module._BATCH = at_once
    history = history_module.History(open_store(url))
    if die_at is not None:
        _die_at(connection, die_at)
    while until and not Path(until).exists():
        read_now(history)
    read_now(history)


def _die_at(connection: Any, place: int) -> None:
    """Count statements, and before and after each commit; die at one of them."""
    left = place

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(execute: Callable[..., Any], *arguments: Any) -> Any:
        count()
        return execute(*arguments)

    commit = connection._commit

    def counted_commit() -> Any:
        count()
        found = commit()
        count()
        return found

    connection.execute_wrappers.append(statement)
    connection._commit = counted_commit


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "omnidash.settings"
    import django

    django.setup()
    # So that no process has to import it.
    import storage.json_store.store
    import storage.redis_store  # noqa: F401

    _serve()
