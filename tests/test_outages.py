"""A store that cannot be read: the frame stays, cause and time are said, and it comes back."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import Client

from omnidash import middleware, stores
from omnidash.charts import Drawing
from omnidash.history.levels import last
from omnidash.stores import registry
from omnidash.text import ref
from storage.base import Store, StoreError
from tests.pages import OF_THE_STORE, PAGES, elements, get_part, serving, text_of
from tests.servers import RedisServer, late_answers
from tests.stores import Backend, eventually, time_passes, waited

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db


def fill(url: str) -> None:
    from storage import open_store

    store = open_store(url)
    store.add_agent("topic", {"name": "known-agent"})
    store.save_result("known-task", {"agent": "known-agent", "topic": "topic"}, 3600)
    store.save_metric(
        {
            "event": "task_received",
            "topic": "topic",
            "agent": "known-agent",
            "timestamp": time.time(),
        }
    )
    store.close()


@pytest.mark.parametrize("path", OF_THE_STORE.values(), ids=OF_THE_STORE)
def test_a_store_that_is_down_keeps_the_frame_and_the_last_good_data(
    viewer_client: Client, server: RedisServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server.url)
    with serving(prod=server.url):
        good = text_of(viewer_client.get(f"/prod/{path}"))
        server.stop()
        time_passes(monkeypatch, 2)  # what was learnt in the last second is served from memory
        response = viewer_client.get(f"/prod/{path}")
        assert response.status_code == 503
        said = text_of(response)
        assert "prod cannot be read since" in said
        assert "refused" in said
        assert "What is shown was good" in said
        assert "Overview" in said, "the side bar is there"
        if "known-agent" in good:
            assert "known-agent" in said
        assert elements(response, "div")
        part = get_part(viewer_client, f"/prod/{path}")
        assert part.status_code == 503
        assert part.headers["HX-Retarget"] == "#notice"
        server.start()
        eventually(lambda: viewer_client.get(f"/prod/{path}").status_code, 200)


def test_a_store_that_never_answered_says_so_and_shows_no_zero(
    viewer_client: Client, server: RedisServer
) -> None:
    server.stop()
    with serving(prod=server.url):
        said = text_of(viewer_client.get("/prod/agents/"))
    assert "It has not answered since OmniDash started" in said
    assert "0 agents" not in said


def test_one_store_that_is_down_does_not_touch_the_other(
    viewer_client: Client, server: RedisServer, json_fixture: Backend
) -> None:
    server.stop()
    with serving(prod=server.url, dev=json_fixture.url):
        assert viewer_client.get("/prod/").status_code == 503
        assert viewer_client.get("/dev/").status_code == 200


@pytest.mark.parametrize("path", OF_THE_STORE.values(), ids=OF_THE_STORE)
def test_a_frozen_server_is_said_within_the_time_that_people_wait(
    viewer_client: Client, server: RedisServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server.url)
    with serving(prod=server.url):
        assert viewer_client.get(f"/prod/{path}").status_code == 200
        time_passes(monkeypatch, 3)
        server.process.send_signal(signal.SIGSTOP)
        with waited() as took:
            response = viewer_client.get(f"/prod/{path}")
        server.process.send_signal(signal.SIGCONT)
    assert response.status_code == 503
    assert "did not answer" in text_of(response)
    assert took() < 3  # the promise itself, not a measure of this machine


def test_a_wrong_password_is_said_without_the_password(
    viewer_client: Client, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.client().config_set("requirepass", "right")
    url = server.url.replace("redis://", "redis://:hunter2@")
    with serving(prod=url):
        response = viewer_client.get("/prod/")
        assert response.status_code == 503
        assert "authentication failed" in text_of(response)
        assert "hunter2" not in response.content.decode()
        assert "hunter2" not in caplog.text


def test_a_forbidden_command_is_named_and_the_rest_works(
    viewer_client: Client, server: RedisServer
) -> None:
    fill(server.url)
    server.client().execute_command(
        "ACL", "SETUSER", "u", "on", ">p", "~omni:*", "+@read", "+@connection", "+multi", "+exec",
        "-@dangerous",
    )  # fmt: skip
    with serving(prod=server.url.replace("redis://", "redis://u:p@")):
        page = viewer_client.get("/prod/storage/")
        assert page.status_code == 200
        assert "INFO" in text_of(page)
        assert "known-agent" in text_of(viewer_client.get("/prod/agents/"))


def test_a_server_that_is_loading_is_not_an_empty_one(
    viewer_client: Client, server: RedisServer
) -> None:
    client = server.client()
    with client.pipeline() as pipe:
        for number in range(20000):
            pipe.set(f"omni:result:{number}", "x" * 500)
        pipe.execute()
    client.save()
    server.process.kill()
    server.process.wait()
    server.start("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with serving(prod=server.url):
        response = viewer_client.get("/prod/")
    assert response.status_code == 503
    assert "loading" in text_of(response)


def test_a_replica_is_read_without_a_write(viewer_client: Client, server: RedisServer) -> None:
    fill(server.url)
    server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    with serving(prod=server.url):
        for path in PAGES.values():
            response = viewer_client.get(f"/prod/{path}")
            assert response.status_code == 200, text_of(response)[:300]
        assert "replica" in text_of(viewer_client.get("/prod/storage/")).lower()


def test_a_replica_that_lost_its_master_and_serves_nothing_stale_says_so(
    viewer_client: Client, server: RedisServer
) -> None:
    server.client().config_set("replica-serve-stale-data", "no")
    server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    with serving(prod=server.url):
        response = viewer_client.get("/prod/")
    assert response.status_code == 503
    assert "master" in text_of(response).lower()


def test_a_wrong_prefix_is_said_with_those_that_hold_data(
    viewer_client: Client, server: RedisServer
) -> None:
    fill(server.url + "?prefix=tenant")
    with serving(prod=server.url):
        said = text_of(viewer_client.get("/prod/storage/"))
    assert "OmniDaemon data under prefix omni in db 0" in said
    assert "tenant" in said


def test_a_json_directory_that_is_not_there_is_said_by_path_and_not_made(
    viewer_client: Client, tmp_path: Path
) -> None:
    folder = tmp_path / "missing"
    with serving(prod=f"json://{folder}"):
        response = viewer_client.get("/prod/")
        assert response.status_code == 503
        assert str(folder) in text_of(response)
        assert "No such file" in text_of(response)
    assert not folder.exists()


@pytest.mark.parametrize(
    "content", [b"", b'{"a": [{"na', b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[1]", b"null"],
    ids=["empty", "truncated", "BOM", "UTF-16", "a list", "null"],
)  # fmt: skip
def test_a_corrupt_file_is_not_shown_as_empty(
    viewer_client: Client, json_fixture: Any, content: bytes
) -> None:
    (json_fixture.folder / "agents.json").write_bytes(content)
    with serving(prod=json_fixture.url):
        response = viewer_client.get("/prod/agents/")
        assert response.status_code == 503
        assert "agents.json" in text_of(response)
        assert "0 agents" not in text_of(response)
        assert viewer_client.get("/prod/results/").status_code == 200, "the other files work"
        storage = viewer_client.get("/prod/storage/")
        assert storage.status_code == 200
        assert "do not restart" in text_of(storage)
    assert (json_fixture.folder / "agents.json").read_bytes() == content


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory"])
def test_a_file_that_is_no_file_is_refused_not_waited_for(
    viewer_client: Client, json_fixture: Any, kind: str
) -> None:
    path = json_fixture.folder / "agents.json"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to("/etc/hostname")
    else:
        path.mkdir()
    with serving(prod=json_fixture.url):
        response = viewer_client.get("/prod/agents/")
    assert response.status_code == 503
    assert "agents.json" in text_of(response)


@pytest.mark.parametrize(
    "odd", ['[1]', '"x"', "null", "[" * 200_000, '{"result": {"n": ' + "9" * 5000 + "}}", "{bad"],
    ids=["list", "text", "null", "deep", "long number", "bad JSON"],
)  # fmt: skip
def test_one_broken_result_is_one_marked_row(
    viewer_client: Client, redis_url: str, odd: str
) -> None:
    fill(redis_url)
    client = redis.Redis.from_url(redis_url)
    client.set("omni:result:broken", odd)
    client.zadd("omni:results:index", {"broken": time.time()})
    client.lpush("omni:result:wrong-type", "x")
    client.zadd("omni:results:index", {"wrong-type": time.time()})
    with serving(prod=redis_url):
        page = viewer_client.get("/prod/results/")
        said = text_of(page)
        assert "known-task" in said
        assert len([e for e in elements(page, "tr") if e.get("class") == "row-bad"]) == 2
        assert "expected string, is list" in said
        assert viewer_client.get(f"/prod/results/{ref('broken')}/").status_code == 200


def test_json_values_that_break_browsers_are_shown_as_text(
    viewer_client: Client, redis_url: str
) -> None:
    body = '{"a": NaN, "b": 1e999, "c": "\\ud800", "d": 123456789012345678901234567890}'
    record = '{"task_id": "odd", "result": ' + body + ', "saved_at": 1}'
    redis.Redis.from_url(redis_url).set("omni:result:odd", record)
    with serving(prod=redis_url):
        response = viewer_client.get(f"/prod/results/{ref('odd')}/")
        assert response.status_code == 200
        said = text_of(response)
    assert "NaN" in said
    assert "123456789012345678901234567890" in said
    assert json.loads(record.replace("NaN", "1"))["task_id"] == "odd"


def test_a_part_that_a_page_does_not_live_from_is_said_and_the_rest_stands(
    viewer_client: Client, json_fixture: Any
) -> None:
    (json_fixture.folder / "metrics.json").write_bytes(b"{")
    with serving(prod=json_fixture.url):
        for path in ("", "agents/", "results/", "storage/"):
            page = viewer_client.get(f"/prod/{path}")
            assert page.status_code == 200, path
        assert "Could not be read: metrics" in text_of(viewer_client.get("/prod/agents/"))
        broken = viewer_client.get("/prod/metrics/")
    assert broken.status_code == 503
    assert "This page cannot be read." in text_of(broken)
    assert "Down:" not in text_of(broken)


# The history while its store cannot be read


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass."""
    real, passed = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + passed[0])

    def let_pass(seconds: float) -> None:
        passed[0] += seconds

    return let_pass


