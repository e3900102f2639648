"""The connection to Redis: bounded waiting, one reconnect, and the driver's errors made ours.

Commands are tuples of bytes, packed and sent together: `redis.Redis` and its pipelines spend more
time on a command than Redis does. Replies are raw bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import hiredis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)  # fmt: skip
from redis.retry import Retry

from storage import StoreURL, patience
from storage.base import StoreDenied, StoreError, StoreReadOnly, StoreUnavailable
from storage.redis_store.causes import OUTAGES, REFUSALS, system_cause
from storage.redis_store.pool import CONNECTIONS, FULL, Pool
from storage.redis_store.replies import Command as Command
from storage.redis_store.replies import ResponseError as ResponseError
from storage.redis_store.replies import has_errors, require_no_error, unexpected
from storage.redis_store.replies import is_wrong_type as is_wrong_type

TIMEOUT = 1.0  # seconds to connect, and between two pieces of an answer
_SLOW = 0.2  # a failure that took longer is not tried again for a while …
_PAUSE = 1.0  # … so that a page of many questions waits for a frozen server once
_ATTEMPTS = 20  # of a transaction whose watched keys keep changing


class Contended(StoreError):
    """Watched keys changed at each attempt of a transaction."""


class Client:
    """One Redis database. Threads share it; each exchange takes a connection of its own."""

    def __init__(self, where: StoreURL) -> None:
        unix = where.scheme == "unix"
        host = f"[{where.host}]" if ":" in where.host else where.host
        self.name = f"Redis at {where.path if unix else f'{host}:{where.port}'}"
        options: dict[str, Any] = {"path": where.path} if unix else {
            "host": where.host, "port": where.port, "socket_connect_timeout": TIMEOUT,
            "socket_keepalive": True,
        }  # fmt: skip
        kinds: dict[str, Any] = {
            "unix": UnixDomainSocketConnection, "rediss": SSLConnection
        }  # fmt: skip
        options |= {
            "db": where.db,
            "username": where.username,
            "password": where.password,
            "socket_timeout": TIMEOUT,
            "retry": Retry(NoBackoff(), 0),  # the driver's default keeps a worker for a minute
            "protocol": 2,
            "driver_info": None,  # CLIENT SETINFO may be denied, and costs two round trips
            "parser_class": _Parser,
        }
        self._pool = Pool(kinds.get(where.scheme, Connection), options, TIMEOUT)
        self._db = where.db
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._cause = ""

    def close(self) -> None:
        self._pool.close()

    # Reading

    def call(self, *command: bytes | str | int | float) -> Any:
        """One command's reply; an error reply raises."""
        reply = self.pipe([command])[0]
        if isinstance(reply, ResponseError):
            raise self.refused(reply, command) or unexpected(reply, command)
        return reply

    def pipe(self, commands: Sequence[Command], *, denied_ok: bool = False) -> list[Any]:
        """The replies of reading commands in one round trip. What is wrong with one record (a wrong
        type) stays in its place as a ResponseError; what concerns all raises. `denied_ok` leaves
        in place what the user of this connection may not do."""
        if not commands:
            return []
        try:
            replies = self._attempt(commands)
        except _Stale:
            replies = self._attempt(commands, last=True)
        self.check(replies, commands, denied_ok)
        return replies

    def stream(self, batches: Iterable[Sequence[Command]]) -> Iterator[list[Any]]:
        """The replies of many batches of reading commands, each as `pipe` gives them. Redis already
        works on the next batch while the caller works on this one."""
        with self._connection() as link:
            try:
                before: Sequence[Command] = ()
                for batch in batches:
                    send(link, batch)
                    if before:
                        yield self._received(link, before)
                    before = batch
                if before:
                    yield self._received(link, before)
            except BaseException:
                link.disconnect()  # there may be replies that nobody will read
                raise

    def _received(self, link: Any, commands: Sequence[Command]) -> list[Any]:
        replies = receive(link, len(commands))
        self.check(replies, commands)
        return replies

    def _attempt(self, commands: Sequence[Command], last: bool = False) -> list[Any]:
        with self._connection(may_be_stale=not last) as link:
            return exchange(link, commands)

    # Writing

    def write(self, commands: Sequence[Command], *, deleting: bool = False) -> list[Any]:
        """All of the commands or none, in one MULTI. Never sent twice. `deleting` commands are done
        one by one where the memory is full: Redis then refuses every transaction, but no DEL."""
        with self._connection() as link:
            replies = self._multi(link, commands, deleting)
        if replies is None:  # nothing is watched, so this cannot be
            raise StoreError(f"{self.name} did not execute the change")
        return replies

    def transact(
        self,
        watched: Sequence[bytes],
        plan: Callable[[Callable[[Sequence[Command]], list[Any]]], Sequence[Command]],
        *,
        deleting: bool = True,
    ) -> list[Any]:
        """`plan` reads by the function it is given and says what to write; that is executed only if
        the watched keys have not changed meanwhile, else all of it starts again. What goes wrong in
        `plan` itself is raised as it is. `deleting` as in `write`; what is watched then is not
        compared again."""
        try:
            for _ in range(_ATTEMPTS):
                replies = self._transact(watched, plan, deleting)
                if replies is not None:
                    return replies
        except _Aside as aside:
            raise aside.error from None
        raise Contended("the records kept changing meanwhile; nothing was done")

    def _transact(
        self, watched: Sequence[bytes], plan: Callable[..., Sequence[Command]], deleting: bool
    ) -> list[Any] | None:
        with self._connection() as link:
            broken: list[Exception] = []
            first: list[Command] = [("WATCH", *watched)]  # goes ahead of the first question

            def read(commands: Sequence[Command]) -> list[Any]:
                sent, ahead = [*first, *commands], len(first)
                first.clear()
                try:
                    replies = exchange(link, sent)
                except (driver.RedisError, OSError) as error:
                    broken.append(error)
                    raise
                self.check(replies, sent)
                return replies[ahead:]

            try:
                try:
                    commands = plan(read)
                except OSError as error:  # a full disk of ours is not Redis that is away
                    if error in broken:
                        raise
                    raise _Aside(error) from None
                if commands:
                    return self._multi(link, commands, deleting)
                read([("UNWATCH",)])
                return []
            except BaseException:
                link.disconnect()  # it may still be watching
                raise

    def _multi(self, link: Any, commands: Sequence[Command], deleting: bool) -> list[Any] | None:
        """None if a watched key changed."""
        framed: list[Command] = [("MULTI",), *commands, ("EXEC",)]
        *queued, done = exchange(link, framed)
        if deleting and any(isinstance(reply, driver.OutOfMemoryError) for reply in queued):
            return self._sound(exchange(link, commands), commands)
        self.check(queued, framed)
        require_no_error(queued, framed)
        if isinstance(done, ResponseError):
            raise self.refused(done, ("EXEC",)) or unexpected(done, ("EXEC",))
        if done is None:
            return None
        return self._sound(done, commands)

    def _sound(self, replies: Sequence[Any], commands: Sequence[Command]) -> list[Any]:
        self.check(replies, commands)
        require_no_error(replies, commands)
        return list(replies)

    # The edge: whatever the driver raises becomes ours

    @contextmanager
    def _connection(self, may_be_stale: bool = False) -> Iterator[Any]:
        self._pass_breaker()
        started = time.monotonic()
        link: Any = None
        try:
            link = self._pool.take()
            yield link
        except (driver.RedisError, OSError) as error:
            took = time.monotonic() - started
            if link is not None:
                link.disconnect()
                if may_be_stale and _lost(error):
                    raise _Stale from None
            raise self.failure(error, took) from None
        else:
            self._closed_until = 0.0
        finally:
            if link is not None:
                self._pool.give(link)

    def failure(self, error: Exception, took: float) -> StoreError:
        """Ours for what the driver raised after so many seconds."""
        cause = f"{self.name}: {self._explain(error)}"
        self._trip(cause, took)
        return _denied(error, ("SELECT",)) or StoreUnavailable(cause)

    def own_connection(self) -> Any:
        """One beside the pool, to be closed by the caller."""
        return self._pool.make()

    def _pass_breaker(self) -> None:
        if patience.is_over():
            raise StoreUnavailable(f"{self.name} answers too slowly")
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                raise StoreUnavailable(self._cause)
            if self._closed_until:  # one caller finds out whether the server is back
                self._closed_until = now + _PAUSE

    def _trip(self, cause: str, took: float) -> None:
        with self._lock:
            self._cause = cause
            self._closed_until = time.monotonic() + _PAUSE if took > _SLOW else 0.0

    def _explain(self, error: Exception) -> str:
        """Why there is no answer, in plain words and without what the driver may quote."""
        if isinstance(error, driver.AuthenticationError):
            return "authentication failed"
        if isinstance(error, driver.BusyLoadingError):
            return OUTAGES["LOADING"] + self._loaded()
        if isinstance(error, driver.TimeoutError | TimeoutError):
            return f"did not answer within {TIMEOUT:g} s"
        if isinstance(error, driver.InvalidResponse):
            return "what answers there is not Redis"
        text = str(error)
        if "max number of clients" in text:
            return "max clients reached"
        if FULL in text:
            return f"all {CONNECTIONS} connections are busy"
        if "DB index is out of range" in text:
            return f"there is no database {self._db}"
        return system_cause(error)

    def _loaded(self) -> str:
        try:
            link: Any = self._pool.make()
            try:
                text = exchange(link, [("INFO", "persistence")])[0]
            finally:
                link.disconnect()
        except (driver.RedisError, OSError):
            return ""
        percent = parse_info(text).get("loading_loaded_perc", "")
        return f", {float(percent):.0f} %" if percent else ""

    def check(
        self, replies: Sequence[Any], commands: Sequence[Command], denied_ok: bool = False
    ) -> None:
        """Raise what concerns more than one record."""
        if not has_errors(replies):
            return
        for reply, command in zip(replies, commands, strict=False):
            if isinstance(reply, ResponseError):
                refused = self.refused(reply, command)
                if refused and not (denied_ok and isinstance(refused, StoreDenied)):
                    raise refused

    def refused(self, error: ResponseError, command: Command) -> StoreError | None:
        """Our error for a reply that concerns more than the one record."""
        code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
        if code in REFUSALS:
            return StoreReadOnly(f"{self.name} {REFUSALS[code]}; nothing was changed")
        if code in OUTAGES:
            return StoreUnavailable(f"{self.name} {OUTAGES[code]}")
        return _denied(error, command)


