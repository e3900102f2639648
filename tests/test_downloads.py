"""Every table as a file: all that match, harmless, bounded, and whole or visibly not."""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client
from django.test.client import RequestFactory

from omnidash import downloads
from omnidash.downloads import download, every, moment, whole
from omnidash.stores import registry
from omnidash.text import printable
from storage import patience
from storage.base import Page, ResultQuery, StoreError, StoreUnavailable
from storage.records import Invalid
from tests.pages import elements, serving, text_of
from tests.servers import RedisServer
from tests.stores import AWKWARD, Backend, JsonBackend, all_config, settled
from tests.test_database import ACCOUNT, Browser
from tests.test_serve import Served

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db
csv.field_size_limit(10_000_000)

TABLES = {
    "agents": "agents/", "results": "results/", "config": "config/",
    "unreadable": "storage/", "facts": "storage/?table=facts",
}  # fmt: skip


@pytest.fixture(params=["json_fixture", "redis_fixture"])
def served(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """OmniDaemon's own data, served as the store `prod` and learnt."""
    backend: Backend = request.getfixturevalue(request.param)
    with serving(prod=backend.url):
        settled(registry()["prod"].store)
        yield backend


@pytest.fixture(params=["json", "redis"])
def empty(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend: Backend = request.getfixturevalue(f"{request.param}_backend")
    with serving(prod=backend.url):
        yield backend


def get(client: Client, path: str, kind: str, **headers: str) -> HttpResponse:
    joint = "&" if "?" in path else "?"
    return client.get(f"/prod/{path}{joint}format={kind}", headers=headers)


def content(response: HttpResponse | StreamingHttpResponse) -> bytes:
    assert response.status_code == 200
    assert isinstance(response, StreamingHttpResponse)
    return b"".join(response.streaming_content)  # type: ignore[arg-type]


def rows_of(client: Client, path: str) -> list[dict[str, Any]]:
    return json.loads(content(get(client, path, "json")))


def lines_of(client: Client, path: str) -> list[dict[str, str]]:
    text = content(get(client, path, "csv")).decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


# --- Everything, as listed ---


def test_all_results_are_there_in_the_order_of_the_list(
    viewer_client: Client, served: Backend
) -> None:
    listed = served.open()
    total = settled(listed).results
    expected = listed.result_page(ResultQuery(limit=10_000)).rows
    assert len(expected) == total > 700
    rows, lines = rows_of(viewer_client, "results/"), lines_of(viewer_client, "results/")
    assert [row["task_id"] for row in rows] == [printable(one.task_id) for one in expected]
    for row, line, result in zip(rows, lines, expected, strict=True):
        assert row["agent"] == (result.agent or None)
        assert row["size_bytes"] == result.size
        assert row["saved_at"] == moment(result.saved_at)
        assert row["expires_at"] == moment(result.expires_at)
        assert row["indexed"] is result.indexed
        assert line["size_bytes"] == str(result.size)
        assert line["expires_at"] == (row["expires_at"] or "")
        assert line["task_id"].removeprefix("'") == row["task_id"]


def test_all_agents_are_there_as_on_their_page(viewer_client: Client, served: Backend) -> None:
    rows, lines = rows_of(viewer_client, "agents/"), lines_of(viewer_client, "agents/")
    table = viewer_client.get("/prod/agents/")
    shown = [e for e in elements(table, "td") if e.get("data-label") == "Agent"]
    names = ["".join(e.find("a").itertext()).strip() for e in shown]
    assert [row["name"] for row in rows] == names
    assert len(lines) == len(rows) == 18
    assert [line["name"] for line in lines] == names
    states = [e for e in elements(table, "td") if e.get("data-label") == "State"]
    assert [row["state"] for row in rows] == [
        "".join(e.itertext()).split()[0].lower() for e in states
    ]
    received = [e.text for e in elements(table, "td") if e.get("data-label") == "Received"]
    assert [f"{row['received_24h']:,}" for row in rows] == received
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", row["last_seen_at"])
               for row in rows if row["last_seen_at"])  # fmt: skip


def test_all_configuration_is_there(viewer_client: Client, served: Backend) -> None:
    expected = {printable(entry.key) for entry in all_config(served.open())}
    rows = rows_of(viewer_client, "config/")
    assert {row["key"] for row in rows} == expected
    assert len(lines_of(viewer_client, "config/")) == len(rows) == len(expected) > 20


def test_facts_and_unreadable_records_of_the_storage_are_two_tables(
    viewer_client: Client, empty: Backend
) -> None:
    if isinstance(empty, JsonBackend):
        empty.write("results.json", {"bad": [1]})
    else:
        empty.client.set(empty.key("result", "bad"), "[1]")  # type: ignore[attr-defined]
        empty.client.zadd(empty.key("results", "index"), {"bad": 1})  # type: ignore[attr-defined]
    facts = rows_of(viewer_client, "storage/?table=facts")
    assert {"group", "name", "value", "unit", "note"} == set(facts[0])
    assert "milliseconds" not in {fact["unit"] for fact in facts}
    broken = rows_of(viewer_client, "storage/")
    assert len(broken) == len(lines_of(viewer_client, "storage/")) == 1
    assert "expected an object, is a list" in broken[0]["reason"]


@pytest.mark.parametrize(
    "path",
    ["agents/?state=paused", "agents/?q=EXTRACTOR", "agents/?topic=etl.raw", "agents/?page=7",
     "results/?agent=extractor&topic=tenant%3Aacme%3Ainvoices", "results/?life=forever",
     "results/?life=expired", "results/?q=1807&deep=on&page=3", "results/?q=extractor&deep=on",
     "results/?order=expiring&within=600", "results/?status=failed", "config/?q=SUPERVISOR"],
)  # fmt: skip
def test_filters_are_respected_and_the_page_number_is_not(
    viewer_client: Client, served: Backend, path: str
) -> None:
    rows = rows_of(viewer_client, path)
    listed = viewer_client.get("/prod/" + re.sub(r"page=\d", "page=1", path))
    said = text_of(listed)
    total = re.search(r"\d+–\d+ of ([\d,]+)", said)
    count = int(total[1].replace(",", "")) if total else 0
    ids = [e for e in elements(listed, "tr") if (e.get("id") or "").startswith("exact-")]
    assert len(rows) - count in (0, len(ids)), said
    assert len(lines_of(viewer_client, path)) == len(rows)
    unfiltered = rows_of(viewer_client, path.partition("?")[0])
    assert len(rows) < len(unfiltered) or "page=7" in path or "life=expired" in path


def test_a_searched_id_comes_first_and_once(viewer_client: Client, served: Backend) -> None:
    task_id = rows_of(viewer_client, "results/")[5]["task_id"]
    found = [row["task_id"] for row in rows_of(viewer_client, f"results/?q={task_id}")]
    assert found[0] == task_id
    assert found.count(task_id) == 1


def test_the_links_at_each_table_keep_the_filters(viewer_client: Client, served: Backend) -> None:
    for path in ("agents/?q=a&page=2", "results/?order=expiring", "config/?q=_", "storage/"):
        page = viewer_client.get(f"/prod/{path}")
        found = [e for e in elements(page, "a") if "format=" in e.get("href", "")]
        assert {"".join(e.itertext()) for e in found} == {"CSV", "JSON"}
        for link in found:
            assert not [name for name in link.attrib if name.startswith("hx-")]
            assert "page=" not in link.get("href")
            assert set(path.partition("?")[2].split("&")) - {"page=2", ""} <= set(
                link.get("href").lstrip("?").split("&")
            )
            content(viewer_client.get(f"/prod/{path.partition('?')[0]}{link.get('href')}"))


# --- What it says of itself ---


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize(("noun", "path"), TABLES.items(), ids=TABLES)
def test_a_download_is_a_named_attachment_that_no_cache_keeps(
    viewer_client: Client, served: Backend, noun: str, path: str, kind: str
) -> None:
    response = get(viewer_client, path, kind, **{"Accept-Encoding": "gzip"})
    assert content(response)
    assert re.fullmatch(
        rf'attachment; filename="prod-{noun}-\d{{8}}T\d{{6}}Z\.{kind}"',
        response.headers["Content-Disposition"],
    )
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "Content-Encoding" not in response.headers
    types = {"csv": "text/csv; charset=utf-8; header=present",
             "json": "application/json; charset=utf-8"}  # fmt: skip
    assert response.headers["Content-Type"] == types[kind]


@pytest.mark.parametrize("path", TABLES.values(), ids=TABLES)
def test_nobody_downloads_without_a_login(client: Client, served: Backend, path: str) -> None:
    response = get(client, path, "csv")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/login/?next=")


def test_a_format_that_there_is_not_is_left_out(viewer_client: Client, served: Backend) -> None:
    for kind in ("xlsx", "CSV", "csv%00", ""):
        page = get(viewer_client, "agents/", kind)
        assert "text/html" in page.headers["Content-Type"]
    assert "Left out of this address: format" in text_of(get(viewer_client, "agents/", "xlsx"))


def test_an_empty_table_is_a_whole_file(viewer_client: Client, empty: Backend) -> None:
    for path in ("agents/", "results/", "config/", "storage/"):
        assert rows_of(viewer_client, path) == []
        assert content(get(viewer_client, path, "csv")).count(b"\r\n") == 1


def test_the_head_of_a_download_reads_no_rows(viewer_client: Client, served: Backend) -> None:
    response = viewer_client.head("/prod/results/?format=csv")
    assert response.status_code == 200
    assert content(response) == b""


# --- What is hostile or odd ---

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\0=1", "＝1+1", "－1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_in_a_spreadsheet(
    viewer_client: Client, empty: Backend, text: str
) -> None:
    store = empty.open()
    store.save_result(text, {"agent": text, "topic": text, "status": text}, 600)
    store.add_agent("topic", {"name": "n" + text, "description": text})
    store.save_config(text, text)
    settled(registry()["prod"].store)
    (line,) = lines_of(viewer_client, "results/")
    for name in ("task_id", "agent", "topic", "status"):
        assert line[name] == "'" + printable(text, lines=True)
    assert lines_of(viewer_client, "agents/")[0]["description"].startswith("'")
    (line,) = lines_of(viewer_client, "config/")
    assert line["key"] == line["value"] == "'" + printable(text, lines=True)
    (row,) = rows_of(viewer_client, "results/")
    assert row["task_id"] == printable(text, lines=True), "JSON needs no such mark"


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD)
def test_awkward_names_leave_both_formats_whole(
    viewer_client: Client, empty: Backend, text: str
) -> None:
    store = empty.open()
    store.save_result(text + '",\r\nx', {"agent": text}, 600)
    store.add_agent(text, {"name": text, "description": text, "tools": [text, {text: text}]})
    store.save_config(text, {text: [text]})
    settled(registry()["prod"].store)
    for path in ("results/", "agents/", "config/"):
        (row,) = rows_of(viewer_client, path)
        (line,) = lines_of(viewer_client, path)
        assert list(row) == list(line)
        for kind in ("csv", "json"):
            whole_text = content(get(viewer_client, path, kind)).decode("utf-8", "strict")
            assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e\ufeff]", whole_text)
    value = rows_of(viewer_client, "config/")[0]["value"]
    assert printable(text, lines=True) in value if len(text) < 60_000 else value is None


