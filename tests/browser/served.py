"""The real application for a browser: its own processes, data folder, hashed files and stores."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.prepared import prepare
from tests.stores import DATA, Backend, JsonBackend, RedisBackend

ROOT = Path(__file__).resolve().parents[2]
USER = "anna"
PASSWORD = "correct horse battery staple"
_OURS = ("OMNIDASH_", "REDIS_", "STORAGE_", "JSON_STORAGE_", "DJANGO_")


class RedisServer:
    """A real redis-server without persistence, which may go away and come back."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is missing: make test installs it")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--dir", str(folder), "--save", "", "--appendonly", "no"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._listens, "redis-server did not start")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)

    def load(self, prefix: str = "omni") -> RedisBackend:
        """OmniDaemon's own Redis data, moved to the present."""
        script, data = DATA / "load_redis_fixture.py", DATA / "redis-small.jsonl.gz"
        command = [sys.executable, script, data, self.url, "--now", "--prefix", prefix]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return RedisBackend(self.url, prefix)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def until(condition: Callable[[], bool], complaint: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.02)


@dataclass
class Application:
    """A served OmniDash, with a session of its first administrator."""

    url: str
    backends: dict[str, Backend] = field(default_factory=dict)
    redis: RedisServer | None = None
    session: list[Any] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    """Of its processes, for other commands on the same data folder."""

    def __call__(self, path: str) -> str:
        return f"{self.url}{path.removeprefix('/')}"


@contextmanager
def served(**environment: str) -> Iterator[Application]:
    """`manage.py serve` with nothing of this machine's environment but what is given here."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    with tempfile.TemporaryDirectory(
        prefix="omnidash-browser-", ignore_cleanup_errors=True
    ) as data:
        clean |= {"OMNIDASH_DATA_DIR": data, "OMNIDASH_BIND": "127.0.0.1:0"}
        clean |= {"OMNIDASH_LOG_LEVEL": "error", "PYTHONUNBUFFERED": "1", **environment}
        prepare(Path(data))
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "serve"],
            cwd=data,  # not where somebody may have a store of their own
            env=clean,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            url, setup = _announced(server)
            application = Application(url, environment=clean)
            application.session = _first_administrator(setup)
            yield application
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def _announced(server: subprocess.Popen[str]) -> tuple[str, str]:
    """Where it serves, and the link that creates the first administrator."""
    assert server.stdout is not None
    url = ""
    for line in server.stdout:
        if found := re.search(r"OmniDash: (http://\S+)", line):
            url = found[1]
        if found := re.search(r"http://\S+/setup/\S+", line):
            # Whatever else it says must not fill the pipe.
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return url, found[0]
    raise RuntimeError(f"the application ended with {server.wait()}")


def _first_administrator(setup: str) -> list[Any]:
    """Goes through the one-time link as a person would; the cookies that it leaves."""
    return _cookies(setup, {"username": USER, "password1": PASSWORD, "password2": PASSWORD})


def person(application: Application, role: str) -> list[Any]:
    """Adds a person who is called as their role, and logs them in; the cookies."""
    subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "add_user", role, "--role", role],
        input=f"{PASSWORD}\n", text=True, check=True, env=application.environment,
        cwd=application.environment["OMNIDASH_DATA_DIR"], stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return _cookies(f"{application.url}login/", {"username": role, "password": PASSWORD})


def _cookies(address: str, form: dict[str, str]) -> list[Any]:
    """Those that are left by posting a form at the address that shows it."""
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with opener.open(address, timeout=60) as answer:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())
    assert token is not None
    form = {"csrfmiddlewaretoken": token[1], **form}
    # The session is in the answer; where it leads to does not matter here.
    opener.open(address, urlencode(form).encode(), timeout=60).close()
    return [
        {"name": cookie.name, "value": cookie.value, "domain": "127.0.0.1", "path": "/"}
        for cookie in jar
    ]


def json_fixture(folder: Path) -> JsonBackend:
    """OmniDaemon's own JSON data, moved to the present."""
    script = DATA / "copy_json_fixture.py"
    subprocess.run([sys.executable, script, folder], check=True, stdout=subprocess.DEVNULL)
    return JsonBackend(folder)


@contextmanager
def served_fixtures(only: str = "") -> Iterator[Application]:
    """All stores that the tests look at: `json` and `redis` are left as they are, tests write
    into `moving-…`, and take `failing-…` away; `guarded` is `json` once more, with its marks.
    `only` serves one of them, as the only one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omnidash-stores-")))
        still, failing = RedisServer(folder), RedisServer(folder)
        stack.callback(still.stop)
        stack.callback(failing.stop)
        backends: dict[str, Backend] = {
            "json": json_fixture(folder / "json"),
            "redis": still.load(),
            "moving-json": json_fixture(folder / "moving"),
            "moving-redis": still.load("moving"),
            "failing-json": json_fixture(folder / "failing"),
            "failing-redis": failing.load(),
        }
        for backend in backends.values():
            stack.callback(backend.close)
        urls = {name: backend.url for name, backend in backends.items()}
        urls["guarded"] = f"{urls['json']}?env=production&mode=read-only"
        stores = ",".join(f"{name}={url}" for name, url in urls.items() if only in ("", name))
        application = stack.enter_context(served(OMNIDASH_STORES=stores))
        application.backends, application.redis = backends, failing
        yield application
