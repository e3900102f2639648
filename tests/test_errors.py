"""Errors: kinds of failure that add up, their examples, and the page that leads to the tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.template import Context, Template
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnidash.charts import ERRORS, Drawing
from omnidash.history import answers
from omnidash.history.answers import Whom
from omnidash.history.errors import details, examples, failures, holding, over_time
from omnidash.history.failures import LONGEST, normalised
from omnidash.history.histogram import histogram
from omnidash.history.ingest import FURTHER, MOST, take
from omnidash.history.levels import DAY, HOUR, last
from omnidash.history.tally import Tally
from omnidash.models import Source, Subject
from omnidash.text import ref
from storage.base import MetricBatch
from storage.records import Metric
from tests.pages import elements, get_part, links, serving, text_of
from tests.stores import Backend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

NOW = 1_800_000_030.0
NAMES = st.sampled_from(["", "a", "b:c", "ü", "\udcff"])
EVENTS = st.builds(
    Metric,
    id=st.just(""),
    event=st.sampled_from(["task_received", "task_processed", "task_failed", "task_failed"]),
    topic=NAMES,
    agent=NAMES,
    task_id=st.sampled_from(["1", "2"]),
    timestamp=st.floats(NOW - 3 * HOUR, NOW),
    seconds=st.one_of(st.none(), st.floats(0, 1e9)),
    error_type=st.sampled_from(["", "E", "F"]),
    error=st.sampled_from(["", "took 3 s", "took 4 s", "no such file"]),
)


def taken(batches: list[list[Metric]]) -> Source:
    """A new history of these events."""
    Source.objects.all().delete()
    source = Source.objects.create(key=b"k", address="a")
    for number, events in enumerate(batches):
        assert take(source, MetricBatch(events, str(number), False, False), NOW)
    return source


def added(counts: list[int | None]) -> int:
    return sum(count for count in counts if count is not None)


class TestFiguresOfErrors:
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        st.lists(st.lists(EVENTS, max_size=15), min_size=1, max_size=3),
        st.sampled_from([900, HOUR, DAY]),
        st.sampled_from([Whom(), Whom("a"), Whom(None, "ü"), Whom("", "")]),
    )
    def test_the_kinds_add_up_to_the_failed_tasks_over_any_range(
        self, db: None, batches: list[list[Metric]], seconds: int, whom: Whom
    ) -> None:
        source, span = taken(batches), last(seconds, NOW)
        failed = answers.points(source, span, whom).total.failed
        found = failures(source, span, whom)
        assert sum(one.count for one in found) == failed
        shares = [detail.share or 0 for detail in details(source, span, found, failed)]
        assert sum(shares) == pytest.approx(1.0 if found else 0.0)
        columns = over_time(source, span, [one.subjects for one in found])
        assert [added(column) for column in columns] == [one.count for one in found]
        drawn = Drawing(source, span, whom, charts=(ERRORS,)).columns()["errors"]
        assert sum(map(added, [*drawn["columns"], drawn["rest"]])) == failed

    def test_kinds_are_the_same_whatever_numbers_their_messages_hold(self) -> None:
        events = [
            failure("E", f"took {number} s", agent=agent) for number in (1, 22) for agent in "ab"
        ]
        source, span = taken([events]), last(HOUR, NOW)
        (kind,) = failures(source, span)
        assert (kind.message, kind.count) == ("took <n> s", 4)
        assert sorted(kind.agents) == [("t", "a"), ("t", "b")]
        (shown,) = examples([kind])
        assert {example.event.error for example in shown} == {"took 1 s", "took 22 s"}
        assert {example.agent for example in shown} == {("t", "a"), ("t", "b")}

    def test_at_most_five_examples_and_the_newest_are_shown(self) -> None:
        events = [failure("E", "x", task=str(age), age=age) for age in range(30)]
        (kind,) = failures(taken([events[15:], events[:15]]), last(HOUR, NOW))
        (shown,) = examples([kind])
        assert [example.event.task_id for example in shown] == ["0", "1", "2", "3", "4"]
        assert (kind.first_seen, kind.last_seen) == (NOW - 29, NOW)

    def test_a_text_is_looked_for_in_type_message_and_examples_whatever_its_case(self) -> None:
        events = [failure("KeyError", "no 'x'"), failure("Timeout", "took 17 s"), failure("", "")]
        found = failures(taken([events]), last(HOUR, NOW))
        for text, kinds in [
            ("keyERR", {"KeyError"}), ("NO 'X", {"KeyError"}), ("17", {"Timeout"}),
            ("<n>", {"Timeout"}), ("18", set()), ("", {"KeyError", "Timeout", ""}),
        ]:  # fmt: skip
            assert {one.error_type for one in holding(text, found)} == kinds, text

    def test_charts_show_eight_kinds_and_what_a_text_leaves_of_the_others(self) -> None:
        letters = "abcdefghij"
        events = [
            failure(letter * 3, "yes" if letter != "a" else "no")
            for times, letter in enumerate(letters, 1)
            for _ in range(times)
        ]
        source, span = taken([events]), last(HOUR, NOW)
        drawn = Drawing(source, span, charts=(ERRORS,)).columns()["errors"]
        assert drawn["names"] == [f"{letter * 3}: yes" for letter in reversed(letters[2:])]
        assert added(drawn["rest"]) == 1 + 2
        drawn = Drawing(source, span, charts=(ERRORS,), text="yes").columns()["errors"]
        assert added(drawn["rest"]) == 2
        drawn = Drawing(source, span, charts=(ERRORS,), text="nothing").columns()["errors"]
        assert drawn["names"] == []
        assert {count for count in drawn["rest"] if count is not None} == {0}

    def test_kinds_beyond_the_limit_are_counted_together_and_said_to_be(
        self, viewer_client: Client, redis_backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(MOST, Subject.Kind.ERROR, 1)
        redis_backend.put_metrics(
            [{"event": "task_failed", "topic": "t", "timestamp": time.time(), "error_type": kind}
             for kind in ("E", "F", "F", "G")]
        )  # fmt: skip
        with serving(prod=redis_backend.url):
            all_of_them = viewer_client.get("/prod/errors/")
            of_a_topic = viewer_client.get("/prod/errors/?topic=t")
        assert sum(map(int, rows_of(all_of_them).values())) == 4
        assert FURTHER in text_of(all_of_them)
        assert "3 are of further kinds" in text_of(of_a_topic)

    def test_points_tell_of_errors_only_who_asks(self) -> None:
        source = taken([[failure("E", "x")]])
        assert Drawing(source, last(HOUR, NOW)).columns()["errors"] is None

    def test_what_happened_before_the_first_event_is_unknown_for_each_kind(self) -> None:
        source, span = taken([[failure("E", "x", age=90)]]), last(HOUR, NOW)
        (column,) = over_time(source, span, [failures(source, span)[0].subjects])
        assert column[0] is None
        assert next(count for count in column if count is not None) == 1


def failure(
    error_type: str, error: str, agent: str = "a", task: str = "1", age: float = 0
) -> Metric:
    return Metric(
        "", "task_failed", "t", agent, task, NOW - age, error=error, error_type=error_type
    )


class TestNormalisedMessages:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("HTTP 503: overloaded", "HTTP 429: overloaded"),
            ("task_3f2a9c1e-aaaa-4bbb-8ccc-0123456789ab failed",
             "task_00000000-1111-2222-3333-444444444444 failed"),
            ("<Task at 0x7f00aa>", "<Task at 0x10>"),
            ("sha a1b2c3d", "sha 00ff00f"),
            ("job 01ARZ3NDEKTSV4RRFFQ69G5FAV lost", "job 01BX5ZZKBKACTAV9WEVGEMMVRZ lost"),
            ("took 1e-05 s", "took 0.25 s"),
            ("'/uploads/2211/scan-07.pdf'", "'/uploads/1/scan-11.pdf'"),
            ("10.0.0.1:6379 refused", "192.168.1.12:6380 refused"),
            ("12345678 rows", "5 rows"),
            ("at amqp://a:b@host/", "at amqp://c:d@host/"),
        ],
    )  # fmt: skip
    def test_what_differs_from_task_to_task_is_one_kind(self, one: str, other: str) -> None:
        assert normalised(one) == normalised(other)

    @pytest.mark.parametrize(
        "message",
        ["'file_path'", "decade facade", "defaced", "no schedule for team 'core'", "", "日本語"],
    )
    def test_words_stay(self, message: str) -> None:
        assert normalised(message) == message

    def test_a_secret_is_not_kept(self) -> None:
        said = normalised("login as amqp://user:hunter2@broker/ with password=hunter2 failed")
        assert "hunter" not in said
        assert "broker" in said

    def test_a_long_message_is_cut(self) -> None:
        assert len(normalised("x y " * 100_000)) == LONGEST


class TestHistogram:
    @given(st.lists(st.one_of(st.floats(0, 1e9), st.just(0.0)), max_size=200))
    def test_its_bars_hold_each_timed_task_once(self, times: list[float]) -> None:
        tally = Tally()
        for seconds in times:
            tally.add(Metric("", "task_processed", seconds=seconds))
        found = histogram(tally)
        assert found.count == tally.timed == len(times)
        assert len(found.bars) <= 40
        for bar, further in zip(found.bars, found.bars[1:], strict=False):
            assert bar.high == further.low
        for bar in found.bars:
            # A time on a bound may be on either side, as powers are not exact.
            inside = sum(
                bar.low * (1 + 1e-9) < seconds < bar.high * (1 - 1e-9) for seconds in times
            )
            around = sum(
                bar.low * (1 - 1e-9) <= seconds <= bar.high * (1 + 1e-9) for seconds in times
            )
            assert inside <= bar.count <= around
        assert all(0 <= mark.place <= 1 for mark in found.marks)
        assert len(found.marks) == (3 if times else 0)

    @pytest.mark.parametrize("times", [[], [0.0], [0.25], [0.25] * 1000 + [1e9], [1e-9, 1e9]])
    def test_it_is_drawn_inside_its_box(self, times: list[float]) -> None:
        tally = Tally()
        for seconds in times:
            tally.add(Metric("", "task_processed", seconds=seconds))
        drawn = Template("{% load draw %}{% histogram found %}").render(
            Context({"found": histogram(tally)})
        )
        tree = html(drawn)
        bars = [e for e in tree if str(e.tag).endswith("rect")]
        assert len(bars) == sum(bar.count > 0 for bar in histogram(tally).bars)
        for bar in bars:
            assert 0 <= percent(bar, "x") <= percent(bar, "x") + percent(bar, "width") <= 100.01
            assert float(bar.get("y")) + float(bar.get("height")) == pytest.approx(156, abs=0.2)
        assert "style=" not in drawn


def html(text: str) -> list[Any]:
    import html5lib

    return list(html5lib.parseFragment(text, namespaceHTMLElements=False).iter())


def percent(element: Any, name: str) -> float:
    return float(element.get(name).rstrip("%"))


# Pages


@pytest.fixture(params=["json_fixture", "redis_fixture"])
def served(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend: Backend = request.getfixturevalue(request.param)
    with serving(prod=backend.url):
        yield backend


@pytest.fixture
def failing(redis_backend: Backend) -> Iterator[Backend]:
    """A store in which some tasks failed just now."""
    now = time.time()
    common = {"event": "task_failed", "timestamp": now - 5}
    redis_backend.put_metrics(
        [
            {**common, "topic": "mail", "agent": "sender", "task_id": f"mail-{number}",
             "error_type": "SMTPError", "error": f"code {number} from smtp://u:hunter2@host/"}
            for number in range(7)
        ]
        + [{**common, "topic": "", "agent": "", "task_id": "", "error_type": "", "error": ""}]
        + [{**common, "topic": "crm", "agent": "sync", "task_id": "crm-1",
            "error_type": "KeyError", "error": "'id'"}]
    )  # fmt: skip
    with serving(prod=redis_backend.url):
        yield redis_backend


def rows_of(page: Any) -> dict[str, str]:
    """Error as shown -> count."""
    cells = elements(page, "td")
    text = {
        label: ["".join(e.itertext()).strip() for e in cells if e.get("data-label") == label]
        for label in ("Error", "Count")
    }
    return dict(zip(text["Error"], text["Count"], strict=True))


class TestPage:
    def test_it_lists_the_kinds_with_their_counts_and_shares(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        page = viewer_client.get("/prod/errors/")
        said = text_of(page)
        assert "9 attempts failed" in said
        assert "3 kinds of failure" in said
        assert list(rows_of(page).values()) == ["7", "1", "1"]
        assert "77.8 %" in said
        assert "(no type)(no message)" in said

    def test_its_numbers_are_those_of_the_metrics(
        self, viewer_client: Client, served: Backend
    ) -> None:
        kinds = list(map(int, rows_of(viewer_client.get("/prod/errors/?range=24h")).values()))
        columns = viewer_client.get("/prod/metrics/points?range=24h&draw=errors").json()
        assert sum(kinds) == added(columns["failed"]) > 0
        parts = [*columns["errors"]["columns"], columns["errors"]["rest"]]
        assert [
            None if None in counts else sum(counts) for counts in zip(*parts, strict=True)
        ] == columns["failed"]

    def test_an_example_leads_to_the_agent_and_to_the_result_if_there_is_one(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        failing.open().save_result("crm-1", {"agent": "sync"}, 600)
        page = viewer_client.get("/prod/errors/")
        agent, result = ref("crm", "sync"), ref("crm-1")
        assert f"/prod/agents/{agent}/" in links(page, "/prod/agents/")
        assert links(page, "/prod/results/") == {f"/prod/results/{result}/": "crm-1"}
        assert viewer_client.get(f"/prod/results/{result}/").status_code == 200
        assert "mail-0" in text_of(page), "a task without a result is named all the same"

    def test_secrets_in_messages_are_on_no_page(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        address = f"/prod/agents/{ref('mail', 'sender')}/"
        failing.open().add_agent("mail", {"name": "sender"})
        paths = ["/prod/errors/", "/prod/errors/?q=smtp", "/prod/metrics/", address]
        paths += ["/prod/metrics/points?draw=errors", "/prod/metrics/numbers?draw=errors"]
        for path in paths:
            page = viewer_client.get(path)
            assert page.status_code == 200
            assert b"SMTPError" in page.content, path
            assert b"hunter2" not in page.content, path
        assert rows_of(viewer_client.get("/prod/errors/?q=hunter")) == {}

    @pytest.mark.parametrize(
        ("query", "counts"),
        [
            ("topic=mail", ["7"]), ("agent=sync", ["1"]), ("topic=mail&agent=sync", []),
            ("q=smtpERROR", ["7"]), ("q=code%204", ["7"]), ("q=%27id", ["1"]), ("q=nothing", []),
            (f"of={ref('crm', 'sync')}", ["1"]), (f"of={ref('', '')}", ["1"]),
            ("range=15m", ["7", "1", "1"]), ("to=2026-01-01", []), ("page=2", []),
        ],
    )  # fmt: skip
    def test_filters_keep_exactly_what_matches(
        self, viewer_client: Client, failing: Backend, query: str, counts: list[str]
    ) -> None:
        page = viewer_client.get(f"/prod/errors/?{query}")
        assert list(rows_of(page).values()) == counts

    def test_the_newest_come_first_where_asked(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        failing.put_metrics(
            [{"event": "task_failed", "timestamp": time.time(), "error_type": "Fresh"}]
        )
        assert next(iter(rows_of(viewer_client.get("/prod/errors/?order=newest")))).startswith(
            "Fresh"
        )

    def test_many_kinds_come_in_pages(self, viewer_client: Client, redis_backend: Backend) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        redis_backend.put_metrics(
            [{"event": "task_failed", "timestamp": time.time(), "error_type": a + b}
             for a in letters[:3] for b in letters]
        )  # fmt: skip
        with serving(prod=redis_backend.url):
            first = rows_of(viewer_client.get("/prod/errors/"))
            second = rows_of(viewer_client.get("/prod/errors/?page=2"))
        assert (len(first), len(second)) == (50, 28)
        assert not set(first) & set(second)

    def test_a_refresh_without_news_costs_nothing_and_one_with_news_shows_them(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        path = "/prod/errors/?range=30d"  # steps of hours, which none of these looks crosses
        for _ in range(3):
            first = get_part(viewer_client, path)
            again = get_part(viewer_client, path, **{"X-Part": first.headers["X-Part"]})
            if again.status_code == 204:
                break
        assert (again.status_code, again.content) == (204, b"")
        failing.put_metrics([{"event": "task_failed", "timestamp": time.time()}])
        deadline = time.monotonic() + 10
        while again.status_code == 204:
            assert time.monotonic() < deadline
            again = get_part(viewer_client, path, **{"X-Part": first.headers["X-Part"]})
        assert "10 attempts failed" in text_of(again)

    def test_a_message_of_megabytes_makes_no_page_of_megabytes(
        self, viewer_client: Client, redis_backend: Backend
    ) -> None:
        redis_backend.put_metrics(
            [{"event": "task_failed", "timestamp": time.time(), "topic": "t", "agent": "a",
              "task_id": "i" * 1_000_000, "error_type": "E" * 1_000_000, "error": "x " * 500_000}]
        )  # fmt: skip
        with serving(prod=redis_backend.url):
            assert len(viewer_client.get("/prod/errors/").content) < 50_000

    def test_results_that_cannot_be_read_take_only_their_links_away(
        self, viewer_client: Client, failing: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from omnidash.stores import registry
        from storage.base import StoreUnavailable

        def unreadable(_: object) -> dict[str, Any]:
            raise StoreUnavailable("no permission for this command")

        monkeypatch.setattr(registry()["prod"].store, "results_by_id", unreadable)
        page = viewer_client.get("/prod/errors/")
        assert page.status_code == 200
        assert "Could not be read: results: no permission" in text_of(page)
        assert len(rows_of(page)) == 3


class TestWaysToThePage:
    def test_the_agent_shows_its_own_errors_and_leads_to_all(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        failing.open().add_agent("mail", {"name": "sender"})
        address = ref("mail", "sender")
        page = viewer_client.get(f"/prod/agents/{address}/")
        assert list(rows_of(page).values()) == ["7"]
        (all_of_it,) = [
            href for href, text in links(page, "/prod/errors/").items() if "All" in text
        ]
        assert all_of_it == f"/prod/errors/?of={address}"
        assert list(rows_of(viewer_client.get(all_of_it)).values()) == ["7"]
        ways = [href for href, text in links(page, "/prod/errors/").items() if "code" in text]
        assert ways
        assert list(rows_of(viewer_client.get(ways[0])).values()) == ["7"]

    def test_the_overview_says_that_tasks_failed_and_leads_there(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        assert links(viewer_client.get("/prod/"), "/prod/errors/?")["/prod/errors/?range=1h"] == (
            "9 tasks"
        )

    def test_the_metrics_lead_to_the_errors_of_the_same_range_and_filter(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        page = viewer_client.get("/prod/metrics/?topic=mail&range=6h&order=failed&compare=on")
        (href,) = links(page, "/prod/errors/?")
        assert href == "/prod/errors/?topic=mail&range=6h"

    def test_the_agent_without_a_task_has_no_histogram_but_says_so(
        self, viewer_client: Client, failing: Backend
    ) -> None:
        failing.open().add_agent("mail", {"name": "sender"})
        page = viewer_client.get(f"/prod/agents/{ref('mail', 'sender')}/")
        assert "No processing time is known" in text_of(page)

    def test_the_histogram_counts_the_tasks_of_the_agent(
        self, viewer_client: Client, served: Backend
    ) -> None:
        page = viewer_client.get(f"/prod/agents/{ref('payments.charge', 'payment-processor')}/")
        (drawn,) = [e for e in html(page.content.decode()) if e.get("class") == "histogram"]
        titles = ["".join(e.itertext()) for e in drawn.iter() if str(e.tag).endswith("title")]
        counted = sum(int(title.rpartition(": ")[2].replace(",", "")) for title in titles)
        assert counted > 0
        assert f"Latency of {counted:,} task" in text_of(page)