def test_numbers_stay_numbers_and_what_json_does_not_know_is_null(
    viewer_client: Client, empty: Backend
) -> None:
    store = empty.open()
    values = {"a": -1.5, "b": float("nan"), "c": float("-inf"), "d": 10**30, "e": True,
              "f": None, "g": [float("nan"), -2], "h": -3, "i": "", "j": "-3"}  # fmt: skip
    for key, value in values.items():
        store.save_config(key, value)
    found = {row["key"]: row["value"] for row in rows_of(viewer_client, "config/")}
    assert found == {**values, "b": None, "c": None, "g": [None, -2]}
    cells = {line["key"]: line["value"] for line in lines_of(viewer_client, "config/")}
    assert cells == {"a": "-1.5", "b": "", "c": "", "d": str(10**30), "e": "true", "f": "",
                     "g": "[null, -2]", "h": "-3", "i": "", "j": "'-3"}  # fmt: skip


def test_a_value_nested_a_thousand_deep_breaks_no_download(
    viewer_client: Client, empty: Backend
) -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    empty.open().save_config("deep", deep)
    for table in (rows_of, lines_of):
        (row,) = table(viewer_client, "config/")
        # With the line breaks of a JSON file it is too large to be parsed.
        assert row["value"] or row["begins_with"].startswith("[")


