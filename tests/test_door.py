"""Nobody comes in without a login, and the door tells outsiders nothing."""

from __future__ import annotations

import ipaddress
import re
import stat
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from axes.models import AccessAttempt
from conftest import PASSWORD, make_user
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone

from omnidash import stores
from omnidash.middleware import TrustedProxyMiddleware
from omnidash.views import door
from tests.pages import addresses

pytestmark = pytest.mark.django_db
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/default/agents/?topic=a"}


@pytest.fixture
def user() -> User:
    account = make_user("viewer")
    account.set_password(PASSWORD)
    account.save()
    return account


def log_in(client: Client, password: str = PASSWORD, **more: str) -> HttpResponse:
    return client.post("/login/", {"username": "viewer", "password": password, **more})


def test_every_address_but_the_door_needs_a_login(client: Client) -> None:
    open_ = {"/login/", "/logout/", "/healthz", "/readyz", "/setup/default/"}
    every = addresses()
    assert open_ < set(every)
    for address in set(every) - open_:
        response = client.get(address)
        assert response.status_code == 302, address
        assert response.headers["Location"].startswith("/login/?next="), address
        assert client.post(address).status_code in {302, 405}, address
        part = client.get(address, headers=HTMX)
        assert (part.status_code, part.content) == (401, b""), address


def test_htmx_without_a_login_is_sent_to_the_login_page_as_a_whole(client: Client) -> None:
    response = client.get("/", headers=HTMX)
    assert response.status_code == 401
    assert response.headers["HX-Redirect"] == "/login/?next=/default/agents/%3Ftopic%3Da"
    elsewhere = {**HTMX, "HX-Current-URL": "http://evil.test/x"}
    redirect = client.get("/", headers=elsewhere).headers["HX-Redirect"]
    assert redirect == "/login/?next=/"


def test_a_login_opens_the_first_store_and_changes_the_session_key(
    client: Client, user: User
) -> None:
    client.get("/login/")
    before = client.session.session_key
    response = log_in(client)
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert client.get("/").headers["Location"] == "/default/"
    assert client.session.session_key != before
    assert client.session.get_expiry_age() == 12 * 3600


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(
    client: Client, user: User
) -> None:
    log_in(client)
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["path"] == "/"


@pytest.mark.parametrize(
    "next_",
    ["//evil.test", "https://evil.test/", "http:evil.test", "/\\evil.test", "javascript:alert(1)",
     "///evil.test", "\\\\evil.test", "https:///evil.test", "\x00//evil.test"],
)  # fmt: skip
def test_a_login_never_leads_to_another_site(client: Client, user: User, next_: str) -> None:
    assert log_in(client, next=next_).headers["Location"] == "/"


def test_a_login_leads_back_to_where_it_was_asked_for(client: Client, user: User) -> None:
    response = log_in(client, next="/default/results/?within=60")
    assert response.headers["Location"] == "/default/results/?within=60"


def test_a_wrong_password_says_nothing_about_the_user(client: Client, user: User) -> None:
    known = log_in(client, "wrong").content.decode()
    unknown = client.post("/login/", {"username": "nobody", "password": "wrong"}).content.decode()
    message = re.compile(r'role="alert">(.*?)</div>')
    assert message.findall(known) == message.findall(unknown) != []


def test_after_five_failures_a_user_is_locked_for_that_address_only(
    client: Client, user: User
) -> None:
    for _ in range(4):
        assert log_in(client, "wrong").status_code == 200
    locked = log_in(client, "wrong")
    assert (locked.status_code, locked.headers["Retry-After"]) == (429, "900")
    assert log_in(client).status_code == 429
    spoofed = client.post(
        "/login/",
        {"username": "viewer", "password": PASSWORD},
        headers={"X-Forwarded-For": "192.0.2.9"},
    )
    assert spoofed.status_code == 429
    elsewhere = Client(REMOTE_ADDR="192.0.2.9")
    assert log_in(elsewhere).status_code == 302


def test_a_locked_user_may_try_again_after_a_while(client: Client, user: User) -> None:
    for _ in range(5):
        log_in(client, "wrong")
    assert log_in(client).status_code == 429
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in(client).status_code == 302


def test_deactivated_in_the_middle_of_a_session_a_user_is_out(client: Client, user: User) -> None:
    log_in(client)
    assert client.get("/").headers["Location"] == "/default/"
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert client.get("/").headers["Location"] == "/login/?next=/"


def test_a_new_password_ends_the_sessions_of_the_old_one(client: Client, user: User) -> None:
    log_in(client)
    user.set_password("another good password")
    user.save()
    assert client.get("/").headers["Location"] == "/login/?next=/"


def test_an_expired_session_is_out(client: Client, user: User) -> None:
    log_in(client)
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert client.get("/").headers["Location"] == "/login/?next=/"


def test_logging_out_needs_a_post_and_ends_the_session(viewer_client: Client) -> None:
    assert viewer_client.get("/logout/").status_code == 405
    assert viewer_client.post("/logout/").headers["Location"] == "/login/"
    assert viewer_client.get("/").headers["Location"] == "/login/?next=/"


