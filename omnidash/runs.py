"""Runs: who asked for which change, whether they may, how far it is and how it ended.

The one way to change a store. A run is saved before anything happens; where that fails, nothing
happens. A worker executes it and says every few seconds that it is alive, so that a run whose
worker died is told within half a minute.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, close_old_connections, connection, transaction
from django_tasks import task
from django_tasks_db.models import DBTaskResult

from omnidash import bins, roles
from omnidash.actions import Action, Params
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.plans import LARGEST, digest_of, pack, unpack
from omnidash.models import Mark, Plan, Run
from omnidash.stores import Entry, registry
from omnidash.text import printable
from storage.base import StoreError
from storage.changes import Change, Names, Target
from storage.records import to_bytes

BEAT = 5.0  # seconds between two signs of life of a worker
DEAD = 25.0  # seconds without one after which a run counts as interrupted
_SAY = 1.0  # seconds between two notes of progress
_ASK = 0.3  # seconds between two looks whether it is to stop
_UNDONE = 10.0  # seconds after which a runner would have undone a change of its files
PLANS_KEPT = 3600.0  # seconds that a plan waits to be confirmed
_PLANS_OF_ONE = 20  # plans that one person may leave waiting
_LONGEST = 2000  # characters of a message
_TRIES = 12  # to write an outcome down, a beat apart
_LISTED = 1000  # skipped records that a report names

log = logging.getLogger("omnidash.runs")
stopping = threading.Event()
"""Set when this process is told to end: runs stop after their batch."""


class NotAllowed(PermissionDenied):
    """The message says what is missing."""


class Refused(Exception):
    """Cannot be done now, and why; nothing happened."""


# Asking


def require(user: Any, action: Action, entry: Entry) -> None:
    """NotAllowed where the person may not; Refused where nobody may."""
    if not user.is_active or not user.has_perm(f"omnidash.{action.permission}"):
        raise NotAllowed(roles.reserved(action.label, action.permission))
    if entry.read_only:
        raise Refused(f"{entry.name} is read-only: {entry.read_only}")


def plan(user: User, action: Action, entry: Entry, params: Params) -> Plan:
    """Look what the action would do, and keep that to be confirmed. StoreError if the store cannot
    be read."""
    require(user, action, entry)
    targets = action.look(entry.store, params)
    left = sum(one.count for one in targets[LARGEST:])
    return _kept(user, action, entry, params, targets[:LARGEST], left)


def _kept(
    user: User,
    action: Action,
    entry: Entry,
    params: Params,
    targets: Sequence[Target],
    left: int,
) -> Plan:
    content, written = pack(targets), json.dumps(params)
    now = time.time()
    forget_plans(now)
    waiting = Plan.objects.filter(run=None)
    mine = waiting.filter(user=user).order_by("-made_at").values_list("token", flat=True)
    waiting.filter(token__in=list(mine[_PLANS_OF_ONE - 1 :])).delete()
    return Plan.objects.create(
        token=secrets.token_urlsafe(32), user=user, action=action.name, store=entry.name,
        params=written, made_at=now, left=left,
        count=1 if action.name == "set-config" else sum(one.count for one in targets),
        bytes=sum(one.size for one in targets), content=content,
        digest=digest_of([action.name.encode(), entry.name.encode(), written.encode(), content]),
    )  # fmt: skip


def forget_plans(now: float) -> int:
    """Those that nobody confirmed in time."""
    return Plan.objects.filter(run=None, made_at__lt=now - PLANS_KEPT).delete()[0]


def start(
    found: Plan, user: User, origin: str, vouched: bool = False, undoes: Run | None = None
) -> Run:
    """The run of a plan: of a plan that was started already, and of one that asks for the same as
    an unfinished run, that one. NotAllowed, Refused."""
    action, entry = ACTIONS[found.action], registry()[found.store]
    require(user, action, entry)
    params = json.loads(found.params)
    with transaction.atomic():
        # Held by one at a time, so that two who confirm at once meet the same run.
        same = Plan.objects.select_for_update().filter(digest=found.digest).order_by("pk")
        list(same.values_list("pk", flat=True))
        known = Run.objects.filter(plan=found).first() or Run.objects.filter(
            digest=bytes(found.digest), state__in=Run.UNFINISHED
        ).first()  # fmt: skip
        if known:
            return known
        run = Run.objects.create(
            plan=found, action=action.name, store=entry.name, address=entry.store.address,
            params=json.dumps({**action.logged(params), **({"vouched": True} if vouched else {})}),
            who=user.get_username(), user=user, origin=origin, total=found.count,
            digest=found.digest, undoes=undoes, created_at=time.time(),
        )  # fmt: skip
        run.task = str(execute.enqueue(run.pk).id)
        run.save(update_fields=["task"])
    return run


def ask_to_stop(run: Run, who: str) -> None:
    """It ends after its present batch; one that has not begun never will."""
    Run.objects.filter(pk=run.pk, state__in=Run.UNFINISHED).update(stop_asked=who)
    Run.objects.filter(pk=run.pk, state=Run.State.QUEUED).update(
        state=Run.State.CANCELLED, ended_at=time.time(), message="Stopped before it began."
    )


def is_dead(run: Run, now: float) -> bool:
    """Whether its worker has died, noted or not yet."""
    return run.state == Run.State.RUNNING and (run.beat_at or 0.0) < now - DEAD


def note_interrupted(now: float) -> int:
    """Runs whose worker has died, at work or before it began. What they did is counted anew by
    what they kept in the bin, since progress is only noted once a second."""
    noted = 0
    dead = Run.objects.filter(state=Run.State.RUNNING, beat_at__lt=now - DEAD)
    for run in dead.defer("report"):
        kept = bins.settled(run.bin) if run.bin else None
        done = run.done if kept is None else max(run.done, kept)
        told = (
            f"Its worker ended in the middle. {done:,} of {run.total:,} done"
            f"{'' if kept is None else ' by the recycle bin'}; a batch more may have been. "
            "Run it again to do the rest."
        )
        noted += dead.filter(pk=run.pk).update(
            state=Run.State.INTERRUPTED, ended_at=now, done=done, message=told
        )
    return noted + _never_begun(now)


def _never_begun(now: float) -> int:
    """A worker that dies between taking a task and beginning its run leaves it queued."""
    queued = Run.objects.filter(state=Run.State.QUEUED, created_at__lt=now - DEAD).exclude(task="")
    noted = 0
    for run in queued.only("task"):
        task = DBTaskResult.objects.filter(pk=run.task).first()
        taken = task is None or (task.started_at and task.started_at.timestamp() < now - DEAD)
        if taken:
            noted += queued.filter(pk=run.pk).update(
                state=Run.State.INTERRUPTED, ended_at=now,
                message="Its worker ended before it began; nothing was done. Run it again.",
            )  # fmt: skip
    return noted


# Executing


@task(queue_name="runs")
def execute(run_id: int) -> None:
    """Called by a worker. A run is executed once at most, whoever calls."""
    worker = f"{socket.gethostname()[:60]} {os.getpid()}"
    now = time.time()
    mine = Run.objects.filter(pk=run_id, state=Run.State.QUEUED).update(
        state=Run.State.RUNNING, started_at=now, beat_at=now, worker=worker
    )
    if mine:
        run = Run.objects.select_related("plan", "user").get(pk=run_id)
        Execution(run).to_the_end()


@dataclass(slots=True)
class Execution:
    """One run at work."""

    run: Run
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    named: list[tuple[Names, str]] = field(default_factory=list)
    bytes: int = 0
    largest: int = 0
    """Records of a batch that has begun."""
    _said: float = 0.0
    _asked: float = 0.0

    def to_the_end(self) -> None:
        try:
            with _beating(self.run):
                state, message = self._perform()
        except StoreError as error:
            state, message = Run.State.FAILED, f"{error}. {self._how_far(unsure=True)}"
        except (NotAllowed, Refused) as error:
            state, message = Run.State.REFUSED, f"{error}. {self._how_far()}"
        except Exception:
            log.exception("run %d failed", self.run.pk)
            why = "An unexpected error (see log)"
            state, message = Run.State.FAILED, f"{why}. {self._how_far(unsure=True)}"
        self._end(state, message)

    def _perform(self) -> tuple[Run.State, str]:
        run = self.run
        if run.plan is None or run.plan.content is None or run.user is None:
            raise Refused("what it was to change is not known any more")
        action, entry = ACTIONS[run.action], registry()[run.store]
        require(User.objects.get(pk=run.user.pk), action, entry)  # as it is now
        targets, params = unpack(bytes(run.plan.content)), json.loads(run.plan.params)
        vouched = bool(json.loads(run.params).get("vouched"))
        self.largest = min(entry.store.largest_change, run.total)
        with entry.store.owner_stated_stopped() if vouched else _nothing():
            if action.kept and bins.too_large(run.plan.bytes):
                raise Refused("it is more than the recycle bin takes (OMNIDASH_BIN_MB)")
            with bins.filled_by(run, entry.store) as box:
                for change in action.perform(entry.store, targets, params, box.keep):
                    self._add(change)
                    box.settle(change)
                    if self._is_to_stop():
                        break
            if vouched and self.done:
                self._look_again(entry, targets)
        return self._outcome()

    def _add(self, change: Change) -> None:
        self.done += change.done
        self.bytes += change.bytes
        for names, why in change.skipped:
            self.skipped[why] += 1
            if len(self.named) < _LISTED:
                self.named.append((names, why))
        if time.monotonic() - self._said >= _SAY:
            self._said = time.monotonic()
            with _tolerated():
                Run.objects.filter(pk=self.run.pk).update(**self._figures())

    def _figures(self) -> dict[str, Any]:
        skipped = self.skipped.total()
        return {"done": self.done, "skipped": skipped, "bytes": self.bytes, "beat_at": time.time()}

    def _is_to_stop(self) -> bool:
        if stopping.is_set():
            return True
        if time.monotonic() - self._asked < _ASK:
            return False
        self._asked = time.monotonic()
        with _tolerated():
            self.run.refresh_from_db(fields=["stop_asked", "state"])
        # Declared dead, for this process was held up: who reads that may have asked for it again.
        return bool(self.run.stop_asked) or self.run.state != Run.State.RUNNING

    def _outcome(self) -> tuple[Run.State, str]:
        rest = self.run.total - self.done - self.skipped.total()
        if rest <= 0:
            return Run.State.DONE, self._how_far()
        if self.run.stop_asked:
            return Run.State.CANCELLED, f"Stopped by {self.run.stop_asked}. {self._how_far()}"
        if stopping.is_set():
            return Run.State.INTERRUPTED, f"Its worker was stopped. {self._how_far()}"
        if self.run.state != Run.State.RUNNING:
            return Run.State.INTERRUPTED, f"Its worker was held up. {self._how_far()}"
        return Run.State.DONE, self._how_far()

    def _how_far(self, unsure: bool = False) -> str:
        """`unsure`: of the batch at which it ended nobody can tell."""
        rest = max(0, self.run.total - self.done - self.skipped.total())
        parts = [f"{self.done:,} of {self.run.total:,} done"]
        parts += [f"{count:,} skipped: {why}" for why, count in self.skipped.most_common()]
        if rest:
            batch = self.largest if unsure else 0
            sure = f"{rest:,} not touched"
            parts.append(f"{sure}, but for up to {min(rest, batch):,} of them" if batch else sure)
        return "; ".join(parts) + "."

    def _look_again(self, entry: Entry, targets: Sequence[Target]) -> None:
        """A runner that works on after all writes what it holds in memory over ours."""
        after = _snapshot(entry, targets)
        stopping.wait(_UNDONE)
        later = _snapshot(entry, targets)
        moved = sum(after.get(one) != later.get(one) for one in after.keys() | later.keys())
        if moved:
            raise StoreError(
                f"{moved:,} records changed again within {_UNDONE:.0f} s: an OmniDaemon is at work "
                "here and writes what it holds in memory. Look what is there now"
            )

    def _end(self, state: Run.State, message: str) -> None:
        report = {"skipped": self.skipped, "named": self.named}
        message = printable(message)[:_LONGEST]  # a store's words may hold what no database takes
        mine = Run.objects.filter(pk=self.run.pk, worker=self.run.worker)
        ending = mine.filter(state__in=(Run.State.RUNNING, Run.State.INTERRUPTED))
        for _ in range(_TRIES):  # what was done is done, and has to be written down
            with _tolerated():
                ending.update(
                    **self._figures(), state=state, message=message, ended_at=time.time(),
                    report=json.dumps(report),
                )  # fmt: skip
                break
            stopping.wait(BEAT)
        with _tolerated():  # a value of configuration is kept no longer than it is needed
            Plan.objects.filter(pk=self.run.plan_id).update(params=self.run.params)
        if self.done:
            self._mark()
        log.info("run %d (%s on %s by %s) %s: %s", self.run.pk, self.run.action, self.run.store,
                 ascii(self.run.who), state, message)  # fmt: skip

    def _mark(self) -> None:
        """On the time axis of the store's charts."""
        text = f"{ACTIONS[self.run.action].label} by {self.run.who}: {self.done:,} done"
        with _tolerated():
            Mark.objects.create(
                source=registry()[self.run.store].history.source(), at=time.time(),
                kind=Mark.Kind.RUN, subject=b"run %d" % self.run.pk, text=to_bytes(text[:200]),
            )  # fmt: skip


