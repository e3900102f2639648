"""Changes of many records at once: what is meant, as it was seen, and what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from storage.base import ResultQuery

Kind = Literal["agent", "result", "entry", "member", "hash", "topic", "metrics", "config", "file"]
"""`entry`: one of the index of results; `member`: a name in a topic's set; `hash`: an agent's own
record; `topic`: one of the set of topics that has no agent; these of Redis only. `metrics`: events
from the oldest to a boundary. `file`: JSON only, a temporary file that a killed writer left behind;
in a backup, the original bytes of a file."""
Names = tuple[str, ...]
"""Topic and name of an agent, a member or a hash; the task id of a result or an entry; the key of
configuration; the name of a file; of metrics the boundary, in the backend's own words."""


# Nobody changes one of these, but to say so (`frozen`) quadruples what it costs to make one, and
# they are made by the hundred thousand.
@dataclass(slots=True, unsafe_hash=True)
class Target:
    """One record as it was seen. `mark` is another one for another version of the record, and
    only compared. `size` in bytes; `count` is more than 1 for metrics alone. `note` says what its
    deletion does besides (an agent whose record another one shares); of a sum, some of its
    records."""

    kind: Kind
    names: Names
    mark: str
    size: int = 0
    count: int = 1
    note: str = ""

    @property
    def stays(self) -> bool:
        """Whether it was seen already that it will be skipped."""
        return self.note.endswith(STAYS)


@dataclass(slots=True, unsafe_hash=True)
class Record:
    """A whole record as it is stored, to be put back.

    `form` says what `raw` is: `text` the stored bytes; `hash` JSON of [field, value] pairs, each
    base64; `dump` Redis' DUMP of anything else; `none` where there is only a name (entry, member).
    `expires_at_ms` Unix milliseconds, None for never; `score` as text, `stream_id` of an event."""

    kind: Kind
    names: Names
    raw: bytes = b""
    form: Literal["text", "hash", "dump", "none"] = "text"
    expires_at_ms: int | None = None
    score: str | None = None
    stream_id: str | None = None


@dataclass(slots=True)
class Change:
    """What came of a change: how many records were changed, and why which were not. `bytes` is the
    size of what was deleted."""

    done: int = 0
    skipped: list[tuple[Names, str]] = field(default_factory=list)
    bytes: int = 0


Keep = Callable[[Sequence[Record]], None]
"""Takes whole records before they are deleted; what it raises stops the deletion."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When results are to expire: `at` (Unix seconds), or `more` seconds after they expire now
    (what never expires: from now on). Neither: never."""

    at: float | None = None
    more: float | None = None


STAYS = ": it stays"
"""How the note of what is going to be skipped ends."""
CHANGED = "changed since it was shown"
GONE = "was gone already"
SHARED = "shares its record with another agent, which is not to be deleted"
THERE = "is there already"
EXPIRED = "has expired meanwhile"
"""Why a record was skipped."""


class Changeable(ABC):
    """The part of the store contract that changes ask. Each compares what it finds with what was
    seen, and changes nothing else."""

    largest_change: int
    """How many records may be given at once to what changes them."""
    removed_apart: frozenset[Kind] = frozenset()
    """Of which kinds two removals may be at work at once, in two threads, without disturbing each
    other."""

    def inseparable(self, one: Target, other: Target) -> bool:
        """Whether the one can only be changed together with the other."""
        return False

    def owned_by(self) -> str:
        """Why a change would be refused now because OmniDaemon is at work (`StoreBusy`); empty
        where it would not."""
        return ""

    def owner_unproven(self) -> str:
        """Why it cannot be proven that OmniDaemon has stopped, which an administrator may vouch
        for (`owner_stated_stopped`); empty where it can, or need not."""
        return ""

    def owner_stated_stopped(self) -> AbstractContextManager[None]:
        """Within it, in this thread, somebody vouches that no OmniDaemon is at work."""
        return nullcontext()

    @abstractmethod
    def agent_targets(self, agents: Iterable[tuple[str, str]] | None = None) -> list[Target]:
        """Those of the (topic, name) pairs that are registered, or all, by topic and name, but such
        that share one record side by side. `note` names the agents that share the record, and
        whether they would be deleted too."""

    @abstractmethod
    def result_targets(
        self, query: ResultQuery | None = None, task_ids: Iterable[str] | None = None
    ) -> list[Target]:
        """Those of the ids that are stored, or all that match the query (whose offset and limit do
        not count), or all that are stored, expired and unreadable ones included. StoreError if it
        cannot be told yet what matches, because the store is still being learnt or a text search
        takes longer than the query's budget."""

    @abstractmethod
    def config_targets(self, keys: Iterable[str]) -> list[Target]:
        """Those of the keys that are stored."""

    @abstractmethod
    def metric_targets(self, before: float | None = None, keep: int | None = None) -> list[Target]:
        """At most one: all events, those stored before a moment (Unix seconds), or those beyond
        the newest so many, from the oldest up to the first that stays."""

    @abstractmethod
    def loose_ends(self) -> list[Target]:
        """What belongs to nothing any more: index entries without a result, members without an
        agent's record and records without a member (Redis), temporary files of killed writers
        (JSON). All that are there now; the cost grows with what is stored."""

    @abstractmethod
    def consuming(self, topic: str, agent: str) -> bool | None:
        """Whether a consumer of the agent's group is at work on the event bus, whether or not the
        agent is registered; None where this cannot be told."""

    def waiting(self, topic: str, agent: str) -> tuple[int, int | None] | None:
        """Messages of the agent's group on the event bus: how many were delivered and are not
        finished, and how many were not delivered yet (None: the server cannot count them). None
        where there is no such group, or nothing can be told of it."""
        return None

    @abstractmethod
    def remove(self, targets: Sequence[Target], keep: Keep) -> Change:
        """Delete records of one kind that are as they were seen, at most `largest_change`, with
        their entries in an index. `keep` is given them whole before they are deleted, and only
        those that then are. Where the records changed in that very moment it may be given some
        again: the last version counts."""

    @abstractmethod
    def put_back(self, records: Sequence[Record]) -> Change:
        """Store removed records again, with their expiries, at most `largest_change` of one kind;
        never in the place of what is there now, and none that has expired since. Events go before
        all that are there."""

    @abstractmethod
    def set_expiry(self, targets: Sequence[Target], expiry: Expiry) -> Change:
        """Of results that are as they were seen, at most `largest_change`. A time that has passed
        is refused with ValueError."""

    @abstractmethod
    def replace_config(self, key: str, text: bytes, mark: str | None) -> Change:
        """Store a value, given as JSON, under a key whose value is as it was seen (`mark` None:
        under a key that is not there)."""
