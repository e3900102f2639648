"""Putting back what a run removed, from the bin."""

from __future__ import annotations

from collections.abc import Sequence

from omnidash import bins
from omnidash.actions import Action, Changes, Params, Work
from storage.base import Store
from storage.changes import Record, Target

_EVENTS = 200_000  # at once: events go before all others, so each time all of those are moved


def _look(store: Store, params: Params) -> list[Target]:
    events = size = 0
    targets: list[Target] = []
    for one in bins.records(params["bin"]):
        if one.kind == "metrics":
            events, size = events + 1, size + len(one.raw)
        else:
            targets.append(Target(one.kind, one.names, "", len(one.raw)))
    if events:
        targets.append(Target("metrics", ("events",), "", size, events))
    return targets


def _put_back(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    store = work.store
    batch: list[Record] = []
    for record in bins.records(params["bin"]):
        most = _EVENTS if record.kind == "metrics" else store.largest_change
        if batch and (len(batch) == most or record.kind != batch[0].kind):
            yield store.put_back(batch)
            batch = []
        batch.append(record)
    if batch:
        yield store.put_back(batch)


def _warns(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    removed, found = params["removed"], sum(one.count for one in targets)
    lost = (
        [f"{removed - found:,} of the {removed:,} removed are missing in the recycle bin: its file "
         "is damaged or has no end."]
        if found < removed
        else []
    )  # fmt: skip
    return [
        *lost,
        "Exactly the records that the run removed come back, with their expiries: none in the "
        "place of what is there now, and none that has expired meanwhile.",
    ]


PUT_BACK = Action(
    "put-back", "Put back", "record", "put_back", _look, _put_back, _warns, kept=False
)
