"""Actions of commands: through the same plans and runs, executed by the process that asks."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from filecmp import cmp
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.db import DatabaseError

from omnidash import runs, stores
from omnidash.actions import Params, Refused
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.plans import unpack
from omnidash.backups import BackupError, adopt, drop, path_of, receive
from omnidash.models import Backup, Plan, Run
from omnidash.progress import Step
from omnidash.protection import bad_because
from omnidash.roles import Console
from omnidash.sums import NOUNS
from omnidash.text import printable
from storage.base import StoreError

FAILED, WRONG, NOT_GOOD = 1, 2, 3
"""Exit codes: it failed or was stopped; wrong usage, or refused; a backup is not good."""
ORIGIN = "command"
_EVERY = 0.1  # seconds between two looks of a progress bar
_WIDTH = 30
_CHUNK = 1 << 20
_URL = re.compile("://.*", re.DOTALL)  # to the end: a password may hold anything


class StoreCommand(BaseCommand):
    """One that is told of stores by URLs, which may hold a password, so it repeats none."""

    requires_system_checks: list[str] = []

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        parser = super().create_parser(*args, **options)
        complain = parser.error
        parser.error = lambda message: complain(_URL.sub("://…", message))  # type: ignore[method-assign]
        return parser


def wrong(why: object) -> CommandError:
    return CommandError(str(why), returncode=WRONG)


def entry_of(name: str) -> stores.Entry:
    """A configured store, or the one at a URL."""
    known = stores.registry()
    if name in known:
        return known[name]
    if "://" not in name:
        called = f"store called {name[:100]!a}" if re.fullmatch(r"[\w.-]+", name) else "such store"
        raise wrong(f"there is no {called}; known are {', '.join(known)}")
    try:
        entry = stores.visit(name)
    except ValueError as error:  # its message never repeats the URL
        raise wrong(error) from None
    if entry.store.backend == "json":
        try:
            entry.store.connect()
        except StoreError as error:
            raise wrong(f"{error}: the folder of a store must be there; make it first") from None
    return entry


@contextmanager
def backup_of(named: str, is_kept: bool = False) -> Iterator[Backup]:
    """By its id, its name, or a file. A file that is none of the backups here is received, and
    gone again afterwards unless it `is_kept`. Ends the process if the backup is not good."""
    adopt()
    if (known := _known(named)) is not None:
        with _good(known):
            yield known
        return
    received = _received(named)
    try:
        with _good(received):
            yield received
    finally:
        if not is_kept:
            received.refresh_from_db()
            drop(received)


@contextmanager
def _good(backup: Backup) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        found = Backup.objects.filter(pk=backup.pk).first()
        if error.returncode == FAILED and found is not None and bad_because(found):
            error.returncode = NOT_GOOD
        raise


def _known(named: str) -> Backup | None:
    """One that is here, be it that the file is a copy of it."""
    found = Backup.objects.filter(pk=named).first() or Backup.objects.filter(name=named).first()
    if found is not None:
        return found
    with suppress(OSError):
        alike = Backup.objects.filter(size=os.stat(named).st_size).order_by("made_at")
        return next((one for one in alike if _same(named, path_of(one))), None)
    return None


def _same(one: str, other: str) -> bool:
    """Whether two files hold the same."""
    with suppress(OSError):
        return cmp(one, other, shallow=False)
    return False


def _received(path: str) -> Backup:
    try:
        with open(path, "rb") as file:
            return receive(iter(lambda: file.read(_CHUNK), b""))
    except BackupError as error:
        raise CommandError(str(error), returncode=NOT_GOOD) from None
    except OSError as error:
        shown = f"{_URL.sub('://…', path)[:200]!a} ({error.strerror})"
        raise wrong(f"there is no such backup, and no such file: {shown}") from None


def planned(action: str, entry: stores.Entry, params: Params) -> Plan:
    try:
        return runs.plan(Console(), ACTIONS[action], entry, params)
    except Refused as error:
        raise wrong(error) from None
    except (StoreError, DatabaseError) as error:
        raise CommandError(" ".join(str(error).split()), returncode=FAILED) from None


def performed(plan: Plan) -> Run:
    """The run of the plan, at its end. Ends the process if it was not done."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        run = runs.start(plan, Console(), ORIGIN, queued=False)
    except Refused as error:
        raise wrong(error) from None
    show(runs.execute_here(run, Console()))
    run.refresh_from_db()
    if run.state == Run.State.REFUSED:
        raise wrong(run.message)
    if run.state != Run.State.DONE:
        raise CommandError(run.message or f"the run is {run.state}", returncode=FAILED)
    return run


def changed(
    name: str, entry: stores.Entry, params: Params, options: dict[str, Any], out: OutputWrapper
) -> None:
    """Say what an action would change, ask unless told not to, and do it. A dry run only says it;
    that nobody can be asked is wrong usage."""
    plan = planned(name, entry, params)
    targets = unpack(bytes(plan.content or b""))
    out.write(f"{ACTIONS[name].verb} into {entry.name} ({entry.store.address}):")
    for one in targets:
        said = printable(": ".join([*one.names, *([one.note] if one.note else [])]))
        out.write(f"  {one.count:>10,} {NOUNS[one.kind]:20} {said}")
    if options["dry_run"] or not plan.count:
        out.write(f"{plan.count:,} records would change.")
        return
    if why := entry.store.owner_unproven():
        raise wrong(f"{why}. Stop it cleanly")
    if not options["yes"]:
        if not sys.stdin.isatty():
            raise wrong("say --yes: nobody is there to be asked")
        if input(f"Type the name of the store ({entry.name}) to go on: ").strip() != entry.name:
            raise wrong("nothing was changed")
    out.write(performed(plan).message)


def _stop(number: int, frame: FrameType | None) -> None:
    runs.stopping.set()


def show(steps: Iterable[Step]) -> None:
    """A progress bar, on a terminal only."""
    drawn, said = False, 0.0
    for step in steps:
        if sys.stderr.isatty() and time.monotonic() - said > _EVERY:
            drawn, said = True, time.monotonic()
            sys.stderr.write(f"\r\x1b[K{bar(step)}")
            sys.stderr.flush()
    if drawn:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def bar(step: Step) -> str:
    share = min(1.0, step.done / step.total) if step.total else 0.0
    full = int(share * _WIDTH)
    known = f"{step.done:,} of {step.total:,}" if step.total else f"{step.done:,}"
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%} {step.what} {known}"
