"""Schedules: when a cleanup is due, and starting it through the same runs as everything else."""

from __future__ import annotations

import datetime
import json
import logging
from zoneinfo import ZoneInfo

from omnidash import audit, runs
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.cleanup import BY_NAME
from omnidash.models import Schedule
from omnidash.stores import registry
from storage.base import StoreError

HOUR = 3600.0
_AGAIN = 300.0  # seconds after which one that could not be started is tried again
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

log = logging.getLogger("omnidash.schedules")


def what(schedule: Schedule) -> str:
    """What it does, in words."""
    lines = json.loads(schedule.params).get("lines", [])
    titles = [BY_NAME[name].title for name in lines if name in BY_NAME]
    return ": ".join([ACTIONS[schedule.action].label, *(["; ".join(titles)] if titles else [])])


def words(schedule: Schedule) -> str:
    """When it is due, in words."""
    at = f"{schedule.minute // 60:02d}:{schedule.minute % 60:02d} {schedule.zone}"
    match schedule.every:
        case Schedule.Every.HOURS:
            return f"every {schedule.hours} hour{'s' if schedule.hours != 1 else ''}"
        case Schedule.Every.DAY:
            return f"daily at {at}"
        case _:
            return f"weekly on {DAYS[schedule.weekday]} at {at}"


def following(schedule: Schedule, after: float) -> float:
    """The first moment after this one at which it is due. A time of day that a change of the clocks
    leaves out comes an hour later, one that it doubles comes once."""
    if schedule.every == Schedule.Every.HOURS:
        return after + schedule.hours * HOUR
    zone = ZoneInfo(schedule.zone)
    day = datetime.datetime.fromtimestamp(after, zone).date()
    for ahead in range(9):
        date = day + datetime.timedelta(days=ahead)
        if schedule.every == Schedule.Every.WEEK and date.weekday() != schedule.weekday:
            continue
        time = datetime.time(schedule.minute // 60, schedule.minute % 60)
        due = datetime.datetime.combine(date, time, zone).timestamp()
        if due > after:
            return due
    raise AssertionError("a week has every weekday")


def start_due(now: float) -> int:
    """Start what is due; what was missed is done once. Several clocks may ask at once: the one that
    moves `next_at` on starts it."""
    started = 0
    for schedule in Schedule.objects.filter(enabled=True, next_at__lte=now).select_related("user"):
        moved = Schedule.objects.filter(pk=schedule.pk, next_at=schedule.next_at, enabled=True)
        # A clock that dies before it has started the run leaves it due again soon.
        if moved.update(next_at=now + _AGAIN):
            started += _start(schedule, now)
    return started


def _start(schedule: Schedule, now: float) -> bool:
    action, entry = ACTIONS[schedule.action], registry().get(schedule.store)
    if entry is None or schedule.user is None:
        why = "the store or the account of the schedule is not there any more"
        return _refused(schedule, now, why)
    if not schedule.user.has_perm("omnidash.edit_schedules"):
        return _refused(schedule, now, "its account may not have schedules any more")
    try:
        plan = runs.plan(schedule.user, action, entry, json.loads(schedule.params))
        run = runs.start(plan, schedule.user, "schedule")
    except (runs.NotAllowed, runs.Refused) as error:
        return _refused(schedule, now, str(error))
    except StoreError as error:
        # The store cannot be read: soon again, and no entry for each time.
        log.warning("schedule %d of store %s waits: %s", schedule.pk, schedule.store, error)
        return False
    Schedule.objects.filter(pk=schedule.pk).update(last_run=run, next_at=following(schedule, now))
    return True


def _refused(schedule: Schedule, now: float, why: str) -> bool:
    audit.note(schedule.user or "nobody", schedule.action, schedule.store, "schedule", why)
    Schedule.objects.filter(pk=schedule.pk).update(next_at=following(schedule, now))
    return False
