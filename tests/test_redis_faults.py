"""A Redis that is away, frozen, locked, full or not Redis at all: said in plain words, in time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from storage import open_store
from storage.base import (
    AgentQuery,
    ResultQuery,
    Store,
    StoreDenied,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
)
from tests.servers import RedisServer, free_port
from tests.stores import eventually

pytest_plugins = ["tests.store_fixtures"]

SECRET = "hunter2-correct-horse"  # a password to look for


def filled(url: str) -> Store:
    store = open_store(url)
    store.add_agent("topic", {"name": "agent"})
    store.save_result("task", {"agent": "agent", "topic": "topic"}, 3600)
    store.save_metric({"event": "task_received"})
    store.save_config("key", 1)
    return store


READS: list[Callable[[Store], object]] = [
    lambda store: store.connect(),
    lambda store: store.counts(),
    lambda store: store.topics(),
    lambda store: store.agent_page(AgentQuery()),
    lambda store: store.agent("topic", "agent"),
    lambda store: store.list_all_agents(),
    lambda store: store.result_page(ResultQuery()),
    lambda store: store.result("task"),
    lambda store: store.list_results(),
    lambda store: store.expiring(60),
    lambda store: store.metrics_after(None),
    lambda store: store.get_metrics(),
    lambda store: store.config_listing(),
    lambda store: store.supervisors(),
    lambda store: store.runner(),
    lambda store: store.inspect(),
]
WRITES: list[Callable[[Store], object]] = [
    lambda store: store.add_agent("topic", {"name": "other"}),
    lambda store: store.save_result("other", 1),
    lambda store: store.save_metric({"event": "e"}),
    lambda store: store.save_config("other", 1),
]


def cause(store: Store) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        store.counts()
    return str(caught.value)


def test_every_question_to_a_server_that_is_down_says_so(server: RedisServer):
    store = filled(server.url)
    server.stop()
    for ask in [*READS, *WRITES]:
        with pytest.raises(StoreUnavailable, match="connection refused"):
            ask(store)
    health = store.health_check()
    assert health["status"] == "unhealthy"
    assert "connection refused" in health["error"]


def test_a_server_that_comes_back_is_read_at_once(server: RedisServer):
    store = filled(server.url)
    server.stop()
    assert "refused" in cause(store)
    server.start()
    assert store.counts().results == 0


def test_connections_that_a_restart_broke_are_no_error(server: RedisServer):
    store = filled(server.url)
    server.client().config_set("save", "")
    server.stop()
    server.start()
    assert store.counts().agents == 0
    store.save_config("key", 1)
    server.client().client_kill_filter(_type="normal", skipme=True)
    assert store.get_config("key") == 1


def test_a_frozen_server_costs_a_page_one_wait(server: RedisServer):
    store = filled(server.url)
    os.kill(server.process.pid, signal.SIGSTOP)
    started = time.monotonic()
    assert "did not answer within 1 s" in cause(store)
    for ask in [*READS, *WRITES]:
        with pytest.raises(StoreUnavailable, match="did not answer"):
            ask(store)
    assert time.monotonic() - started < 3
    os.kill(server.process.pid, signal.SIGCONT)
    eventually(lambda: counted(store), 1)


def counted(store: Store) -> int | None:
    """Agents; None as long as a failure that took long is not tried again."""
    try:
        return store.counts().agents
    except StoreUnavailable:
        return None


def test_many_pages_wait_for_a_frozen_server_together(server: RedisServer):
    store = filled(server.url)
    os.kill(server.process.pid, signal.SIGSTOP)
    causes: list[str] = []

    def page() -> None:
        for ask in READS:
            try:
                ask(store)
            except StoreUnavailable as error:
                causes.append(str(error))

    threads = [threading.Thread(target=page) for _ in range(30)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 5
    assert len(causes) == len(threads) * len(READS)
    os.kill(server.process.pid, signal.SIGCONT)
    eventually(lambda: counted(store), 1)
    assert len(server.client().client_list()) < 40  # no connection leaked


def test_a_slow_answer_is_refused_in_time_and_the_next_is_its_own(server: RedisServer):
    store = filled(server.url)
    store.save_config("second", "2")
    server.client().client_pause(1500)
    assert "did not answer" in cause(store)
    time.sleep(1.6)
    assert store.get_config("second") == "2"


class HangsUp(threading.Thread):
    """Takes one command on each connection, then closes it without an answer."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.commands: list[bytes] = []

    def run(self) -> None:
        while True:
            link, _ = self.socket.accept()
            with link:
                self.commands.append(link.recv(65536))


