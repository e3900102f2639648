"""Serve the dashboard: what `make run` and the container start."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

import storage
from omnidash.views.door import new_setup_token

PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK = 0.5  # seconds between looks at the children
_LONGEST_WAIT = 60.0  # seconds before what keeps ending is started again

log = logging.getLogger("omnidash.serve")


class Stop(Exception):
    """Somebody asked us to end."""


class Command(BaseCommand):
    help = "Prepare the database and the static files, then serve until told to stop."
    # Checks are for `manage.py check`; a start should be quick.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--no-clock", action="store_true", help="the clock is started by somebody else"
        )
        parser.add_argument(
            "--no-worker", action="store_true", help="a worker is started by somebody else"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._beside = [name for name in ("clock", "worker") if not options[f"no_{name}"]]
        for number in STOP_SIGNALS:
            signal.signal(number, _raise_stop)
        try:
            code = self._serve()
        except Stop:
            code = 0
        sys.exit(code)

    def _serve(self) -> int:
        listener = _listen(*settings.OMNIDASH_BIND)
        with _database_named():
            migrate_if_needed()
            SessionStore.clear_expired()
        collect_static_if_changed()
        self._announce(listener)
        with _children() as start:
            if settings.OMNIDASH_SAMPLE:
                start(_own("simulate"))
            beside = [_Beside(start, name) for name in self._beside]
            web = start(_gunicorn(listener), pass_fds=[listener.fileno()])
            while (code := web.poll()) is None:
                for one in beside:
                    one.look(time.monotonic())
                time.sleep(_LOOK)
            return code

    def _announce(self, listener: socket.socket) -> None:
        base = _address(listener)
        self.stdout.write(f"OmniDash: {base}")
        for name, url in settings.OMNIDASH_STORES.items():
            sample = " (sample data)" if settings.OMNIDASH_SAMPLE else ""
            self.stdout.write(f"  store {name}: {storage.safe_url(url)}{sample}")
        if settings.OMNIDASH_HINT:
            self.stdout.write(f"  {settings.OMNIDASH_HINT}")
        if settings.OMNIDASH_TLS and not settings.OMNIDASH_TRUSTED_PROXIES:
            self.stdout.write(
                "  Logging in needs https. Put a TLS proxy in front and name its address in "
                "OMNIDASH_TRUSTED_PROXIES, or set OMNIDASH_TLS=off to do without."
            )
        token = new_setup_token()
        if token:
            self.stdout.write(
                f"  No account yet. This link creates the first administrator, once:\n"
                f"  {base}setup/{token}/"
            )
        self.stdout.flush()


def migrate_if_needed() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0)


@contextmanager
def _database_named() -> Iterator[None]:
    """The operator's to mend: one line. Neither SQLite nor PostgreSQL repeats a password."""
    try:
        yield
    except Error as error:
        cause = " ".join(str(error).split())
        raise CommandError(
            f"the database cannot be used (DATABASE_URL, else OMNIDASH_DATA_DIR): {cause}"
        ) from None


def collect_static_if_changed() -> None:
    """Hash, compress and copy only when a source changed: it takes seconds."""
    stamp = Path(settings.DATA_DIR) / "static.stamp"
    current = _static_stamp()
    if stamp.exists() and stamp.read_text(encoding="ascii") == current:
        return
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    stamp.write_text(current, encoding="ascii")


def _static_stamp() -> str:
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage_ in sorted(finder.list([]), key=lambda found: found[0]):
            path = Path(storage_.path(name))
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything else is done, and handed on open: a taken port is told at once, and
    who connects early waits instead of being refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(256)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"cannot serve on {host}:{port} (OMNIDASH_BIND): {reason}.") from None
    return listener


def _address(listener: socket.socket) -> str:
    """An address to open in a browser, for the console."""
    host, port = listener.getsockname()[:2]
    if settings.OMNIDASH_TLS and settings.OMNIDASH_TRUSTED_PROXIES:
        return f"https://{settings.ALLOWED_HOSTS[0]}/"
    if host in ("0.0.0.0", "::"):  # noqa: S104 - not to bind, but as everywhere is no address
        host = settings.ALLOWED_HOSTS[0]
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/"


def _gunicorn(listener: socket.socket) -> list[str]:
    # One worker with threads: what the stores learn (indexes of expiry times, parsed files) is
    # kept in the process, once, for all requests. A second worker would read everything again.
    options = {
        "pythonpath": str(settings.BASE_DIR),
        "bind": f"fd://{listener.fileno()}",
        "workers": "1",
        "worker-class": "gthread",
        "threads": "8",
        "keep-alive": "30",
        "graceful-timeout": "5",
        "logger-class": "omnidash.logging.GunicornLogger",
        "log-level": "warning",
        # The proxy headers are TrustedProxyMiddleware's, which knows whom to believe.
        "forwarded-allow-ips": "",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    module = [sys.executable, "-m", "gunicorn", "--no-control-socket"]
    return [*module, *arguments, "omnidash.wsgi:application"]


def _own(command: str) -> list[str]:
    return [sys.executable, str(settings.BASE_DIR / "manage.py"), command]


class _Start:
    """Starts processes that end when we do, and remembers them."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []

    def __call__(self, command: list[str], pass_fds: list[int] | None = None) -> Any:
        child = subprocess.Popen(
            command,
            pass_fds=pass_fds or [],
            # Ctrl-C reaches us alone, and we end the others in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self.children.append(child)
        return child


class _Beside:
    """The clock or the worker, started again when it ends: at once after a long life, later and
    later after short ones. The pages are worth more than these, so they never end with one."""

    def __init__(self, start: _Start, command: str) -> None:
        self._start, self._command = start, command
        self._wait = 1.0
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        self._child = self._start(_own(self._command))
        self._began = now
        self._again: float | None = None

    def look(self, now: float) -> None:
        """Start it again if it ended and its time has come."""
        if self._again is not None:
            if now >= self._again:
                self._begin(now)
        elif (code := self._child.poll()) is not None:
            if now - self._began > _LONGEST_WAIT:
                self._wait = 1.0
            self._again, wait = now + self._wait, self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            log.warning("the %s %s; it starts again in %.0f s", self._command, how, wait)
            self._start.children.remove(self._child)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _children() -> Iterator[_Start]:
    start = _Start()
    try:
        yield start
    finally:
        for number in STOP_SIGNALS:  # impatience must not leave one behind
            signal.signal(number, signal.SIG_IGN)
        for child in start.children:
            child.terminate()
        for child in start.children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _raise_stop(number: int, frame: FrameType | None) -> None:
    raise Stop
