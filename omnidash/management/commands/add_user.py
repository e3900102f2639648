"""Add a person with a role: `createsuperuser` makes administrators only."""

from __future__ import annotations

import getpass
import sys
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from omnidash import roles


class Command(BaseCommand):
    help = "Add a person, for whom it asks a password, or change the role of one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--role", choices=roles.ROLES, required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        role = options["role"]
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            user = _new_user(options["username"])
        # An administrator may do everything but make superusers; who is one and stays administrator
        # stays one.
        user.is_superuser = user.is_superuser and role == roles.ADMINISTRATOR
        user.is_staff = user.is_superuser  # which Django wants of a superuser; nothing asks for it
        with transaction.atomic():
            user.save()
            user.groups.set([roles.group_of(role)])
        self.stdout.write(f"{user.username} is {role}.")


def _new_user(username: str) -> User:
    user = User(username=username)
    password = _password()
    try:
        user.clean_fields(exclude=["password"])
        validate_password(password, user)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None
    user.set_password(password)
    return user


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The two passwords differ.")
    return password