def test_what_may_have_been_done_is_not_done_again():
    server = HangsUp()
    server.start()
    store = open_store(f"redis://127.0.0.1:{server.port}")
    with pytest.raises(StoreUnavailable, match=r"lost|reset"):
        store.save_result("task", 1)
    assert len(server.commands) == 1
    time.sleep(
        1.1
    )  # on a busy machine that failure was slow, and a slow one is not repeated at once
    with pytest.raises(StoreUnavailable, match=r"lost|reset"):
        store.get_result("task")
    assert len(server.commands) == 3  # a question may be asked twice


def test_something_else_that_answers_is_not_redis():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    link.recv(65536)
                    link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listening.getsockname()[1]
        assert "is not Redis" in cause(open_store(f"redis://127.0.0.1:{port}"))


def test_an_unknown_host_is_said():
    assert "host name is unknown" in cause(open_store("redis://no-such-host.invalid"))


def test_a_socket_that_is_not_there_is_said(tmp_path: Path):
    assert "no such socket" in cause(open_store(f"unix://{tmp_path}/redis.sock"))


def test_a_store_is_read_through_a_unix_socket(server: RedisServer):
    server.stop()
    path = f"{server.folder}/redis.sock"
    server.start("--unixsocket", path)
    store = filled(f"unix://{path}?prefix=other")
    assert store.counts().results == 1
    assert server.client().exists("other:result:task")


def test_a_database_that_the_server_does_not_have_is_said(server: RedisServer):
    assert "no database 99" in cause(open_store(server.url[:-1] + "99"))


def leaks(error: BaseException) -> bool:
    return SECRET in "".join(traceback.format_exception(error)) + repr(error)


def test_a_wrong_password_is_said_and_none_is_shown(server: RedisServer):
    server.client().config_set("requirepass", "the right one")
    for user in (f":{SECRET}", f"name:{SECRET}", ""):
        store = open_store(f"redis://{user}@127.0.0.1:{server.port}" if user else server.url)
        with pytest.raises(StoreUnavailable, match="authentication failed") as caught:
            store.counts()
        assert not leaks(caught.value)
        assert SECRET not in repr(store) + store.address + str(store.health_check())


def test_the_right_password_is_in_no_answer(server: RedisServer, caplog: pytest.LogCaptureFixture):
    server.client().config_set("requirepass", SECRET)
    store = filled(f"redis://:{SECRET}@127.0.0.1:{server.port}")
    shown = [store.inspect(), store.health_check(), store, store.address]
    server.stop()
    with pytest.raises(StoreUnavailable) as caught:
        store.counts()
    assert not leaks(caught.value)
    assert SECRET not in "".join(map(repr, shown)) + caplog.text


def user_of(server: RedisServer, *rules: str) -> Store:
    filled(server.url)
    client = server.client()
    client.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", *rules)
    return open_store(f"redis://reader:{SECRET}@127.0.0.1:{server.port}")


def test_a_user_who_may_only_read_reads_everything(server: RedisServer):
    store = user_of(server, "~omni:*", "+@read", "-@dangerous")
    for ask in READS:
        ask(store)
    assert store.result_page(ResultQuery()).total == 1
    assert "INFO" in store.inspect().denied
    assert store.health_check()["status"] == "healthy"
    for write in WRITES:
        with pytest.raises(StoreDenied):
            write(store)
    assert server.client().dbsize() == 7


