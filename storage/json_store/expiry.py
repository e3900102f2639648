"""When a result is to expire: one member of its record is changed, all others stay as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from storage.changes import Change, Expiry, Target
from storage.json_store.cuts import Added, why_not_seen
from storage.json_store.encoding import encode
from storage.json_store.layout import Objects, parse_exactly, parse_objects
from storage.json_store.results import ResultIndex
from storage.records import LATEST

_MEMBER = "expires_at"
# As OmniDaemon writes it, which is a line of its own: no string holds a line break.
_LINE = re.compile(rb',\n    "expires_at": [^\n,]*(?=,?\n)')
_STILL_PAST = "would still have expired"
_TOO_LATE = "would expire after the year 2099"
_UNREADABLE = "is no readable result"


def check_expiry(expiry: Expiry, now: float) -> None:
    """ValueError if nothing can expire so."""
    if expiry.at is not None and expiry.more is not None:
        raise ValueError("either a time or an extension")
    if expiry.at is not None and not now < expiry.at < LATEST:
        raise ValueError("the time has passed, or is later than the year 2099")
    if expiry.more is not None and not (math.isfinite(expiry.more) and expiry.more > 0):
        raise ValueError("an extension is more than no time")


def with_expiry(
    document: Objects, targets: Sequence[Target], expiry: Expiry, now: float
) -> Added[Objects]:
    expires = document.derive(ResultIndex).expires
    change, put = Change(), dict[str, bytes]()
    for target in targets:
        (key,) = target.names
        reason = why_not_seen(document, key, target.mark)
        at = expiry.at
        if expiry.more is not None:
            at = expires.get(key, now) + expiry.more
            reason = reason or _why_not(at, now)
        if not reason and not isinstance(document.values[key], dict):
            reason = _UNREADABLE
        if reason:
            change.skipped.append((target.names, reason))
        else:
            put[key] = expiring(document.text(key), at)
    change.done = len(put)
    return document.with_texts(put) if put else None, change


def _why_not(at: float, now: float) -> str:
    if at <= now:
        return _STILL_PAST
    return "" if at < LATEST else _TOO_LATE


def expiring(text: bytes, at: float | None) -> bytes:
    """The record's text with another `expires_at`, or without one."""
    wanted = {**parse_exactly(text)[0], _MEMBER: at}
    if at is None:
        del wanted[_MEMBER]
    for change in (_line_changed, _member_changed):
        # Lines may lie where OmniDaemon would not have put them.
        changed = change(text, at)
        found = parse_exactly(changed)[0]
        if found == wanted or repr(found) == repr(wanted):  # NaN equals nothing
            return changed
    return encode(wanted)


def _line_changed(text: bytes, at: float | None) -> bytes:
    line = b"" if at is None else f',\n    "{_MEMBER}": {at!r}'.encode("ascii")
    found = _LINE.search(text)
    if found:
        return text[: found.start()] + line + text[found.end() :]
    return text[:-4] + line + text[-4:] if text.endswith(b"\n  }") else text


def _member_changed(text: bytes, at: float | None) -> bytes:
    """By reading the record as a file of its own."""
    members = parse_objects(text.replace(b"\n  ", b"\n"))
    put: dict[str, Any] = {} if at is None else {_MEMBER: at}
    return members.changed(put, [_MEMBER] if at is None else ()).raw.replace(b"\n", b"\n  ")
