"""OmniDash's own database, as Django wants it described: SQLite, or what `DATABASE_URL` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
_OPTIONS = {
    "host", "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding", "application_name",
}  # fmt: skip
_LONGEST_NAME = 63  # bytes; PostgreSQL cuts longer ones off
STATEMENT_SECONDS = 30  # that the server works at one statement, also when nobody waits any more
_CONNECT_SECONDS = 2  # the least that psycopg knows


def sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "CONN_MAX_AGE": 600,
        "OPTIONS": {
            # Readers beside the one writer; a writer waits its turn instead of failing half-way.
            # The log is moved into the database at 32 MB: at the usual 4 MB that would be done at
            # nearly each reading of a busy store's events.
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
                "PRAGMA wal_autocheckpoint=8000;"
            ),
            "transaction_mode": "IMMEDIATE",
            "timeout": 10,
        },
    }


def postgresql(url: str) -> dict[str, Any]:
    """`postgres://user:password@host:5432/name?sslmode=require`, also `postgresql://`; a folder of
    Unix sockets as `?host=/run/postgresql`. ValueError says what is wrong without repeating any
    part of the URL: what looks like an option may be the tail of a password."""
    parts = _split(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, errors="strict"))
    if set(options) - _OPTIONS or "" in options.values():
        raise ValueError(f"its options are {', '.join(sorted(_OPTIONS))}, each with a value")
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"its sslmode is one of {', '.join(sorted(_SSL_MODES))}")
    if parts.hostname and "host" in options:
        raise ValueError("it names the host twice")
    name = unquote(parts.path.removeprefix("/"), errors="strict")
    if not name:
        raise ValueError("it names no database after the host")
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"its database has a name of more than {_LONGEST_NAME} bytes")
    found = {
        # Django's, but with an end to its patience.
        "ENGINE": "omnidash.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or "", errors="strict"),
        "PASSWORD": unquote(parts.password or "", errors="strict"),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "application_name": "omnidash",
            "connect_timeout": _CONNECT_SECONDS,
            "options": f"-c statement_timeout={STATEMENT_SECONDS}s",
            **options,
        },
    }
    if "\0" in "".join(map(str, [*found.values(), *options.values()])):
        raise ValueError("it holds %00")
    return found


def _split(url: str) -> SplitResult:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("postgres", "postgresql"):
        raise ValueError("it starts with postgres:// or postgresql://")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        readable = parts.port != 0 and bool(unquote(rest, errors="strict").encode())
    except ValueError:
        readable = False
    # A stray sign in a password moves what follows it into another part of the URL.
    if not readable or parts.fragment or "@" in parts.path + parts.query or "/" in parts.path[1:]:
        raise ValueError(
            "it cannot be read; in a user name, a password or a database's name "
            "write / as %2F, ? as %3F, # as %23, @ as %40, % as %25"
        )
    return parts
