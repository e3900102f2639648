"""Redis dies, freezes, fills up or changes in the middle of a restore, or its writer does."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from storage.base import Store, StoreError, StoreReadOnly, StoreUnavailable
from storage.changes import Record
from storage.redis_store import RedisStore, lease, staging
from tests.redis_stores import (
    all_records,
    fill_with_anything,
    held,
    make_it,
    new_token,
    put_all,
    staged_keys,
    wipe,
)
from tests.servers import RedisServer
from tests.stores import RedisBackend, eventually
from tests.test_redis_store import fill

pytest_plugins = ["tests.store_fixtures"]


@pytest.fixture
def store(redis_backend: RedisBackend) -> RedisStore:
    found = redis_backend.open()
    assert isinstance(found, RedisStore)
    return found


@pytest.fixture
def raw(redis_backend: RedisBackend) -> redis.Redis:
    return redis_backend.client


NEW = [
    Record("agent", ("topic", "agent"), b'[["bmFtZQ==", "bmV3"]]', "hash"),
    Record("agent", ("new", "agent"), b'[["bmFtZQ==", "bmV3"]]', "hash"),
    *(Record("result", (f"n{number}",), b"{}" * 500, score="7.0") for number in range(1500)),
    *(Record("metrics", (one,), b"{}", stream_id=one) for one in ("1-1", "2-1", "3-1")),
    Record("config", ("key",), b"2"),
]  # fmt: skip


# Written at once and synced never: that survives the death of the process, which is all there is.
DURABLE = ("--appendonly", "yes", "--appendfsync", "no")


class Phases:
    """Calls `trouble` at one step of a change, and counts the steps that there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str, trouble: Callable[[], None]):
        self.phase, self.trouble = phase, trouble
        send = lease.send

        def sending(link: Any, commands: Sequence[Any]) -> None:
            word = commands[0][0].lower()
            self.at(f"before {word}")
            send(link, commands)
            self.at(f"after {word}")

        monkeypatch.setattr(lease, "send", sending)

    def at(self, phase: str) -> None:
        if phase == self.phase:
            self.phase = ""
            self.trouble()


def change_it(store: Store, token: str, phases: Phases) -> None:
    phases.at("in the beginning")
    with store.stage(token) as change:
        put_all(change, NEW[:700])
        phases.at("half staged")
        put_all(change, NEW[700:])
        phases.at("all staged")
        change.commit([("result", ("task",)), ("config", ("supervisor:agent",))], False)
        phases.at("committed")


PHASES = ["in the beginning", "half staged", "all staged", "before exec", "after exec", "committed"]
TROUBLES: dict[str, tuple[Callable[[RedisServer], object], Callable[[RedisServer], object]]] = {
    "killed": (
        lambda server: server.stop(),
        lambda server: server.start(*DURABLE),
    ),
    "frozen": (
        lambda server: server.process.send_signal(signal.SIGSTOP),
        lambda server: server.process.send_signal(signal.SIGCONT),
    ),
    "a replica": (
        lambda server: server.client().replicaof("127.0.0.1", 1),
        lambda server: server.client().replicaof("NO", "ONE"),
    ),
    "full": (
        lambda server: server.client().config_set("maxmemory", 1),
        lambda server: server.client().config_set("maxmemory", 0),
    ),
}  # fmt: skip


def filled_server(server: RedisServer) -> tuple[RedisBackend, dict[bytes, object]]:
    """One that remembers what it was told, however it ends."""
    server.stop()
    shutil.rmtree(Path(server.folder, "appendonlydir"), ignore_errors=True)
    server.start(*DURABLE)
    backend = RedisBackend(server.url)
    fill(backend.open())
    return backend, held(backend)


def new_state(old: RedisBackend) -> dict[bytes, object]:
    """What the change makes of it."""
    records = all_records(old.open())
    with old.open().stage(new_token()) as change:
        put_all(change, NEW)
        change.commit([("result", ("task",)), ("config", ("supervisor:agent",))], False)
    new = held(old)
    wipe(old.client)
    make_it(old.open(), records)
    return new


