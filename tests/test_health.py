"""The judgement: from evidence and its age, never from a flag alone."""

from __future__ import annotations

import dataclasses

import pytest

from omnidash import health
from omnidash.history.answers import Figures
from omnidash.history.tally import Tally
from storage.base import Counts, Runner
from storage.records import Agent, Invalid, Supervisor

NOW = 1_800_000_000.0
RUNNING = Runner(start_time=NOW - 7200, runner_id="r-1")
SOME = Counts(agents=3, topics=2)
QUIET = Figures.of(Tally())


def judged(runner: Runner, **changes: object) -> health.Status:
    given = {"supervisors": [], "newest_event": None, "counts": SOME, "troubles": [], "now": NOW}
    return health.status(runner, **{**given, **changes})  # type: ignore[arg-type]


def test_a_start_time_left_behind_by_a_crash_is_not_running() -> None:
    status = judged(RUNNING, newest_event=NOW - 3 * 3600)
    assert (status.word, status.level) == ("Degraded", "warn")
    assert "never said" in status.evidence
    assert status.seen_at == RUNNING.start_time


def test_a_start_time_without_any_later_sign_of_life_is_degraded() -> None:
    assert judged(RUNNING).word == "Degraded"


def test_a_runner_that_has_just_started_is_running_before_its_first_task() -> None:
    status = judged(Runner(start_time=NOW - 5, runner_id="r"))
    assert (status.word, status.seen_at) == ("Running", NOW - 5)


def test_a_runner_that_gives_no_sign_of_life_needs_attention() -> None:
    silent = judged(RUNNING)
    (line,) = lines(silent=silent)
    assert (line.subject, line.level, line.at) == ("Runner", "warn", silent.seen_at)


def test_a_fresh_event_proves_a_running_runner() -> None:
    status = judged(RUNNING, newest_event=NOW - 20)
    assert (status.word, status.seen_at) == ("Running", NOW - 20)


def test_a_fresh_heartbeat_proves_a_running_runner() -> None:
    supervisor = Supervisor("a", state="running", last_heartbeat=NOW - 30)
    assert judged(RUNNING, supervisors=[supervisor]).word == "Running"


def test_an_event_from_the_future_does_not_make_an_age_negative() -> None:
    assert judged(RUNNING, newest_event=NOW + 500).seen_at == NOW


def test_agents_without_a_start_time_are_stopped() -> None:
    assert judged(Runner()).word == "Stopped"


def test_an_empty_store_is_ready() -> None:
    assert judged(Runner(), counts=Counts(agents=0)).word == "Ready"


def test_a_start_time_that_is_no_time_does_not_break_the_page() -> None:
    assert judged(Runner(start_time=Invalid("nan")), newest_event=NOW - 1).word == "Running"


def test_trouble_with_the_storage_comes_before_everything() -> None:
    status = judged(RUNNING, newest_event=NOW, troubles=["Redis refuses writes"])
    assert (status.word, status.evidence) == ("Degraded", "Redis refuses writes")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"problem": "expected an object"}, "unreadable"),
        ({"subscribed": None}, "unknown"),
        ({"subscribed": False}, "paused"),
        ({"subscribed": True}, "active"),
        ({"supervisor": Supervisor("a", state="running", last_heartbeat=NOW - 61)}, "running"),
        ({"supervisor": Supervisor("a", state="running", last_heartbeat=NOW - 121)}, "late"),
        ({"supervisor": Supervisor("a", state="running")}, "unknown"),
        ({"supervisor": Supervisor("a", state="running", healthy=True)}, "unknown"),
        ({"supervisor": Supervisor("a", state="CRASHED", last_heartbeat=NOW)}, "crashed"),
        ({"supervisor": Supervisor("a", problem="is a list")}, "active"),
        ({"supervisor": Supervisor("a", state="running", last_updated=Invalid("x"))}, "unknown"),
    ],
)
def test_an_agents_state_follows_the_evidence(changes: dict[str, object], word: str) -> None:
    agent = Agent("topic", "a", subscribed=True)
    for name, value in changes.items():
        setattr(agent, name, value)
    assert health.agent_state(agent, NOW).word == word
    assert word in health.STATES


def lines(**changes: object) -> list[health.Attention]:
    given = {
        "counts": SOME, "expiring": 0, "supervisors": [], "lately": QUIET, "troubles": [],
        "risks": [], "now": NOW,
    }  # fmt: skip
    return health.attention(**{**given, **changes})  # type: ignore[arg-type]


def test_nothing_needs_attention_when_all_is_well() -> None:
    assert lines() == []


def test_an_unknown_number_of_expiring_results_is_not_an_alarm() -> None:
    assert lines(expiring=None) == []


def test_the_worst_comes_first() -> None:
    found = lines(
        expiring=1,
        counts=dataclasses.replace(SOME, orphans=2, metrics=95, metrics_cap=100),
        supervisors=[Supervisor("a\nb", state="crashed", restart_count=3)],
    )
    assert [line.level for line in found] == ["bad", "warn", "quiet", "quiet"]
    assert found[0].text == "is crashed, restarted 3 times"
    assert found[1].subject == "1 result"
    assert found[1].text == "expires within the hour"


def test_a_running_supervisor_with_an_old_heartbeat_needs_attention() -> None:
    (line,) = lines(supervisors=[Supervisor("a", state="running", last_heartbeat=NOW - 9999)])
    assert "overdue" in line.text


def test_failures_name_their_share_of_the_tasks_that_ended() -> None:
    lately = Figures.of(Tally(received=4, processed=3, failed=1))
    (line,) = lines(lately=lately)
    assert (line.subject, line.level) == ("1 task", "bad")
    assert "25.0 %" in line.text


def test_a_clock_far_ahead_proves_no_life() -> None:
    late = Supervisor("a", state="running", last_heartbeat=NOW + 30 * 86400)
    assert health.heartbeat(late, NOW) == "unknown"
    assert judged(RUNNING, supervisors=[late], newest_event=NOW + 30 * 86400).word == "Degraded"