_pack: Callable[[Any], bytes] = hiredis.pack_command


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]
    """The driver's, whose connection can also tell what has arrived already: to ask it for each
    reply costs ten times as much as to parse it."""

    def on_connect(self, connection: Any, **options: Any) -> None:
        super().on_connect(connection, **options)
        reader = self._reader
        nothing = reader.gets()

        def arrived(most: int) -> list[Any]:
            return list(islice(iter(reader.gets, nothing), most))

        connection.arrived = arrived


class _Stale(Exception):
    """A pooled connection was dead, as after a restart of the server."""


class _Aside(Exception):
    """What is no trouble with the connection, carried past where that is looked for."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


def exchange(link: Any, commands: Sequence[Command]) -> list[Any]:
    send(link, commands)
    return receive(link, len(commands))


def send(link: Any, commands: Sequence[Command]) -> None:
    link.send_packed_command([b"".join(map(_pack, commands))])


def receive(link: Any, count: int) -> list[Any]:
    replies: list[Any] = []
    while len(replies) < count:
        if patience.is_over():
            raise driver.TimeoutError
        try:
            replies.append(link.read_response())  # waits
        except ResponseError as error:
            replies.append(error)
        more = link.arrived(count - len(replies))
        for reply in more:
            if isinstance(reply, driver.ConnectionError):
                raise reply
        replies += more
    return replies


def _denied(error: Exception, command: Command) -> StoreDenied | None:
    if not isinstance(error, driver.NoPermissionError):
        return None
    word = command[0] if isinstance(command[0], str) else str(command[0])
    if "key" in str(error):
        return StoreDenied(f"Redis does not let this user read or write the keys of {word}")
    return StoreDenied(f"Redis does not let this user run {word}")


def _lost(error: Exception) -> bool:
    """A connection that broke, not one that was refused or did not answer."""
    return isinstance(error, driver.ConnectionError) and not isinstance(
        error, driver.AuthenticationError | driver.BusyLoadingError
    )


def parse_info(raw: object) -> dict[str, str]:
    """INFO's `name:value` lines."""
    if not isinstance(raw, bytes):
        return {}
    lines = (line.partition(":") for line in raw.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
