"""Run the clock: what `serve` starts beside the pages."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from omnidash.clock import run

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK = 1.0  # seconds between looks at whether it is still alive
_LEAVE = 2.0  # seconds that it has to end


class Command(BaseCommand):
    help = "Read what is new in every store, sample it and prune the history, until told to stop."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        # Waited for, not handled: a handler runs wherever the main thread is, where what it raises
        # may be swallowed and what it sets may wait for the thread it interrupts.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        stop = threading.Event()
        clock = threading.Thread(target=run, args=(stop,), name="clock", daemon=True)
        clock.start()
        while clock.is_alive() and not signal.sigtimedwait(STOP_SIGNALS, _LOOK):
            pass
        stop.set()
        clock.join(_LEAVE)