def test_secrets_are_masked_as_on_the_page(viewer_client: Client, empty: Backend) -> None:
    store = empty.open()
    store.save_config("smtp.password", "hunter2")
    store.save_config("settings", {"api_key": "hunter2", "url": "amqp://user:hunter2@broker/"})
    store.save_config("large", {"password": "hunter2", "x": "y" * 100_000})
    if not isinstance(empty, JsonBackend):
        empty.client.set("omni:config:broken", '{"password": "hunter2",')  # type: ignore[attr-defined]
    for path in TABLES.values():
        for kind in ("csv", "json"):
            assert b"hunter2" not in content(get(viewer_client, path, kind))
    settings = {row["key"]: row["value"] for row in rows_of(viewer_client, "config/")}["settings"]
    assert settings == {"api_key": "••••••", "url": "amqp://••••••@broker/"}


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (None, None),
        (0.5, "1970-01-01T00:00:00.500Z"),
        (1_800_000_000.0, "2027-01-15T08:00:00.000Z"),
        (1e300, "after the year 2100"),
        (Invalid("soon"), "invalid: soon"),
    ],
)
def test_a_time_is_iso_8601_in_utc(at: Any, said: str | None) -> None:
    assert moment(at) == said


def test_figures_that_cannot_be_read_are_unknown_not_zero(
    viewer_client: Client, json_fixture: JsonBackend
) -> None:
    (json_fixture.folder / "metrics.json").write_bytes(b"{")
    with serving(prod=json_fixture.url):
        rows = rows_of(viewer_client, "agents/")
    assert {(row["received_24h"], row["p95_24h_seconds"]) for row in rows} == {(None, None)}


