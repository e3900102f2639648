"""How many records are changed at once: looked at, judged and changed while they are watched."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Iterable, Sequence

from storage.base import StoreError
from storage.changes import EXPIRED, Change, Keep, Record, Target
from storage.redis_store.client import Command, Contended
from storage.redis_store.part import RedisPart
from storage.redis_store.stored import Read, Skip, weight

FOREIGN = "may belong to another OmniDaemon, whose prefix begins with this one"
UNFIT = "cannot be read by this version of Redis"
"""Why a record was skipped, beside what is said of any store."""

_TRIED = 1000  # milliseconds that a DUMP lives which is only tried

Judge = Callable[[Read], Iterable[Record | Skip]]
Commands = Callable[[list[Record], Read], Sequence[Command]]


class ChangingPart(RedisPart):
    def _kind(self, some: Sequence[Target | Record], known: Container[str]) -> str:
        """Of all of them; ValueError where they are not to be changed at once."""
        kinds = {one.kind for one in some}
        kind = kinds.pop()
        if kinds or kind not in known:
            raise ValueError("records of one kind are changed at once, and only of a known one")
        if len(some) > self.largest_change and kind != "metrics":
            raise ValueError(f"at most {self.largest_change} records are changed at once")
        return kind

    def _change(
        self, watched: Sequence[bytes], judge: Judge, commands: Commands, keep: Keep | None = None,
        *, deleting: bool = True,
    ) -> tuple[Change, list[Record]]:  # fmt: skip
        """Change in one transaction what `judge` lets through, and say which that was. Where a
        watched key changes meanwhile, all of it is looked at again. Under full memory `deleting`
        commands are done one by one (see `Client.write`)."""
        change, records = Change(), list[Record]()

        def plan(read: Read) -> Sequence[Command]:
            change.skipped.clear()
            records.clear()
            for found in judge(read):
                if isinstance(found, Record):
                    records.append(found)
                else:
                    change.skipped.append(found)
            if not records:
                return []
            if keep is not None:
                keep(records)
            return commands(records, read)

        self._client.transact(list(dict.fromkeys(watched)), plan, deleting=deleting)
        change.done = len(records)
        change.bytes = sum(map(weight, records)) if keep is not None else 0
        return change, records

    def _lasting(self, read: Read, records: Sequence[Record]) -> Iterable[Record | Skip]:
        """Those that have not expired by the server's clock."""
        seconds, micros = read([("TIME",)])[0]
        now = int(seconds) * 1000 + int(micros) // 1000
        for record in records:
            if record.expires_at_ms is not None and record.expires_at_ms <= now:
                yield record.names, EXPIRED
            else:
                yield record

    def _fitting(self, records: Sequence[Record]) -> tuple[list[Record], list[Skip]]:
        """Those that Redis will take: a DUMP may be of another version, which only trying it shows,
        and an error in a transaction undoes nothing. Of the same names the last counts."""
        last = {record.names: record for record in records}.values()
        fitting = [one for one in last if one.form != "dump" or self._restorable(one.raw)]
        return fitting, [(one.names, UNFIT) for one in last if one not in fitting]

    def _restorable(self, dump: bytes) -> bool:
        key = staging_key()
        try:
            self._client.write([("RESTORE", key, _TRIED, dump), ("UNLINK", key)])
        except StoreError as error:
            if type(error) is not StoreError:  # the server's trouble, not the record's
                raise
            return False
        return True

    def _in_halves(
        self, change: Callable[[Sequence[Target]], Change], targets: Sequence[Target]
    ) -> Change:
        """Together, or in ever fewer at once where they change all the time."""
        try:
            return change(targets)
        except Contended:
            if len(targets) == 1:
                raise
        middle = len(targets) // 2
        one, other = (
            self._in_halves(change, half) for half in (targets[:middle], targets[middle:])
        )
        return Change(one.done + other.done, one.skipped + other.skipped, one.bytes + other.bytes)


def staging_key() -> bytes:
    """Outside of any prefix of OmniDaemon's."""
    return f"omnidash:restore:{uuid.uuid4().hex}".encode()
