"""Run the clock: what `serve` starts beside the pages."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand

from omnidash.clock import run

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command(BaseCommand):
    help = "Read what is new in every store, sample it and prune the history, until told to stop."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        for number in STOP_SIGNALS:
            # As Ctrl-C does: an event that is set in a handler could wait for the thread it
            # interrupts.
            signal.signal(number, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            run(threading.Event())
