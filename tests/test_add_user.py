"""Adding people from the command line, each with one role."""

from __future__ import annotations

import io
import sys

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery staple"


def add(monkeypatch: pytest.MonkeyPatch, name: str, role: str, password: str = PASSWORD) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
    call_command("add_user", name, "--role", role, stdout=io.StringIO())


def roles(name: str) -> list[str]:
    user = User.objects.get(username=name)
    return [group.name for group in user.groups.all()]


@pytest.mark.parametrize("password", ["", "short", "password1234", "ben-the-viewer"])
def test_a_weak_password_adds_nobody(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    with pytest.raises(CommandError, match="password"):
        add(monkeypatch, "ben-the-viewer", "viewer", password)
    assert not User.objects.exists()


@pytest.mark.parametrize("name", ["", "a b", "x" * 200, "<script>"])
def test_a_name_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(CommandError):
        add(monkeypatch, name, "viewer")
    assert not User.objects.exists()


def test_a_role_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="role"):
        add(monkeypatch, "ben", "root")


@pytest.mark.parametrize("role", ["viewer", "operator", "administrator"])
def test_a_person_logs_in_with_that_role(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    add(monkeypatch, "ben", role)
    assert roles("ben") == [role]
    assert not User.objects.get().is_superuser
    answer = Client().post("/login/", {"username": "ben", "password": PASSWORD})
    assert answer.status_code == 302


def test_the_role_of_a_person_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "ben", "administrator")
    add(monkeypatch, "ben", "viewer", "")
    assert roles("ben") == ["viewer"]
    assert User.objects.get().check_password(PASSWORD)


@pytest.mark.parametrize(("role", "stays"), [("administrator", True), ("operator", False)])
def test_a_superuser_stays_one_as_administrator_only(
    monkeypatch: pytest.MonkeyPatch, role: str, stays: bool
) -> None:
    User.objects.create_superuser("root", password=PASSWORD)
    add(monkeypatch, "root", role, "")
    assert User.objects.get().is_superuser is stays
