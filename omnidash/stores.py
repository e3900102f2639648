"""The stores that this process serves, opened once and shared by all its threads."""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b

from django.conf import settings
from django.http import HttpRequest
from django.utils.safestring import SafeString

from omnidash.history import History
from omnidash.models import Source
from storage import StoreURL, open_store, parse_url
from storage.base import Counts, Inspection, Store, StoreDenied, StoreError

_PIECES = 100  # addresses whose last good content is kept …
_LARGEST_PIECE = 200_000  # … unless it is larger: 20 MB a store at most
_PATHS = 100  # pages whose failure is remembered by its time
_LONGEST_NAME = 100  # characters


@dataclass(frozen=True, slots=True)
class Outage:
    """Since when (Unix seconds) a page cannot be read; `whole`: because its store does not answer,
    and since when that is so."""

    since: float
    whole: bool


@dataclass
class Entry:
    """A configured store with what was learnt from it. `good_at` is when it last answered,
    `down_since` when it began not to."""

    name: str
    store: Store
    history: History
    where: StoreURL | None = None
    down_since: float | None = None
    good_at: float | None = None
    _failing: dict[str, float] = field(default_factory=dict)
    _counts: Counts = field(default_factory=Counts)
    _counted_at: float = -math.inf
    _inspection: Inspection | None = None
    _inspected_at: float = -math.inf
    _pieces: dict[tuple[object, str], tuple[SafeString, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _outages: threading.Lock = field(default_factory=threading.Lock)  # never held for long

    @property
    def read_only(self) -> str:
        """Why nothing may be changed here; empty if it may."""
        if settings.OMNIDASH_READ_ONLY:
            return "OMNIDASH_READ_ONLY is on: this dashboard changes nothing."
        if self.where and self.where.mode == "read-only":
            return "The address of this store says mode=read-only."
        return ""

    @property
    def production(self) -> bool:
        """Whether its address says env=production: whoever acts here should see that."""
        return self.where is not None and self.where.env == "production"

    def failed(self, path: str) -> Outage:
        """Note that the page at this path could not be read. The times are those of the first
        failure in a row, of the page by itself and of the store by itself."""
        now, answers = time.time(), self._answers()
        with self._outages:
            self._failing[path] = since = self._failing.pop(path, now)
            while len(self._failing) > _PATHS:
                del self._failing[next(iter(self._failing))]
            self.down_since = None if answers else self.down_since or now
            return Outage(self.down_since or since, not answers)

    def answered(self, path: str) -> None:
        """Note that the page could be read. It may have lived from what is kept in memory, so it
        does not prove that a store answers which did not."""
        answers = self.down_since is None or self._answers()
        with self._outages:
            self._failing.pop(path, None)
            if answers:
                self.down_since, self.good_at = None, time.time()

    def _answers(self) -> bool:
        """Whether the store as a whole can be asked, if only to be told that this is forbidden."""
        try:
            self.store.connect()
        except StoreDenied:
            return True
        except StoreError:
            return False
        return True

    def counts(self, max_age: float = 1.0) -> Counts:
        """What is stored, read not longer than `max_age` seconds ago, for all who ask."""
        with self._lock:
            if time.monotonic() - self._counted_at > max_age:
                self._counts = self.store.counts()
                self._counted_at = time.monotonic()
            return self._counts

    def inspection(self, max_age: float) -> Inspection:
        """The store looked at closely, not longer than `max_age` seconds ago, for all who ask.
        StoreError if it does not even answer now."""
        self.store.connect()
        with self._lock:
            if self._inspection is None or time.monotonic() - self._inspected_at > max_age:
                self._inspection = self.store.inspect()
                self._inspected_at = time.monotonic()
            return self._inspection

    def recall(self) -> tuple[Source, float, StoreError | None]:
        """The history with what is new in the store, and now; or as far as it was read before, that
        moment, and why no further. StoreError if nothing ever was."""
        now = time.time()
        try:
            return self.history.look(), now, None
        except StoreError as error:
            source = self.history.source()
            if source.since is None or source.read_at is None:
                raise
            return source, source.read_at, error

    def keep(self, request: HttpRequest, piece: SafeString, good_at: float | None = None) -> None:
        """Remember what this reader was shown at this address, for when the store is down."""
        with self._lock:
            key = _reader(request)
            self._pieces.pop(key, None)
            if len(piece) > _LARGEST_PIECE:
                return
            self._pieces[key] = (piece, good_at or time.time())
            while len(self._pieces) > _PIECES:
                del self._pieces[next(iter(self._pieces))]

    def kept(self, request: HttpRequest) -> tuple[SafeString, float] | None:
        """What was kept for this reader and address, and when it was good."""
        return self._pieces.get(_reader(request))

    def known_counts(self) -> Counts:
        """What was counted last, without asking the store."""
        return self._counts


def _reader(request: HttpRequest) -> tuple[object, str]:
    return request.user.pk, request.get_full_path()


class StoreRequest(HttpRequest):
    """A request for a page of a store; `StoreMiddleware` sets the entry."""

    entry: Entry


@cache
def registry() -> dict[str, Entry]:
    """All configured stores by name, in the order of the configuration."""
    entries = {}
    for name, url in settings.OMNIDASH_STORES.items():
        # The sample is written by a process of ours, which keeps nothing in memory.
        store = open_store(url, as_runner=settings.OMNIDASH_SAMPLE)
        entries[name] = Entry(name, store, History(store), parse_url(url))
    return entries


def visit(url: str) -> Entry:
    """The store at a URL, in this process alone: under its address, or if it is configured, under
    its name, and then as closed to changes as either of the two says. ValueError says what is wrong
    with the URL without repeating it."""
    where = parse_url(url)
    for known in registry().values():
        if known.where is not None and known.where.safe == where.safe:
            known.where = _stricter(known, known.where, where)
            return known
    store, name = open_store(url), where.safe
    if len(name) > _LONGEST_NAME:  # what is left out may be all that tells it from another
        digest = blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        name = f"{digest}…{name[len(digest) + 1 - _LONGEST_NAME :]}"
    registry()[name] = entry = Entry(name, store, History(store), where)
    return entry


def _stricter(known: Entry, where: StoreURL, given: StoreURL) -> StoreURL:
    """Other credentials than those of the configuration are not passed over without a word."""
    who = (given.username, given.password)
    if who != (None, None) and who != (where.username, where.password):
        raise ValueError(f"the URL names other credentials than those of {known.name}, its store")
    return replace(where, mode=where.mode or given.mode, env=where.env or given.env)


def warm_up() -> None:
    """Start learning what is stored, so that the first reader does not wait for all of it."""
    for entry in registry().values():
        threading.Thread(target=_learn, args=(entry,), name="warm-up", daemon=True).start()


def _learn(entry: Entry) -> None:
    with suppress(StoreError):  # the first page meets the same trouble and says so
        entry.counts()


def ready() -> bool:
    """True if every store can be read now."""
    for entry in registry().values():
        try:
            entry.store.connect()
        except StoreError:
            return False
    return True
