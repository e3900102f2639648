"""Runs whose worker has died: noticed, and told what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable

from django.db.models import OuterRef, Subquery
from django_tasks_db.models import DBTaskResult

from omnidash import bins
from omnidash.actions import NOT_YET
from omnidash.actions.catalogue import ACTIONS
from omnidash.models import Plan, Run
from omnidash.stores import registry
from storage.base import Store, StoreError

BEAT = 5.0  # seconds between two signs of life of a worker
DEAD = 25.0  # seconds without one after which a run counts as interrupted
_WAITS = 86_400.0  # seconds that a store which does not answer has to say what became of it


def is_dead(run: Run, now: float) -> bool:
    """Whether its worker has died, noted or not yet."""
    return run.state == Run.State.RUNNING and (run.beat_at or 0.0) < now - DEAD


def note_interrupted(now: float) -> int:
    """Runs whose worker has died, at work or before it began, and those that ended without knowing
    what became of their change."""
    noted = 0
    dead = Run.objects.filter(state=Run.State.RUNNING, beat_at__lt=now - DEAD)
    for run in dead.defer("report"):
        action = ACTIONS.get(run.action)
        if action is not None and action.interrupted is not None:
            done, told = run.done, _became(run, action.interrupted, now)
        else:
            done, told = _counted(run)
        if told:
            noted += dead.filter(pk=run.pk).update(
                state=Run.State.INTERRUPTED, ended_at=now, done=done,
                message=f"Its worker ended in the middle. {told}", report="{}",
            )  # fmt: skip
    noted += _never_begun(now) + _not_known_yet(now)
    forget_values()
    return noted


def forget_values() -> None:
    """A value of configuration may be a secret: a plan keeps it until its run has ended, in
    whatever way, and no longer. Then it asks for what the log may hold."""
    logged = Run.objects.filter(plan=OuterRef("pk")).values("params")[:1]
    ended = Plan.objects.filter(action="set-config", params__contains='"text"', run__isnull=False)
    ended.exclude(run__state__in=Run.UNFINISHED).update(params=Subquery(logged))


def _became(run: Run, interrupted: Callable[[Store, str], str], now: float) -> str:
    """Empty as long as the store may still tell it."""
    token = json.loads(run.params).get("token")
    if token is None:
        return "It had not begun to change anything."
    entry = registry().get(run.store)
    if entry is None or entry.store.address != run.address:
        return "What became of it cannot be told: its store is not configured any more."
    try:
        return interrupted(entry.store, token)
    except StoreError as error:
        if (run.beat_at or 0.0) > now - _WAITS:
            return ""
        return f"What became of it cannot be told: {error}."


def _counted(run: Run) -> tuple[int, str]:
    """Anew by what is kept in the bin, since progress is only noted once a second."""
    kept = bins.settled(run.bin) if run.bin else None
    done = run.done if kept is None else max(run.done, kept)
    so_far = f"{done:,} of {run.total:,} done"
    if kept is not None:
        so_far += " by the recycle bin; a batch more may have been"
    else:
        so_far += " when it last said so; more may have been"
    rest = "Run it again to do the rest"
    if run.action == "extend-results" and json.loads(run.params).get("more"):
        rest = "Look which results were not reached before any of them is to live longer again"
    return done, f"{so_far}. {rest}."


def _not_known_yet(now: float) -> int:
    """Their store was lost in the middle of the change, and may answer again."""
    ended = Run.objects.filter(state=Run.State.FAILED, ended_at__gte=now - 2 * _WAITS)
    noted = 0
    for run in ended.filter(message__contains=NOT_YET).defer("report"):
        action = ACTIONS.get(run.action)
        if action is None or action.interrupted is None:
            continue
        if told := _became(run, action.interrupted, now):
            noted += ended.filter(pk=run.pk).update(message=run.message.replace(NOT_YET, told))
    return noted


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
