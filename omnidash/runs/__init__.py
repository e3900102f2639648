"""Runs: who asked for which change, whether they may, how far it is and how it ended.

The one way to change a store. A run is saved before anything happens; where that fails, nothing
happens. A worker executes it and says every few seconds that it is alive, so that a run whose
worker died is told within half a minute.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence

from django.contrib.auth.models import User
from django.db import transaction
from django_tasks import task

from omnidash.actions import Action, Params, Refused
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.plans import LARGEST, digest_of, pack
from omnidash.models import Plan, Run
from omnidash.progress import Step
from omnidash.roles import Console
from omnidash.runs.execution import Execution, stopping
from omnidash.runs.interruption import BEAT, DEAD, forget_values, is_dead, note_interrupted
from omnidash.runs.permission import NotAllowed, require
from omnidash.stores import Entry, registry
from storage.changes import Target
from storage.garbage import collector_paused

__all__ = [
    "BEAT", "DEAD", "NotAllowed", "Refused", "is_dead", "note_interrupted", "require", "stopping",
]  # fmt: skip

PLANS_KEPT = 3600.0  # seconds that a plan waits to be confirmed
_PLANS_OF_ONE = 20  # plans that one person may leave waiting

# Asking


def plan(user: User | Console, action: Action, entry: Entry, params: Params) -> Plan:
    """Look what the action would do, and keep that to be confirmed. StoreError if the store cannot
    be read."""
    require(user, action, entry)
    with collector_paused(LARGEST):
        targets = action.look(entry.store, params)
        left = sum(one.count for one in targets[LARGEST:])
        return _kept(user, action, entry, params, targets[:LARGEST], left)


def _kept(
    user: User | Console,
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
    owner = user if isinstance(user, User) else None
    mine = waiting.filter(user=owner).order_by("-made_at").values_list("token", flat=True)
    waiting.filter(token__in=list(mine[_PLANS_OF_ONE - 1 :])).delete()
    return Plan.objects.create(
        token=secrets.token_urlsafe(32), user=owner, action=action.name, store=entry.name,
        params=written, made_at=now, left=left,
        count=action.counted(targets),
        bytes=sum(one.size for one in targets), content=content,
        digest=digest_of([action.name.encode(), entry.name.encode(), written.encode(), content]),
    )  # fmt: skip


def forget_plans(now: float) -> int:
    """Those that nobody confirmed in time."""
    return Plan.objects.filter(run=None, made_at__lt=now - PLANS_KEPT).delete()[0]


def start(
    found: Plan,
    user: User | Console,
    origin: str,
    vouched: bool = False,
    undoes: Run | None = None,
    queued: bool = True,
) -> Run:
    """The run of a plan: of a plan that was started already, and of one that asks for the same as
    an unfinished run, that one. Not `queued`: no worker takes it, but who asked executes it.
    NotAllowed, Refused."""
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
            who=user.get_username(), user=found.user, origin=origin, total=found.count,
            digest=found.digest, undoes=undoes, created_at=time.time(),
        )  # fmt: skip
        if queued:
            run.task = str(execute.enqueue(run.pk).id)
            run.save(update_fields=["task"])
    return run


def ask_to_stop(run: Run, who: str) -> None:
    """It ends after its present batch; one that has not begun never will."""
    Run.objects.filter(pk=run.pk, state__in=Run.UNFINISHED).update(stop_asked=who)
    Run.objects.filter(pk=run.pk, state=Run.State.QUEUED).update(
        state=Run.State.CANCELLED, ended_at=time.time(), message="Stopped before it began."
    )
    forget_values()


# Executing


@task(queue_name="runs")
def execute(run_id: int) -> None:
    """Called by a worker. A run is executed once at most, whoever calls."""
    if execution := _taken(run_id):
        execution.to_the_end()


def execute_here(run: Run, user: Console) -> Iterator[Step]:
    """The run of a command, by the process that asked for it; yields how far it is."""
    if execution := _taken(run.pk, user):
        yield from execution.watched()
    run.refresh_from_db()


def _taken(run_id: int, user: Console | None = None) -> Execution | None:
    worker = f"{socket.gethostname()[:60]} {os.getpid()}"
    now = time.time()
    mine = Run.objects.filter(pk=run_id, state=Run.State.QUEUED).update(
        state=Run.State.RUNNING, started_at=now, beat_at=now, worker=worker
    )
    if not mine:
        return None
    return Execution(Run.objects.select_related("plan", "user").get(pk=run_id), user)