def _snapshot(entry: Entry, targets: Sequence[Target]) -> dict[tuple[str, Names], str]:
    """Those of the targets that are there, each with its mark; of metrics how many there are."""
    store, named = entry.store, defaultdict(list)
    for one in targets:
        named[one.kind].append(one.names)
    found = [
        *store.agent_targets([(names[0], names[1]) for names in named["agent"]]),
        *store.result_targets(task_ids=[names[0] for names in named["result"]]),
        *store.config_targets([names[0] for names in named["config"]]),
    ]
    marks: dict[tuple[str, Names], str] = {(one.kind, one.names): one.mark for one in found}
    if "metrics" in named:
        stored = sum(one.count for one in store.metric_targets())
        marks["metrics", ()] = str(stored)
    return marks


@contextmanager
def _tolerated() -> Iterator[None]:
    """Our own database does not answer, or is locked: the next time it may. What is being done to
    the store goes on meanwhile."""
    try:
        yield
    except DatabaseError as error:
        log.warning("the database cannot be used: %s", " ".join(str(error).split()))
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _beating(run: Run) -> Iterator[None]:
    """Signs of life from a thread of its own, since one batch may take long."""
    over = threading.Event()

    def beat() -> None:
        try:
            while not over.wait(BEAT):
                with _tolerated():
                    Run.objects.filter(pk=run.pk).update(beat_at=time.time())
                close_old_connections()
        finally:
            connection.close()

    thread = threading.Thread(target=beat, name=f"run-{run.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
