"""Copy a store into another one."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from omnidash.foreground import StoreCommand, changed, entry_of, wrong
from omnidash.management.commands.restore import add_how


class Command(StoreCommand):
    help = "Copy a store into another one, of any kind: all at once or not at all."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("origin", metavar="from", help="a store's name, or a URL")
        parser.add_argument("target", metavar="to", help="a store's name, or a URL")
        add_how(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        origin, target = entry_of(options["origin"]), entry_of(options["target"])
        if origin.store.address == target.store.address:
            raise wrong("a store is not copied into itself")
        params = {"from": origin.name, "mode": options["mode"], "volatile": options["volatile"]}
        changed("copy-store", target, params, options, self.stdout)
