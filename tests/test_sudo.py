"""The own password: asked again before what cannot be undone, and changed."""

from __future__ import annotations

from unittest.mock import patch
from urllib.parse import quote

import pytest
from conftest import PASSWORD, make_user
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django_htmx.middleware import HtmxDetails

from omnidash import sudo
from tests.pages import text_of

pytestmark = pytest.mark.django_db
AGAIN = "/confirm-password/"
NEW = "another good password"


@pytest.fixture
def user() -> User:
    account = make_user("administrator")
    account.set_password(PASSWORD)
    account.save()
    return account


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def grown_old(client: Client, seconds: float = sudo.RECENT + 1) -> None:
    session = client.session
    session["password_shown_at"] -= seconds
    session.save()


def asked(session: dict[str, object], **headers: str) -> HttpResponse | None:
    request = RequestFactory().post("/default/clear/?what=all", headers=headers)
    request.session = session  # type: ignore[assignment]
    request.htmx = HtmxDetails(request)  # type: ignore[attr-defined]
    return sudo.require_recent(request)


def test_without_a_time_in_the_session_the_password_is_asked() -> None:
    answer = asked({})
    assert answer is not None
    assert answer.headers["Location"] == f"{AGAIN}?next={quote('/default/clear/?what=all', '')}"


@pytest.mark.parametrize(
    ("age", "recent"), [(0, True), (899, True), (900, False), (86400, False), (-1, False)]
)
def test_fifteen_minutes_long_it_is_not_asked_again(age: int, recent: bool) -> None:
    request = HttpRequest()
    request.session = {"password_shown_at": 1_000_000}  # type: ignore[assignment]
    with patch("omnidash.sudo.time.time", return_value=1_000_000 + age):
        assert sudo.recently_confirmed(request) is recent


def test_htmx_is_sent_there_as_a_whole_and_back_to_its_page() -> None:
    url = "http://testserver/default/agents/?topic=a"
    answer = asked({}, **{"HX-Request": "true", "HX-Current-URL": url})
    assert answer is not None
    back = quote("/default/agents/?topic=a", "")
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, f"{AGAIN}?next={back}")
    elsewhere = asked({}, **{"HX-Request": "true", "HX-Current-URL": "http://evil.test/x"})
    assert elsewhere is not None
    assert elsewhere.headers["HX-Redirect"] == f"{AGAIN}?next=%2F"


def test_people_are_managed_only_with_a_fresh_password(client: Client) -> None:
    assert client.get("/admin/auth/user/").status_code == 200
    grown_old(client)
    there = f"{AGAIN}?next={quote('/admin/auth/user/add/', '')}"
    form = {"username": "eve", "password1": NEW, "password2": NEW}
    for answer in (
        client.get("/admin/auth/user/add/"),
        client.post("/admin/auth/user/add/", form),
    ):
        assert (answer.status_code, answer.headers["Location"]) == (302, there)
    assert not User.objects.filter(username="eve").exists()
    answer = client.post(AGAIN, {"password": PASSWORD, "next": "/admin/auth/user/add/"})
    assert answer.headers["Location"] == "/admin/auth/user/add/"
    assert client.get("/admin/auth/user/add/").status_code == 200


@pytest.mark.parametrize("password", ["", "wrong", f"{PASSWORD} ", "x" * 10_000, "a\0b"])
def test_a_wrong_password_confirms_nothing(client: Client, password: str) -> None:
    grown_old(client)
    answer = client.post(AGAIN, {"password": password, "next": "/admin/"})
    assert answer.status_code == 200
    assert client.get("/admin/").status_code == 302


def test_another_persons_password_confirms_nothing(client: Client) -> None:
    User.objects.create_user("other", password=NEW)
    grown_old(client)
    client.post(AGAIN, {"username": "other", "password": NEW})
    assert client.get("/admin/").status_code == 302


def test_after_five_wrong_passwords_it_is_locked_as_the_login_is(client: Client) -> None:
    grown_old(client)
    for _ in range(3):
        assert client.post(AGAIN, {"password": "wrong"}).status_code == 200
    form = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    assert client.post("/password/", form).status_code == 200
    assert client.post(AGAIN, {"password": "wrong"}).status_code == 429
    assert client.post(AGAIN, {"password": PASSWORD}).status_code == 429
    right = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert client.post("/password/", right).status_code == 429
    login = {"username": "administrator", "password": PASSWORD}
    assert Client().post("/login/", login).status_code == 429
    assert client.get("/default/").status_code != 302


@pytest.mark.parametrize(
    "next_", ["//evil.test", "https://evil.test/", "/\\evil.test", "javascript:alert(1)", ""]
)
def test_confirming_never_leads_to_another_site(client: Client, next_: str) -> None:
    assert "evil" not in client.get(AGAIN, {"next": next_}).content.decode()
    answer = client.post(AGAIN, {"password": PASSWORD, "next": next_})
    assert answer.headers["Location"] == "/"


def test_the_page_that_asks_keeps_where_one_was_going(client: Client) -> None:
    page = client.get(AGAIN, {"next": "/default/results/?within=60"}).content.decode()
    assert 'value="/default/results/?within=60"' in page


# --- Another password ---


def test_a_new_password_needs_the_old_one_and_must_be_a_good_one(client: Client) -> None:
    for old, first, second, told in (
        ("wrong", NEW, NEW, "not your password"),
        (PASSWORD, NEW, "different", "match"),
        (PASSWORD, "2short", "2short", "too short"),
        (PASSWORD, "administrator1", "administrator1", "too similar"),
    ):
        form = {"old_password": old, "new_password1": first, "new_password2": second}
        answer = client.post("/password/", form)
        assert told in text_of(answer)
        assert first not in answer.content.decode()
        assert User.objects.get().check_password(PASSWORD)


def test_a_new_password_ends_all_other_sessions(client: Client) -> None:
    other = Client()
    other.post("/login/", {"username": "administrator", "password": PASSWORD})
    key = client.session.session_key
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    answer = client.post("/password/", form)
    assert answer.headers["Location"] == "/password/changed/"
    assert "Your password is changed" in text_of(client.get("/password/changed/"))
    assert client.session.session_key != key
    assert other.get("/").headers["Location"] == "/login/?next=/"
    assert User.objects.get().check_password(NEW)


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_everybody_may_change_their_own(role: str) -> None:
    user = make_user(role)
    user.set_password(PASSWORD)
    user.save()
    client = Client()
    client.post("/login/", {"username": role, "password": PASSWORD})
    assert 'href="/password/"' in client.get("/default/").content.decode()
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert client.post("/password/", form).status_code == 302
    assert User.objects.get().check_password(NEW)


def test_messages_leave_no_cookie(client: Client, settings: object) -> None:
    client.post("/admin/auth/group/add/", {"name": "cleaners"})  # which says that it was done
    assert set(client.cookies) == {settings.SESSION_COOKIE_NAME}  # type: ignore[attr-defined]
