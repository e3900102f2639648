"""What every test may use: a Django that knows nothing of this machine, a real Redis, clients."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
import hypothesis
import pytest
import redis

# A busy machine is no reason to fail: no test asserts how long something takes.
hypothesis.settings.register_profile(
    "calm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("calm")

# Before Django reads its settings: neither the developer's variables nor their data take part.
for name in list(os.environ):
    if name.startswith(("OMNIDASH_", "REDIS_", "STORAGE_", "JSON_STORAGE_", "DATABASE_URL", "PG")):
        del os.environ[name]
DATA_DIR = Path(tempfile.mkdtemp(prefix="omnidash-tests-"))
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)
(DATA_DIR / "static").mkdir()
os.environ["OMNIDASH_DATA_DIR"] = str(DATA_DIR)
os.environ["OMNIDASH_STORES"] = f"default=json://{DATA_DIR}/store"
# The omnidaemon package makes its folder wherever it is imported: not in the source tree, please,
# where `make run` would take it for a store.
os.environ["JSON_STORAGE_DIR"] = str(DATA_DIR / "omnidaemon")
os.environ["OMNIDASH_LOG_LEVEL"] = "warning"
os.environ["DJANGO_SETTINGS_MODULE"] = "omnidash.settings"
# Playwright keeps an event loop running in the thread of the tests that use it, where Django
# would refuse its database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"

from django.conf import settings  # noqa: E402

if settings.configured:
    raise pytest.UsageError("unset DJANGO_SETTINGS_MODULE: the tests choose their own settings")
# Sources as they are, so that no test waits for hashing and compressing.
settings.STORAGES["staticfiles"] = {
    "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
}
# In a file, as in production: threads of a live server that share a database in memory lock each
# other out at once instead of waiting.
settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = DATA_DIR / "test.sqlite3"
django.setup()
# Workers of pytest-xdist inherit the environment, and would read the settings before this file.
del os.environ["DJANGO_SETTINGS_MODULE"]

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import Client  # noqa: E402

from omnidash.database import postgresql  # noqa: E402
from omnidash.roles import group_of  # noqa: E402
from tests.servers import PostgresServer, RedisServer  # noqa: E402

PASSWORD = "correct horse battery staple"


def make_user(role: str) -> User:
    """A user called as their role. Argon2 is meant to be slow, so most tests log in without it."""
    user = User.objects.create(
        username=role,
    )
    user.groups.add(group_of(role))
    return user


def client_of(role: str) -> Client:
    client = Client()
    client.force_login(make_user(role), backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def viewer_client(db: None) -> Client:
    return client_of("viewer")


@pytest.fixture
def operator_client(db: None) -> Client:
    return client_of("operator")


@pytest.fixture
def administrator_client(db: None) -> Client:
    return client_of("administrator")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a real redis-server of this worker's own, without persistence."""
    server = RedisServer()
    yield server.url
    server.close()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The worker's Redis, emptied."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL of this worker's own."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def on_postgres(
    postgres_server: PostgresServer, django_db_blocker: pytest.DjangoDbBlocker
) -> Iterator[PostgresServer]:
    """Django's database is that PostgreSQL, migrated and empty, for every thread of this test. Not
    together with `db` or a client of the fixtures above, which are of SQLite; `client_of` works."""
    sqlite, before = connections.settings["default"], connections["default"]
    wanted = {"default": postgresql(postgres_server.url)}
    connections.settings["default"] = connections.configure_settings(wanted)["default"]
    connections["default"] = connections.create_connection("default")
    try:
        with django_db_blocker.unblock():
            call_command("migrate", verbosity=0)
            yield postgres_server
            call_command("flush", verbosity=0, interactive=False)
    finally:
        connections["default"].close()
        connections.settings["default"], connections["default"] = sqlite, before