def points_of(client: Client, query: str = "range=15m") -> dict[str, Any]:
    response = client.get(f"/prod/metrics/points?{query}")
    assert response.status_code == 200
    found: dict[str, Any] = json.loads(response.content)
    return found


def test_while_a_store_is_down_the_history_stays_as_it_was(
    viewer_client: Client, server: RedisServer, later: Callable[[float], None]
) -> None:
    fill(server.url)
    with serving(prod=server.url):
        good = points_of(viewer_client)
        assert sum(filter(None, good["received"])) == 1
        server.stop()
        later(1200)
        down = points_of(viewer_client)
        assert (down["version"], down["received"]) == (good["version"], good["received"])
        path = f"/prod/metrics/points?range=15m&version={good['version']}"
        assert viewer_client.get(path).status_code == 204
        for path in ("metrics/", "metrics/numbers", "errors/"):
            response = viewer_client.get(f"/prod/{path}?range=15m")
            said = text_of(response)
            assert response.status_code == 503, path
            assert "What is shown was good 20 min ago" in said
            for kind in ("csv", "json"):
                file = viewer_client.get(f"/prod/{path}?range=15m&format={kind}")
                assert file.status_code == 503, path
        shown = elements(viewer_client.get("/prod/metrics/?range=15m"), "article")
        assert "Received1" in ["".join(card.itertext()).strip() for card in shown]
        server.start()
        fill(server.url)
        back = points_of(viewer_client)
        assert back["end"] > good["end"]
        assert viewer_client.get("/prod/metrics/?range=15m").status_code == 200


