"""Actions on single, selected, matching and all agents, results, metrics and configuration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from omnidash.actions import Action, Changes, Params, Work, batches, one, remove
from omnidash.meanings import meaning_of
from storage.base import ResultQuery, Store, StoreError
from storage.changes import Expiry, Target

_SEARCH = 2.0  # seconds that a look may search payloads for text

# Agents


def _agents(store: Store, params: Params) -> list[Target]:
    return store.agent_targets([(topic, name) for topic, name in params["agents"]])


def _topic(store: Store, params: Params) -> list[Target]:
    return [one for one in store.agent_targets() if one.names[0] == params["topic"]]


def _of_agents(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    some = targets[:_ASKED]
    more = " or more" if len(targets) > _ASKED else ""
    working = sum(bool(store.consuming(*one.names[:2])) for one in some)
    waiting = [found for one in some if (found := store.waiting(*one.names[:2]))]
    said = [
        "Consumers that are running go on until their runner restarts, and a runner that starts "
        "registers its agents again.",
        _of_messages(waiting, more),
    ]
    if working:
        said.insert(0, f"Consumers of {working}{more} of them are at work now.")
    return said + sorted({f"{one.names[1]}: {one.note}" for one in targets if one.note})[:_ASKED]


def _of_messages(waiting: Sequence[tuple[int, int | None]], more: str) -> str:
    stay = "Messages that wait for the agent, or were delivered and not finished, stay on the bus"
    if not waiting:
        return f"{stay}."
    pending = sum(found[0] for found in waiting)
    lags = [found[1] for found in waiting]
    known = [lag for lag in lags if lag is not None]
    undelivered = f"{sum(known):,}" if len(known) == len(lags) else "an unknown number"
    return f"{stay}: {undelivered}{more} not delivered, {pending:,}{more} not finished."


_ASKED = 20  # agents whose consumers are asked for

# Results


def query_of(params: Params) -> ResultQuery:
    return ResultQuery(**params["query"], budget=_SEARCH)


def _results(store: Store, params: Params) -> list[Target]:
    if "ids" in params:
        return store.result_targets(task_ids=params["ids"])
    return store.result_targets(query_of(params))


def expiry_of(params: Params) -> Expiry:
    """`more` seconds, `at` a moment, or neither: for ever."""
    return Expiry(params.get("at"), params.get("more"))


def _extend(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    try:
        for batch in batches(work.store, targets):
            yield work.store.set_expiry(batch, expiry_of(params))
    except ValueError as error:  # it was ahead when it was asked for
        raise StoreError(f"the new expiry cannot be set: {error}") from None


def _of_expiry(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    said = ["The present expiries are not kept, so that this cannot be put back."]
    if expiry_of(params) == Expiry():
        said.insert(0, "Kept for ever: nothing removes them any more until somebody deletes them.")
    return said


# Configuration


def _config(store: Store, params: Params) -> list[Target]:
    return store.config_targets(params["keys"])


def _of_config(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    return [
        f"{key} is OmniDaemon's own. {meaning}"
        for key in params["keys"]
        if (meaning := meaning_of(key))
    ]


def _of_setting(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    lost = "The present value is not kept, so that this cannot be put back."
    return [*([lost] if targets else []), *_of_config(store, params, targets)]


def _set_config(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    """The old value goes to the bin only when the key is deleted; the log holds none of both,
    since they may be secret."""
    mark = targets[0].mark if targets else None
    yield work.store.replace_config(params["keys"][0], params["text"].encode("ascii"), mark)


# Everything of a kind


def all_keys(store: Store) -> list[str]:
    """StoreError if they cannot all be found in the time that there is."""
    deadline = time.monotonic() + _SEARCH
    while not (found := store.config_keys()).complete:
        if time.monotonic() > deadline:
            raise StoreError("the keys of the configuration are still being looked for")
    return found.keys


def _all(store: Store, params: Params) -> list[Target]:
    what = params["what"]
    found: list[Target] = []
    if what in ("agents", "everything"):
        found += store.agent_targets()
        found += [one for one in store.loose_ends() if one.kind in ("member", "hash")]
    if what in ("results", "everything"):
        found += store.result_targets()
        found += [one for one in store.loose_ends() if one.kind == "entry"]
    if what in ("metrics", "everything"):
        found += store.metric_targets()
    if what in ("config", "everything"):
        keys = all_keys(store)
        found += store.config_targets([key for key in keys if not meaning_of(key)])
    return found


def _of_all(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    said = []
    if params["what"] in ("agents", "everything"):
        said += _of_agents(store, params, [one for one in targets if one.kind == "agent"])
    if params["what"] in ("config", "everything"):
        said.append(
            "OmniDaemon's own keys stay, because consumers stop without them; they can be deleted "
            "one by one on the page of the configuration."
        )
    return said


ACTIONS = (
    Action("delete-agents", "Delete", "agent", "delete_records", _agents, remove, _of_agents),
    Action("delete-topic", "Delete", "agent", "clear_store", _topic, remove, _of_agents),
    Action("delete-results", "Delete", "result", "delete_records", _results, remove),
    Action("delete-matching-results", "Delete", "result", "clear_store", _results, remove),
    Action("extend-results", "Set the expiry of", "result", "extend_results", _results, _extend,
           _of_expiry, kept=False, title="Set expiry"),
    Action("delete-config", "Delete", "key", "edit_config", _config, remove, _of_config,
           title="Delete configuration"),
    Action("set-config", "Set", "key", "edit_config", _config, _set_config, _of_setting, kept=False,
           sudo=True, title="Set configuration", counted=one),
    Action("clear", "Clear", "record", "clear_store", _all, remove, _of_all,
           sudo=True, typed=True),
)  # fmt: skip


def clear_words(what: str) -> str:
    return {"everything": "everything"}.get(what, f"all {what}")


def as_query(query: ResultQuery) -> dict[str, Any]:
    """The fields that differ from the default, JSON-ready."""
    plain = ResultQuery()
    names = (
        "order", "agent", "topic", "status", "text", "within", "expires_from", "expires_before",
        "saved_before", "larger", "unregistered", "life",
    )  # fmt: skip
    return {
        name: getattr(query, name) for name in names if getattr(query, name) != getattr(plain, name)
    }