# --- A list that moves while it is read ---


class Moving:
    """A listing to which a plan of changes happens between two looks."""

    def __init__(self, *changes: tuple[str, int]) -> None:
        self.rows = list(range(1000))
        self.changes = list(changes)
        self.fresh = iter(range(-1, -10_000, -1))

    def ask(self, offset: int, limit: int) -> Page[int]:
        answer = Page(self.rows[offset : offset + limit], len(self.rows))
        what, count = self.changes.pop(0) if self.changes else ("", 0)
        if what == "add":
            self.rows[:0] = [next(self.fresh) for _ in range(count)]
        elif what == "remove":
            del self.rows[:count]
        return answer


def itself(row: int) -> int:
    return row


@pytest.mark.parametrize(
    "changes",
    [
        [], [("add", 5)] * 4, [("add", 150)] * 2, [("remove", 5)] * 4, [("remove", 100)],
        [("remove", 150), ("remove", 150)], [("remove", 350)], [("add", 40), ("remove", 90)],
    ],
)  # fmt: skip
def test_rows_that_come_and_go_ahead_neither_double_nor_hide_others(
    changes: list[tuple[str, int]],
) -> None:
    moving = Moving(*changes)
    before = list(moving.rows)
    found = list(every(moving.ask, itself, 200))
    stayed = [row for row in before if row in set(moving.rows)]
    assert [row for row in found if row in set(stayed)] == stayed
    assert len(found) == len(set(found))


def test_a_list_that_is_cleared_meanwhile_ends() -> None:
    assert len(list(every(Moving(("remove", 1000)).ask, itself, 200))) == 200


def test_a_list_that_is_not_known_to_its_end_is_no_download() -> None:
    def ask(offset: int, limit: int) -> Page[int]:
        return Page([1, 2], None, complete=False)

    with patience.patience(0.4), pytest.raises(downloads.Incomplete, match="all or nothing"):
        next(every(ask, itself))


def test_what_becomes_complete_soon_is_waited_for() -> None:
    looks = iter([False, False, True])
    with patience.patience(5):
        assert whole(lambda: Page([], 0, complete=next(looks))).complete


