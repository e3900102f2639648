"""Who may do what: the three roles are groups, and what they may do are Django's permissions."""

from __future__ import annotations

import getpass
import os

from django.apps import apps as installed
from django.apps.registry import Apps
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from omnidash.models import Run

VIEWER, OPERATOR, ADMINISTRATOR = ROLES = ("viewer", "operator", "administrator")

ACTIONS = dict(Run._meta.permissions)
"""Codename -> what it allows, beside the "view" that Django makes for each model."""
_PEOPLE = {
    f"{verb}_{noun}": f"Can {verb} {noun}"
    for noun in ("user", "group")
    for verb in ("add", "change", "delete", "view")
}
_OPERATE = (
    "view_run", "extend_results", "delete_records", "clean_up", "put_back", "back_up",
)  # fmt: skip
_ADMINISTER = (
    "clear_store", "edit_config", "edit_schedules", "restore_store", "download_backups",
)  # fmt: skip
# Codenames. A viewer needs none: whoever is logged in may look.
PERMISSIONS = {
    VIEWER: (),
    OPERATOR: _OPERATE,
    ADMINISTRATOR: (*_OPERATE, *_ADMINISTER, *_PEOPLE),
}


def grant(apps: Apps = installed) -> None:
    """Make the groups, and give each what its role may do. It only gives, so the migration that
    brings a new permission calls it again."""
    groups = apps.get_model("auth", "Group").objects
    for role, codenames in PERMISSIONS.items():
        group, _ = groups.get_or_create(name=role)
        group.permissions.add(*(_permission(apps, codename) for codename in codenames))


def _permission(apps: Apps, codename: str) -> Permission:
    """Made here if Django has not: it does so only after the last migration."""
    kinds = apps.get_model("contenttypes", "ContentType").objects
    permissions = apps.get_model("auth", "Permission").objects
    if codename in _PEOPLE:
        kind, _ = kinds.get_or_create(app_label="auth", model=codename.rpartition("_")[2])
    else:
        kind, _ = kinds.get_or_create(app_label="omnidash", model="run")
    name = (_PEOPLE | ACTIONS).get(codename, "Can view run")
    found: Permission
    found, _ = permissions.get_or_create(
        content_type=kind, codename=codename, defaults={"name": name}
    )
    return found


def group_of(role: str) -> Group:
    """The group of this role, also after somebody has emptied the tables."""
    if not Group.objects.filter(name=role).exists():
        grant()
    return Group.objects.get(name=role)


def reserved(what: str, codename: str) -> str:
    """Whom it is for, in words: of the roles, those that may."""
    roles = [f"{role}s" for role in ROLES if codename in PERMISSIONS[role]]
    return f"{what} is for {' and '.join(roles)}."


def administrators() -> QuerySet[User]:
    """Whoever can log in and manage the people."""
    them = Q(is_superuser=True) | Q(groups__name=ADMINISTRATOR)
    return User.objects.filter(them, is_active=True).distinct()


def is_last_administrator(user: User) -> bool:
    """In a transaction the answer holds until its end, so two cannot demote each other."""
    if connection.in_atomic_block:
        Group.objects.select_for_update().filter(name=ADMINISTRATOR).first()
    return set(administrators().values_list("pk", flat=True)[:2]) == {user.pk}


class Console:
    """Whoever has a shell beside OmniDash's own data: they may do everything, since nothing keeps
    them from it, and the log names them as the system does."""

    is_active = True

    def get_username(self) -> str:
        try:
            return getpass.getuser()[:150]
        except (KeyError, OSError):  # a number without a name, as in many a container
            return f"uid {os.getuid()}"

    def has_perm(self, permission: str) -> bool:
        return True


def person(request: HttpRequest) -> User:
    """Who asks. Every page but the door's has somebody who is logged in."""
    assert isinstance(request.user, User)  # noqa: S101 - for the types; LoginRequired sees to it
    return request.user
