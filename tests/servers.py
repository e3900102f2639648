"""Real servers of the tests' own, on free ports, to be used and to be broken."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server without persistence. A missing program fails the test, it never skips."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="omnidash-redis-")
        self.start()

    def start(self, *options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is missing: make test installs it, or apt-get install it")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--dir", self.folder, "--logfile", "redis.log", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client().ping()
                return
            except redis.exceptions.BusyLoadingError:
                return
            except redis.exceptions.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("redis-server did not start")
                time.sleep(0.02)

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, **options)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _postgres_program(name: str) -> str:
    # Debian keeps these off the PATH, one folder a version.
    folders = [os.environ["PATH"], *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)]
    program = shutil.which(name, path=os.pathsep.join(folders))
    if program is None:
        pytest.fail(f"{name} is missing: make test installs it, or apt-get install postgresql")
    return program


class PostgresServer:
    """A PostgreSQL that asks for a password and writes without care. Never skips, as above."""

    PASSWORD = "hunter2 /?#@%+"
    QUOTED = "hunter2%20%2F%3F%23%40%25%2B"

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="omnidash-postgres-"))
        # It refuses to run as root.
        self.owner = {"user": "nobody", "extra_groups": ()} if os.geteuid() == 0 else {}
        password = self.folder / "password"
        password.write_text(self.PASSWORD, encoding="ascii")
        if self.owner:
            shutil.chown(self.folder, "nobody")
            shutil.chown(password, "nobody")
        command = [_postgres_program("initdb"), "--pgdata", str(self.folder / "data"), "--no-sync"]
        command += ["--username", "ada", "--pwfile", str(password), "--auth", "scram-sha-256"]
        command += ["--encoding", "UTF8", "--locale", "C.UTF-8"]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, **self.owner
        )
        if done.returncode:
            pytest.fail(f"initdb: {done.stderr}")
        self.start()
        self.execute("CREATE DATABASE omnidash")

    def start(self) -> None:
        command = [_postgres_program("postgres"), "-D", str(self.folder / "data")]
        for option in (
            f"port={self.port}", "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}", "fsync=off", "full_page_writes=off",
            "synchronous_commit=off", "shared_buffers=16MB",
        ):  # fmt: skip
            command += ["-c", option]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, **self.owner
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((self.folder / "log").read_text())
                time.sleep(0.05)

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="ada", password=self.PASSWORD,
            dbname=database, autocommit=True,
        ) as connection:  # fmt: skip
            connection.execute(statement)

    @property
    def url(self) -> str:
        return f"postgres://ada:{self.QUOTED}@127.0.0.1:{self.port}/omnidash"

    def freeze(self) -> None:
        """Nothing is answered and nothing is refused: the first process and one a connection."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        # The first one first, so that it does not take note of what becomes of the others.
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii")
        for pid in (first, *map(int, children.split())):
            os.kill(pid, number)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def late_answers(port: int, delay: float) -> Iterator[int]:
    """A port that leads to another and holds each piece of its answers back for `delay` seconds."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket, wait: float) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(wait)
                target.sendall(data)
        except OSError:
            pass
        finally:
            target.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", port))
            for way in ((client, upstream, 0.0), (upstream, client, delay)):
                threading.Thread(target=copy, args=way, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
