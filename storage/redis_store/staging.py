"""A change of a whole Redis store: staged beside it, and made in one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from storage.base import StoreChanged, StoreError
from storage.changes import Change, Kind, Names, Record
from storage.garbage import LARGE, collector_paused
from storage.redis_store.agent_reading import AgentReading
from storage.redis_store.agent_reading import Names as AgentNames
from storage.redis_store.client import Client, Command
from storage.redis_store.keys import OWN_CONFIG, Keys
from storage.redis_store.lease import Lease
from storage.redis_store.part import RedisPart
from storage.redis_store.portions import chunks
from storage.redis_store.restoration import Restoration
from storage.redis_store.result_reading import Expiries
from storage.redis_store.scan import walk
from storage.redis_store.scratch import HEAD, KEPT, Scratch, discard
from storage.redis_store.snapshot import RedisSnapshot
from storage.redis_store.stored import Read
from storage.snapshots import Restorable, Snapshot, Staging

MOST_COMMANDS = 500_000  # of one transaction: Redis does nothing else for a few seconds
_MOST_WATCHED = 10_000  # keys: Redis walks the list of them for each that is added
_WATCHED = 200  # in one command
_REMEMBERED = 86_400  # seconds for which it can be told whether a change was made
_TOKEN = re.compile(r"[0-9a-f]{32}")

_NO, _YES, _NEVER = b"no", b"yes", b"never"  # what the marker of a token says

CHANGED = "the store was changed by somebody else meanwhile; nothing was changed here"


def marker(token: str) -> bytes:
    """Under which it stands whether the change of a token was made."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("a token has 32 hexadecimal characters")
    return f"{HEAD}done:{token}".encode()


class RedisStaging(Staging):
    """Watched are the indexes and, if there are not too many, the records of agents and the
    configuration, but what OmniDaemon notes in it while it runs. Of a result its place in the index
    is watched, which every writer of a result renews: one that is deleted past the index, or given
    another expiry, is not noticed."""

    def __init__(
        self, client: Client, keys: Keys, expiries: Expiries, token: str, trial: bool,
        forget: Callable[[], None],
    ) -> None:  # fmt: skip
        self.token = token
        self._client, self._keys, self._forget = client, keys, forget
        self._marker = marker(token)
        self._scratch = Scratch(client, expiries, token)
        self._done, self._watched, self._settings = False, 0, set[bytes]()
        seconds = KEPT // 1000 if trial else _REMEMBERED * 2
        client.write([("SET", self._marker, _NO, "EX", seconds)])
        self._lease = None if trial else Lease(client)
        try:
            self._names = self._watch(expiries) if self._lease else AgentNames()
        except BaseException:
            self.discard()
            raise

    def _watch(self, expiries: Expiries) -> AgentNames:
        """All that commit compares. First the set of topics, so that those read then are all."""
        self._watching([
            self._marker, self._keys.topics, self._keys.results_index, self._keys.metrics
        ])  # fmt: skip
        reading = AgentReading(self._client, self._keys, expiries)
        names = reading.names()
        sets = [
            self._keys.topic(topic) for topic in {*names.names, *names.odd} if topic is not None
        ]
        if len(sets) > _MOST_WATCHED:
            raise StoreError(f"more than {_MOST_WATCHED:,} topics cannot be watched")
        self._watching(sets)
        if reading.names() != names:
            raise StoreChanged(CHANGED)
        hashes = {self._keys.agent(*pair) for pair in names.pairs()}
        found = (key for some in walk(self._client, self._keys.config_head) for key in some)
        self._settings = {key for key in found if self._is_setting(key)}
        for keys in (self._settings, hashes):
            if self._watched + len(keys) <= _MOST_WATCHED:
                self._watching(sorted(keys))
        return names

    def _is_setting(self, key: bytes) -> bool:
        """Configuration, but for what changes all the time."""
        head = self._keys.config_head
        return key.startswith(head) and not key.startswith(OWN_CONFIG, len(head))

    def _guard_new(self) -> None:
        """Configuration that is to be added must not have come meanwhile."""
        keys = (self._keys.head + rest for rest in self._scratch.values)
        new = [key for key in keys if self._is_setting(key) and key not in self._settings]
        if self._watched + len(new) > _MOST_WATCHED:
            return
        self._watching(new)
        for some in chunks(new):
            if any(self._own.read([("EXISTS", *some)])):
                raise StoreChanged(CHANGED)

    def _watching(self, keys: Sequence[bytes]) -> None:
        self._watched += len(keys)
        for start in range(0, len(keys), _WATCHED):
            self._own.read([("WATCH", *keys[start : start + _WATCHED])])

    @property
    def _own(self) -> Lease:
        if self._lease is None:
            raise ValueError("a trial is never committed")
        return self._lease

    def put(self, records: Sequence[Record]) -> Change:
        if self._lease is not None:  # notices early that what was watched is not any more
            self._lease.read([("EXISTS", self._marker)])
        return self._scratch.put(records)

    def staged(self) -> Snapshot:
        return self._scratch.staged()

    def commit(self, deleted: Iterable[tuple[Kind, Names]], keep_events: bool) -> None:
        """Configuration that may be another OmniDaemon's is not deleted, as by `remove`."""
        self._guard_new()
        plan = Restoration(self._client, self._own, self._keys, self._scratch, self._names)
        with collector_paused(LARGE):
            commands = plan.commands(deleted, keep_events)
            commands.append(("SET", self._marker, _YES, "EX", _REMEMBERED))
            if len(commands) > MOST_COMMANDS:
                raise StoreError(
                    f"{len(commands):,} commands are too many for one transaction, and in several"
                    " it would not be all or nothing; nothing was changed"
                )
            self._scratch.room_for(len(commands))
            if not self._own.execute(commands):
                raise StoreChanged(CHANGED)
        self._done = True
        self._forget()

    def discard(self) -> None:
        """What cannot be deleted now expires."""
        if self._lease is not None:
            self._lease.close()
        if not self._done:
            with suppress(StoreError):
                discard(self._client, self._scratch.keys)
                if self._lease is None:
                    self._client.write([("UNLINK", self._marker)], deleting=True)


class BackupPart(RedisPart, Restorable):
    def snapshot(self) -> Snapshot:
        return RedisSnapshot(self._client, self._keys, self._expiries)

    def stage(self, token: str, trial: bool = False) -> Staging:
        return RedisStaging(
            self._client, self._keys, self._expiries, token, trial, self.forget
        )  # fmt: skip

    def committed(self, token: str) -> bool | None:
        """A writer that is still at work cannot commit any more: it watches the marker."""
        key = marker(token)
        found: bytes | None = None

        def plan(read: Read) -> Sequence[Command]:
            nonlocal found
            found = read([("GET", key)])[0]
            return [("SET", key, _NEVER, "EX", _REMEMBERED)] if found == _NO else []

        self._client.transact([key], plan, deleting=False)
        discard(self._client, Keys(f"{HEAD}{token}".encode()))
        return None if found is None else found == _YES