def test_a_forbidden_command_is_named(server: RedisServer):
    store = user_of(server, "~omni:*", "+@all", "-xrange", "-zrevrange")
    with pytest.raises(StoreDenied, match="run XRANGE"):
        store.metrics_after(None)
    with pytest.raises(StoreDenied, match="run ZREVRANGE"):
        store.result_page(ResultQuery())
    assert store.agent_page(AgentQuery()).total == 1


def test_forbidden_keys_are_said(server: RedisServer):
    store = user_of(server, "~other:*", "+@all")
    with pytest.raises(StoreDenied, match="keys"):
        store.counts()


def test_a_replica_is_read_and_refuses_every_change(server: RedisServer):
    other = RedisServer()
    try:
        filled(other.url)
        server.client().execute_command("REPLICAOF", "127.0.0.1", other.port)
        deadline = time.monotonic() + 20
        while server.client().info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        store = open_store(server.url)
        for ask in READS:
            ask(store)
        removals = [lambda: store.delete_agent("topic", "agent"), lambda: store.clear_all()]
        for write in [*(lambda w=w: w(store) for w in WRITES), *removals]:
            with pytest.raises(StoreReadOnly, match="read-only replica; nothing was changed"):
                write()
        other.stop()
        server.client().config_set("replica-serve-stale-data", "no")
        while server.client().execute_command("INFO", "replication")["master_link_status"] == "up":
            time.sleep(0.05)
        assert "MASTERDOWN" in cause(store)
    finally:
        other.close()


def test_a_full_memory_refuses_new_records_and_still_deletes(server: RedisServer):
    store = filled(server.url)
    server.client().config_set("maxmemory", "1mb")
    for write in WRITES:
        with pytest.raises(StoreReadOnly, match="out of memory"):
            write(store)
    assert any("out of memory" in trouble for trouble in store.inspect().troubles)
    assert store.delete_result("task")
    assert store.delete_agent("topic", "agent")
    assert store.clear_all() == {"agents": 0, "results": 0, "metrics": 1, "config": 1}
    assert server.client().dbsize() == 0


def test_a_disk_that_cannot_be_written_refuses_every_change(server: RedisServer):
    server.stop()
    os.mkdir(f"{server.folder}/gone")
    server.start("--save", "3600 1", "--dir", f"{server.folder}/gone")
    store = filled(server.url)
    client = server.client()
    shutil.rmtree(f"{server.folder}/gone")
    client.bgsave()
    deadline = time.monotonic() + 20
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for change in [*WRITES, lambda store: store.delete_result("task")]:
        with pytest.raises(StoreReadOnly, match="cannot save to disk"):
            change(store)
    assert store.get_result("task") is not None
    assert any("save to disk failed" in trouble for trouble in store.inspect().troubles)


def test_too_many_clients_are_said(server: RedisServer):
    with server.client() as busy:
        busy.config_set("maxclients", 1)
        assert "max clients" in cause(open_store(server.url))


def test_a_busy_script_is_said(server: RedisServer):
    store = filled(server.url)
    server.client().config_set("busy-reply-threshold", 50)

    def script() -> None:
        with suppress(redis.RedisError):
            server.client().eval("while true do end", 0)

    threading.Thread(target=script, daemon=True).start()
    deadline = time.monotonic() + 10
    said = ""
    while "busy running a script" not in said:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        try:
            store.counts()
        except StoreError as error:
            said = str(error)


def test_a_server_that_is_loading_says_how_far_it_is(server: RedisServer):
    client = server.client()
    for start in range(0, 20_000, 1000):
        client.mset({f"omni:result:{number}": "x" * 50 for number in range(start, start + 1000)})
    client.save()
    server.stop()
    server.start("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    said = cause(open_store(server.url))
    assert "is loading its data, " in said
    assert said.endswith(" %")


def test_nothing_is_there_yet(server: RedisServer):
    port = free_port()
    started = time.monotonic()
    assert f"Redis at 127.0.0.1:{port}: connection refused" in cause(
        open_store(f"redis://127.0.0.1:{port}")
    )
    assert time.monotonic() - started < 3
