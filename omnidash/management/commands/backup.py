"""Back up stores: for cron, and where no browser is at hand."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from omnidash import backups
from omnidash.foreground import FAILED, StoreCommand, entry_of, performed, planned, show, wrong
from omnidash.stores import registry


class Command(StoreCommand):
    help = "Back up a store, or all of them: write, read back, verify."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("store", nargs="?", help="its name, or a URL")
        parser.add_argument("--all", action="store_true", help="every configured store")
        parser.add_argument(
            "--fetch", action="store_true", help="bring back what only the second destination has"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["fetch"]:
            return self._fetch()
        if bool(options["store"]) == options["all"]:
            raise wrong("name one store, or say --all")
        failed: list[CommandError] = []
        for name in list(registry()) if options["all"] else [options["store"]]:
            entry = entry_of(name)  # its name is never a URL with a password
            try:
                run = performed(planned("back-up", entry, {"unseen": True}))
                self.stdout.write(f"{entry.name}: {run.message}")
            except CommandError as error:  # the others are backed up all the same
                failed.append(error)
                self.stderr.write(f"{entry.name}: {error}")
        if failed:
            told = f"{len(failed)} not backed up"
            raise CommandError(told, returncode=max(one.returncode for one in failed))

    def _fetch(self) -> None:
        try:
            show(backups.fetch_all())
        except backups.BackupError as error:
            raise CommandError(str(error), returncode=FAILED) from None
