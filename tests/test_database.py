"""OmniDash's own database in a PostgreSQL: prepared, used, missed, and nothing given away."""

from __future__ import annotations

import http.cookiejar
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import client_of
from django.contrib.auth.models import Group, User
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, IntegrityError, OperationalError, ProgrammingError, connection
from django.http import HttpResponse
from django.test import RequestFactory

from omnidash import settings as ours
from omnidash.middleware import DatabaseMiddleware
from omnidash.stores import registry
from storage.patience import patience
from tests.pages import PAGES, serving
from tests.servers import PostgresServer
from tests.stores import Backend
from tests.test_serve import Served
from tests.test_settings import manage

pytest_plugins = ["tests.store_fixtures"]

WHOLE = "postgres://ada:hunter2@db.example.org:6432/omnidash?sslmode=require"


def described(url: str) -> dict[str, object]:
    return ours._database({"DATABASE_URL": url}, Path("/nowhere"))


def test_sqlite_in_the_data_folder_is_the_default(tmp_path: Path) -> None:
    for env in ({}, {"DATABASE_URL": " "}):
        found = ours._database(env, tmp_path)
        assert found["ENGINE"] == "django.db.backends.sqlite3"
        assert found["NAME"] == tmp_path / "omnidash.sqlite3"
        assert "journal_mode=WAL" in found["OPTIONS"]["init_command"]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "PostgreSQL"])
