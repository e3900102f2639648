"""Records taken out of one version of a file, and put into one: what was seen is compared with what
is there, and texts move byte for byte."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from storage.changes import CHANGED, EXPIRED, GONE, THERE, Change, Kind, Names, Record, Target
from storage.json_store.layout import (
    Document,
    Listing,
    Objects,
    as_record,
    parse_exactly,
)
from storage.json_store.metrics import CAP, cursor_of, event_digest, event_ids, position_after
from storage.json_store.results import ResultIndex

DocumentT = TypeVar("DocumentT", bound=Document)
Cut = tuple[DocumentT | None, list[Record], Change]
"""The version without the records, None if there are none to be taken; these; what came of it."""
Added = tuple[DocumentT | None, Change]

NO_JSON = "is no JSON: OmniDaemon could not read the file with it"
FOREIGN = "is not of a JSON directory"
_FULL = f"metrics.json holds at most {CAP:,} events"


def mark_of(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def why_not(record: Record) -> str:
    """Why a record cannot be put back anywhere; empty if it can."""
    if record.form != "text":
        return FOREIGN
    if record.expires_at_ms is not None and record.expires_at_ms <= time.time() * 1000:
        return EXPIRED
    return ""


# Results and configuration: by key


def keyed_targets(kind: Kind, document: Objects, keys: Iterable[str]) -> list[Target]:
    return [
        Target(kind, (key,), mark_of(text := document.text(key)), len(text))
        for key in dict.fromkeys(keys)
        if key in document.values
    ]


def why_not_seen(document: Objects, key: str, mark: str) -> str:
    """Why a key is not as it was seen; empty if it is."""
    if key not in document.values:
        return GONE
    return "" if mark_of(document.text(key)) == mark else CHANGED


def without_keys(document: Objects, targets: Sequence[Target]) -> Cut[Objects]:
    change, doomed = Change(), dict[str, Record]()
    expires = document.derive(ResultIndex).expires if targets[0].kind == "result" else {}
    for target in targets:
        (key,) = target.names
        reason = why_not_seen(document, key, target.mark)
        if reason:
            change.skipped.append((target.names, reason))
            continue
        at = round(expires[key] * 1000) if key in expires else None
        doomed[key] = Record(target.kind, (key,), document.text(key), expires_at_ms=at)
    note_done(change, list(doomed.values()))
    return document.with_texts({}, doomed) if doomed else None, list(doomed.values()), change


def with_keys(document: Objects, records: Sequence[Record]) -> Added[Objects]:
    change, put = Change(), dict[str, bytes]()
    for record in records:
        (key,) = record.names
        text = as_record(record.raw)
        reason = THERE if key in document.values or key in put else why_not(record)
        if reason or text is None:
            change.skipped.append((record.names, reason or NO_JSON))
        else:
            put[key] = text
    change.done = len(put)
    return document.with_texts(put) if put else None, change


def note_done(change: Change, records: Sequence[Record]) -> None:
    change.done = len(records)
    change.bytes = sum(len(record.raw) for record in records)


# Metrics: from the front


def event_target(document: Listing, before: float | None, keep: int | None) -> Target | None:
    values = document.values
    counts = [] if before is None else [_stored_before(values, before)]
    counts += [] if keep is None else [max(0, len(values) - keep)]
    count = max(counts, default=len(values))
    if not count:
        return None
    texts = [document.text(position) for position in range(count)]
    size = sum(map(len, texts))
    boundary = cursor_of(values, count - 1)
    return Target("metrics", (boundary,), _mark_of_all(texts), size, count)


def _stored_before(values: list[object], before: float) -> int:
    """How many events from the oldest on; one without a date goes with the next that has one."""
    count = 0
    for position, value in enumerate(values):
        saved_at = value.get("saved_at") if isinstance(value, dict) else None
        if isinstance(saved_at, (int, float)):
            if saved_at >= before:
                break
            count = position + 1
    return count


def _mark_of_all(texts: list[bytes]) -> str:
    return mark_of(b"\n".join(texts))


def without_events(document: Listing, targets: Sequence[Target]) -> Cut[Listing]:
    (target,) = targets
    end = position_after(document.values, target.names[0])
    if end is None:
        return None, [], Change(skipped=[(target.names, GONE)])
    texts = [document.text(position) for position in range(len(document.values))]
    # Fewer are left where OmniDaemon has trimmed the front; never delete more than were seen.
    if end > target.count or (end == target.count and _mark_of_all(texts[:end]) != target.mark):
        return None, [], Change(skipped=[(target.names, CHANGED)])
    names = event_ids(document.values, 0)
    records = [Record("metrics", (next(names),), text) for text in texts[:end]]
    change = Change()
    note_done(change, records)
    return Listing.of(texts[end:], document.values[end:]), records, change


def with_events(document: Listing, records: Sequence[Record]) -> Added[Listing]:
    """In their order before all that are there; beyond the cap the oldest are left out."""
    change, fresh = Change(), list[tuple[Names, bytes, object]]()
    there = Counter(map(event_digest, document.values))
    for record in records:
        text = as_record(record.raw)
        value = None if text is None else parse_exactly(text)[0]
        reason = why_not(record) or (NO_JSON if text is None else "")
        if not reason and event_digest(value) in there:
            reason = THERE
        if reason or text is None:
            change.skipped.append((record.names, reason))
        else:
            fresh.append((record.names, text, value))
    excess = min(len(fresh), max(0, len(fresh) + len(document.values) - CAP))
    change.skipped += [(names, _FULL) for names, _, _ in fresh[:excess]]
    fresh = fresh[excess:]
    change.done = len(fresh)
    if not fresh:
        return None, change
    texts = [text for _, text, _ in fresh]
    texts += [document.text(position) for position in range(len(document.values))]
    return Listing.of(texts, [value for _, _, value in fresh] + document.values), change
