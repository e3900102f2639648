"""Whole values of any number of keys, each with its expiry as of the same moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from storage.base import StoreDenied, StoreError, StoreReadOnly
from storage.redis_store.client import Client, Command, ResponseError, is_wrong_type
from storage.redis_store.result_reading import Expiries
from storage.redis_store.stored import PORTION, Read

BATCH = 400  # values in one exchange …
_SMALL = 16 * 1024  # … of at most so many bytes: Redis is held for a few ms, at the very most

Value = tuple[bytes, Literal["text", "dump"], int | None]  # what it is, and when it expires
Found = tuple[Sequence[bytes], list[Value | None], list[Any]]
"""Keys' names, what lies there (None: nothing), and the replies to what was asked besides."""


def at_once(read: Read, commands: Sequence[Command]) -> tuple[list[Any], bool]:
    """Replies as of one moment, and whether they are: Redis under full memory, or one that forbids
    MULTI, answers the same one by one."""
    try:
        return unframed(read(framed(commands))), True
    except (StoreReadOnly, StoreDenied):
        return read(commands), False


def framed(commands: Sequence[Command]) -> list[Command]:
    return [("MULTI",), *commands, ("EXEC",)]


def unframed(replies: Sequence[Any]) -> list[Any]:
    done = replies[-1]
    if isinstance(done, list):
        return done
    raise next(
        (StoreError(f"Redis answered: {one}") for one in replies if isinstance(one, ResponseError)),
        StoreError("Redis did not execute what was asked"),
    )


class WholeValues:
    """Of keys that begin with `head`; a value that should be text and is something else is its
    DUMP."""

    def __init__(self, client: Client, expiries: Expiries, head: bytes) -> None:
        self._client, self._expiries, self._head = client, expiries, head

    def read(
        self,
        names: Iterable[bytes],
        besides: Callable[[Sequence[bytes]], Sequence[Command]] = lambda names: (),
    ) -> Iterator[Found]:
        """In portions, in the order given. `besides` is asked in the same transaction."""
        batches = _batches(names, BATCH)
        asked: deque[Sequence[bytes]] = deque()  # and not answered yet

        def commands() -> Iterator[Sequence[Command]]:
            for batch in batches:
                asked.append(batch)
                yield framed(self._commands(batch, besides))

        try:
            for replies in self._client.stream(commands()):
                yield self._found(asked[0], unframed(replies))
                asked.popleft()
        except (StoreReadOnly, StoreDenied):  # as in `at_once`
            for batch in (*asked, *batches):
                yield self._found(batch, self._client.pipe(self._commands(batch, besides)))

    def _commands(
        self, names: Sequence[bytes], besides: Callable[[Sequence[bytes]], Sequence[Command]]
    ) -> list[Command]:
        commands: list[Command] = []
        for name in names:
            key = self._head + name
            commands += (("GETRANGE", key, 0, _SMALL - 1), self._expiries.command(key))
        return [*commands, *besides(names)]

    def _found(self, names: Sequence[bytes], replies: list[Any]) -> Found:
        read_ms = self._expiries.read_ms
        found: list[Value | None] = []
        count = 2 * len(names)
        for name, raw, expiry in zip(names, replies[:count:2], replies[1:count:2], strict=True):
            if expiry == -2:
                found.append(None)
            elif isinstance(raw, bytes) and len(raw) < _SMALL:
                found.append((raw, "text", read_ms(expiry)))
            else:
                found.append(self._unusual(self._head + name))
        return names, found, replies[count:]

    def _unusual(self, key: bytes) -> Value | None:
        """What is large or of the wrong type, while nobody changes it. In pieces, so that Redis is
        not held by it, but for a DUMP."""
        value: Value | None = None

        def plan(read: Read) -> Sequence[Command]:
            nonlocal value
            size, expiry = read([("STRLEN", key), self._expiries.command(key)])
            if expiry == -2:
                value = None
            elif is_wrong_type(size):
                dump = read([("DUMP", key)])[0]
                value = (dump, "dump", self._expiries.read_ms(expiry)) if dump else None
            else:
                pieces = [
                    read([("GETRANGE", key, start, start + PORTION - 1)])[0]
                    for start in range(0, size, PORTION)
                ]
                value = (b"".join(pieces), "text", self._expiries.read_ms(expiry))
            return [("EXISTS", key)]

        try:
            self._client.transact([key], plan)
        except StoreDenied:  # who may only read may perhaps not watch
            plan(self._client.pipe)
        return value


def _batches(names: Iterable[bytes], size: int) -> Iterator[Sequence[bytes]]:
    batch: list[bytes] = []
    for name in names:
        batch.append(name)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
