"""What a form or an address asks an action to do, checked and made JSON-ready."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import forms
from django.http import Http404, QueryDict

from omnidash.actions import Action, Params
from omnidash.actions.backups import LEVELS, NEWEST
from omnidash.actions.cleanup import BY_NAME, defaults_of, lines_of
from omnidash.actions.records import as_query
from omnidash.actions.restore import MODES
from omnidash.backups import open_to
from omnidash.models import Run
from omnidash.queries import LONGEST_FILTER, ResultsQuery
from omnidash.stores import Entry, registry
from omnidash.text import from_ref
from storage.base import Counts, ResultQuery, Store
from storage.extension import LONGEST
from storage.records import LATEST

MOST = 500  # records that can be named one by one
LONGEST_VALUE = 1_000_000  # characters of a value of configuration
WHAT = ("agents", "results", "metrics", "config", "everything")
_HOURS = {"1h": 3600.0, "24h": 86_400.0}


class BadQuestion(Exception):
    """What was asked for cannot be; the message says why."""


def params_of(action: Action, entry: Entry, data: QueryDict, given: dict[str, Any]) -> Params:
    return _READERS[action.name](entry.store, data, {**given, "store": entry.name})


def _named(data: QueryDict, name: str) -> list[str]:
    found = list(dict.fromkeys(data.getlist(name)))
    if not found:
        raise BadQuestion("Nothing is selected.")
    if len(found) > MOST:
        raise BadQuestion(f"At most {MOST} records can be named one by one.")
    return found


def _addressed(
    data: QueryDict, count: int, long_names: Callable[[int], Iterable[tuple[str, ...]]]
) -> list[tuple[str, ...]]:
    """The names that the address segments `of` stand for."""
    found = []
    for segment in _named(data, "of"):
        try:
            names = from_ref(segment, count, long_names)
        except ValueError:
            names = None
        if names is None:
            raise BadQuestion("One of the records is not there any more.")
        found.append(names)
    return found


def _agents(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    return {"agents": _addressed(data, 2, store.long_agents)}


def _topic(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    return {"topic": _addressed(data, 1, lambda length: _long_topics(store, length))[0][0]}


def _long_topics(store: Store, length: int) -> list[tuple[str]]:
    return [(topic,) for topic, _ in store.topics() if len(topic) > length]


def _ids(store: Store, data: QueryDict) -> Params:
    named = _addressed(data, 1, lambda length: ((one,) for one in store.long_results(length)))
    return {"ids": [names[0] for names in named]}


def _results(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    return _ids(store, data)


def result_query(asked: ResultsQuery) -> ResultQuery:
    """The filter of the page of results, without its place in the list."""
    within = asked.value("within")
    expires_from, expires_before = asked.expires
    return ResultQuery(
        order=asked.value("order"),
        agent=asked.cleaned_data.get("agent") or None,
        topic=asked.cleaned_data.get("topic") or None,
        status=asked.cleaned_data.get("status") or None,
        text=asked.value("q"),
        within=within * 60 if within else None,
        expires_from=expires_from,
        expires_before=expires_before,
        life=asked.value("life"),
    )


def _matching(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    asked = ResultsQuery.read(data)
    if asked.errors:  # a filter that is left out would mean more records, not fewer
        raise BadQuestion("; ".join(asked.ignored))
    found = as_query(result_query(asked))
    found.pop("order", None)
    return {"query": found}


def _expiry(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    whom = _matching(store, data, given) if data.get("matching") else _ids(store, data)
    return {**whom, **_new_expiry(data)}


def _new_expiry(data: QueryDict) -> Params:
    chosen = data.get("expiry", "")
    if chosen in _HOURS:
        return {"more": _HOURS[chosen]}
    if chosen == "forever":
        return {}
    if chosen != "at":
        raise BadQuestion("Choose a new expiry.")
    try:
        moment = forms.DateTimeField().clean(data.get("at", ""))
        if zone := data.get("zone"):  # the reader's, whose script says so; else UTC
            moment = moment.replace(tzinfo=ZoneInfo(zone))
    except (forms.ValidationError, ValueError, OSError, ZoneInfoNotFoundError):
        raise BadQuestion("The new expiry is not a date and time.") from None
    at = moment.timestamp()
    if not time.time() < at <= LATEST:
        raise BadQuestion("The new expiry lies in the past.")
    return {"at": at}


def _keys(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    return {"keys": [names[0] for names in _addressed(data, 1, partial(_long_keys, store))]}


def _long_keys(store: Store, length: int) -> list[tuple[str]]:
    return [(key,) for key in store.config_keys().keys if len(key) > length]


def key_of(store: Store, data: QueryDict) -> str:
    """The key that an address names; of a new one, as it was typed."""
    if data.get("of"):
        return _addressed(data, 1, partial(_long_keys, store))[0][0]
    return data.get("key", "")


def _key(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    key, text = key_of(store, data), data.get("text", "")
    if not key or (len(key) > LONGEST_FILTER and not data.get("of")):
        raise BadQuestion(f"A key has 1 to {LONGEST_FILTER} characters.")
    if len(text) > LONGEST_VALUE:
        raise BadQuestion("The value is too long.")
    return {"keys": [key], "text": checked_json(text)}


def checked_json(text: str) -> str:
    """The text in ASCII. BadQuestion if it is no JSON, which OmniDaemon could not read."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        return json.dumps(value, allow_nan=False)  # 1e999 is read as infinity
    except json.JSONDecodeError as error:
        where = f"in line {error.lineno}, at character {error.colno}"
        raise BadQuestion(f"The value is not JSON: {where}, {_wrong(error.msg)}.") from None
    except RecursionError:
        raise BadQuestion("The value is not JSON that can be read: too deeply nested.") from None
    except ValueError:
        raise BadQuestion("The value is not JSON: a number is too large.") from None


