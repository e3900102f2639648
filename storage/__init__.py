"""OmniDaemon's storage backends, read and written. Needs no Django."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from storage.base import Store

__all__ = ["BACKENDS", "Store", "StoreURL", "open_store", "parse_url", "safe_url"]

_SCHEMES = {"json": "json", "redis": "redis", "rediss": "redis", "unix": "redis"}
BACKENDS = frozenset(_SCHEMES.values())
_OPTIONS = {"json": {"mode", "env"}, "redis": {"prefix", "db", "mode", "env"}}
# What an option may be, where it is one of a few words.
_VALUES = {"mode": "read-only", "env": "production"}


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store's address, taken apart. `path` is the JSON directory or the Unix socket. `mode`
    (`read-only`) and `env` (`production`) are for whoever shows the store; they change nothing
    here, and are no part of the safe address, which names the data."""

    scheme: str
    backend: str
    path: str = ""
    host: str = "localhost"
    port: int = 6379
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    db: int = 0
    prefix: str = "omni"
    mode: str = ""
    env: str = ""

    @property
    def safe(self) -> str:
        """The address without user name and password, to be shown and logged."""
        if self.backend == "json":
            return f"json://{quote(self.path, errors='surrogateescape')}"
        tail = f"?prefix={quote(self.prefix)}"
        if self.scheme == "unix":
            return f"unix://{quote(self.path, errors='surrogateescape')}{tail}&db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.db}{tail}"


def parse_url(url: str) -> StoreURL:
    """`json:///absolute/dir`, `json://relative/dir`, `redis://user:pass@host:6379/0?prefix=omni`,
    `rediss://…`, `unix://user:pass@/path/to.sock?db=0&prefix=omni`; each with `mode=read-only` and
    `env=production` if wanted. ValueError says what is wrong without repeating the URL, which may
    hold a password."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    backend = _SCHEMES.get(scheme)
    if not separator or backend is None:
        raise ValueError("a store URL starts with json://, redis://, rediss:// or unix://")
    if backend == "json":
        return _json_url(rest)
    try:
        parts = urlsplit(f"redis://{rest}")
        port = parts.port or 6379
    except ValueError:
        raise ValueError("the host or port of the store URL cannot be read") from None
    if parts.fragment:
        raise ValueError("unknown option in the store URL: #")
    options = _options(backend, parts.query)
    db = _database(
        options.get("db") or parts.path.strip("/") if scheme != "unix" else options.get("db")
    )
    prefix = options.get("prefix", "omni")
    if not prefix:
        raise ValueError("the prefix of the store URL is empty")
    return StoreURL(
        scheme=scheme,
        backend=backend,
        path=unquote(parts.path, errors="surrogateescape") if scheme == "unix" else "",
        host=parts.hostname or "localhost",
        port=port,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        db=db,
        prefix=prefix,
        mode=options.get("mode", ""),
        env=options.get("env", ""),
    )


def _json_url(rest: str) -> StoreURL:
    path, _, query = rest.partition("?")
    if "#" in rest:
        raise ValueError("a store URL has no #; write ? and # of a path as %3F and %23")
    if not path:
        raise ValueError("the store URL names no directory")
    options = _options("json", query)
    return StoreURL(
        scheme="json",
        backend="json",
        path=os.path.abspath(unquote(path, errors="surrogateescape")),
        mode=options.get("mode", ""),
        env=options.get("env", ""),
    )


def _options(backend: str, query: str) -> dict[str, str]:
    """What stands behind the question mark. A word that means nothing would leave a store open to
    changes that somebody wanted to close."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - _OPTIONS[backend]):
        raise ValueError(f"unknown option in the store URL: {', '.join(unknown)}")
    for name, word in _VALUES.items():
        if options.get(name, word) != word:
            told = options[name][:40]
            raise ValueError(f"{name}={told!a} in the store URL: it can only be {word}")
    return options


def _database(text: str | None) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise ValueError("the database of the store URL is not a number")
    return int(text)


def safe_url(url: str) -> str:
    """The address of a store without secrets."""
    return parse_url(url).safe


def open_store(url: str, *, as_runner: bool = False) -> Store:
    """The store at a URL; nothing is read yet. `as_runner` is for a process that itself plays
    OmniDaemon's runner and so owns a JSON directory."""
    where = parse_url(url)
    if where.backend == "json":
        from storage.json_store import JsonStore

        return JsonStore(where, as_runner=as_runner)
    from storage.redis_store import RedisStore

    return RedisStore(where)