@pytest.mark.parametrize(
    ("trouble", "phase"),
    [
        (trouble, phase) for trouble in TROUBLES for phase in PHASES
        # Each of these waits for an answer that does not come.
        if trouble != "frozen" or phase in ("half staged", "before exec", "after exec")
    ],
)  # fmt: skip
def test_whatever_happens_to_redis_the_store_is_the_old_or_the_new_one(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, trouble: str, phase: str
):
    backend, old = filled_server(server)
    new, token = new_state(backend), new_token()
    assert held(backend) == old
    begin, end = TROUBLES[trouble]
    with suppress(StoreUnavailable, StoreReadOnly):
        change_it(backend.open(), token, Phases(monkeypatch, phase, lambda: begin(server)))
    end(server)
    wait_for(server)
    now = held_by_prefix(backend)
    assert now in (old, new)
    if phase not in ("before exec", "after exec"):
        assert now == (new if phase == "committed" else old)
    committed = backend.open().committed(token)
    if phase == "in the beginning":
        assert not committed
    else:
        assert committed is (now == new)
    assert held(backend) == now
    backend.close()


def wait_for(server: RedisServer) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            server.client().ping()
            return
        except redis.RedisError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def held_by_prefix(backend: RedisBackend) -> dict[bytes, object]:
    return {key: one for key, one in held(backend).items() if key.startswith(b"omni:")}


