"""What expires when: the bars above the results, and the list that each of them leads to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.http import HttpResponse
from django.test import Client

from omnidash.expiry import BARS, SPAN, Bar, forecast
from storage.base import Store
from storage.redis_store import result_index
from tests.pages import elements, get_part, links, serving, text_of
from tests.stores import Backend, JsonBackend, RedisBackend, settled

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

NOW = time.time()
NONE = (None, None)


@pytest.fixture(params=["json", "redis"])
def served(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """An empty store, served as `prod`."""
    backend: Backend = request.getfixturevalue(f"{request.param}_backend")
    with serving(prod=backend.url):
        yield backend


def half_hour(ahead: int) -> int:
    """The beginning of a half hour by the clock, so many after the one that these tests began in.
    From the third on no test minds when the clock strikes."""
    return int(NOW // SPAN + ahead) * SPAN


def bars_of(response: HttpResponse) -> list[Any]:
    return [link for link in elements(response, "a") if "bar" in link.get("class", "").split()]


def count_of(bar: Any) -> int:
    (figure,) = bar.iter("b")
    return int(figure.text.replace(",", ""))


def tasks(response: HttpResponse) -> set[str]:
    return set(links(response, "/prod/results/").values())


def counted(store: Store, now: float, chosen: tuple[int | None, int | None] = NONE) -> list[Bar]:
    found = forecast(store, now, chosen)
    assert found is not None
    return found.bars


# The bars


@pytest.mark.parametrize("past", [0, 0.001, 1, SPAN - 1, SPAN - 0.001])
def test_bars_lie_on_the_clock_and_begin_with_the_running_half_hour(
    json_backend: JsonBackend, past: float
) -> None:
    bars = counted(json_backend.open(), half_hour(0) + past)
    assert [bar.start for bar in bars] == [half_hour(0) + SPAN * place for place in range(BARS)]
    assert [bar.end for bar in bars[:-1]] == [bar.start for bar in bars[1:]]


def test_every_result_that_expires_is_in_one_bar_or_later(json_backend: JsonBackend) -> None:
    edge = half_hour(3)
    json_backend.put_results(
        {"past": NOW - 5, "on": edge, "in": edge + SPAN - 0.001, "next": edge + SPAN,
         "last": half_hour(BARS) - 0.001, "later": half_hour(BARS), "far": NOW + 1e6, "never": None}
    )  # fmt: skip
    found = forecast(json_backend.open(), NOW, NONE)
    assert found is not None
    assert {bar.start: bar.count for bar in found.filled} == {
        edge: 2, edge + SPAN: 1, half_hour(BARS - 1): 1
    }  # fmt: skip
    assert (found.total, found.later, found.end) == (4, 2, half_hour(BARS))


@pytest.mark.parametrize("past", [0, 1, SPAN - 1])
def test_what_was_saved_just_now_for_a_day_is_in_a_bar(
    json_backend: JsonBackend, past: float
) -> None:
    now = half_hour(0) + past
    json_backend.put_results({"just now": now + 86_400.0, "a bit ago": now + 86_390.0})
    found = forecast(json_backend.open(), now, NONE)
    assert found is not None
    assert (found.total, found.later) == (2, 0)


def test_within_the_hour_is_counted_to_the_second(json_backend: JsonBackend) -> None:
    json_backend.put_results({"soon": NOW + 3599, "late": NOW + 3601})
    found = forecast(json_backend.open(), NOW, NONE)
    assert found is not None
    assert (found.soon, found.total) == (1, 2)


def test_only_the_first_hour_is_coloured(json_backend: JsonBackend) -> None:
    bars = counted(json_backend.open(), NOW)
    assert [bar.urgency for bar in bars] == ["bar-now", "bar-soon", *[""] * (BARS - 2)]


def test_the_fullest_bar_is_the_tallest_and_one_result_is_still_seen(
    json_backend: JsonBackend,
) -> None:
    many = {f"many-{number}": half_hour(5) + 1.0 for number in range(1000)}
    json_backend.put_results({**many, "one": half_hour(9) + 1.0})
    heights = {bar.start: bar.height for bar in counted(json_backend.open(), NOW)}
    assert heights[half_hour(5)] == max(heights.values())
    assert 0 < heights[half_hour(9)] < 10
    assert heights[half_hour(7)] == 0


def test_only_the_very_half_hour_is_the_chosen_bar(json_backend: JsonBackend) -> None:
    store, start = json_backend.open(), half_hour(5)
    for chosen in ((start, None), (None, start), (start, start + 1), (start + 1, start + SPAN)):
        assert not any(bar.chosen for bar in counted(store, NOW, chosen))
    bars = counted(store, NOW, (start, start + SPAN))
    assert [bar.start for bar in bars if bar.chosen] == [start]


# The page


def test_each_bar_leads_to_exactly_the_results_that_it_counts(
    viewer_client: Client, served: Backend
) -> None:
    ends = {
        f"task-{ahead}-{number}": half_hour(ahead) + offset
        for ahead in (2, 3, 17, 46)
        for number, offset in enumerate((0, 0.001, 900, SPAN - 0.001)[: ahead % 4 + 1])
    }
    served.put_results({**ends, "never": None, "later": NOW + 90_000})
    settled(served.open())
    page = viewer_client.get("/prod/results/")
    bars = bars_of(page)
    assert len(bars) == 4
    for bar in bars:
        assert bar.get("href") == bar.get("hx-get")
        (start,) = parse_qs(bar.get("href").removeprefix("?"))["expires_from"]
        expected = {name for name, at in ends.items() if 0 <= at - int(start) < SPAN}
        for answer in (viewer_client.get, lambda path: get_part(viewer_client, path)):
            filtered = answer(f"/prod/results/{bar.get('href')}")
            assert tasks(filtered) == expected
            assert f"{count_of(bar)} match" in text_of(filtered)
        assert count_of(bar) == len(expected)
    assert tasks(viewer_client.get(f"/prod/results/?expires_from={half_hour(BARS)}")) == {"later"}


def test_the_numbers_are_in_a_table_too(viewer_client: Client, served: Backend) -> None:
    served.put_results({f"task-{n}": half_hour(4 + n // 7) + 1.0 for n in range(10)})
    settled(served.open())
    page = viewer_client.get("/prod/results/")
    (numbers,) = [table for table in elements(page, "table") if "table-sm" in table.get("class")]
    rows = ["".join(row.itertext()) for row in numbers.iter("tr")][1:]
    clocks = [
        f"{time.strftime('%H:%M', time.gmtime(half_hour(ahead)))}–"
        f"{time.strftime('%H:%M', time.gmtime(half_hour(ahead + 1)))}"
        for ahead in (4, 5)
    ]
    assert rows == [f"{clocks[0]}7", f"{clocks[1]}3"]


def test_the_chosen_bar_is_marked_and_takes_its_filter_away(
    viewer_client: Client, served: Backend
) -> None:
    served.put_results({"a": half_hour(5) + 1.0, "b": half_hour(8) + 1.0})
    settled(served.open())
    address = f"?order=expiring&expires_from={half_hour(5)}&expires_before={half_hour(6)}"
    page = viewer_client.get(f"/prod/results/{address}")
    (chosen,) = [bar for bar in bars_of(page) if bar.get("aria-current") == "true"]
    (chip,) = [link for link in elements(page, "a") if link.get("class") == "chip"]
    assert chosen.get("id") == f"expiry-{half_hour(5)}"
    assert chosen.get("href") == chosen.get("hx-get") == chip.get("href") == "?order=expiring"
    assert time.strftime("%H:%M", time.gmtime(half_hour(5))) in "".join(chip.itertext())
    assert tasks(page) == {"a"}
    others = [bar.get("href") for bar in bars_of(page) if "aria-current" not in bar.attrib]
    assert others == [f"?order=expiring&expires_from={half_hour(8)}&expires_before={half_hour(9)}"]


def test_a_chosen_bar_that_ran_empty_can_still_be_unchosen(
    viewer_client: Client, served: Backend
) -> None:
    address = f"?expires_from={half_hour(5)}&expires_before={half_hour(6)}"
    page = viewer_client.get(f"/prod/results/{address}")
    (chosen,) = bars_of(page)
    assert (chosen.get("aria-current"), chosen.get("href")) == ("true", "?")
    assert "No stored result matches" in text_of(page)


def test_a_bar_narrows_what_is_filtered_and_pages_keep_all_of_it(
    viewer_client: Client, served: Backend
) -> None:
    store = served.open()
    for number in range(120):
        body = {"agent": f"agent-{number % 2}", "topic": "t"}
        store.save_result(f"task-{number:03}", body, 8 * SPAN)
    settled(store)
    page = viewer_client.get("/prod/results/?agent=agent-1&page=2&order=expiring")
    assert "of all results: 120 until" in text_of(page)
    bar = bars_of(page)[0]
    found = parse_qs(bar.get("href").removeprefix("?"))
    assert (found["agent"], found["order"], "page" in found) == (["agent-1"], ["expiring"], False)
    wide = f"?agent=agent-1&expires_from={half_hour(7)}&expires_before={half_hour(13)}"
    first = viewer_client.get(f"/prod/results/{wide}")
    (following,) = [link for link in elements(first, "a") if link.get("rel") == "next"]
    second = viewer_client.get(f"/prod/results/{following.get('href')}")
    assert (len(tasks(first)), len(tasks(second))) == (50, 10)
    assert tasks(first) | tasks(second) == {f"task-{number:03}" for number in range(1, 120, 2)}


def test_the_filter_form_keeps_the_bar(viewer_client: Client, served: Backend) -> None:
    (form,) = [e for e in elements(viewer_client.get("/prod/results/"), "form")
               if e.get("role") == "search"]  # fmt: skip
    page = viewer_client.get("/prod/results/?expires_from=5&expires_before=7")
    hidden = {e.get("name"): (e.get("value"), e.get("form")) for e in elements(page, "input")
              if e.get("type") == "hidden" and "expires" in e.get("name")}  # fmt: skip
    assert hidden == {
        "expires_from": ("5", form.get("id")), "expires_before": ("7", form.get("id"))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("expires_from=x", ["expires_from"]),
        ("expires_from=-1", ["expires_from"]),
        ("expires_from=0", ["expires_from"]),
        ("expires_before=1e9", ["expires_before"]),
        ("expires_before=nan", ["expires_before"]),
        ("expires_before=99999999999999999999", ["expires_before"]),
        ("expires_before=" + "9" * 5000, ["expires_before"]),
        ("expires_from=%00", ["expires_from"]),
        ("expires_from=%22%3E%3Csvg%20onload=1%3E", ["expires_from"]),
        ("expires_from=20&expires_before=10", ["expires_from", "expires_before"]),
        ("expires_from=10&expires_before=10", ["expires_from", "expires_before"]),
    ],
)  # fmt: skip
def test_moments_that_cannot_be_are_named_and_left_out(
    viewer_client: Client, served: Backend, query: str, named: list[str]
) -> None:
    served.put_results({"a": half_hour(5) + 1.0, "never": None})
    settled(served.open())
    page = viewer_client.get(f"/prod/results/?{query}")
    assert page.status_code == 200
    said = text_of(page).split("Left out of this address: ")[1].split("Filter")[0]
    assert all(f"{name}: " in said for name in named)
    assert tasks(page) == {"a", "never"}
    assert not [link for link in elements(page, "a") if link.get("class") == "chip"]
    assert "<svg onload" not in page.content.decode()


@pytest.mark.parametrize(
    ("query", "found", "chip"),
    [
        ("expires_from={}", {"b", "c"}, "from"),
        ("expires_before={}", {"a"}, "before"),
        ("expires_from=1&expires_before=4102444800", {"a", "b", "c"}, "1970"),
        ("expires_from=4102444800", set(), "after the year 2100"),
    ],
)
def test_any_span_is_a_filter_that_a_chip_names(
    viewer_client: Client, served: Backend, query: str, found: set[str], chip: str
) -> None:
    served.put_results(
        {"a": half_hour(5) - 0.001, "b": float(half_hour(5)), "c": half_hour(60), "never": None}
    )
    settled(served.open())
    page = viewer_client.get(f"/prod/results/?{query.format(half_hour(5))}")
    (shown,) = [link for link in elements(page, "a") if link.get("class") == "chip"]
    assert chip in "".join(shown.itertext())
    assert tasks(page) == found


def test_an_empty_day_says_so_and_what_comes_after_it(
    viewer_client: Client, served: Backend
) -> None:
    served.put_results({"later": NOW + 90_000, "never": None})
    settled(served.open())
    page = viewer_client.get("/prod/results/")
    assert "No stored result expires until" in text_of(page)
    assert not bars_of(page)
    ways = {"".join(link.itertext()): link.get("href") for link in elements(page, "a")}
    assert tasks(viewer_client.get(f"/prod/results/{ways['1 later']}")) == {"later"}
    assert tasks(viewer_client.get(f"/prod/results/{ways['1 never']}")) == {"never"}


def test_what_is_still_being_learnt_is_not_zero(
    viewer_client: Client, redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_backend.put_results({f"task-{n}": half_hour(5) + 1.0 for n in range(2000)})
    monkeypatch.setattr(result_index.ResultIndex.look, "__defaults__", (0.0,))
    monkeypatch.setattr(result_index.ResultIndex, "_learn_on", lambda self: None)
    with serving(prod=redis_backend.url):
        page = viewer_client.get("/prod/results/")
        assert "Not known yet: expiry times are still being read" in text_of(page)
        assert not bars_of(page)
        assert "within 1 h" not in text_of(page)
        assert " 0 until" not in text_of(page)


def test_a_bar_of_a_store_that_is_down_keeps_what_was_seen(
    viewer_client: Client, json_backend: JsonBackend
) -> None:
    json_backend.put_results({"a": half_hour(5) + 1.0})
    address = f"/prod/results/?expires_from={half_hour(5)}&expires_before={half_hour(6)}"
    with serving(prod=json_backend.url):
        assert tasks(viewer_client.get(address)) == {"a"}
        os.rename(json_backend.folder, Path(f"{json_backend.folder}.away"))
        time.sleep(0.01)
        page = viewer_client.get(address)
        assert page.status_code == 503
        assert "cannot be read since" in text_of(page)
        assert len(bars_of(page)) == 1
