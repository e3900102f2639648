"""What was tried and not allowed: an entry of the log of runs, and a line of the server's log with
the same fields in the same order."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.db import DatabaseError
from django.db.models import Count, QuerySet
from django.dispatch import receiver
from django.http import HttpRequest

from omnidash.models import Run

logger = logging.getLogger(__name__)

LOGIN, CONFIRM = "log-in", "confirm-password"
KINDS = {
    LOGIN: "Log in",
    CONFIRM: "Confirm the own password",
    "csrf": "Send a form without its token",
    "origin": "Send a form from another site",
    "permission": "See a page",
    "view-runs": "See the runs",
    "stop-run": "Stop a run",
    "edit-schedules": "Change schedules",
    "download-backup": "Download a backup",
    "upload-backup": "Upload a backup",
    "forget-backup": "Let go of a backup by retention",
}
"""Entries that are of no action, and what was done or tried."""
KEPT = 10_000  # log-ins that failed, and as many other refusals: anybody can cause the first
KEPT_OF_ONE = 1_000  # of one name, so that nobody pushes out what others did
_LONGEST = 150  # characters of a value


def refused(request: HttpRequest, what: str, why: str = "") -> None:
    """Somebody who is logged in was refused: `what` is an action, or `permission`, `csrf` or
    `origin`. Whoever is not logged in is not noted: anybody could fill the log."""
    user = _user(request)
    if user is not None:
        entry = getattr(request, "entry", None)
        path = ascii(request.path[:_LONGEST])[1:-1]
        told = f"{why or 'refused'} ({request.method} {path})"
        note(user, what, entry.name if entry else "", _address(request), told)


def failed_login(username: str, address: str) -> None:
    """A password was wrong at the login; `username` is empty unless there is such a user: what was
    typed there may be a password."""
    note(username, LOGIN, "", address, "the password was wrong, or there is no such user")


def note(user: User | str, what: str, store: str, origin: str, why: str) -> None:
    who = user if isinstance(user, str) else user.get_username()
    # As JSON strings, in ASCII: nothing in a value can forge a field, a line or an order.
    fields = {"what": what, "user": who, "store": store, "address": origin, "why": why}
    told = " ".join(f"{name}={json.dumps(value[:_LONGEST])}" for name, value in fields.items())
    logger.warning("refused %s", told)
    now = time.time()
    try:
        Run.objects.create(
            action=what[:40], store=store[:100], state=Run.State.REFUSED, message=why[:1000],
            who=who[:150], user=None if isinstance(user, str) else user,
            origin=origin[:64], created_at=now, ended_at=now,
        )  # fmt: skip
    except DatabaseError:  # the refusal stands; the server's log has it
        logger.exception("a refusal could not be written down")


def prune() -> Iterator[int]:
    """Drop the oldest refusals beyond those that are kept; runs are kept for ever. Log-ins are
    counted by themselves: a stranger tries them under any name."""
    refusals = Run.objects.filter(state=Run.State.REFUSED, plan=None, started_at=None)
    for some in (refusals.filter(action=LOGIN), refusals.exclude(action=LOGIN)):
        counted = some.order_by().values_list("who").annotate(count=Count("pk"))
        for who, _ in list(counted.filter(count__gt=KEPT_OF_ONE)):
            yield from _beyond(some.filter(who=who), KEPT_OF_ONE)
        yield from _beyond(some, KEPT)


def _beyond(refusals: QuerySet[Run], kept: int) -> Iterator[int]:
    newest = refusals.order_by("-pk").values_list("pk", flat=True)
    limit = newest[kept : kept + 1].first()
    if limit is not None:
        yield refusals.filter(pk__lte=limit).delete()[0]


@receiver(user_login_failed)
def _login_failed(
    credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any
) -> None:
    user = _user(request) if request else None
    if user is not None and request:  # who is logged in comes by no login any more
        note(user, CONFIRM, "", _address(request), "the password was wrong where it is asked again")
        return
    name = str(credentials.get("username") or "")[:_LONGEST].replace("\0", "")
    known = User.objects.filter(username=name).exists()
    failed_login(name if known else "", _address(request) if request else "")


def _user(request: HttpRequest) -> User | None:
    try:
        user = getattr(request, "user", None)
        return user if isinstance(user, User) or getattr(user, "is_authenticated", False) else None
    except DatabaseError:  # who asks is not known, and the refusal stands
        return None


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))
