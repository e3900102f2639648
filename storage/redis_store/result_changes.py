"""Changes of results and of the entries of their index."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from storage.base import ResultQuery, StoreError
from storage.changes import (
    CHANGED,
    GONE,
    THERE,
    Change,
    Expiry,
    Keep,
    Record,
    Target,
)
from storage.garbage import collector_paused
from storage.records import to_bytes, to_text
from storage.redis_store.changing import FOREIGN, ChangingPart
from storage.redis_store.client import Command
from storage.redis_store.keys import may_be_anothers
from storage.redis_store.ownership import names_itself
from storage.redis_store.result_reading import read_entries
from storage.redis_store.result_shelf import Entry
from storage.redis_store.results import ResultPart
from storage.redis_store.stored import (
    Read,
    Skip,
    read_scores,
    read_values,
    record_of,
    restoring,
    result_mark,
    same_mark,
    shape,
    to_ms,
)

_READ = 500  # results read at once
_COMPARED = 5000  # results whose expiries are asked for at once
_SEARCH = 1.0  # seconds spent on the first search for results that the index does not name …
_STEP = 0.1  # … in pieces of so many
_LATEST = 2**53  # milliseconds: beyond, a moment is not exact any more


class ResultChanges(ChangingPart, ResultPart):
    def result_targets(
        self, query: ResultQuery | None = None, task_ids: Iterable[str] | None = None
    ) -> list[Target]:
        if task_ids is not None:
            return self._targets_by_id([to_bytes(one) for one in dict.fromkeys(task_ids)])
        self._know_all_results()
        ids = self._all_matching_now(query or ResultQuery())
        index = self._index
        with index.lock, collector_paused(len(ids)):
            entries = index.shelf.entries
            return [_target(entries[one]) for one in ids if one in entries]

    def _know_all_results(self) -> None:
        """Or StoreError: what is not known yet must not look as if it did not match."""
        self._index.look()
        deadline = time.monotonic() + _SEARCH
        while not self._survey.complete and time.monotonic() < deadline:
            self._survey.step(_STEP)
        self._index.look()  # learns what was found just now
        index = self._index
        with index.lock:
            if not index.complete:
                raise StoreError(
                    "the results are still being learnt:"
                    f" {index.learnt:,} of {max(index.indexed, index.learnt):,}. Try again shortly"
                )
        if not self._survey.complete:
            raise StoreError(
                "the store is still being searched for results that the index does not name:"
                f" {self._survey.scan.seen:,} keys so far. Try again shortly"
            )

    def _all_matching_now(self, query: ResultQuery) -> list[bytes]:
        """Their expiries are asked anew: another process may have moved them (a worker that was
        told to), which is else noticed only in turn, and an old mark means that a change skips the
        record. What seems to have expired may have been kept for longer."""
        index = self._index
        self._compare(index.lost())
        if query.by_expiry or query.life == "forever":
            with index.lock:
                known = list(index.shelf.entries)
            self._compare(known)
            return self._all_matching(query)
        ids = self._all_matching(query)
        self._compare(ids)
        return ids

    def _compare(self, ids: Sequence[bytes]) -> None:
        stretches = [ids[at : at + _COMPARED] for at in range(0, len(ids), _COMPARED)]
        batches: Iterator[list[Command]] = (
            [
                command
                for key in map(self._keys.result, some)
                for command in (self._expiries.command(key), ("STRLEN", key))
            ]
            for some in stretches
        )
        for some, facts in zip(stretches, self._client.stream(batches), strict=True):
            self._index.compare(some, facts)
        for at in range(0, len(ids), _READ):
            self._index.learn_now(ids[at : at + _READ])

    def _all_matching(self, query: ResultQuery) -> list[bytes]:
        if not query.text:
            return self._select(query, 0, max(1, len(self._index.shelf)))[0]
        matches, searched, count, complete = self._containing(query)
        if not complete:
            raise StoreError(
                "it cannot be told which results hold the text:"
                f" {searched:,} of {count:,} were searched, or some are too large"
            )
        return matches

    def _targets_by_id(self, ids: Sequence[bytes]) -> list[Target]:
        targets: list[Target] = []
        for start in range(0, len(ids), _READ):
            some = ids[start : start + _READ]
            index = self._keys.results_index
            scores = read_scores(self._client.pipe, index, some)
            found = read_entries(self._client, self._keys, self._expiries, some)
            for one, score in zip(some, scores, strict=True):
                entry = found[one]
                if entry is not None:
                    entry.indexed = score is not None
                    entry.score = 0.0 if score is None else float(score)
                    targets.append(_target(entry))
        return targets

    def _remove_results(self, targets: Sequence[Target], keep: Keep) -> Change:
        return self._in_halves(lambda some: self._remove_some(some, keep), targets)

    def _remove_some(self, targets: Sequence[Target], keep: Keep) -> Change:
        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            ids = [to_bytes(record.names[0]) for record in records]
            keys = [self._keys.result(one) for one in ids]
            return [("UNLINK", *keys), ("ZREM", self._keys.results_index, *ids)]

        judge = partial(self._as_seen, targets)
        change, records = self._change(self._watched(targets), judge, commands, keep)
        self._index.removed([to_bytes(record.names[0]) for record in records])
        self._learn_again(change.skipped)
        return change

    def _learn_again(self, skipped: Sequence[Skip]) -> None:
        """Else what was learnt wrongly would be found changed at every further attempt."""
        ids = [to_bytes(names[0]) for names, _ in skipped]
        with suppress(StoreError):  # the change itself is done, and is to be reported
            scores = read_scores(self._client.pipe, self._keys.results_index, ids)
            self._index.found_otherwise(
                (one, None if score is None else float(score))
                for one, score in zip(ids, scores, strict=True)
            )

    def _watched(self, named: Sequence[Target | Record]) -> list[bytes]:
        """The keys of results alone. Watching the index too would let any other saved result stop
        a change; saving this one again changes its value, and so its mark."""
        return [self._keys.result(to_bytes(one.names[0])) for one in named]

    def _as_seen(
        self, targets: Sequence[Target], read: Read, *, peek: bool = False
    ) -> Iterator[Record | Skip]:
        """Whole results, those whose mark is still the same."""
        ids = [to_bytes(target.names[0]) for target in targets]
        wanted = [
            (self._keys.result(one), target.size)
            for one, target in zip(ids, targets, strict=True)
        ]  # fmt: skip
        values = read_values(read, self._expiries, wanted, peek=peek)
        scores = read_scores(read, self._keys.results_index, ids)
        for target, one, found, place in zip(targets, ids, values, scores, strict=True):
            if found is None:
                yield target.names, GONE
                continue
            mark = result_mark(float(place) if place else None, found.shape, found.expires)
            if mark != target.mark and not same_mark(self._expiries, mark, target.mark):
                yield target.names, CHANGED
            elif place is None and may_be_anothers(one) and not names_itself(one, found.raw):
                yield target.names, FOREIGN
            else:
                yield Record(
                    "result", target.names, found.raw, found.form, to_ms(found.expires),
                    place.decode() if place else None,
                )  # fmt: skip

    def set_expiry(self, targets: Sequence[Target], expiry: Expiry) -> Change:
        if expiry.at is not None:
            _moment(None, expiry, time.time(), 0.0)  # refused before any look
        if not targets:
            return Change()
        self._kind(targets, ("result",))
        return self._in_halves(lambda some: self._expire_some(some, expiry), targets)

    def _expire_some(self, targets: Sequence[Target], expiry: Expiry) -> Change:
        expiries: dict[bytes, float | None] = {}

        def judge(read: Read) -> Iterable[Record | Skip]:
            expiries.clear()
            return self._as_seen(targets, read, peek=True)

        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            skew = self._expiries.skew()
            now = time.time() + skew
            for record in records:
                one = to_bytes(record.names[0])
                expiries[one] = _moment(record.expires_at_ms, expiry, now, skew)
            return [
                ("PERSIST", self._keys.result(one)) if at is None
                else ("PEXPIREAT", self._keys.result(one), round(at * 1000))
                for one, at in expiries.items()
            ]  # fmt: skip

        change, _ = self._change(self._watched(targets), judge, commands)
        self._index.expire(expiries.items())
        self._learn_again(change.skipped)
        return change

    def _put_back_results(self, given: Sequence[Record]) -> Change:
        records, unfit = self._fitting(given)
        if not records:
            return Change(skipped=unfit)
        keys = self._watched(records)
        index = self._keys.results_index
        places: dict[tuple[str, ...], bytes | None] = {}  # in the index already

        def judge(read: Read) -> Iterator[Record | Skip]:
            there = read([("EXISTS", key) for key in keys])
            scores = read_scores(read, index, [to_bytes(one.names[0]) for one in records])
            places.update(zip((one.names for one in records), scores, strict=True))
            absent = [one for one, found in zip(records, there, strict=True) if not found]
            yield from self._lasting(read, absent)
            yield from (
                (one.names, THERE) for one, found in zip(records, there, strict=True) if found
            )

        def commands(judged: list[Record], read: Read) -> Sequence[Command]:
            stored = [
                command
                for one in judged
                for command in restoring(self._keys.result(to_bytes(one.names[0])), one)
            ]
            return stored + [
                ("ZADD", index, "NX", one.score, to_bytes(one.names[0]))
                for one in judged if one.score is not None
            ]  # fmt: skip

        change, judged = self._change(keys, judge, commands, deleting=False)
        change.skipped += unfit
        for one in judged:
            raw_id, place = to_bytes(one.names[0]), places[one.names] or one.score
            if place is not None:
                self._index.saved(raw_id, float(place))
            else:
                self._index.found_loose([raw_id])
        return change

    # Entries of the index without a result

    def _entry_targets(self) -> Iterator[Target]:
        """Asked anew, not from what was learnt: that notices only in turn what others deleted."""
        cursor: bytes | int = 0
        while cursor != b"0":
            reply = self._client.pipe([("ZSCAN", self._keys.results_index, cursor, "COUNT", _READ)])
            if not isinstance(reply[0], list):
                return
            cursor, pairs = reply[0]
            scores = dict(zip(pairs[::2], pairs[1::2], strict=True))
            for one in self._without_result(list(scores)):
                yield Target("entry", (to_text(one),), repr(float(scores[one])), len(one))

    def _without_result(self, ids: Sequence[bytes]) -> list[bytes]:
        """Asked one by one only where not all of them are there."""
        keys = [self._keys.result(one) for one in ids]
        if not keys or self._client.pipe([("EXISTS", *keys)]) == [len(keys)]:
            return []
        there = self._client.pipe([("EXISTS", key) for key in keys])
        return [one for one, found in zip(ids, there, strict=True) if not found]

    def _remove_entries(self, targets: Sequence[Target], keep: Keep) -> Change:
        keys, index = self._watched(targets), self._keys.results_index
        ids = [to_bytes(target.names[0]) for target in targets]

        def judge(read: Read) -> Iterator[Record | Skip]:
            there = read([("EXISTS", key) for key in keys])
            scores = read_scores(read, index, ids)
            for target, found, score in zip(targets, there, scores, strict=True):
                if score is None:
                    yield target.names, GONE
                elif found or repr(float(score)) != target.mark:
                    yield target.names, CHANGED
                else:
                    yield record_of("entry", target.names, None, score=score.decode())

        def commands(records: list[Record], read: Read) -> Sequence[Command]:
            return [("ZREM", index, *(to_bytes(record.names[0]) for record in records))]

        change, records = self._change(keys, judge, commands, keep)
        self._index.removed([to_bytes(record.names[0]) for record in records])
        return change

    def _put_back_entries(self, records: Sequence[Record]) -> Change:
        keys, index = self._watched(records), self._keys.results_index

        def judge(read: Read) -> Iterator[Record | Skip]:
            scores = read_scores(read, index, [to_bytes(one.names[0]) for one in records])
            for one, score in zip(records, scores, strict=True):
                yield one if score is None else (one.names, THERE)

        def commands(judged: list[Record], read: Read) -> Sequence[Command]:
            return [
                ("ZADD", index, "NX", one.score or "0", to_bytes(one.names[0])) for one in judged
            ]

        change, judged = self._change(keys, judge, commands, deleting=False)
        for one in judged:
            self._index.saved(to_bytes(one.names[0]), float(one.score or 0))
        return change


def _target(entry: Entry) -> Target:
    looks = shape(entry.size, entry.digest)
    mark = result_mark(entry.score if entry.indexed else None, looks, entry.expires)
    return Target("result", (to_text(entry.task_id),), mark, entry.size)


def _moment(before: int | None, expiry: Expiry, now: float, skew: float) -> float | None:
    """When a result is to expire, by the server's clock."""
    if expiry.at is not None:
        at = expiry.at + skew
    elif expiry.more is not None:
        at = (now if before is None else before / 1000) + expiry.more
    else:
        return None
    if not (now < at and math.isfinite(at) and at * 1000 < _LATEST):
        raise ValueError("the new time of expiry has passed, or is none")
    return round(at * 1000) / 1000
