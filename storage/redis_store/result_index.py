"""The learnt index: what Redis holds of results, kept in memory and followed from look to look.

OmniDaemon's index of results knows a time per id and nothing else, and its ids outlive the results.
So each result is read once when it is new; later looks ask only what changed: the newest ids, how
many there are, and one slice of the known ones in turn, so that changes made behind our back
(PERSIST, EXPIRE, DEL) are noticed as well.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import islice, pairwise
from typing import Any

from storage.base import StoreError
from storage.redis_store.client import Client, Command, ResponseError
from storage.redis_store.keys import Keys
from storage.redis_store.result_reading import Expiries, Range, bounds, gone, read_entries, scored
from storage.redis_store.result_shelf import Entry, Order, Shelf

BUDGET = 0.4  # seconds that one look may learn; a thread does the rest
_PATIENCE = 0.5  # seconds to wait for another page's look before going on with what is known
_HEAD = 100  # newest ids that every look compares
_CHUNK = 5000  # ids asked for at once
_READ = 500  # results read at once: 32 MB at the very most
_SLICE = 200  # known results verified at each look
_PIECES = 16  # parts in which a range of scores is searched for a difference
_SMALL = 1000  # ids up to which a differing range is simply fetched


class ResultIndex:
    """Shared by all threads. `lock` guards what is known and is never held while Redis is asked."""

    def __init__(self, client: Client, keys: Keys, expiries: Expiries) -> None:
        self._client, self._keys, self._expiries = client, keys, expiries
        self.lock = threading.RLock()
        self._turn = threading.Lock()
        self._learner: threading.Thread | None = None
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.shelf = Shelf()
            self._scores: dict[bytes, float] = {}
            self._ranks = Order()
            self._pending: set[bytes] = set()
            self._todo: deque[bytes] = deque()  # the newest at the right end, learnt first
            self._loose: set[bytes] = set()  # results that the index does not name
            self._round: Iterator[bytes] = iter(())
            self._card = 0
            self.problem = ""

    # What is known; callers hold the lock

    @property
    def indexed(self) -> int:
        return self._card

    @property
    def learnt(self) -> int:
        return len(self._scores) + len(self._loose) - len(self._pending)

    @property
    def complete(self) -> bool:
        return not self._pending and len(self._scores) >= self._card

    def knows(self, task_id: bytes) -> bool:
        return task_id in self._scores or task_id in self._loose

    @property
    def loose(self) -> list[bytes]:
        return sorted(self._loose)

    def lost(self) -> list[bytes]:
        """Ids without a result, as far as is known: each may have come to life again."""
        with self.lock:
            return [*self.shelf.gone, *(self._loose - self.shelf.entries.keys())]

    def longer_than(self, length: int) -> list[bytes]:
        """The ids of more than so many bytes."""
        with self.lock:
            return [one for one in (*self._scores, *self._loose) if len(one) > length]

    # Looking

    def look(self, budget: float = BUDGET) -> None:
        """Learn what changed since the last look."""
        deadline = time.monotonic() + budget
        if not self._turn.acquire(timeout=_PATIENCE):
            return
        try:
            self._follow(deadline)
            self._reconcile(deadline)
            behind = self._learner is not None
            while not behind and self._learn_some():
                behind = time.monotonic() >= deadline
        finally:
            self._turn.release()
        with self.lock:
            self.shelf.sweep(time.time() + self._expiries.skew())
            unfinished = bool(self._todo) or len(self._scores) < self._card
        if unfinished:
            self._learn_on()

    def _follow(self, deadline: float) -> None:
        """The newest ids down to known ones, and a slice of the known."""
        index, some = self._keys.results_index, self._next_slice()
        commands: list[Command] = [
            ("ZCARD", index), ("ZREVRANGE", index, 0, _HEAD - 1, "WITHSCORES")
        ]  # fmt: skip
        for task_id in some:
            key = self._keys.result(task_id)
            commands += (self._expiries.command(key), ("STRLEN", key))
        card, head, *facts = self._client.pipe(commands)
        if isinstance(card, ResponseError):
            self.problem, card, head = str(card)[:200], 0, []
        else:
            self.problem = ""
        self._card = card
        self.verify(some, facts)
        start, new = 0, self._note(scored(head), newest=True)
        while new and new == len(head) // 2 and time.monotonic() < deadline:
            start += new
            head = self._client.call("ZREVRANGE", index, start, start + _CHUNK - 1, "WITHSCORES")
            new = self._note(scored(head), newest=False)

    def _next_slice(self) -> list[bytes]:
        with self.lock:
            some = list(islice(self._round, _SLICE))
            if len(some) < _SLICE:
                self._round = iter([*self._scores, *self._loose])
                if not some:
                    some = list(islice(self._round, _SLICE))
            return [task_id for task_id in some if task_id not in self._pending]

    def _note(self, pairs: Iterable[tuple[bytes, float]], *, newest: bool) -> int:
        """How many of the ids of the index are new or were saved again."""
        with self.lock:
            new = [pair for pair in pairs if self._scores.get(pair[0]) != pair[1]]
            for task_id, score in new:
                old = self._scores.get(task_id)
                if old is not None:
                    self._ranks.discard(old, task_id)
                self._scores[task_id] = score
                self._ranks.add(score, task_id)
                self._loose.discard(task_id)
            fresh = [task_id for task_id, _ in new if task_id not in self._pending]
            self._pending.update(fresh)
            if newest:
                self._todo.extend(reversed(fresh))
            else:
                self._todo.extendleft(fresh)
            return len(new)

    def verify(self, task_ids: Sequence[bytes], facts: Sequence[Any]) -> bool:
        """Compare (expiry, length) pairs just read with what is known; whether all is as known."""
        same = True
        with self.lock:
            replies = iter(facts)
            for task_id, expiry, size in zip(task_ids, replies, replies, strict=True):
                if not self._verify_one(task_id, expiry, size):
                    same = False
        return same

    def _verify_one(self, task_id: bytes, expiry: Any, size: Any) -> bool:
        entry = self.shelf.entries.get(task_id)
        if gone(expiry, size):
            self._lose(task_id)
            return entry is None
        length = entry.size if entry and isinstance(size, ResponseError) else size
        moved = not entry or not self._expiries.same(entry.expires, self._expiries.read(expiry))
        if entry and entry.size == length and not moved:
            return True
        self._again(task_id)
        return False

    def compare(self, task_ids: Sequence[bytes], facts: Sequence[Any]) -> None:
        """As `verify` does, but an expiry alone that has moved is taken over as it was read."""
        moved: list[tuple[bytes, float | None]] = []
        with self.lock:
            replies = iter(facts)
            for task_id, expiry, size in zip(task_ids, replies, replies, strict=True):
                entry, now = self.shelf.entries.get(task_id), self._expiries.read(expiry)
                if entry is None or entry.size != size or gone(expiry, size):
                    self._verify_one(task_id, expiry, size)
                elif not self._expiries.same(entry.expires, now):
                    moved.append((task_id, now))
            self.expire(moved)

    def _lose(self, task_id: bytes) -> None:
        if task_id in self._scores:
            self.shelf.lose(task_id)
        else:
            self.shelf.take(task_id)
            self._loose.discard(task_id)

    def _again(self, task_id: bytes) -> None:
        """To be read anew."""
        if self.knows(task_id) and task_id not in self._pending:
            self._pending.add(task_id)
            self._todo.append(task_id)

    # Differences that the newest ids do not show

    def _reconcile(self, deadline: float) -> None:
        """Find what was added or removed anywhere in the index by counting ranges of scores and
        going on only where a count differs: a few round trips, whatever the size of the index."""
        ranges: list[Range] = [(-math.inf, math.inf)] if len(self._scores) != self._card else []
        while ranges and time.monotonic() < deadline:
            pieces = [piece for whole in ranges for piece in self._split(whole)]
            counts = self._client.pipe(
                [("ZCOUNT", self._keys.results_index, *bounds(piece)) for piece in pieces]
            )
            narrowed = len(pieces) > len(ranges)
            ranges = []
            for piece, count in zip(pieces, counts, strict=True):
                if isinstance(count, ResponseError):
                    count = 0
                known = self._known(piece)
                if len(known) == count:
                    continue
                if not narrowed or len(known) + count <= _SMALL:
                    self._fetch(piece, deadline)
                else:
                    ranges.append(piece)

    def _known(self, piece: Range) -> list[tuple[float, bytes]]:
        with self.lock:
            items = self._ranks.items()
            low = bisect_left(items, piece[0], key=lambda item: item[0])
            high = len(items) if piece[1] == math.inf else self._ranks.below(piece[1])
            return items[low:high]

    def _split(self, whole: Range) -> list[Range]:
        known = self._known(whole)
        step = max(1, len(known) // _PIECES)
        inner = sorted({known[place][0] for place in range(step, len(known), step)})
        edges = [whole[0], *(edge for edge in inner if edge > whole[0]), whole[1]]
        return list(pairwise(edges))

    def _fetch(self, piece: Range, deadline: float) -> None:
        low, high = bounds(piece)
        before = self._known(piece)
        found: set[bytes] = set()
        while True:
            reply = self._client.pipe([(
                "ZREVRANGEBYSCORE", self._keys.results_index, high, low,
                "WITHSCORES", "LIMIT", len(found), _CHUNK,
            )])[0]  # fmt: skip
            pairs = [] if isinstance(reply, ResponseError) else scored(reply)
            self._note(pairs, newest=False)
            found.update(task_id for task_id, _ in pairs)
            if len(pairs) < _CHUNK:
                break
            if time.monotonic() >= deadline:
                return  # the next look continues; what was not seen yet is not known to be gone
        with self.lock:
            for score, task_id in before:
                if task_id not in found and self._scores.get(task_id) == score:
                    self.forget(task_id)

    # Learning

    def _learn_some(self) -> bool:
        """Read the newest unknown results; whether there may be more."""
        with self.lock:
            some = [self._todo.pop() for _ in range(min(_READ, len(self._todo)))]
            some = [task_id for task_id in some if task_id in self._pending]
            more = bool(self._todo)
        try:
            found = read_entries(self._client, self._keys, self._expiries, some)
        except BaseException:
            with self.lock:
                self._todo.extend(reversed(some))
            raise
        with self.lock:
            for task_id in some:
                self._pending.discard(task_id)
                self.learn(task_id, found[task_id])
        return more

    def learn_now(self, task_ids: Sequence[bytes]) -> None:
        """Read those of the ids that changed; their page is waiting for them."""
        with self.lock:
            changed = [task_id for task_id in task_ids if task_id in self._pending]
        found = read_entries(self._client, self._keys, self._expiries, changed)
        with self.lock:
            for task_id, entry in found.items():
                self._pending.discard(task_id)
                self.learn(task_id, entry)

    def learn(self, task_id: bytes, entry: Entry | None) -> None:
        """What was just read of an id."""
        if not self.knows(task_id):
            return
        if entry is None:
            self._lose(task_id)
            return
        score = self._scores.get(task_id)
        entry.indexed = score is not None
        if score is None:
            score = entry.saved_at if isinstance(entry.saved_at, float) else 0.0
        entry.score = score
        self.shelf.put(entry)

    def _learn_on(self) -> None:
        """Finish in the background; one thread at a time."""
        with self.lock:
            if self._learner is not None:
                return
            self._learner = threading.Thread(
                target=self._learn_all, name="learn-results", daemon=True
            )
            self._learner.start()

    def _learn_all(self) -> None:
        try:
            while True:
                while self._learn_some():
                    time.sleep(0.001)  # let the pages have their turn
                with self._turn:
                    self._reconcile(math.inf)
                with self.lock:
                    if not self._todo:
                        return
        except StoreError:
            pass  # the next look meets the same trouble and says so
        finally:
            with self.lock:
                self._learner = None

    # What is known from elsewhere

    def saved(self, task_id: bytes, score: float) -> None:
        """We wrote it ourselves: wherever its score lies, it is to be read."""
        with self.lock:
            self._note([(task_id, score)], newest=True)
            self._again(task_id)

    def forget(self, task_id: bytes) -> None:
        with self.lock:
            score = self._scores.pop(task_id, None)
            if score is not None:
                self._ranks.discard(score, task_id)
            self.shelf.take(task_id)
            self.shelf.gone.discard(task_id)
            self._loose.discard(task_id)
            self._pending.discard(task_id)

    def removed(self, task_ids: Sequence[bytes]) -> None:
        """We deleted them ourselves, with their entries in the index."""
        with self.lock:
            scores = ((self._scores.pop(task_id, None), task_id) for task_id in task_ids)
            self._ranks.discard_all({(score, one) for score, one in scores if score is not None})
            self.shelf.take_all(task_ids)
            for known in (self.shelf.gone, self._loose, self._pending):
                known.difference_update(task_ids)

    def found_otherwise(self, pairs: Iterable[tuple[bytes, float | None]]) -> None:
        """Ids with their scores now, that are not as they were known."""
        with self.lock:
            for task_id, score in pairs:
                if score is not None:
                    self.saved(task_id, score)
                elif task_id in self._scores:
                    self.forget(task_id)
                    self.found_loose([task_id])
                else:
                    self._again(task_id)

    def expire(self, expiries: Iterable[tuple[bytes, float | None]]) -> None:
        """We changed when they expire."""
        with self.lock:
            for task_id, expires in expiries:
                known = self.shelf.entries.get(task_id)
                if known is not None:
                    entry = copy(known)  # what is on the shelf must not change there
                    entry.expires = expires
                    self.shelf.put(entry)

    def found_indexed(self, pairs: Iterable[tuple[bytes, float]]) -> None:
        """Ids of the index that the looks missed, because as many others had left it there."""
        if self._scores:  # else the first look is still to come, and learns the newest first
            self._note(pairs, newest=False)

    def found_loose(self, task_ids: Iterable[bytes]) -> None:
        """Results that a scan found and the index does not name."""
        with self.lock:
            for task_id in task_ids:
                if not self.knows(task_id):
                    self._loose.add(task_id)
                    self._pending.add(task_id)
                    self._todo.appendleft(task_id)
