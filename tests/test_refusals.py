"""What another site sends is refused at every address, and what was refused is noted."""

from __future__ import annotations

import logging
import re
from unittest.mock import patch

import pytest
from conftest import PASSWORD, client_of, make_user
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse

from omnidash import audit
from omnidash.models import Run
from tests.pages import addresses

pytestmark = pytest.mark.django_db
OWN = {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}


def refusal(what: str, method: str, path: str) -> str:
    who = 'user="viewer" store="" address="127.0.0.1"'
    return f'refused what="{what}" {who} why="refused ({method} {path})"'


def wrong_password(user: str) -> str:
    why = "the password was wrong, or there is no such user"
    return f'refused what="log-in" user="{user}" store="" address="127.0.0.1" why="{why}"'


def noted(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "omnidash.audit"]


@pytest.mark.parametrize("role", ["", "viewer", "operator", "administrator"])
def test_nothing_is_taken_without_a_token(role: str) -> None:
    client = Client(enforce_csrf_checks=True)
    if role:
        client.force_login(make_user(role), "django.contrib.auth.backends.ModelBackend")
    for address in addresses():
        # The one that takes a file asks who sends it before it reads anything.
        to_the_login = not role and address == "/default/backups/upload"
        assert client.post(address).status_code == (302 if to_the_login else 403), address


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
        {"Origin": "http://evil.test"},
        {"Origin": "https://testserver"},
        {"Origin": "http://testserver:81"},
        {"Origin": "http://testserver.evil.test"},
        {"Origin": "null"},
        {"Origin": ""},
        {**OWN, "Origin": "http://evil.test"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_what_another_site_sends_is_refused_at_every_address(headers: dict[str, str]) -> None:
    client = client_of("administrator")
    for address in addresses():
        answer = client.post(address, headers=headers)
        assert answer.status_code == 403, address
        assert "Not allowed" in answer.content.decode(), address
    assert client.get("/").headers["Location"] == "/default/"  # still logged in


def test_methods_that_nobody_offers_are_refused_too() -> None:
    client = client_of("administrator")
    for method in ("PUT", "PATCH", "DELETE"):
        answer = client.generic(method, "/logout/", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403


@pytest.mark.parametrize("headers", [{}, OWN])
def test_what_comes_from_here_passes(headers: dict[str, str]) -> None:
    assert client_of("viewer").post("/logout/", headers=headers).status_code == 302


def test_a_link_from_another_site_may_be_followed() -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.test"}
    assert client_of("viewer").get("/", headers=headers).headers["Location"] == "/default/"


# --- What is noted ---


def test_a_refusal_is_noted_with_who_and_where(caplog: pytest.LogCaptureFixture) -> None:
    viewer = client_of("viewer")
    viewer.get("/admin/")
    viewer.post("/logout/", headers={"Sec-Fetch-Site": "cross-site"})
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = viewer.cookies
    strict.post("/password/")
    assert noted(caplog) == [
        refusal("permission", "GET", "/admin/"),
        refusal("origin", "POST", "/logout/"),
        refusal("csrf", "POST", "/password/"),
    ]


def test_strangers_cannot_fill_the_log_with_refusals(caplog: pytest.LogCaptureFixture) -> None:
    Client(enforce_csrf_checks=True).post("/login/")
    Client().post("/login/", headers={"Origin": "http://evil.test"})
    Client().get("/admin/")
    assert noted(caplog) == []


def test_a_failed_login_is_noted_without_what_may_be_a_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_user("viewer")
    for name in ("viewer", "hunter2 typed too early", "x" * 5000, "", "viewer\0"):
        Client().post("/login/", {"username": name, "password": "hunter2"})
    assert set(noted(caplog)) == {
        wrong_password("viewer"),
        wrong_password(""),
    }
    assert "hunter2" not in caplog.text


def test_a_wrong_password_in_a_session_is_noted_too(caplog: pytest.LogCaptureFixture) -> None:
    client_of("viewer").post("/confirm-password/", {"password": "hunter2"})
    why = "the password was wrong where it is asked again"
    who = 'user="viewer" store="" address="127.0.0.1"'
    assert noted(caplog) == [f'refused what="confirm-password" {who} why="{why}"']
    assert "hunter2" not in caplog.text
    assert Run.objects.get().action == "confirm-password"


def test_nobody_pushes_out_what_others_were_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "KEPT_OF_ONE", 3)
    monkeypatch.setattr(audit, "KEPT", 8)
    for who in ("eve", "vera"):
        audit.note(who, "permission", "", "::1", "first")
    for number in range(20):
        audit.note("mallory", "permission", "", "::1", f"try {number}")
        audit.failed_login("vera", "::1")
    assert sum(audit.prune()) == 20 - 3 + 20 - 3
    kept = Run.objects.order_by("pk").values_list("who", "message")
    assert list(kept.exclude(action=audit.LOGIN)) == [
        ("eve", "first"), ("vera", "first"),
        *(("mallory", f"try {number}") for number in (17, 18, 19)),
    ]  # fmt: skip
    assert list(audit.prune()) == []
    for number in range(9):
        audit.note(f"user {number}", "permission", "", "::1", "one each")
    assert sum(audit.prune()) == 6, "of all together the newest"


def test_a_login_that_works_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    user = make_user("viewer")
    user.set_password(PASSWORD)
    user.save()
    Client().post("/login/", {"username": "viewer", "password": PASSWORD})
    assert noted(caplog) == []


def test_a_name_cannot_forge_a_field_or_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        audit.failed_login('a" address="1.2.3.4\r\nrefused user="b\u202e' + "x" * 500, "::1")
    (line,) = noted(caplog)
    assert line.isascii()
    assert "\n" not in line
    assert len(re.findall(r'(?<!\\)" address="', line)) == 1
    assert len(line) < 400


def test_a_refusal_stands_while_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    viewer = client_of("viewer")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = viewer.cookies
    with patch("django.db.backends.utils.CursorWrapper.execute", side_effect=DatabaseError):
        assert strict.post(reverse("password")).status_code == 403
    assert noted(caplog) == []
