"""Changes of many records: one write of a file for one call, however many there are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from storage.base import ResultQuery
from storage.changes import (
    CHANGED,
    GONE,
    THERE,
    Change,
    Expiry,
    Keep,
    Kind,
    Record,
    Target,
)
from storage.json_store import files
from storage.json_store.agent_cuts import agent_targets, with_agents, without_agents
from storage.json_store.cuts import (
    Added,
    Cut,
    event_target,
    keyed_targets,
    why_not_seen,
    with_events,
    with_keys,
    without_events,
    without_keys,
)
from storage.json_store.encoding import encode
from storage.json_store.expiry import check_expiry, with_expiry
from storage.json_store.files import StoreFile
from storage.json_store.layout import Objects
from storage.json_store.results import JsonResults
from storage.records import parse_json

_LARGEST_KEPT = 64 << 20
_TOO_LARGE = f"is larger than {_LARGEST_KEPT >> 20} MB, too large to be kept for an undo"
_STAYS_AWAY = "is a file that a killed writer left behind; it is kept, but of no use in its place"


class JsonChanges(JsonResults):
    """The changes' part of the store."""

    largest_change = 100_000

    # What could be changed

    def agent_targets(self, agents: Iterable[tuple[str, str]] | None = None) -> list[Target]:
        return agent_targets(self._agents.document(), agents)

    def result_targets(
        self, query: ResultQuery | None = None, task_ids: Iterable[str] | None = None
    ) -> list[Target]:
        document = self._results.document()
        if task_ids is None:
            task_ids = document.values if query is None else self._matching(document, query)
        return keyed_targets("result", document, task_ids)

    def config_targets(self, keys: Iterable[str]) -> list[Target]:
        return keyed_targets("config", self._config.document(), keys)

    def metric_targets(self, before: float | None = None, keep: int | None = None) -> list[Target]:
        found = event_target(self._metrics.document(), before, keep)
        return [found] if found else []

    def loose_ends(self) -> list[Target]:
        return [
            Target("file", (name,), _mark(status), status.st_size)
            for name, status in files.of_killed_writers(self.directory).items()
        ]

    def consuming(self, topic: str, agent: str) -> bool | None:
        return None  # the event bus lies elsewhere

    # Changing it

    def remove(self, targets: Sequence[Target], keep: Keep) -> Change:
        kind = self._kind_of(targets)
        if kind is None:
            return Change()
        if kind == "file":
            return self._remove_files(targets, keep)
        file, without, _ = self._shelf(kind)

        def edit(document: Any) -> tuple[Any, Change]:
            smaller, records, change = without(document, targets)
            if records:
                keep(records)
            return smaller, change

        return self._change(file, edit)

    def put_back(self, records: Sequence[Record]) -> Change:
        kind = self._kind_of(records)
        if kind is None:
            return Change()
        if kind == "file":
            return Change(skipped=[(record.names, _STAYS_AWAY) for record in records])
        file, _, with_them = self._shelf(kind)
        return self._change(file, lambda document: with_them(document, records))

    def _kind_of(self, items: Sequence[Target] | Sequence[Record]) -> Kind | None:
        """The one kind of all that are to be changed; None if there are none."""
        kinds = {item.kind for item in items}
        if len(kinds) > 1 or len(items) > self.largest_change:
            raise ValueError(f"at most {self.largest_change:,} records of one kind at once")
        return kinds.pop() if kinds else None

    def _shelf(
        self, kind: Kind
    ) -> tuple[StoreFile[Any], Callable[..., Cut[Any]], Callable[..., Added[Any]]]:
        """Where records of a kind are, how they are taken out, and how they are put back."""
        if kind == "agent":
            return self._agents, without_agents, with_agents
        if kind == "result":
            return self._results, without_keys, with_keys
        if kind == "config":
            return self._config, without_keys, with_keys
        if kind == "metrics":
            return self._metrics, without_events, with_events
        raise ValueError(f"a JSON directory has no records of the kind {kind!r}")

    def set_expiry(self, targets: Sequence[Target], expiry: Expiry) -> Change:
        now = time.time()
        check_expiry(expiry, now)
        kind = self._kind_of(targets)
        if kind not in (None, "result"):
            raise ValueError("only results expire")
        if kind is None:
            return Change()
        return self._change(
            self._results, lambda document: with_expiry(document, targets, expiry, now)
        )

    def replace_config(self, key: str, text: bytes, mark: str | None) -> Change:
        value, problem = parse_json(text)
        if problem:
            raise ValueError(problem)

        def edit(document: Objects) -> tuple[Objects | None, Change]:
            if mark is None:
                reason = THERE if key in document.values else ""
            else:
                reason = why_not_seen(document, key, mark)
            if reason:
                return None, Change(skipped=[((key,), reason)])
            return document.with_texts({key: encode(value)}), Change(done=1)

        return self._change(self._config, edit)

    # Temporary files

    def _remove_files(self, targets: Sequence[Target], keep: Keep) -> Change:
        files.check_directory(self.directory)
        self._require_ownership()
        change = Change()
        with self._locked():
            there = files.of_killed_writers(self.directory)
            for target in targets:
                (name,) = target.names
                present = there.get(name)
                reason = self._remove_file(name, present, target, keep)
                if reason:
                    change.skipped.append((target.names, reason))
                else:
                    change.done += 1
                    change.bytes += target.size
        return change

    def _remove_file(
        self, name: str, present: os.stat_result | None, target: Target, keep: Keep
    ) -> str:
        """Why it was not removed; empty if it was."""
        if present is None:
            return GONE
        if _mark(present) != target.mark:
            return CHANGED
        if present.st_size > _LARGEST_KEPT:
            return _TOO_LARGE
        path = os.path.join(self.directory, name)
        found = files.read_generation(path)
        if found is None:
            return GONE
        raw, status = found
        if _mark(status) != target.mark:
            return CHANGED
        keep([Record("file", target.names, raw)])
        try:
            os.unlink(path)
        except OSError as error:
            return files.reason(error)
        return ""


def _mark(status: os.stat_result) -> str:
    return "-".join(map(str, files.signature_of(status)))
