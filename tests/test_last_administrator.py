"""Two administrators who take the role from each other at the same moment, on a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from conftest import client_of
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import Client

from omnidash import roles
from tests.servers import PostgresServer


def add(name: str) -> Client:
    client = client_of("administrator")
    User.objects.filter(username="administrator").update(username=name)
    return client


def waiting() -> int:
    """Connections that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
        return int(cursor.fetchone()[0])


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_of_two_who_demote_each_other_one_stays(on_postgres: PostgresServer) -> None:
    clients = {"ada": add("ada"), "bob": add("bob")}
    answers: list[int] = []

    def demote(client: Client, name: str) -> None:
        form = {"username": name, "is_active": "on", "groups": []}
        pk = User.objects.get(username=name).pk
        answers.append(client.post(f"/admin/auth/user/{pk}/change/", form).status_code)
        connection.close()

    threads = [
        threading.Thread(target=demote, args=(clients["ada"], "bob")),
        threading.Thread(target=demote, args=(clients["bob"], "ada")),
    ]
    with transaction.atomic():
        # Both arrive at the question whether they may, before either is answered.
        Group.objects.select_for_update().get(name=roles.ADMINISTRATOR)
        for thread in threads:
            thread.start()
        both = until(lambda: waiting() == 2)
    for thread in threads:
        thread.join(20)
    assert both
    assert sorted(answers) == [200, 302]
    assert roles.administrators().count() == 1
