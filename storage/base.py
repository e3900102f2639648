"""The store contract: OmniDaemon's own storage interface, synchronous, and what the pages ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from storage.changes import Changeable
from storage.records import Agent, Broken, ConfigEntry, Metric, Moment, Result, Supervisor
from storage.snapshots import Restorable

RecordT = TypeVar("RecordT")


class StoreError(Exception):
    """Something about a store that its user can be told; the message holds no secrets."""


class StoreUnavailable(StoreError):
    """The store cannot be read now: unreachable, frozen, loading, locked out, not there."""


class StoreDenied(StoreError):
    """The store forbids this one command or file; others may work."""


class StoreReadOnly(StoreError):
    """The store refuses writes (replica, full memory or disk, read-only mount); nothing changed."""


class StoreBusy(StoreError):
    """A running OmniDaemon owns the JSON directory and would undo or corrupt an outside write."""


class StoreChanged(StoreError):
    """Somebody else changed what was to be changed; nothing happened."""


class RecordNotFound(StoreError):
    """There is no such record, or no longer."""


@dataclass(slots=True)
class Page(Generic[RecordT]):
    """A part of a list. `total` counts all that match (None: not known). When `complete` is False
    only `searched` of the `of` stored records were looked at, newest first."""

    rows: list[RecordT]
    total: int | None
    complete: bool = True
    searched: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """Filters and order of an agents listing. `text` is looked for in names, ignoring case."""

    topic: str | None = None
    text: str = ""
    tool: str | None = None
    order: Literal["topic", "name", "newest"] = "topic"
    descending: bool = False
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """Filters and order of a results listing.

    `within` keeps what expires in at most so many seconds from now; `expires_from` what expires at
    this moment or later, `expires_before` what expires earlier than that (Unix seconds); all three
    leave out what never expires. `saved_before` keeps what was saved earlier than this moment,
    `larger` what has more bytes, `unregistered` what is of no registered agent. `text` is looked
    for in the stored bytes, as typed and as JSON escapes it, ignoring ASCII case; `life` keeps one
    state.
    `budget` bounds the seconds a text search may take; a longer one answers incomplete.
    """

    order: Literal["newest", "expiring"] = "newest"
    agent: str | None = None
    topic: str | None = None
    status: str | None = None
    text: str = ""
    within: float | None = None
    expires_from: float | None = None
    expires_before: float | None = None
    saved_before: float | None = None
    larger: int | None = None
    unregistered: bool = False
    life: Literal["", "forever", "expired", "unreadable"] = ""
    offset: int = 0
    limit: int = 50
    budget: float = 0.1

    @property
    def by_expiry(self) -> bool:
        """Whether only what expires at certain times is kept."""
        return (self.within, self.expires_from, self.expires_before) != (None, None, None)


@dataclass(slots=True)
class Counts:
    """How much is stored; None is unknown, never zero. `complete` is False while a store with many
    results is still being learnt: `learnt` of `results_indexed` are known so far.

    `results` are those that can be fetched now; `orphans` are index entries without a result;
    `expired` are results past their expiry that are still on disk; `forever` never expire.
    """

    agents: int | None = None
    topics: int | None = None
    results: int | None = None
    results_indexed: int | None = None
    orphans: int | None = None
    expired: int | None = None
    forever: int | None = None
    unreadable: int | None = None
    metrics: int | None = None
    metrics_cap: int | None = None
    config: int | None = None
    complete: bool = True
    learnt: int = 0


@dataclass(slots=True)
class MetricBatch:
    """Events after a cursor, oldest first. `cursor` continues after the last of them; `more` says
    that there are further ones now. `stored` counts all events in the store at that moment.

    `gap`: what came directly after the cursor may have been dropped before it was read. `aside`:
    the cursor's own event is gone, yet so many events that are older than it are stored (a store
    put back to an earlier state, or a clock set back); they are not among `events`."""

    events: list[Metric]
    cursor: str
    more: bool
    stored: int
    gap: bool = False
    aside: int = 0


@dataclass(slots=True)
class Runner:
    """What the store says of OmniDaemon's runner. `start_time` None: it never ran or was stopped
    cleanly; a crash leaves it behind. `last_write` is when the store's data last changed, where
    the backend can tell (JSON: the newest file date)."""

    start_time: Moment = None
    runner_id: str = ""
    last_write: float | None = None


@dataclass(slots=True)
class Fact:
    """One figure of a store's inspection. `value` None is unknown and `note` says why.
    `unit`: bytes, count, seconds, milliseconds, ratio, moment, flag or text."""

    group: str
    name: str
    value: float | str | bool | None
    unit: str = "text"
    note: str = ""


@dataclass(slots=True)
class Inspection:
    """A store looked at closely. `address` holds no secrets. `troubles` are what goes wrong now,
    `risks` what may go wrong later, both in plain words; `denied` names commands or files that the
    store forbids us.
    `broken` lists unreadable or inconsistent records by key; `scan_complete` is False while the
    search for them has not yet walked everything (`scanned` keys so far)."""

    backend: str
    address: str
    latency_ms: float | None
    version: str = ""
    facts: list[Fact] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    risks: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    scan_complete: bool = True
    scanned: int = 0


@dataclass(slots=True)
class ConfigKeys:
    """Sorted; `complete` is False while the search for further keys still goes on."""

    keys: list[str]
    complete: bool = True


@dataclass(slots=True)
class ConfigListing:
    """All configuration in the order of its keys; `complete` as in `ConfigKeys`."""

    entries: list[ConfigEntry]
    complete: bool = True


class Store(Changeable, Restorable, ABC):
    """One store of OmniDaemon.

    The first part has the names, arguments, answers and limits of OmniDaemon 0.1.1's `BaseStore`
    (src/omnidaemon/storage/base.py), so that data written by either is read by the other. Where
    OmniDaemon answers "unhealthy" or False for a dead server, these raise `StoreUnavailable`.
    Reading never writes: unlike OmniDaemon's, `get_result` removes nothing.
    Instances are safe to share between threads and cheap to keep open.
    """

    backend: str
    """Word in `STORAGE_BACKEND` and URL scheme family: json or redis."""
    address: str
    """Where the store is, without secrets."""
    can_expire_natively: bool
    """The backend removes expired results itself; otherwise they stay until read or cleaned up."""
    has_index: bool
    """Results are listed through an index of their own, whose entries can outlive them."""
    has_bus: bool
    """OmniDaemon's event bus lies on the same server."""
    metrics_lag: int
    """How many of the newest events may still be only in the memory of the runner."""

    # OmniDaemon's contract

    @abstractmethod
    def connect(self) -> None:
        """Check that the store can be read. Idempotent; every method connects by itself."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and caches; writes nothing. The store may be used again."""

    @abstractmethod
    def health_check(self) -> dict[str, Any]:
        """`{"status": "healthy" | "unhealthy", "backend", "latency_ms", …}`; never raises and
        never writes. No value holds a secret."""

    @abstractmethod
    def add_agent(self, topic: str, agent_data: dict[str, Any]) -> None:
        """Add or replace. ValueError without a "name"."""

    @abstractmethod
    def get_agent(self, topic: str, agent_name: str) -> dict[str, Any] | None: ...

    @abstractmethod
    def get_agents_by_topic(self, topic: str) -> list[dict[str, Any]]: ...

    @abstractmethod
    def list_all_agents(self) -> dict[str, list[dict[str, Any]]]:
        """Readable agents by topic; topics without agents are left out."""

    @abstractmethod
    def delete_agent(self, topic: str, agent_name: str) -> bool: ...

    @abstractmethod
    def delete_topic(self, topic: str) -> int:
        """How many agents were deleted."""

    @abstractmethod
    def save_result(self, task_id: str, result: Any, ttl_seconds: int | None = None) -> None:
        """`ttl_seconds` None or 0 keeps it for ever, as OmniDaemon does. Values that JSON does not
        know are stored as their `str()`."""

    @abstractmethod
    def get_result(self, task_id: str) -> Any:
        """The saved value, None if missing or expired."""

    @abstractmethod
    def delete_result(self, task_id: str) -> bool: ...

    @abstractmethod
    def list_results(self, limit: int = 100) -> list[dict[str, Any]]:
        """`{"task_id", "result", "saved_at", …}` of the newest live results, newest first. Entries
        whose result is gone do not count against the limit. `limit` 0 is none."""

    @abstractmethod
    def save_metric(self, metric_data: dict[str, Any]) -> None:
        """Append an event; the backend's cap drops the oldest. The argument is not changed."""

    @abstractmethod
    def get_metrics(self, topic: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """Newest first, at most `limit` of the topic's events. `limit` 0 is none."""

    @abstractmethod
    def save_config(self, key: str, value: Any) -> None: ...

    @abstractmethod
    def get_config(self, key: str, default: Any = None) -> Any:
        """`default` if missing or unreadable."""

    @abstractmethod
    def clear_agents(self) -> int: ...

    @abstractmethod
    def clear_results(self) -> int: ...

    @abstractmethod
    def clear_metrics(self) -> int: ...

    @abstractmethod
    def clear_all(self) -> dict[str, int]:
        """`{"agents", "results", "metrics", "config"}`: how many of each were deleted."""

    # What the pages ask

    @abstractmethod
    def counts(self) -> Counts:
        """How much is stored, at a cost that does not grow with it once it is learnt."""

    @abstractmethod
    def topics(self) -> list[tuple[str, int]]:
        """(topic, number of agents), by topic."""

    @abstractmethod
    def agent_page(
        self, query: AgentQuery, keep: Callable[[Agent], bool] | None = None
    ) -> Page[Agent]:
        """Agents with their subscription and supervisor. `keep` is a further filter on those; it
        costs a look at every agent that the query matches."""

    @abstractmethod
    def agents_by_name(self, names: Iterable[tuple[str, str]]) -> list[Agent]:
        """Those of the (topic, name) pairs that are registered, at a cost of these alone."""

    @abstractmethod
    def long_agents(self, length: int) -> list[tuple[str, str]]:
        """The registered (topic, name) pairs of more than so many characters together. An address
        holds only a digest of such names, which is compared with these."""

    @abstractmethod
    def agent(self, topic: str, name: str) -> Agent:
        """RecordNotFound if it is not registered."""

    @abstractmethod
    def result_page(self, query: ResultQuery) -> Page[Result]:
        """Live results (and with `life="expired"` those expired but still stored). Unreadable ones
        are rows with a `problem`; index entries without a result are never rows."""

    @abstractmethod
    def result(self, task_id: str) -> Result:
        """One result with its body and raw text. RecordNotFound if missing or expired natively."""

    @abstractmethod
    def long_results(self, length: int) -> list[str]:
        """As `long_agents`: the ids of more than so many characters of the results known so far."""

    @abstractmethod
    def results_by_id(self, task_ids: Iterable[str]) -> dict[str, Result]:
        """Those of the ids that are stored, without bodies."""

    @abstractmethod
    def expiring(self, within: float) -> int | None:
        """How many live results expire in at most so many seconds; None while still learning."""

    @abstractmethod
    def expiry_histogram(self, edges: Sequence[float]) -> list[int] | None:
        """How many live results expire in each interval between neighbouring moments (Unix
        seconds, ascending; the last may be `math.inf`): an interval holds its first moment and not
        its last. None while still learning. The cost follows the edges, not what is stored."""

    @abstractmethod
    def result_facets(self) -> dict[str, list[str]]:
        """Distinct "agent", "topic" and "status" of the results known so far, each sorted."""

    @abstractmethod
    def metrics_after(self, cursor: str | None, limit: int = 10_000) -> MetricBatch:
        """Events after the cursor of an earlier batch, from the oldest stored when None."""

    @abstractmethod
    def config_keys(self) -> ConfigKeys: ...

    @abstractmethod
    def config_entries(self, keys: Iterable[str]) -> list[ConfigEntry]:
        """Those of the keys that are stored, in the order asked for, at a cost of these alone."""

    def config_listing(self) -> ConfigListing:
        """All configuration at once."""
        found = self.config_keys()
        return ConfigListing(self.config_entries(found.keys), found.complete)

    @abstractmethod
    def supervisors(self) -> list[Supervisor]:
        """The registered supervisors, by agent name."""

    @abstractmethod
    def runner(self) -> Runner: ...

    @abstractmethod
    def inspect(self) -> Inspection:
        """Health with its evidence. May take longer than other questions, but is time-boxed."""
