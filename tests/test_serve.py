"""One command starts everything, and one signal ends everything."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prepared import prepare
from tests.stores import eventually

ROOT = Path(__file__).resolve().parent.parent


class Served:
    """`manage.py serve` on a port of its own choice, with a data folder of its own; `fresh`: one
    that was never used."""

    def __init__(self, folder: Path, *options: str, fresh: bool = False, **env: str) -> None:
        if not fresh:
            prepare(folder / "var", database="DATABASE_URL" not in env)
        self.folder = folder
        self.log = folder / "serve.log"
        clean = {
            "PATH": os.environ["PATH"],
            "OMNIDASH_DATA_DIR": str(folder / "var"),
            "OMNIDASH_STORES": f"default=json://{folder}/store",
            "OMNIDASH_BIND": "127.0.0.1:0",
            **env,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "serve", *options],
                env=clean,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"{self.process.poll()}: {self.log.read_text()}")

    def base(self) -> str:
        return self.wait_for(r"OmniDash: (http://\S+/)\n")

    def get(self, address: str) -> tuple[int, str, dict[str, str]]:
        try:
            with urllib.request.urlopen(self.base() + address, timeout=60) as response:
                return response.status, response.read().decode(), dict(response.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)

    def is_closed(self) -> bool:
        """Whether nobody listens any more, after a while."""
        host, port = self.base_address
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex((host, port)):
                    return True
            time.sleep(0.1)
        return False

    def clocks(self) -> list[int]:
        """The processes that run a clock on our data folder."""
        return [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if _says(process / "cmdline", "\0clock\0")
            and _says(process / "environ", str(self.folder))
        ]

    def remember(self) -> None:
        host, port = re.fullmatch(r"http://([^:]+):(\d+)/", self.base()).groups()
        self.base_address = host, int(port)


def _says(file: Path, text: str) -> bool:
    try:
        return text.encode() in file.read_bytes()
    except OSError:  # it has ended meanwhile, or is not ours
        return False


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path)
    running.remember()
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(timeout=60)


def test_the_first_start_prepares_everything_and_prints_one_setup_link(tmp_path: Path) -> None:
    served = Served(tmp_path, fresh=True)
    assert served.get("healthz")[:2] == (200, "ok\n")
    status, text, headers = served.get("login/")
    assert status == 200
    link = served.wait_for(r"\n  http://127\.0\.0\.1:\d+/(setup/\S+/)\n")
    assert "Create the first administrator" in served.get(link)[1]
    style = re.search(r'href="/(static/vendor/tabler/tabler\.min\.[0-9a-f]{12}\.css)"', text)
    assert style
    status, _, headers = served.get(style[1])
    assert status == 200
    assert "immutable" in headers["Cache-Control"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert [
        path for path in (served.folder / "var").rglob("*") if path.stat().st_mode & 0o077
    ] == []
    served.process.terminate()
    assert served.process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_signal_ends_everything_with_success(served: Served, number: int) -> None:
    assert served.get("healthz")[0] == 200
    served.process.send_signal(number)
    assert served.process.wait(timeout=60) == 0
    assert served.is_closed()


def test_a_killed_supervisor_leaves_nobody_behind(served: Served) -> None:
    assert served.get("healthz")[0] == 200
    eventually(lambda: len(served.clocks()), 1)
    served.process.kill()
    served.process.wait(timeout=60)
    assert served.is_closed()
    eventually(served.clocks, [])


def test_a_killed_clock_starts_again_and_the_pages_never_notice(served: Served) -> None:
    eventually(lambda: len(served.clocks()), 1)
    (before,) = served.clocks()
    os.kill(before, signal.SIGKILL)
    served.wait_for(r"(the clock was ended by signal 9; it starts again in 1 s)\n")
    assert served.get("healthz")[0] == 200
    eventually(lambda: len(set(served.clocks()) - {before}), 1)
    served.process.terminate()
    assert served.process.wait(timeout=60) == 0
    eventually(served.clocks, [])


def test_a_clock_that_somebody_else_starts_is_not_started(tmp_path: Path) -> None:
    running = Served(tmp_path, "--no-clock")
    assert running.get("healthz")[0] == 200
    assert running.clocks() == []
    running.process.terminate()
    assert running.process.wait(timeout=60) == 0


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = Served(tmp_path, OMNIDASH_BIND=f"127.0.0.1:{port}")
        assert running.process.wait(timeout=60) == 1
    said = running.log.read_text()
    assert len(said.strip().splitlines()) == 1
    assert f"127.0.0.1:{port} (OMNIDASH_BIND)" in said


def test_no_password_of_a_store_is_printed(tmp_path: Path) -> None:
    running = Served(tmp_path, OMNIDASH_STORES="a=redis://ada:hunter2@127.0.0.1:1/0")
    running.remember()
    assert running.get("readyz")[:2] == (503, "not ready\n")
    running.process.terminate()
    running.process.wait(timeout=60)
    said = running.log.read_text()
    assert "store a: redis://127.0.0.1:1/0?prefix=omni\n" in said
    assert "hunter2" not in said
