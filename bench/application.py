"""The real application over databases of a Redis, set up as a new user would."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PAGES_DB, HISTORY_DB, ACTIONS_DB = 2, 3, 4


@contextmanager
def application(server: str) -> Iterator[Any]:
    """A test client of it, logged in. Its stores are `bench`, `history` and `actions`."""
    for name in list(os.environ):
        if name.startswith(("OMNIDASH_", "REDIS_", "STORAGE_", "JSON_STORAGE_", "DATABASE_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="omnidash-bench-") as folder:
        os.environ["OMNIDASH_DATA_DIR"] = folder
        stores = {"bench": PAGES_DB, "history": HISTORY_DB, "actions": ACTIONS_DB}
        os.environ["OMNIDASH_STORES"] = ",".join(
            f"{name}={server}/{number}" for name, number in stores.items()
        )
        os.environ["OMNIDASH_LOG_LEVEL"] = "error"
        os.environ["DJANGO_SETTINGS_MODULE"] = "omnidash.settings"
        import django

        django.setup()
        from django.contrib.auth.models import User
        from django.core.management import call_command
        from django.test import Client

        call_command("migrate", verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        user = User.objects.create(username="bench", is_staff=True, is_superuser=True)
        browser = Client(headers={"host": "localhost"})
        browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        yield browser
