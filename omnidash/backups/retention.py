"""Which backups stay: the newest, and one of each of the last days, weeks and months."""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from django.conf import settings

from omnidash.backups.folder import BackupError, drop, good, last_good, newest
from omnidash.keeping import Keep
from omnidash.models import Backup, Run
from omnidash.stores import registry

_OURS = (
    Backup.Reason.ASKED, Backup.Reason.SCHEDULE, Backup.Reason.SAFETY, Backup.Reason.COPY,
)  # fmt: skip

_SETTING = "OMNIDASH_BACKUP_KEEP"
log = logging.getLogger("omnidash.backups")
_PERIODS: dict[str, Callable[[datetime.date], object]] = {
    "daily": lambda day: day,
    "weekly": lambda day: day.isocalendar()[:2],
    "monthly": lambda day: (day.year, day.month),
}


def chosen(moments: Sequence[float], keep: Keep) -> set[float]:
    """Those that stay of these (Unix seconds), by days in UTC: the newest of each period, counted
    in periods that have one. The newest of all always stays."""
    ordered = sorted(moments, reverse=True)
    stay = set(ordered[: max(1, keep.last)])
    for name, period_of in _PERIODS.items():
        seen: set[object] = set()
        for moment in ordered:
            period = period_of(datetime.datetime.fromtimestamp(moment, datetime.UTC).date())
            if period not in seen and len(seen) < getattr(keep, name):
                seen.add(period)
                stay.add(moment)
    return stay


def retention(store: str, keep: Keep) -> list[Backup]:
    """Those of a store that may go, oldest first. Only good ones that were made here: others are
    for somebody to look at. None while the newest is not good. Neither the last good one nor the
    newest that a trial restore proved."""
    last, last_one = newest(store), last_good(store)
    found = list(good().filter(store=store, reason__in=_OURS))
    if not keep or not found or last is None or last.checked != Backup.State.GOOD:
        return []
    stay = chosen([one.made_at for one in found], keep)
    proven = next((one for one in found if one.tried == Backup.State.GOOD), None)
    worth = {one.pk for one in (last_one, proven) if one is not None}
    used = "\n".join(Run.objects.filter(state__in=Run.UNFINISHED).values_list("params", flat=True))
    return [
        one for one in reversed(found)
        if one.made_at not in stay and one.pk not in worth and one.pk not in used
    ]  # fmt: skip


def retain() -> Iterator[int]:
    """Let go of what the settings do not keep, at the second destination too; one by one."""
    for name in registry():
        for backup in retention(name, settings.OMNIDASH_BACKUP_KEEP):
            if _let_go(backup):
                yield 1


def _let_go(backup: Backup) -> bool:
    """Written down before it happens, as whatever is deleted; what could not be done happens the
    next time, and is in the server's log alone."""
    now = time.time()
    run = Run.objects.create(
        action="forget-backup", store=backup.store, address=backup.address, total=1,
        state=Run.State.RUNNING, created_at=now, started_at=now, beat_at=now,
        params=json.dumps({"file": backup.name}), who=_SETTING,
    )  # fmt: skip
    try:
        drop(backup)
    except BackupError as error:
        log.warning("%s should go and stays: %s", backup.name, error)
        run.delete()
        return False
    run.state, run.ended_at, run.done, run.bytes = Run.State.DONE, time.time(), 1, backup.size
    run.message = f"{backup.name} was deleted: {_SETTING} does not keep it."
    run.save()
    log.info("%s went: %s", backup.name, _SETTING)
    return True
