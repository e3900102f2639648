"""One run at work: its batches, its signs of life, and how it ended."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.db import DatabaseError, close_old_connections, connection

from omnidash import bins
from omnidash.actions import Action, Params, Refused, Work
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.plans import unpack
from omnidash.models import Mark, Plan, Run
from omnidash.progress import Step
from omnidash.roles import Console
from omnidash.runs.interruption import BEAT, DEAD
from omnidash.runs.permission import NotAllowed, require
from omnidash.stores import Entry, registry
from omnidash.text import printable
from storage.base import StoreError
from storage.changes import Change, Names, Target
from storage.records import to_bytes

_SAY = 1.0  # seconds between two notes of progress
_ASK = 0.3  # seconds between two looks whether it is to stop
_UNDONE = 10.0  # seconds after which a runner would have undone a change of its files
_LONGEST = 2000  # characters of a message
_TRIES = 12  # to write an outcome down, a beat apart
_LISTED = 1000  # skipped records that a report names

log = logging.getLogger("omnidash.runs")
stopping = threading.Event()
"""Set when this process is told to end: runs stop after their batch."""


@dataclass(slots=True)
class Execution:
    """One run at work."""

    run: Run
    by: Console | None = None
    """Who executes it here; None: a worker, in the name of the run's user."""
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    named: list[tuple[Names, str]] = field(default_factory=list)
    bytes: int = 0
    largest: int = 0
    """Records of a batch that has begun."""
    work: Work | None = None
    _said: float = 0.0
    _asked: float = 0.0

    def to_the_end(self) -> None:
        for _ in self.watched():
            pass

    def watched(self) -> Iterator[Step]:
        """To the end, too, if it is iterated over to its end."""
        try:
            with _beating(self.run):
                state, message = yield from self._perform()
        except StoreError as error:
            state, message = Run.State.FAILED, f"{_sentence(error)} {self._how_far(unsure=True)}"
        except (NotAllowed, Refused) as error:
            state, message = Run.State.REFUSED, f"{_sentence(error)} {self._how_far()}"
        except Exception:
            log.exception("run %d failed", self.run.pk)
            why = "An unexpected error (see log)"
            state, message = Run.State.FAILED, f"{why}. {self._how_far(unsure=True)}"
        self._end(state, message)

    def _perform(self) -> Generator[Step, None, tuple[Run.State, str]]:
        run = self.run
        if run.plan is None or run.plan.content is None or (run.user is None and self.by is None):
            raise Refused("what it was to change is not known any more")
        action, entry = ACTIONS[run.action], registry()[run.store]
        # As it is now.
        require(self.by or User.objects.get(pk=run.user_id or 0), action, entry)
        if action.alone:
            _refuse_beside(run)
        targets, params = unpack(bytes(run.plan.content)), json.loads(run.plan.params)
        vouched = bool(json.loads(run.params).get("vouched"))
        self.largest = 0 if action.summed else min(entry.store.largest_change, run.total)
        with entry.store.owner_stated_stopped() if vouched else nullcontext():
            if action.kept and bins.too_large(run.plan.bytes):
                raise Refused("it is more than the recycle bin takes (OMNIDASH_BIN_MB)")
            with bins.filled_by(run, entry.store) as box:
                self.work = Work(entry, run, box.keep, run.total)
                yield from self._worked(action, self.work, targets, params, box)
            if vouched and self.done:
                self._look_again(action, entry, params, targets)
        return self._outcome()

    def _worked(
        self, action: Action, work: Work, targets: Sequence[Target], params: Params, box: bins.Box
    ) -> Iterator[Step]:
        performed = action.perform(work, targets, params)
        with closing(performed):  # what it has begun is undone here, not when somebody collects it
            for one in performed:
                self.run.total = work.total
                if isinstance(one, Step):
                    self._note(one)
                    yield one
                else:
                    self._add(one)
                    box.settle(one)
                    yield Step("", self.done + self.skipped.total(), self.run.total)
                if self._is_to_stop():
                    return

    def _add(self, change: Change) -> None:
        self.done += change.done
        self.bytes += change.bytes
        for names, why in change.skipped:
            self.skipped[why] += 1
            if len(self.named) < _LISTED:
                self.named.append((names, why))
        self._note()

    def _note(self, step: Step | None = None) -> None:
        """Progress, for who looks; a run that takes steps is at one of them until its end."""
        if time.monotonic() - self._said < _SAY:
            return
        self._said = time.monotonic()
        seen: dict[str, Any] = self._figures()
        if step is not None:
            report = {"step": [step.what, step.done, step.total]}
            seen |= {"message": f"{step.what} …", "report": json.dumps(report)}
        with _tolerated():
            Run.objects.filter(pk=self.run.pk).update(**seen)

    def _figures(self) -> dict[str, Any]:
        skipped = self.skipped.total()
        return {
            "done": self.done, "skipped": skipped, "bytes": self.bytes, "total": self.run.total,
            "beat_at": time.time(),
        }  # fmt: skip

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
        if self.work is not None and self.work.says:
            return self.work.says
        rest = max(0, self.run.total - self.done - self.skipped.total())
        parts = [f"{self.done:,} of {self.run.total:,} done"]
        parts += [f"{count:,} skipped: {why}" for why, count in self.skipped.most_common()]
        if rest:
            batch = self.largest if unsure else 0
            sure = f"{rest:,} not touched"
            parts.append(f"{sure}, but for up to {min(rest, batch):,} of them" if batch else sure)
        return "; ".join(parts) + "."

    def _look_again(
        self, action: Action, entry: Entry, params: Params, targets: Sequence[Target]
    ) -> None:
        """A runner that works on after all writes what it holds in memory over ours."""
        after = _snapshot(action, entry, params, targets)
        stopping.wait(_UNDONE)
        later = _snapshot(action, entry, params, targets)
        moved = sum(after.get(one) != later.get(one) for one in after.keys() | later.keys())
        if moved:
            raise StoreError(
                f"{moved:,} records changed again within {_UNDONE:.0f} s: an OmniDaemon is at work "
                "here and writes what it holds in memory. Look what is there now"
            )

    def _end(self, state: Run.State, message: str) -> None:
        report: dict[str, Any] = {"skipped": self.skipped, "named": self.named}
        if self.work is not None and self.work.report:
            report["file"] = self.work.report
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
        if self.done and ACTIONS[self.run.action].changes:
            self._mark()
        level = logging.INFO if self.by is None else logging.DEBUG  # who executes it here says it
        log.log(level, "run %d (%s on %s by %s) %s: %s", self.run.pk, self.run.action,
                self.run.store, ascii(self.run.who), state, message)  # fmt: skip

    def _mark(self) -> None:
        """On the time axis of the store's charts."""
        text = f"{ACTIONS[self.run.action].label} by {self.run.who}: {self.done:,} done"
        with _tolerated():
            Mark.objects.create(
                source=registry()[self.run.store].history.source(), at=time.time(),
                kind=Mark.Kind.RUN, subject=b"run %d" % self.run.pk, text=to_bytes(text[:200]),
            )  # fmt: skip


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _refuse_beside(run: Run) -> None:
    """Refused while another such run is at work in the same store; of two that began at once, the
    later one. One whose worker has died is in nobody's way."""
    alone = [name for name, action in ACTIONS.items() if action.alone]
    others = Run.objects.filter(
        store=run.store, action__in=alone, state=Run.State.RUNNING, beat_at__gte=time.time() - DEAD
    ).exclude(pk=run.pk)  # fmt: skip
    for other in others:
        if (other.started_at, other.pk) < (run.started_at, run.pk):
            raise Refused(f"{other.action} of {run.store} is at work (run {other.pk})")


def _snapshot(
    action: Action, entry: Entry, params: Params, targets: Sequence[Target]
) -> dict[tuple[str, Names], str]:
    """Those of the targets that are there, each with its mark; of metrics how many there are."""
    store, named = entry.store, defaultdict(list)
    if action.summed:
        sums = action.look(store, params)
        return {(one.kind, one.names): f"{one.mark} {one.count}" for one in sums}
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