def test_a_search_that_cannot_be_finished_is_said_and_never_tried_again_by_itself(
    viewer_client: Client, served: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = registry()["prod"].store
    monkeypatch.setattr(type(store), "result_page", lambda self, query: Page([], None, False))
    response = get(viewer_client, "results/", "csv")
    assert response.status_code == 503
    assert "a download has all or nothing" in text_of(response)
    assert not [e for e in elements(response, "div") if "data-live" in e.attrib]
    assert "Trying again by itself" not in text_of(response)


# --- Large, slow and dying stores ---


@pytest.fixture
def server() -> Iterator[RedisServer]:
    found = RedisServer()
    yield found
    found.close()


def fill(server: RedisServer, count: int, agent: str = "a") -> None:
    now = time.time()
    with server.client() as client:
        for start in range(0, count, 5000):
            numbers = range(start, min(count, start + 5000))
            with client.pipeline(transaction=False) as pipe:
                for number in numbers:
                    record = {"task_id": f"t{number}", "saved_at": now, "result": {"agent": agent}}
                    pipe.set(f"omni:result:t{number}", json.dumps(record), ex=86400)
                pipe.zadd("omni:results:index", {f"t{number}": number for number in numbers})
                pipe.execute()


def test_twenty_thousand_results_stream_in_bounded_batches(
    viewer_client: Client, server: RedisServer
) -> None:
    fill(server, 20_000)
    with serving(prod=server.url):
        settled(registry()["prod"].store)
        list(get(viewer_client, "results/", "csv").streaming_content)  # what is made once is made
        response = get(viewer_client, "results/", "json")
        tracemalloc.start()
        sizes, found = [], 0
        for piece in response.streaming_content:
            sizes.append(len(piece))
            found += piece.count(b'"task_id"')
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found == 20_000
    assert len(sizes) >= 40
    assert max(sizes) < 500_000
    assert peak < 2_500_000 < sum(sizes)


def rows_and_then(count: int, error: Exception) -> Iterator[int]:
    yield from range(count)
    raise error


def request_for(kind: str) -> Any:
    request: Any = RequestFactory().get("/prod/x/", {"format": kind})
    request.entry = registry()["prod"]
    return request


def test_a_store_that_fails_before_the_first_row_is_the_usual_outage(
    viewer_client: Client, server: RedisServer
) -> None:
    server.stop()
    with serving(prod=server.url):
        for path in TABLES.values():
            response = get(viewer_client, path, "csv")
            assert response.status_code == 503
            assert "prod cannot be read since" in text_of(response)
            assert "attachment" not in response.headers.get("Content-Disposition", "")


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_store_that_dies_in_the_middle_leaves_no_whole_file(
    viewer_client: Client, server: RedisServer, kind: str
) -> None:
    fill(server, 5000)
    with serving(prod=server.url):
        settled(registry()["prod"].store)
        response = get(viewer_client, "results/", kind)
        assert response.status_code == 200
        pieces = []
        with pytest.raises(ConnectionResetError):
            for number, piece in enumerate(response.streaming_content):
                pieces.append(piece)
                if number == 1:
                    server.stop()
    text = b"".join(pieces).decode()
    assert text.endswith('"INCOMPLETE: the store failed here')
    assert "t4999" in text
    with pytest.raises((ValueError, csv.Error)):
        json.loads(text) if kind == "json" else list(csv.reader(io.StringIO(text), strict=True))


def test_a_served_download_that_breaks_off_is_broken_for_who_reads_it(
    tmp_path: Path, server: RedisServer
) -> None:
    # More than the buffers of two sockets hold, so that it cannot be sent before the store dies.
    fill(server, 20_000, "a" * 1000)
    served = Served(tmp_path, OMNIDASH_STORES=f"prod={server.url}")
    try:
        browser = Browser(served)
        browser.open(link := served.wait_for(r"\n  http://127\.0\.0\.1:\d+/(setup/\S+/)\n"))
        assert browser.open(link, **ACCOUNT) == 200
        address = "prod/results/?format=csv"
        deadline = time.monotonic() + 60
        while browser.open(address) == 503:
            assert time.monotonic() < deadline, "the store is learnt in seconds"
        assert browser.text.count("\n") == 20_001
        with browser.opener.open(browser.base + address) as answer:
            assert answer.headers["Transfer-Encoding"] == "chunked"
            answer.read(1000)
            server.stop()
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                answer.read()
        assert browser.open("healthz") == 200
        assert "ended half-way" in served.log.read_text()
        assert "Traceback" not in served.log.read_text()
    finally:
        served.process.terminate()
        served.process.wait(timeout=60)


def test_a_batch_has_a_time_of_its_own_and_not_the_pages(
    viewer_client: Client, empty: Backend
) -> None:
    left: list[float] = []

    def rows() -> Iterator[int]:
        for number in range(1300):
            if number % 500 == 0:
                left.append(patience.left())
            yield number

    with patience.patience(0.5):
        response = download(request_for("json"), "x", {"n": itself}, rows())
    assert len(json.loads(content(response))) == 1300
    assert left[0] <= 0.5
    assert [0.5 < seconds <= 10 for seconds in left[1:]] == [True, True]
    assert patience.left() == float("inf"), "nothing of it is left behind"


@pytest.mark.parametrize("count", [0, 1, 499])
def test_a_failure_before_the_first_batch_is_whole_is_raised_to_the_page(
    empty: Backend, count: int
) -> None:
    with pytest.raises(StoreUnavailable):
        download(
            request_for("csv"), "x", {"n": itself}, rows_and_then(count, StoreUnavailable("gone"))
        )


def test_the_log_says_what_ended_half_way(empty: Backend, caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_and_then(700, StoreError("went away"))
    response = download(request_for("csv"), "x", {"n": itself}, rows)
    with pytest.raises(ConnectionResetError):
        content(response)
    assert "the download prod-x ended half-way: went away" in caplog.text


def test_a_download_never_writes_to_its_store(viewer_client: Client, served: Backend) -> None:
    before = served.photograph()
    for path in TABLES.values():
        for kind in ("csv", "json"):
            content(get(viewer_client, path, kind))
    assert served.photograph() == before