def test_events_that_cannot_be_read_leave_figures_unknown_and_not_zero(
    viewer_client: Client, server: RedisServer, later: Callable[[float], None]
) -> None:
    fill(server.url)
    user = ("ACL", "SETUSER", "u", "on", ">p", "~omni:*", "+@all")
    server.client().execute_command(*user)
    with serving(prod=server.url.replace("redis://", "redis://u:p@")):
        assert "0.0/min" in text_of(viewer_client.get("/prod/"))
        server.client().execute_command(*user, "-xrange")
        for seconds in (15, 4000):
            later(seconds)
            said = text_of(viewer_client.get("/prod/"))
            assert "Could not be read: " in said
            assert "/min" not in said
            assert "Throughput—" in said.replace(" ", "")
            listed = viewer_client.get("/prod/agents/")
            labels = ("Received", "Failed", "p95")
            cells = [cell for cell in elements(listed, "td") if cell.get("data-label") in labels]
            assert ["".join(cell.itertext()) for cell in cells] == ["—"] * 3
            one = viewer_client.get(f"/prod/agents/{ref('topic', 'known-agent')}/")
            for label in ("Received", "Processed", "Failed", "Latency p95"):
                assert f"{label} —" in re.sub(rf"{label}(?=—)", f"{label} ", text_of(one))


