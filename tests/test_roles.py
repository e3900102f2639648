"""Who may do what, and who may say so: the roles, and the people in Django's admin."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import PASSWORD, client_of, make_user
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client

from omnidash import roles
from omnidash.admin import site
from tests.pages import elements, links, text_of

pytestmark = pytest.mark.django_db
BACKEND = "django.contrib.auth.backends.ModelBackend"
ADMINISTRATORS_ONLY = {"clear_store", "edit_config", "edit_schedules"}
NEW = {"username": "eve", "password1": PASSWORD, "password2": PASSWORD}


def person(name: str, role: str = "", **more: Any) -> User:
    user = User.objects.create_user(name, password=PASSWORD, **more)
    if role:
        user.groups.add(roles.group_of(role))
    return user


def group(role: str) -> int:
    return roles.group_of(role).pk


def change(client: Client, user: User, **form: Any) -> HttpResponse:
    """The form of a person as an administrator would send it, with these fields instead."""
    kept = {
        "username": user.username,
        "groups": list(user.groups.values_list("pk", flat=True)),
        **({"is_active": "on"} if user.is_active else {}),
    }
    sent = {name: value for name, value in {**kept, **form}.items() if value is not None}
    return client.post(f"/admin/auth/user/{user.pk}/change/", sent)


# --- Permissions ---


@pytest.mark.parametrize("role", roles.ROLES)
def test_each_role_may_do_what_it_says_and_no_more(role: str) -> None:
    user = make_user(role)
    given = {name.partition(".")[2] for name in user.get_all_permissions()}
    assert given == set(roles.PERMISSIONS[role])
    assert not user.is_superuser


def test_a_viewer_may_only_look() -> None:
    assert make_user("viewer").get_all_permissions() == set()


def test_an_operator_may_not_do_what_is_for_administrators() -> None:
    user = make_user("operator")
    assert user.has_perm("omnidash.delete_records")
    assert not any(user.has_perm(f"omnidash.{name}") for name in ADMINISTRATORS_ONLY)
    assert not user.has_module_perms("auth")


def test_a_person_without_a_group_may_only_look() -> None:
    assert person("ben").get_all_permissions() == set()


def test_a_deactivated_administrator_may_do_nothing() -> None:
    user = make_user("administrator")
    user.is_active = False
    assert user.get_all_permissions() == set()


def test_granting_again_changes_nothing_and_takes_nothing_away() -> None:
    extra = Permission.objects.get(codename="clean_up")
    roles.group_of("viewer").permissions.add(extra)
    before = Permission.objects.count()
    roles.grant()
    assert Permission.objects.count() == before
    assert list(roles.group_of("viewer").permissions.all()) == [extra]


def test_django_finds_the_permissions_that_the_migration_made() -> None:
    before = Permission.objects.count()
    call_command("migrate", verbosity=0)
    assert Permission.objects.count() == before
    for codename in roles.PERMISSIONS["administrator"]:
        assert Permission.objects.filter(codename=codename).count() == 1, codename


def test_roles_that_were_lost_come_back_with_what_they_may_do() -> None:
    Group.objects.all().delete()
    assert roles.group_of("operator").permissions.filter(codename="clean_up").exists()


# --- Who comes into the admin ---


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_nobody_but_administrators_sees_the_people(role: str) -> None:
    client, other = client_of(role), person("other")
    for address in (
        "/admin/", "/admin/auth/", "/admin/auth/user/", "/admin/auth/user/add/",
        f"/admin/auth/user/{other.pk}/change/", f"/admin/auth/user/{other.pk}/password/",
        f"/admin/auth/user/{other.pk}/delete/", "/admin/auth/group/", "/admin/jsi18n/",
    ):  # fmt: skip
        assert client.get(address).status_code == 403, address
        assert client.post(address, NEW).status_code == 403, address
    assert "People" not in text_of(client.get("/default/"))
    assert not User.objects.filter(username="eve").exists()


def test_a_flag_that_a_role_left_behind_opens_nothing() -> None:
    client = client_of("viewer")
    User.objects.update(is_staff=True)
    assert client.get("/admin/").status_code == 403


def test_an_administrator_comes_in_from_the_menu_and_a_demoted_one_no_more() -> None:
    client = client_of("administrator")
    assert "/admin/" in {link.get("href") for link in elements(client.get("/default/"), "a")}
    assert client.get("/admin/").status_code == 200
    User.objects.get().groups.set([roles.group_of("operator")])
    assert client.get("/admin/").status_code == 403


def test_only_people_and_groups_are_there() -> None:
    assert {model.__name__ for model in site._registry} == {"User", "Group"}


def test_the_admin_has_no_door_of_its_own(client: Client) -> None:
    person("ada", "administrator")
    answer = client.get("/admin/login/")
    assert answer.headers["Location"] == "/login/?next=/admin/login/"
    client.post("/admin/login/", {"username": "ada", "password": PASSWORD, "next": "/admin/"})
    assert "_auth_user_id" not in client.session
    answer = client.get("/admin/auth/user/")
    assert answer.headers["Location"] == "/login/?next=/admin/auth/user/"


def test_the_admins_own_pages_for_the_password_lead_to_ours() -> None:
    client = client_of("administrator")
    assert client.get("/admin/login/").headers["Location"] == "/admin/"
    assert client.get("/admin/password_change/").headers["Location"] == "/password/"
    assert client.get("/admin/password_change/done/").headers["Location"] == "/password/changed/"
    assert client.post("/admin/logout/").headers["Location"] == "/login/"
    assert "_auth_user_id" not in client.session


def test_the_admin_is_never_kept_and_follows_the_policy() -> None:
    client = client_of("administrator")
    for address in ("/admin/", "/admin/auth/user/", "/admin/jsi18n/"):
        headers = client.get(address).headers
        assert headers["Cache-Control"] == "no-store"
        assert "script-src 'self'" in headers["Content-Security-Policy"]


# --- What an administrator may not do to people ---


def test_an_administrator_cannot_make_a_superuser() -> None:
    client, ben = client_of("administrator"), person("ben")
    extra = Permission.objects.get(codename="add_permission")
    forged = {"is_superuser": "on", "is_staff": "on", "user_permissions": [extra.pk]}
    own = User.objects.get(username="administrator")
    for user in (ben, own):
        assert change(client, user, **forged).status_code == 302
        user = User.objects.get(pk=user.pk)
        assert not user.is_superuser
        assert not user.user_permissions.exists()
    assert client.post("/admin/auth/user/add/", {**NEW, **forged}).status_code == 302
    assert not User.objects.get(username="eve").is_superuser


def test_a_superuser_is_out_of_an_administrators_reach() -> None:
    client, root = client_of("administrator"), person("root", is_superuser=True)
    before = root.password
    assert client.get(f"/admin/auth/user/{root.pk}/change/").status_code == 200  # to look
    assert change(client, root, is_active=None).status_code == 403
    password = f"/admin/auth/user/{root.pk}/password/"
    assert client.get(password).status_code == 403
    assert client.post(password, NEW).status_code == 403
    delete = f"/admin/auth/user/{root.pk}/delete/"
    assert client.post(delete, {"post": "yes"}).status_code == 403
    root.refresh_from_db()
    assert (root.is_active, root.is_superuser, root.password) == (True, True, before)


def test_no_action_on_a_list_passes_by_these_rules() -> None:
    client, root = client_of("administrator"), person("root", is_superuser=True)
    for kind, chosen in (("user", root.pk), ("group", group("viewer"))):
        form = {"action": "delete_selected", "_selected_action": [chosen], "post": "yes"}
        client.post(f"/admin/auth/{kind}/", form)
    assert User.objects.filter(username="root").exists()
    assert Group.objects.filter(name="viewer").exists()


def test_all_administrators_cannot_be_deleted_at_once() -> None:
    client = client_of("administrator")
    person("ada", "administrator")
    everybody = list(User.objects.values_list("pk", flat=True))
    form = {"action": "delete_selected", "_selected_action": everybody, "post": "yes"}
    client.post("/admin/auth/user/", form)
    assert roles.administrators().count() == 2


def test_the_own_password_needs_the_old_one() -> None:
    client = client_of("administrator")
    own = User.objects.get()
    address = f"/admin/auth/user/{own.pk}/password/"
    for answer in (client.get(address), client.post(address, NEW)):
        assert answer.headers["Location"] == "/password/"
    assert User.objects.get().password == own.password


@pytest.mark.parametrize("id_", ["0", "x", "_31", "99999999999999999999"])
def test_the_password_of_nobody_is_nowhere(id_: str) -> None:
    answer = client_of("administrator").get(f"/admin/auth/user/{id_}/password/")
    assert answer.status_code == 404


def test_nobody_is_left_without_a_password() -> None:
    client, ben = client_of("administrator"), person("ben")
    address = f"/admin/auth/user/{ben.pk}/password/"
    none = {"password1": "", "password2": "", "usable_password": "false", "unset-password": "1"}
    assert client.post(address, none).status_code == 200
    assert User.objects.get(username="ben").check_password(PASSWORD)
    client.post(address, {**none, "password1": PASSWORD, "password2": PASSWORD})
    assert User.objects.get(username="ben").check_password(PASSWORD)
    weak = {"password1": "short", "password2": "short"}
    assert client.post(address, weak).status_code == 200
    assert User.objects.get(username="ben").check_password(PASSWORD)


def test_a_new_password_from_an_administrator_ends_the_persons_sessions() -> None:
    client, ben = client_of("administrator"), person("ben", "viewer")
    his = Client()
    his.post("/login/", {"username": "ben", "password": PASSWORD})
    assert his.get("/").headers["Location"] == "/default/"
    new = {"password1": "another good password", "password2": "another good password"}
    assert client.post(f"/admin/auth/user/{ben.pk}/password/", new).status_code == 302
    assert his.get("/").headers["Location"] == "/login/?next=/"


def test_a_person_who_is_deactivated_is_out_at_the_next_request() -> None:
    client, ben = client_of("administrator"), person("ben", "operator")
    his = Client()
    his.post("/login/", {"username": "ben", "password": PASSWORD})
    assert change(client, ben, is_active=None).status_code == 302
    assert his.get("/").headers["Location"] == "/login/?next=/"
    assert his.post("/login/", {"username": "ben", "password": PASSWORD}).status_code == 200


def test_a_superuser_may_make_another() -> None:
    client, ben, root = Client(), person("ben"), person("root", is_superuser=True)
    client.force_login(root, BACKEND)
    assert change(client, ben, is_superuser="on").status_code == 302
    assert User.objects.get(username="ben").is_superuser


def test_a_new_person_gets_a_role_at_once() -> None:
    client = client_of("administrator")
    form = {**NEW, "groups": [group("operator")]}
    assert client.post("/admin/auth/user/add/", form).status_code == 302
    eve = User.objects.get(username="eve")
    assert [one.name for one in eve.groups.all()] == ["operator"]
    assert eve.check_password(PASSWORD)
    assert "operator" in text_of(client.get("/admin/auth/user/"))


def test_a_hostile_name_is_escaped_among_the_people() -> None:
    person("<svg onload=1>")
    answer = client_of("administrator").get("/admin/auth/user/")
    assert "<svg onload" not in answer.content.decode()
    assert "<svg onload=1>" in text_of(answer)


# --- There is always an administrator ---


@pytest.mark.parametrize("form", [{"is_active": None}, {"groups": []}])
def test_the_last_administrator_stays(form: dict[str, Any]) -> None:
    client = client_of("administrator")
    person("gone", "administrator", is_active=False)
    person("ben", "operator")
    own = User.objects.get(username="administrator")
    answer = change(client, own, **form)
    assert answer.status_code == 200
    assert "last active administrator" in text_of(answer)
    assert client.post(f"/admin/auth/user/{own.pk}/delete/", {"post": "yes"}).status_code == 403
    assert roles.is_last_administrator(User.objects.get(username="administrator"))


@pytest.mark.parametrize("form", [{"is_active": None}, {"is_superuser": None}])
def test_a_superuser_who_is_the_last_stays(form: dict[str, Any]) -> None:
    client, root = Client(), person("root", is_superuser=True)
    client.force_login(root, BACKEND)
    answer = change(client, root, **{"is_superuser": "on", **form})
    assert "last active administrator" in text_of(answer)
    assert roles.is_last_administrator(User.objects.get())


def test_one_of_two_administrators_may_go() -> None:
    client, ada = client_of("administrator"), person("ada", "administrator")
    assert change(client, ada, groups=[group("viewer")]).status_code == 302
    assert [one.name for one in ada.groups.all()] == ["viewer"]
    other = person("bob", "administrator")
    assert client.post(f"/admin/auth/user/{other.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not User.objects.filter(username="bob").exists()


def test_the_roles_keep_their_names_and_administrators_what_they_may_do() -> None:
    client = client_of("administrator")
    for role in roles.ROLES:
        address = f"/admin/auth/group/{group(role)}"
        client.post(f"{address}/change/", {"name": "renamed", "permissions": []})
        assert client.post(f"{address}/delete/", {"post": "yes"}).status_code == 403
        assert roles.group_of(role).permissions.count() == (
            len(roles.PERMISSIONS[role]) if role == "administrator" else 0
        )
    assert set(Group.objects.values_list("name", flat=True)) == set(roles.ROLES)


def test_a_group_of_ones_own_gets_the_permissions_that_there_are() -> None:
    client = client_of("administrator")
    page = client.get("/admin/auth/group/add/")
    choices = [one for one in elements(page, "input") if one.get("name") == "permissions"]
    assert len(choices) == len(roles.PERMISSIONS["administrator"])
    chosen = Permission.objects.get(codename="clean_up")
    forged = Permission.objects.get(codename="add_permission")
    for picked, status in (([chosen.pk, forged.pk], 200), ([chosen.pk], 302)):
        form = {"name": "cleaners", "permissions": picked}
        assert client.post("/admin/auth/group/add/", form).status_code == status
    assert list(Group.objects.get(name="cleaners").permissions.all()) == [chosen]
    assert links(client.get("/admin/auth/group/"), "/admin/auth/group/")
