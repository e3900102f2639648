"""Changes of configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from storage.changes import CHANGED, GONE, THERE, Change, Keep, Record, Target
from storage.records import parse_json, to_bytes
from storage.redis_store.changing import FOREIGN, ChangingPart
from storage.redis_store.client import Command, ResponseError
from storage.redis_store.config import ConfigPart
from storage.redis_store.keys import config_may_be_anothers
from storage.redis_store.stored import Read, Skip, Stored, read_values, record_of, restoring

_READ = 500  # values in one round trip


class ConfigChanges(ChangingPart, ConfigPart):
    def config_targets(self, keys: Iterable[str]) -> list[Target]:
        names = list(dict.fromkeys(keys))
        targets: list[Target] = []
        for start in range(0, len(names), _READ):
            some = names[start : start + _READ]
            asked = self._config_keys(some)
            lengths = self._client.pipe([("STRLEN", key) for key in asked])
            sizes = [0 if isinstance(size, ResponseError) else size for size in lengths]
            wanted = list(zip(asked, sizes, strict=True))
            found = read_values(self._client.pipe, self._expiries, wanted, peek=True)
            targets += [
                Target("config", (name,), stored.shape, stored.size, note=_note(name))
                for name, stored in zip(some, found, strict=True) if stored is not None
            ]  # fmt: skip
        return targets

    def _config_keys(self, names: Iterable[str]) -> list[bytes]:
        return [self._keys.config(to_bytes(name)) for name in names]

    def _remove_config(self, targets: Sequence[Target], keep: Keep) -> Change:
        keys = self._config_keys(target.names[0] for target in targets)
        wanted = [(key, target.size) for key, target in zip(keys, targets, strict=True)]

        def judge(read: Read) -> Iterator[Record | Skip]:
            for target, found in zip(
                targets, read_values(read, self._expiries, wanted), strict=True
            ):
                reason = _obstacle(target.names[0], found, target.mark)
                yield (target.names, reason) if reason else record_of("config", target.names, found)

        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            return [("UNLINK", *self._config_keys(record.names[0] for record in records))]

        change, records = self._change(keys, judge, commands, keep)
        self._config.forget(to_bytes(record.names[0]) for record in records)
        return change

    def _put_back_config(self, given: Sequence[Record]) -> Change:
        records, unfit = self._fitting(given)
        if not records:
            return Change(skipped=unfit)
        keys = self._config_keys(record.names[0] for record in records)

        def judge(read: Read) -> Iterator[Record | Skip]:
            there = read([("EXISTS", key) for key in keys])
            absent = []
            for record, found in zip(records, there, strict=True):
                if found:
                    yield record.names, THERE
                else:
                    absent.append(record)
            yield from self._lasting(read, absent)

        def commands(judged: list[Record], read: Read) -> Sequence[Command]:
            pairs = zip(self._config_keys(one.names[0] for one in judged), judged, strict=True)
            return [command for key, one in pairs for command in restoring(key, one)]

        change, judged = self._change(keys, judge, commands, deleting=False)
        change.skipped += unfit
        for record in judged:
            self._config.add(to_bytes(record.names[0]), self._config_scan.started)
        return change

    def replace_config(self, key: str, text: bytes, mark: str | None) -> Change:
        problem = parse_json(text)[1]
        if problem:
            raise ValueError(problem)
        raw_key = to_bytes(key)
        name = self._keys.config(raw_key)

        def judge(read: Read) -> Iterator[Record | Skip]:
            size = read([("STRLEN", name)])[0]
            expected = 0 if isinstance(size, ResponseError) else size
            found = read_values(read, self._expiries, [(name, expected)], peek=True)[0]
            if mark is None:
                reason = THERE if found else FOREIGN if config_may_be_anothers(raw_key) else ""
            else:
                reason = _obstacle(key, found, mark)
            yield ((key,), reason) if reason else Record("config", (key,), text)

        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            return [("SET", name, text)]

        change, records = self._change([name], judge, commands, deleting=False)
        if records:
            self._config.add(raw_key, self._config_scan.started)
        return change


def _obstacle(name: str, found: Stored | None, mark: str) -> str:
    """Why a key is not to be changed. Nothing but its name tells it from another OmniDaemon's."""
    if found is None:
        return GONE
    if found.shape != mark:
        return CHANGED
    return FOREIGN if config_may_be_anothers(to_bytes(name)) else ""


def _note(name: str) -> str:
    return f"{FOREIGN}: it stays" if config_may_be_anothers(to_bytes(name)) else ""