def test_a_healthy_store_has_no_unknown_step(
    viewer_client: Client, backend: Backend, later: Callable[[float], None]
) -> None:
    """Also directly after a step began, however short ago the store was read."""
    backend.open().save_metric({"event": "task_received", "timestamp": time.time()})
    with serving(prod=backend.url):
        points_of(viewer_client)
        for seconds in (0.1, 9.7, 0.4, 10, 3, 0.2, 6.5, 61, 0.9):
            later(seconds)
            received = points_of(viewer_client)["received"]
            assert received[-1] is not None
            assert received[received.index(1) :].count(None) == 0


def test_steps_after_the_last_reading_are_unknown_until_it_is_read_again(
    viewer_client: Client, backend: Backend, later: Callable[[float], None]
) -> None:
    """A reader that has drawn them so learns then that nothing was there."""
    backend.open().save_metric({"event": "task_received", "timestamp": time.time()})
    with serving(prod=backend.url):
        good = points_of(viewer_client)
        source = registry()["prod"].history.source()
        now = time.time()
        ahead = Drawing(source, last(900, now + 100))
        columns = ahead.columns()
        assert columns["received"][-9:] == [None] * 9
        assert columns["received"][-11] is not None
        read_later = registry()["prod"].history.source()
        read_later.read_at = now + 100
        read = Drawing(read_later, ahead.span)
        assert read.version != ahead.version
        since = read.since(ahead.version)
        assert since is not None
        assert since <= good["end"]
        assert None not in read.columns(since)["received"]


def since(client: Client, path: str) -> tuple[bool, str]:
    """Whether the notice says that the whole store is down, and since when."""
    response = client.get(f"/prod/{path}")
    assert response.status_code == 503
    [notice] = [one for one in elements(response, "div") if one.get("id") == "notice"]
    return "Down:" in text_of(response), next(notice.iter("time")).get("datetime")


def test_a_page_that_alone_cannot_be_read_keeps_its_own_time(
    viewer_client: Client, json_fixture: Any
) -> None:
    agents, results = json_fixture.folder / "agents.json", json_fixture.folder / "results.json"
    good = results.read_bytes()
    with serving(prod=json_fixture.url):
        results.write_bytes(b"{")
        first = since(viewer_client, "results/")
        assert not first[0]
        assert viewer_client.get("/prod/config/").status_code == 200
        assert since(viewer_client, "results/") == first, "another page that answers"
        agents.write_bytes(b"{")
        second = since(viewer_client, "agents/")
        assert second > first
        assert since(viewer_client, "results/") == first, "another page that does not"
        assert since(viewer_client, "agents/") == second
        results.write_bytes(good)
        assert viewer_client.get("/prod/results/").status_code == 200
        results.write_bytes(b"{")
        assert since(viewer_client, "results/") > second, "it could be read meanwhile"
        assert since(viewer_client, "agents/") == second
        assert registry()["prod"].down_since is None


