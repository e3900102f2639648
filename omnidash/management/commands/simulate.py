"""Write the sample store: what `serve` starts where there is no OmniDaemon yet."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

import storage
from storage.simulator import NotASample, simulate


class Command(BaseCommand):
    help = "Write a directory of sample data as a running OmniDaemon would, until told to stop."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dir", help="the directory; by default that of the sample store")
        parser.add_argument("--seed", type=int, default=1, help="the same seed, the same company")
        parser.add_argument("--once", action="store_true", help="fill the directory and end")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        try:
            simulate(options["dir"] or _sample(), stop, options["seed"], options["once"])
        except NotASample as error:
            raise CommandError(str(error)) from None


def _sample() -> str:
    if not settings.OMNIDASH_SAMPLE:
        raise CommandError("no sample store is configured; name a directory with --dir.")
    return storage.parse_url(settings.OMNIDASH_STORES["default"]).path
