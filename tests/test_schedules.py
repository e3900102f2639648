"""When a cleanup is due, and what the clock does about it."""

from __future__ import annotations

import datetime
import json
import time
from zoneinfo import ZoneInfo

import pytest
from conftest import make_user
from django.contrib.auth.models import User

from omnidash import schedules
from omnidash.models import Run, Schedule
from omnidash.roles import group_of
from omnidash.schedules import following, start_due, words
from tests.pages import serving
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]


def at(text: str, zone: str = "UTC") -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def schedule(**fields: object) -> Schedule:
    return Schedule(**{"store": "prod", "action": "clean-up", "next_at": 0, **fields})


def daily(minute: int, zone: str = "UTC") -> Schedule:
    return schedule(every="day", minute=minute, zone=zone)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2026-11-25 02:59:59", "2026-11-25 03:00"),
        ("2026-11-25 03:00", "2026-11-26 03:00"),
        ("2026-12-31 23:59", "2027-01-01 03:00"),
    ],
)
def test_a_time_of_day_is_met_once_a_day(after: str, expected: str) -> None:
    assert following(daily(180), at(after)) == at(expected)


def test_a_time_that_the_clocks_leave_out_comes_an_hour_later() -> None:
    zone = "Europe/Berlin"
    found = following(daily(150, zone), at("2026-03-29 00:30", zone))
    assert found == at("2026-03-29 01:59", zone) + 60 + 30 * 60
    assert following(daily(150, zone), found) == at("2026-03-30 02:30", zone)


def test_a_time_that_the_clocks_double_comes_once() -> None:
    zone = "Europe/Berlin"
    found = following(daily(150, zone), at("2026-10-25 00:30", zone))
    assert following(daily(150, zone), found) == at("2026-10-26 02:30", zone)


def test_a_weekday_is_that_of_the_zone() -> None:
    weekly = schedule(every="week", weekday=0, minute=30, zone="Pacific/Auckland")
    found = following(weekly, at("2026-11-25 00:00"))
    local = datetime.datetime.fromtimestamp(found, ZoneInfo("Pacific/Auckland"))
    assert (local.weekday(), local.hour, local.minute) == (0, 0, 30)
    assert found - at("2026-11-25 00:00") < 7 * 86_400


def test_hours_are_counted_from_the_last_time() -> None:
    assert following(schedule(every="hours", hours=6), 1000.0) == 1000.0 + 6 * 3600


def test_a_schedule_is_said_in_words() -> None:
    assert words(schedule(every="hours", hours=1)) == "every 1 hour"
    assert words(daily(185, "Asia/Tokyo")) == "daily at 03:05 Asia/Tokyo"
    assert words(schedule(every="week", weekday=6, minute=0)) == "weekly on Sunday at 00:00 UTC"


@pytest.fixture
def owner(db: None) -> User:
    return make_user("administrator")


def due(user: User | None, **fields: object) -> Schedule:
    params = json.dumps({"lines": ["old-metrics"], "metric_days": 1})
    made = schedule(every="hours", hours=1, params=params, user=user, **fields)
    made.next_at = time.time() - 30 * 86_400
    made.save()
    return made


def test_what_was_missed_for_a_month_is_done_once(backend: Backend, owner: User) -> None:
    made = due(owner)
    with serving(prod=backend.url):
        assert [start_due(time.time()), start_due(time.time())] == [1, 0]
    made.refresh_from_db()
    assert made.next_at > time.time()
    assert made.last_run == Run.objects.get()
    assert Run.objects.get().origin == "schedule"


def test_one_that_is_switched_off_starts_nothing(backend: Backend, owner: User) -> None:
    due(owner, enabled=False)
    with serving(prod=backend.url):
        assert start_due(time.time()) == 0


def test_an_account_that_lost_its_right_starts_nothing_and_that_is_written_down(
    backend: Backend, owner: User
) -> None:
    due(owner)
    owner.groups.clear()
    owner.user_permissions.clear()
    with serving(prod=backend.url):
        assert start_due(time.time()) == 0
    run = Run.objects.get()
    assert (run.state, run.who) == ("refused", "administrator")


def test_an_account_that_may_not_have_schedules_any_more_starts_nothing(
    backend: Backend, owner: User
) -> None:
    due(owner)
    owner.groups.set([group_of("operator")])
    with serving(prod=backend.url):
        assert start_due(time.time()) == 0
    assert "may not have schedules" in Run.objects.get().message


def test_one_whose_clock_died_before_it_was_started_is_due_again_soon(
    backend: Backend, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = due(owner)

    def killed(*args: object) -> bool:
        raise KeyboardInterrupt

    with serving(prod=backend.url):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(schedules, "_start", killed)
            start_due(time.time())
        made.refresh_from_db()
        assert 0 < made.next_at - time.time() <= 300
        assert start_due(time.time() + 300) == 1


def test_a_schedule_of_nobody_or_of_no_store_is_refused(backend: Backend, owner: User) -> None:
    due(None)
    due(owner, store="gone")
    with serving(prod=backend.url):
        assert start_due(time.time()) == 0
    assert set(Run.objects.values_list("state", flat=True)) == {"refused"}


def test_a_store_that_is_down_is_tried_again_soon(tmp_path: object, owner: User) -> None:
    made = due(owner)
    with serving(prod="redis://127.0.0.1:1/0"):
        assert start_due(time.time()) == 0
    made.refresh_from_db()
    assert 0 < made.next_at - time.time() <= 300
    assert not Run.objects.exists()