def test_a_url_names_a_postgresql(scheme: str) -> None:
    found = described(WHOLE.replace("postgres", scheme, 1))
    parts = [found[name] for name in ("USER", "PASSWORD", "HOST", "PORT", "NAME")]
    assert parts == ["ada", "hunter2", "db.example.org", "6432", "omnidash"]
    assert found["OPTIONS"]["sslmode"] == "require"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("postgres:///omnidash", ["", "", "", "", "omnidash"]),
        ("postgres:///n?host=/run/postgresql", ["", "", "/run/postgresql", "", "n"]),
        ("postgres://u@:1/n?host=%2Frun", ["u", "", "/run", "1", "n"]),
        ("postgres://u:a%40%2F%3F%23%25%3Ab+c@[::1]/n%20m", ["u", "a@/?#%:b+c", "::1", "", "n m"]),
    ],
)
def test_a_socket_and_quoted_signs_are_understood(url: str, parts: list[str]) -> None:
    found = described(url)
    assert [found[name] for name in ("USER", "PASSWORD", "HOST", "PORT", "NAME")] == parts


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "hunter2://db/omnidash",
        "mysql://u:hunter2@db/omnidash",
        "sqlite:///hunter2.sqlite3",
        "postgres:ada:hunter2@db/omnidash",
        "postgres://u:hunter2@db",
        "postgres://u:hunter2@db/",
        "postgres://u:hunter2@db:port/omnidash",
        "postgres://u:hunter2@db:0/omnidash",
        "postgres://u:hunter2@db:65536/omnidash",
        "postgres://u:hunter2@[::1/omnidash",
        "postgres://u:p/hunter2@db/omnidash",
        "postgres://u:1/hunter2@db/omnidash",
        "postgres://u:1?hunter2@db/omnidash",
        "postgres://u:1#hunter2@db/omnidash",
        "postgres://u:1?hunter2=",
        "postgres://u:hunter2@db/omnidash#x",
        "postgres://u:hunter2@db/omni/dash",
        "postgres://u:hunter2@db/" + "n" * 64,
        "postgres://u:hunter2%ff@db/omnidash",
        "postgres://u:hunter2%00@db/omnidash",
        "postgres://u:hunter2\udcff@db/omnidash",
        "postgres://u:hunter2@db/omnidash?sslmode=hunter2",
        "postgres://u:hunter2@db/omnidash?sslmode=",
        "postgres://u:hunter2@db/omnidash?hunter2=1",
        "postgres://u:hunter2@db/omnidash?options=-chunter2",
        "postgres://u:hunter2@db/omnidash?host=/run",
    ],
)
def test_a_bad_url_is_refused_without_repeating_any_of_it(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        described(url)
    said = str(refused.value)
    assert said.startswith("DATABASE_URL: it")
    assert len(said.splitlines()) == 1
    assert "hunter2" not in said
    assert refused.value.__cause__ is None


def test_a_bad_url_refuses_to_start_in_one_line(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", DATABASE_URL="postgres://u:hunter2@db/omnidash?hunter2=1")
    assert done.returncode == 1
    assert done.stderr.startswith("omnidash: DATABASE_URL: its options are application_name")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr + done.stdout


# --- Served from it ---


class Browser:
    """Keeps cookies and sends forms, as a browser without JavaScript does."""

    def __init__(self, served: Served) -> None:
        self.base = served.base()
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(jar)
        self.text = ""

    def open(self, address: str, **form: str) -> int:
        data = None
        if form:
            (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', self.text))
            data = urllib.parse.urlencode({**form, "csrfmiddlewaretoken": token}).encode()
        try:
            with self.opener.open(self.base + address, data, timeout=60) as answer:
                self.text, self.address = answer.read().decode(), answer.url
                return answer.status
        except urllib.error.HTTPError as error:
            self.text, self.address = error.read().decode(), error.url
            return error.code


ACCOUNT = {"username": "grace", "password1": "a long passphrase", "password2": "a long passphrase"}
LOGIN = {"username": "grace", "password": "a long passphrase"}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One to be broken."""
    found = PostgresServer()
    yield found
    found.close()


@pytest.fixture
def served(tmp_path: Path, server: PostgresServer) -> Iterator[Served]:
    (tmp_path / "store").mkdir()
    running = Served(tmp_path, DATABASE_URL=server.url)
    running.remember()
    yield running
    running.process.terminate()
    running.process.wait(timeout=60)


def test_the_first_start_migrates_it_and_a_person_can_log_in(
    served: Served, server: PostgresServer
) -> None:
    browser = Browser(served)
    link = served.wait_for(r"\n  http://127\.0\.0\.1:\d+/(setup/\S+/)\n")
    assert browser.open(link) == 200
    assert browser.open(link, **ACCOUNT) == 200
    assert browser.address == browser.base + "default/"
    assert served.get("readyz")[0] == 200
    other = Browser(served)
    assert other.open("default/agents/") == 200
    assert other.address == other.base + "login/?next=/default/agents/"
    assert other.open("login/?next=/default/agents/", **LOGIN) == 200
    assert other.address == other.base + "default/agents/"
    for page in ("", "agents/", "results/", "metrics/", "storage/", "config/"):
        assert other.open(f"default/{page}") == 200
    server.execute("SELECT 1 / count(*) FROM django_session", "omnidash")
    assert not list((served.folder / "var").rglob("*.sqlite3"))
    assert "hunter2" not in served.log.read_text()


@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_without_its_database_every_page_says_so_and_comes_back(
    served: Served, server: PostgresServer, how: str
) -> None:
    browser = Browser(served)
    link = served.wait_for(r"\n  http://127\.0\.0\.1:\d+/(setup/\S+/)\n")
    browser.open(link)
    assert browser.open(link, **ACCOUNT) == 200
    stranger = Browser(served)
    assert stranger.open("login/") == 200
    (server.stop if how == "dead" else server.freeze)()
    for reader, address, form in (
        (browser, "default/", {}), (stranger, "login/", LOGIN), (browser, "", {}),
    ):  # fmt: skip
        before = time.monotonic()
        assert reader.open(address, **form) == 503, address
        took = time.monotonic() - before
        assert took < 15, "three seconds are the promise, and for ever is what would be without"
        assert "The database cannot be used" in reader.text
        assert "Traceback" not in reader.text
        assert "hunter2" not in reader.text
    assert browser.open("healthz") == 200
    assert browser.open("readyz") == 503
    assert browser.text == "not ready\n"
    (server.start if how == "dead" else server.thaw)()
    assert browser.open("default/") == 200
    said = served.log.read_text()
    assert "the database cannot be used" in said
    assert "Traceback" not in said
    assert "hunter2" not in said


def test_a_file_that_is_no_database_any_more_is_said_on_every_page(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    served = Served(tmp_path, "--no-clock", "--no-worker")
    served.remember()
    try:
        browser = Browser(served)
        link = served.wait_for(r"\n  http://127\.0\.0\.1:\d+/(setup/\S+/)\n")
        browser.open(link)
        assert browser.open(link, **ACCOUNT) == 200
        stranger = Browser(served)
        assert stranger.open("login/") == 200
        before = len(served.log.read_text())
        for file in (tmp_path / "var").glob("omnidash.sqlite3*"):
            file.write_bytes(os.urandom(300_000))
        asked = [
            (browser, "default/", {}), (browser, "default/metrics/", {}), (browser, "", {}),
            (stranger, "login/", LOGIN),
        ]  # fmt: skip
        for reader, address, form in asked:
            assert reader.open(address, **form) == 503, address
            assert "The database cannot be used" in reader.text
        assert browser.open("readyz") == 503
        assert browser.open("healthz") == 200
        said = served.log.read_text()[before:]
        assert said.count("the database cannot be used") == len(asked)
        assert "Traceback" not in said
    finally:
        served.process.terminate()
        served.process.wait(timeout=60)


@pytest.mark.parametrize("kind", [IntegrityError, ProgrammingError, DataError])
def test_a_statement_that_is_wrong_is_no_database_that_cannot_be_used(
    rf: RequestFactory, kind: type[Exception]
) -> None:
    middleware = DatabaseMiddleware(lambda request: HttpResponse())
    assert middleware.process_exception(rf.get("/"), kind("x")) is None


def test_a_start_without_its_database_is_one_clear_line(
    tmp_path: Path, server: PostgresServer
) -> None:
    server.stop()
    done = manage(tmp_path, "serve", DATABASE_URL=server.url, OMNIDASH_BIND="127.0.0.1:0")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "the database cannot be used (DATABASE_URL" in done.stderr
    assert "refused" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_a_wrong_password_is_one_clear_line_without_it(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url.replace("hunter2", "hunter3")
    done = manage(tmp_path, "serve", DATABASE_URL=url, OMNIDASH_BIND="127.0.0.1:0")
    assert done.returncode == 1
    assert 'password authentication failed for user "ada"' in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "hunter3" not in done.stderr + done.stdout


def test_a_unix_socket_is_a_way_to_it(tmp_path: Path, postgres_server: PostgresServer) -> None:
    server = postgres_server
    url = f"postgresql://ada:{server.QUOTED}@:{server.port}/omnidash?host={server.folder}"
    done = manage(tmp_path, "migrate", DATABASE_URL=url)
    assert done.returncode == 0, done.stderr


# --- Django's own tests can run on it ---


def test_pages_and_roles_work_on_it(on_postgres: PostgresServer) -> None:
    assert connection.vendor == "postgresql"
    assert client_of("viewer").get("/default/agents/").status_code in (200, 503)
    assert User.objects.get().groups.get().name == "viewer"


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_each_page_of_real_data_answers_from_it(
    on_postgres: PostgresServer, redis_fixture: Backend, path: str
) -> None:
    client = client_of("viewer")
    with serving(prod=redis_fixture.url):
        registry()["prod"].history.refresh()
        for query in ("", "?range=30d", "?topic=etl.raw", "?order=failed", "?page=2"):
            assert client.get(f"/prod/{path}{query}").status_code == 200, query
        if path in ("agents/", "results/", "config/", "storage/"):
            response = client.get(f"/prod/{path}?format=csv")
            assert b"".join(response.streaming_content).count(b"\n") > 1


def test_each_test_on_it_begins_empty_and_threads_see_the_same(
    on_postgres: PostgresServer,
) -> None:
    assert not User.objects.exists()
    seen: list[bool] = []

    def look() -> None:
        seen.append(Group.objects.filter(name="of-the-test").exists())
        connection.close()

    Group.objects.create(name="of-the-test")
    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert seen == [True]


def test_hostile_logins_are_refused_as_any_other(on_postgres: PostgresServer) -> None:
    client = client_of("viewer")
    client.logout()
    for name in ("a\0b", "\ud800", "x" * 5000, "翻訳 🚀", "'; DROP TABLE auth_user; --"):
        form = {"username": name.encode("utf-8", "surrogatepass"), "password": "wrong"}
        body = urllib.parse.urlencode(form)
        response = client.post(
            "/login/", body, "application/x-www-form-urlencoded", HTTP_USER_AGENT="x" * 5000
        )
        assert response.status_code == 200, name
    assert User.objects.count() == 1


def test_a_question_that_outlasts_the_patience_ends_and_its_answer_is_never_mixed_up(
    on_postgres: PostgresServer,
) -> None:
    with connection.cursor() as cursor, patience(0.3), pytest.raises(OperationalError) as late:
        cursor.execute("SELECT pg_sleep(20)")
    assert "in time" in str(late.value)
    assert isinstance(late.value.__cause__, psycopg.OperationalError)
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 2")
        assert cursor.fetchone() == (2,)


def test_an_error_of_a_statement_keeps_the_connection(on_postgres: PostgresServer) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 50")
        with pytest.raises(OperationalError, match="statement timeout"):
            cursor.execute("SELECT pg_sleep(20)")
        cursor.execute("SELECT 3")
        assert cursor.fetchone() == (3,)
        cursor.execute("RESET statement_timeout")