def test_a_forbidden_key_is_no_outage_of_the_store(
    viewer_client: Client, server: RedisServer
) -> None:
    fill(server.url)
    server.client().execute_command(
        "ACL", "SETUSER", "u", "on", ">p", "~omni:config:*", "+@read", "+@connection"
    )
    with serving(prod=server.url.replace("redis://", "redis://u:p@")):
        first = since(viewer_client, "agents/")
        assert not first[0]
        assert since(viewer_client, "results/") > first
        assert registry()["prod"].down_since is None
        assert since(viewer_client, "agents/") == first


def reached(store: Store) -> bool:
    try:
        store.connect()
    except StoreError:
        return False
    return True


def test_an_outage_of_the_store_has_its_own_time_beside_that_of_a_page(
    viewer_client: Client, server: RedisServer
) -> None:
    fill(server.url)
    server.client().execute_command(
        "ACL", "SETUSER", "u", "on", ">p", "~omni:*", "+@read", "+@connection", "-xrange"
    )
    with serving(prod=server.url.replace("redis://", "redis://u:p@")):
        own = since(viewer_client, "metrics/")
        assert not own[0]
        assert viewer_client.get("/prod/results/").status_code == 200
        server.stop()
        down = since(viewer_client, "results/")
        assert down[0]
        assert down[1] > own[1]
        assert since(viewer_client, "metrics/") == down == since(viewer_client, "agents/")
        entry = registry()["prod"]
        entry.answered("/prod/overview/")  # a page that lives from what is kept in memory
        assert since(viewer_client, "results/") == down
        server.start()
        fill(server.url)
        server.client().execute_command(
            "ACL", "SETUSER", "u", "on", ">p", "~omni:*", "+@read", "+@connection", "-xrange"
        )
        eventually(lambda: reached(entry.store), True)  # a slow failure is not tried again at once
        assert since(viewer_client, "metrics/") == own, "it never could be read in between"
        assert entry.down_since is None
        assert viewer_client.get("/prod/results/").status_code == 200


def test_the_times_of_only_so_many_failing_pages_are_kept(
    viewer_client: Client, json_fixture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_PATHS", 5)
    (json_fixture.folder / "results.json").write_bytes(b"{")
    with serving(prod=json_fixture.url):
        first = since(viewer_client, "results/")
        for number in range(20):
            viewer_client.get(f"/prod/results/{ref(str(number))}/")
            assert since(viewer_client, "results/") == first
        assert len(registry()["prod"]._failing) == 5


def test_secrets_of_unreadable_records_are_not_shown_by_their_beginning(
    viewer_client: Client, redis_url: str
) -> None:
    client = redis.Redis.from_url(redis_url)
    client.set("omni:config:api_key", "sk-hunter2")
    client.set("omni:config:settings", '{"password": "hunter2",')
    with serving(prod=redis_url):
        for path in ("config/", "storage/", "storage/"):
            assert b"hunter2" not in viewer_client.get(f"/prod/{path}").content


@pytest.mark.parametrize("path", OF_THE_STORE.values(), ids=OF_THE_STORE)
def test_a_server_that_answers_everything_late_does_not_make_a_page_wait_for_each_answer(
    viewer_client: Client, server: RedisServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "PAGE_SECONDS", 0.8)
    fill(server.url)
    with (
        late_answers(server.port, 0.3) as port, serving(prod=f"redis://127.0.0.1:{port}/0"),
        waited() as took,
    ):  # fmt: skip
        response = viewer_client.get(f"/prod/{path}")
    assert response.status_code in (200, 503)
    assert took() < 2  # one answer more than the page's patience; without it three to six
    if response.status_code == 503:
        assert "too slowly" in text_of(response) or "did not answer" in text_of(response)