def test_an_outcome_that_got_lost_can_be_asked_for(
    store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    """Redis did it, and the answer never comes."""
    fill(store)
    token, send = new_token(), lease.send

    def sending(link: Any, commands: Sequence[Any]) -> None:
        send(link, commands)
        if commands == [("EXEC",)]:
            eventually(lambda: raw.get(f"omnidash:restore:done:{token}"), b"yes")
            raise ConnectionResetError

    monkeypatch.setattr(lease, "send", sending)
    with pytest.raises(StoreUnavailable), store.stage(token) as change:
        put_all(change, NEW)
        change.commit([], keep_events=True)
    assert store.committed(token) is True
    assert store.get_config("key") == 2
    assert staged_keys(raw) == []


def test_no_room_is_said_before_redis_has_none(server: RedisServer):
    backend = RedisBackend(server.url)
    store = backend.open()
    fill(store)
    before, used = held(backend), backend.client.info("memory")["used_memory"]
    backend.client.config_set("maxmemory", used + 300_000)
    with store.stage(new_token()) as change, pytest.raises(StoreReadOnly, match="no room"):
        put_all(change, NEW)
    assert held(backend) == before
    backend.close()


def test_what_redis_evicted_meanwhile_is_missed_in_time(
    store: RedisStore, redis_backend: RedisBackend, raw: redis.Redis
):
    fill(store)
    before = held(redis_backend)
    with store.stage(new_token()) as change:
        put_all(change, NEW)
        raw.delete(next(raw.scan_iter("omnidash:restore:*:result:*", count=1000)))
        with pytest.raises(StoreError, match="not there any more"):
            change.commit([], keep_events=False)
    assert held(redis_backend) == before


def test_a_writer_that_is_killed_leaves_the_old_store(
    redis_backend: RedisBackend, store: RedisStore, raw: redis.Redis
):
    fill(store)
    before, token = held(redis_backend), new_token()
    writer = redis_backend.python(
        "import time; from storage.changes import Record\n"
        "change = store.stage(arguments[0])\n"
        "for number in range(10**6):\n"
        "    change.put([Record('config', (str(number),), b'x'),\n"
        "                Record('agent', ('t', str(number)), b'[[\"\", \"\"]]', 'hash')])\n",
        token,
    )
    try:
        deadline = time.monotonic() + 60
        while len(staged_keys(raw)) < 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert all(0 < raw.pttl(key) <= 3_600_000 for key in staged_keys(raw))
    assert {key: held(redis_backend)[key] for key in before} == before
    assert store.committed(token) is False
    assert held(redis_backend) == before


COMMANDS = {
    "SCAN", "SSCAN", "TYPE", "SMEMBERS", "SRANDMEMBER", "SISMEMBER", "HMGET", "WATCH", "EXISTS",
    "TIME", "INFO", "SET", "HSET", "SADD", "SREM", "ZADD", "ZREM", "XADD", "XSETID", "XINFO",
    "XREVRANGE", "XRANGE", "RESTORE", "PEXPIRE", "PEXPIREAT", "PERSIST", "RENAME", "UNLINK",
    "MULTI", "EXEC", "SELECT", "GET", "UNWATCH",
}  # fmt: skip


def test_it_uses_no_command_that_could_hit_more_than_it_names(
    redis_url: str, store: RedisStore, raw: redis.Redis
):
    fill_with_anything(raw)
    records = all_records(store)
    with redis.Redis.from_url(redis_url) as client, client.monitor() as monitor:
        token = new_token()
        with store.stage(token) as change:
            put_all(change, records)
            change.commit([("config", ("key",)), ("agent", ("t", "plain"))], keep_events=True)
        store.committed(token)
        raw.echo("end")
        seen = set()
        while (command := monitor.next_command()["command"]) != "ECHO end":
            seen.add(command.partition(" ")[0].upper())
    assert seen <= COMMANDS


def test_more_topics_than_can_be_watched_are_refused(
    store: RedisStore, redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
):
    fill(store)
    store.add_agent("other", {"name": "x"})
    before = held(redis_backend)
    monkeypatch.setattr(staging, "_MOST_WATCHED", 1)
    with pytest.raises(StoreError, match="watched"):
        store.stage(new_token())
    assert held(redis_backend) == before


def killed_around_commit(server: RedisServer, delay: float, results: int) -> bool:
    """Whether the store is the new one after Redis was killed so many seconds after the commit
    began; never anything between."""
    backend, _ = filled_server(server)
    wipe(backend.client)
    pipe = backend.client.pipeline(transaction=False)
    for number in range(results):
        pipe.set(f"omni:result:{number}", "old")
    pipe.execute()
    new = [Record("result", (str(number),), b"new") for number in range(results)]
    store, token = backend.open(), new_token()
    with store.stage(token) as change:
        put_all(change, new)
        killer = threading.Timer(delay, server.process.kill)
        killer.start()
        with suppress(StoreUnavailable, StoreReadOnly):
            change.commit([], keep_events=True)
        killer.join()
    server.process.wait()
    server.start(*DURABLE)
    wait_for(server)
    values = {
        backend.client.get(f"omni:result:{number}") for number in range(results)
    }  # fmt: skip
    assert len(values) == 1
    assert backend.open().committed(token) is (values == {b"new"})
    assert staged_keys(backend.client) == []
    backend.close()
    return values == {b"new"}


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.1])
def test_redis_killed_around_the_commit_has_all_or_nothing(server: RedisServer, delay: float):
    killed_around_commit(server, delay, 2000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_redis_killed_at_many_moments_of_a_large_commit_has_all_or_nothing(server: RedisServer):
    ends = {killed_around_commit(server, trial * 0.05, 20_000) for trial in range(40)}
    assert ends == {True, False}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_writer_killed_at_many_moments_leaves_the_old_store_or_the_new_one(
    redis_backend: RedisBackend, store: RedisStore, raw: redis.Redis
):
    code = (
        "from storage.changes import Record\n"
        "new = [Record('result', (str(n),), b'new', score='1') for n in range(5000)]\n"
        "print(flush=True)\n"
        "with store.stage(arguments[0]) as change:\n"
        "    change.put(new)\n"
        "    change.commit([], True)\n"
    )
    ends = set()
    for trial in range(100):
        wipe(raw)
        raw.mset({f"omni:result:{number}": "old" for number in range(5000)})
        token = new_token()
        writer = redis_backend.python(code, token)
        deadline = time.monotonic() + 60
        while not raw.exists(f"omnidash:restore:done:{token}"):
            assert time.monotonic() < deadline
        time.sleep(trial * 0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        committed = store.committed(token)
        values = set(raw.mget([f"omni:result:{number}" for number in range(5000)]))
        assert values == ({b"new"} if committed else {b"old"})
        assert staged_keys(raw) == []
        ends.add(committed)
    assert ends == {True, False}
