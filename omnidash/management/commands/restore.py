"""Restore a backup."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from omnidash.actions.restore import MODES
from omnidash.foreground import StoreCommand, backup_of, changed, entry_of, wrong
from storage.extension import LONGEST


class Command(StoreCommand):
    help = "Restore a backup into a store: all at once or not at all, after a safety backup."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("backup", help="a file, or an id")
        parser.add_argument("store", help="its name, or a URL")
        add_how(parser)
        parser.add_argument(
            "--extend", type=float, default=0.0, metavar="SECONDS", help="results live longer"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["extend"] <= LONGEST:  # never true of NaN
            raise wrong(f"--extend takes from 0 to {LONGEST:.0f} seconds, which is ten years")
        entry = entry_of(options["store"])
        how = {name: options[name] for name in ("mode", "volatile", "extend")}
        with backup_of(options["backup"], is_kept=not options["dry_run"]) as backup:
            params = {"backup": backup.pk, "file": backup.name, **how}
            changed("restore", entry, params, options, self.stdout)


def add_how(parser: CommandParser) -> None:
    """What a restore and a copy are asked."""
    parser.add_argument("--mode", choices=MODES, default="merge", help="merge: the newer wins")
    parser.add_argument(
        "--volatile", action="store_true", help="also what OmniDaemon notes while it runs"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    parser.add_argument("--yes", action="store_true", help="do not ask")
