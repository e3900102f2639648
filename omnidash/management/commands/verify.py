"""Verify a backup."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from omnidash.foreground import StoreCommand, backup_of, performed, planned
from omnidash.stores import registry


class Command(StoreCommand):
    help = "Check a backup's file; with --trial restore it beside a store and compare all records."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("backup", help="a file, or an id")
        parser.add_argument("--trial", action="store_true", help="restore it for trial, too")

    def handle(self, *args: Any, **options: Any) -> None:
        entries = registry()
        with backup_of(options["backup"]) as backup:
            entry = entries.get(backup.store) or next(iter(entries.values()))
            level = "trial" if options["trial"] else "file"
            params = {"backup": backup.pk, "file": backup.name, "level": level}
            self.stdout.write(performed(planned("verify-backup", entry, params)).message)