def test_no_form_is_taken_without_its_token(user: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    for address in ("/login/", "/logout/"):
        response = strict.post(address, {"username": "viewer", "password": PASSWORD})
        assert response.status_code == 403
        assert "Not allowed" in response.content.decode()


# --- The first administrator ---

NEW = {"username": "ada", "password1": PASSWORD, "password2": PASSWORD}


def test_the_setup_link_creates_one_administrator_once(client: Client) -> None:
    token = door.new_setup_token()
    link = f"/setup/{token}/"
    assert client.get(link).status_code == 200
    response = client.post(link, NEW)
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert client.get("/").headers["Location"] == "/default/"
    ada = User.objects.get()
    assert ada.is_superuser
    assert ada.is_staff
    assert ada.password.startswith("argon2$argon2id$")
    assert [group.name for group in ada.groups.all()] == ["administrator"]
    assert Client().get(link).status_code == 404
    assert Client().post(link, {**NEW, "username": "eve"}).status_code == 404
    assert door.new_setup_token() is None


def test_only_a_private_hash_of_the_setup_token_is_kept() -> None:
    token = door.new_setup_token()
    path = Path(settings.DATA_DIR) / "setup_token"
    assert token
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("token", ["wrong", "", "é", "%00", "..%2f", "a" * 3000])
def test_a_wrong_setup_token_is_nowhere(client: Client, token: str) -> None:
    door.new_setup_token()
    assert client.get(f"/setup/{token}/").status_code in {302, 404}
    assert client.post(f"/setup/{token}/", NEW).status_code in {302, 404}
    assert not User.objects.exists()


def test_a_newer_setup_link_voids_the_older(client: Client) -> None:
    old = door.new_setup_token()
    door.new_setup_token()
    assert client.get(f"/setup/{old}/").status_code == 404


def test_the_setup_link_is_void_once_there_is_a_user(client: Client) -> None:
    token = door.new_setup_token()
    make_user("viewer")
    assert client.get(f"/setup/{token}/").status_code == 404
    assert client.post(f"/setup/{token}/", NEW).status_code == 404


def test_a_weak_password_is_refused_and_the_link_stays(client: Client) -> None:
    link = f"/setup/{door.new_setup_token()}/"
    response = client.post(link, {**NEW, "password1": "password", "password2": "password"})
    assert response.status_code == 422
    first, second = response.content.decode().split('name="password2"')
    assert "too common" in first and "too common" not in second
    assert client.post(link, NEW).status_code == 302


def test_the_roles_are_there() -> None:
    roles = set(Group.objects.values_list("name", flat=True))
    assert roles == {"viewer", "operator", "administrator"}


# --- Liveness, headers, error pages ---


def test_healthz_needs_neither_database_nor_login(viewer_client: Client) -> None:
    with patch("django.db.backends.utils.CursorWrapper.execute", side_effect=DatabaseError):
        response = viewer_client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")


def test_readyz_says_only_whether(client: Client) -> None:
    with patch.object(stores, "ready", return_value=True):
        assert client.get("/readyz").status_code == 200
        with patch("django.db.backends.utils.CursorWrapper.execute", side_effect=DatabaseError):
            assert client.get("/readyz").status_code == 503
    for outcome in ({"return_value": False}, {"side_effect": OSError("redis://:hunter2@h")}):
        with patch.object(stores, "ready", **outcome):
            response = client.get("/readyz")
            assert (response.status_code, response.content) == (503, b"not ready\n")


@pytest.mark.parametrize("address", ["/", "/login/", "/healthz", "/readyz", "/nowhere", "/a/b/c"])
def test_every_answer_carries_the_policy_and_is_not_kept(client: Client, address: str) -> None:
    headers = client.get(address).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


def test_another_host_name_is_refused(client: Client) -> None:
    response = client.get("/login/", headers={"Host": "evil.test"})
    assert response.status_code == 400
    assert response.headers["Content-Security-Policy"] == POLICY
    assert "evil" not in response.content.decode()


@pytest.mark.parametrize(
    "address", ["/x/<svg onload=1>", "/%3Csvg%20onload=1%3E/", "/default/%22svg"]
)
def test_error_pages_do_not_repeat_the_address(viewer_client: Client, address: str) -> None:
    response = viewer_client.get(address)
    assert response.status_code == 404
    assert "svg" not in response.content.decode()


def test_a_store_that_is_not_configured_is_nowhere_but_only_for_users(
    client: Client, viewer_client: Client
) -> None:
    assert viewer_client.get("/nostore/").status_code == 404
    assert client.get("/nostore/").status_code == 302


def test_an_error_is_not_swapped_into_a_page(viewer_client: Client) -> None:
    response = viewer_client.get("/nostore/", headers=HTMX)
    assert (response.status_code, response.headers["HX-Reswap"]) == (404, "none")


def test_a_failure_shows_no_trace(viewer_client: Client) -> None:
    viewer_client.raise_request_exception = False
    with patch("omnidash.views.door.redirect", side_effect=RuntimeError("hunter2")):
        response = viewer_client.get("/")
    assert response.status_code == 500
    assert "hunter2" not in response.content.decode()
    assert "Something went wrong" in response.content.decode()


# --- Proxies ---


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen", "secure"),
    [
        ("203.0.113.7", "192.0.2.1", "203.0.113.7", False),
        ("10.0.0.5", "192.0.2.1", "192.0.2.1", True),
        ("10.0.0.5", "6.6.6.6, 192.0.2.1", "192.0.2.1", True),
        ("10.0.0.5", "6.6.6.6, 192.0.2.1, 10.0.0.9", "192.0.2.1", True),
        ("10.0.0.5", "6.6.6.6, nonsense", "10.0.0.5", True),
        ("10.0.0.5", "", "10.0.0.5", True),
    ],
)
def test_only_a_trusted_proxy_says_who_asks(
    settings: object, peer: str, forwarded: str, seen: str, secure: bool
) -> None:
    settings.OMNIDASH_TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/24")]  # type: ignore[attr-defined]
    request = RequestFactory().get(
        "/", REMOTE_ADDR=peer, headers={"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
    )
    seen_requests: list[HttpRequest] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen_requests.append(request)
        return HttpResponse()

    TrustedProxyMiddleware(view)(request)
    assert seen_requests[0].META["REMOTE_ADDR"] == seen
    assert seen_requests[0].is_secure() == secure