def _no_constant(name: str) -> None:
    raise BadQuestion(f"The value is not JSON, which knows no {name}.")


_WRONG = {
    "Expecting value": "a value is missing; a text stands in double quotes",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing",
    "Expecting ',' delimiter": "a comma or the end is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Extra data": "something follows the value",
    "Unterminated string starting at": "a text begins that has no closing quote",
    "Invalid control character at": "a line break or a tab stands in a text, instead of \\n or \\t",
    "Illegal trailing comma before end of object": "there is a comma too many",
    "Illegal trailing comma before end of array": "there is a comma too many",
}
"""What Python says of a text that is no JSON, in plain words."""


def _wrong(said: str) -> str:
    if said.startswith("Invalid \\"):
        return "a backslash stands before what it cannot stand before"
    return _WRONG.get(said, said[:1].lower() + said[1:])


def _what(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    if given.get("what") not in WHAT:
        raise BadQuestion("There is nothing of that kind.")
    return {"what": given["what"]}


class Limits(forms.Form):
    """Those of the lines of the cleanup."""

    days = forms.FloatField(required=False, min_value=0.01, max_value=36_500)
    megabytes = forms.FloatField(required=False, min_value=0.0001, max_value=1_000_000)
    metric_days = forms.FloatField(required=False, min_value=0.01, max_value=36_500)
    newest = forms.IntegerField(required=False, min_value=0, max_value=10**9)

    def values(self, counts: Counts) -> dict[str, float]:
        """Of what is left empty, or cannot be, the default of the store with these counts."""
        return {
            name: default if self.cleaned_data.get(name) is None else self.cleaned_data[name]
            for name, default in defaults_of(counts).items()
        }


def limits_of(data: QueryDict) -> Limits:
    found = Limits(data)
    found.full_clean()
    return found


def _lines(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    """Those that are named, or with `all` every line, each with its own limit."""
    names = [line.name for line in lines_of(store)] if "all" in data else _named(data, "line")
    lines = [name for name in names if name in BY_NAME]
    limits = limits_of(data)
    if not lines:
        raise BadQuestion("There is no such line.")
    asked = {BY_NAME[name].asks: BY_NAME[name].title for name in lines}
    wrong = [f"{asked[name]}: {found[0]}" for name, found in limits.errors.items() if name in asked]
    if wrong:
        raise BadQuestion(" ".join(wrong))
    values = limits.values(store.counts()) if any(asked) else {}
    return {"lines": lines, **{k: v for k, v in values.items() if k in asked}}


def run_of(data: QueryDict, store: str) -> Run | None:
    """The run of this store that is named by its number."""
    number = data.get("run", "")
    if not number.isdecimal() or len(number) > 18:
        return None
    return Run.objects.filter(pk=int(number), store=store).first()


def _bin(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    run = run_of(data, given["store"])
    if run is not None:
        refuse_elsewhere(run, store)
    if run is None or not run.bin:
        raise BadQuestion("What this run removed is kept no longer.")
    if run.state in Run.UNFINISHED:
        raise BadQuestion("The run has not ended.")
    return {"run": run.pk, "bin": run.bin, "removed": run.done}


def again(run: Run) -> Params | None:
    """What asks for the rest of a run, or for what has come since; None where that cannot be told.
    What lives longer by some hours would do so twice, so that is done again only for what was
    skipped."""
    params = {k: v for k, v in json.loads(run.params).items() if k not in ("vouched", "token")}
    if run.action == "set-config":  # the log does not hold the value
        return None
    if run.action != "extend-results" or not params.get("more"):
        return params
    named = [names[0] for names, _ in json.loads(run.report).get("named", [])]
    if not named or len(named) < run.skipped:
        return None
    return {"ids": named, "more": params["more"]}


def refuse_elsewhere(run: Run, store: Store) -> None:
    """BadQuestion if the name stands for another store now than when the run was executed."""
    if run.address != store.address:
        raise BadQuestion(f"That was done to {run.address}, and this is {store.address}.")


# Backups


def _nothing(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    return {}


def _backup(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    named = data.get("backup", "")
    if not re.fullmatch(r"[0-9a-f]{32}", named):
        raise BadQuestion("There is no such backup.")
    backup = open_to(given["store"]).filter(pk=named).first()
    if backup is None:
        raise Http404  # another store's: the answer is that of its page
    return {"backup": named, "file": backup.name}  # the log names its file when it is gone


def _verified(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    level = data.get("level", "trial")
    if level not in LEVELS:
        raise BadQuestion("There is no such way to verify a backup.")
    newest = data.get("backup", NEWEST) == NEWEST
    return {**({"backup": NEWEST} if newest else _backup(store, data, given)), "level": level}


def how_of(data: QueryDict) -> Params:
    """How to restore or to copy."""
    mode = data.get("mode", "merge")
    if mode not in MODES:
        raise BadQuestion("Choose whether to merge or to replace.")
    found: dict[str, Any] = {"mode": mode, "volatile": bool(data.get("volatile"))}
    if seconds := data.get("extend", "").strip():
        try:
            found["extend"] = forms.FloatField(min_value=0, max_value=LONGEST).clean(seconds)
        except forms.ValidationError as error:
            why = " ".join(error.messages)
            raise BadQuestion(f"Seconds that results live longer: {why}") from None
    return found


def _restored(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    return {**_backup(store, data, given), **how_of(data)}


def _copied(store: Store, data: QueryDict, given: dict[str, Any]) -> Params:
    origin = data.get("from", "")
    if origin not in registry() or origin == given["store"]:
        raise BadQuestion("Choose another store to copy from.")
    return {"from": origin, **how_of(data)}


_READERS: dict[str, Callable[[Store, QueryDict, dict[str, Any]], Params]] = {
    "delete-agents": _agents,
    "delete-topic": _topic,
    "delete-results": _results,
    "delete-matching-results": _matching,
    "extend-results": _expiry,
    "delete-config": _keys,
    "set-config": _key,
    "clear": _what,
    "clean-up": _lines,
    "put-back": _bin,
    "back-up": _nothing,
    "verify-backup": _verified,
    "delete-backup": _backup,
    "save-rdb": _nothing,
    "restore": _restored,
    "copy-store": _copied,
}
