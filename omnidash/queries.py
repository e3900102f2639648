"""Queries of addresses, checked: a value that cannot be is named and left out, never an error."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, TypeVar

from django import forms
from django.http import QueryDict

from omnidash.charts import ALL, ERRORS, Chart
from omnidash.health import STATES
from omnidash.history.answers import Whom
from omnidash.history.levels import DAY, HOUR, KEEP, MINUTE, Span, last, span
from omnidash.models import Run
from omnidash.text import from_ref
from storage.base import RecordNotFound, Store
from storage.records import LATEST

PAGE_ROWS = 50
LONGEST_FILTER = 1000  # characters of a name to filter by
_LAST_PAGE = 100_000
FormT = TypeVar("FormT", bound="Query")


class Query(forms.Form):
    """A page's query. `value` answers what was asked for, or the default of the field."""

    page = forms.IntegerField(required=False, min_value=1, max_value=_LAST_PAGE)
    format = forms.ChoiceField(required=False, choices=[("csv", "CSV"), ("json", "JSON")])
    defaults: dict[str, Any] = {}

    @classmethod
    def read(cls: type[FormT], params: QueryDict) -> FormT:
        form = cls(params)
        form.full_clean()
        return form

    def value(self, name: str) -> Any:
        found = self.cleaned_data.get(name)
        return self.defaults.get(name, "") if found in (None, "") else found

    @property
    def offset(self) -> int:
        return ((self.value("page") or 1) - 1) * PAGE_ROWS

    @property
    def filters(self) -> list[tuple[str, str]]:
        """What narrows the list: parameters as they were asked for."""
        neutral = {
            "page", "format", "order", "deep", "range", "from", "to", "compare", "draw", "of",
        }  # fmt: skip
        found = self.cleaned_data.items()
        return [(name, self.data[name]) for name, value in found if value and name not in neutral]

    @property
    def ignored(self) -> list[str]:
        """What is wrong with the query, by parameter."""
        return [f"{name}: {' '.join(map(str, messages))}" for name, messages in self.errors.items()]


class AgentsQuery(Query):
    q = forms.CharField(required=False, max_length=128)
    topic = forms.CharField(required=False, max_length=LONGEST_FILTER, strip=False)
    tool = forms.CharField(required=False, max_length=200, strip=False)
    state = forms.ChoiceField(required=False, choices=[(word, word) for word in STATES])
    order = forms.ChoiceField(
        required=False,
        choices=[("topic", "by topic"), ("name", "by name"), ("-name", "by name, backwards"),
                 ("newest", "newest registration"), ("-newest", "oldest registration")],
    )  # fmt: skip
    defaults = {"order": "topic"}


class ResultsQuery(Query):
    q = forms.CharField(required=False, max_length=128)
    agent = forms.CharField(required=False, max_length=LONGEST_FILTER, strip=False)
    topic = forms.CharField(required=False, max_length=LONGEST_FILTER, strip=False)
    status = forms.CharField(required=False, max_length=100, strip=False)
    within = forms.IntegerField(required=False, min_value=1, max_value=60 * 24 * 366)
    expires_from = forms.IntegerField(required=False, min_value=1, max_value=int(LATEST))
    expires_before = forms.IntegerField(required=False, min_value=1, max_value=int(LATEST))
    life = forms.ChoiceField(
        required=False,
        choices=[("forever", "no expiry"), ("expired", "expired, still on disk"),
                 ("unreadable", "unreadable")],
    )  # fmt: skip
    order = forms.ChoiceField(
        required=False, choices=[("newest", "newest first"), ("expiring", "soonest to expire")]
    )
    deep = forms.BooleanField(required=False)
    defaults = {"order": "newest"}

    def clean(self) -> None:
        start, end = self.expires
        if start is not None and end is not None and start >= end:
            self.add_error("expires_from", "There is no time between this and expires_before.")
            self.add_error("expires_before", "It is not later than expires_from.")

    @property
    def expires(self) -> tuple[int | None, int | None]:
        """From and before, in Unix seconds."""
        return self.cleaned_data.get("expires_from"), self.cleaned_data.get("expires_before")


RANGES = {
    "15m": 15 * MINUTE, "1h": HOUR, "6h": 6 * HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY,
}  # fmt: skip


class RangeQuery(Query):
    """A range of time: one that ends now, or any from-to (ISO 8601; without a zone in UTC)."""

    topic = forms.CharField(required=False, max_length=LONGEST_FILTER, strip=False)
    agent = forms.CharField(required=False, max_length=LONGEST_FILTER, strip=False)
    of = forms.CharField(required=False, max_length=3000)
    """The address segment of one agent (`text.ref`), whose names may be empty or odd."""
    range = forms.ChoiceField(required=False, choices=[(name, name) for name in RANGES])
    to = forms.DateTimeField(required=False)
    defaults = {"range": "1h"}

    def whom(self, store: Store) -> Whom:
        """RecordNotFound if it is of one agent that cannot be."""
        address = self.cleaned_data.get("of")
        if address:
            return Whom(*_agent(address, store))
        return Whom(self.cleaned_data.get("topic") or None, self.cleaned_data.get("agent") or None)

    def span(self, now: float, until: float | None = None) -> Span:
        """As it is now, or as it was at the moment `until`."""
        until = now if until is None else until
        length, compared = RANGES[self.value("range")], bool(self.value("compare"))
        start, end = self.moment("from"), self.moment("to")
        if start is None and end is None:
            return last(length, now, compared=compared, until=until)
        end = min(end or until, until)
        start = min(start if start is not None else end - length, end)
        return span(start, end, now, compared=compared)

    def clean(self) -> None:
        now = time.time()
        start, end = self.moment("from"), self.moment("to")
        if start is not None and start >= now:
            self.add_error("from", "It lies ahead.")
        elif start is not None and start < now - KEEP[DAY]:
            self.add_error("from", "Nothing is kept for longer than two years.")
        if end is not None and end <= (start if start is not None else now - KEEP[DAY]):
            self.add_error("to", "There is no time before it.")

    def written(self, name: str) -> str:
        """A moment as its field takes it."""
        found = self.cleaned_data.get(name)
        return found.strftime("%Y-%m-%dT%H:%M:%S") if found else ""

    @property
    def from_written(self) -> str:
        return self.written("from")

    @property
    def to_written(self) -> str:
        return self.written("to")

    def moment(self, name: str) -> float | None:
        found = self.cleaned_data.get(name)
        return found.timestamp() if found else None

    @property
    def chosen(self) -> str:
        """The name of the range, empty for a from-to."""
        named = not self.cleaned_data.get("from") and not self.cleaned_data.get("to")
        return self.value("range") if named else ""

    def of_charts(self, *more: str) -> str:
        """The query of the charts over this range: what tells it, and fields of these names."""
        found = QueryDict(mutable=True)
        for name in ("from", "to", "topic", "agent", "of", *more):
            if self.cleaned_data.get(name):
                found[name] = self.data[name]
        found["range"] = self.value("range")
        return found.urlencode()


def _agent(address: str, store: Store) -> tuple[str, ...]:
    try:
        names = from_ref(address, 2, store.long_agents)
    except ValueError:
        names = None
    if names is None:
        raise RecordNotFound("there is no such agent")
    return names


# A field called as a word of the language cannot be written as the others.
RangeQuery.base_fields["from"] = forms.DateTimeField(required=False)


class MetricsQuery(RangeQuery):
    compare = forms.BooleanField(required=False)
    draw = forms.CharField(required=False, max_length=200)
    """The kinds of the charts whose points are asked for, by commas; all if empty."""
    order = forms.ChoiceField(
        required=False,
        choices=[(name, name) for name in
                 ("topic", "agent", "ended", "received", "processed", "failed", "p95", "max",
                  "last_seen")],
    )  # fmt: skip
    defaults = {**RangeQuery.defaults, "order": "ended"}

    @property
    def charts(self) -> tuple[Chart, ...]:
        kinds = self.value("draw").split(",")
        return tuple(chart for chart in (*ALL, ERRORS) if chart.kind in kinds) or ALL


class PointsQuery(MetricsQuery):
    """What charts draw; of the kinds of failure those that hold the text `q`."""

    q = forms.CharField(required=False, max_length=128)


class ErrorsQuery(RangeQuery):
    q = forms.CharField(required=False, max_length=128)
    order = forms.ChoiceField(
        required=False, choices=[("count", "most frequent first"), ("newest", "newest first")]
    )
    defaults = {"range": "24h", "order": "count"}


class ConfigQuery(Query):
    q = forms.CharField(required=False, max_length=128)


class RunsQuery(Query):
    """The audit log's. `from` and `to` as those of a range."""

    action = forms.CharField(required=False, max_length=40)
    who = forms.CharField(required=False, max_length=150)
    store = forms.CharField(required=False, max_length=100)
    state = forms.ChoiceField(required=False, choices=Run.State.choices)
    to = forms.DateTimeField(required=False)


RunsQuery.base_fields["from"] = forms.DateTimeField(required=False)


class StorageQuery(Query):
    """`table` is the one of the page's that is to be downloaded."""

    table = forms.ChoiceField(
        required=False, choices=[("facts", "facts"), ("unreadable", "unreadable records")]
    )
    defaults = {"table": "unreadable"}


@dataclass(frozen=True, slots=True)
class Pager:
    """Where a part of a list lies in it, and the pages beside it. `total` None is unknown."""

    offset: int
    shown: int
    total: int | None

    @property
    def first(self) -> int:
        return self.offset + 1

    @property
    def last(self) -> int:
        return self.offset + self.shown

    @property
    def previous(self) -> int | None:
        return self.offset // PAGE_ROWS or None

    @property
    def following(self) -> int | None:
        further = self.shown == PAGE_ROWS if self.total is None else self.last < self.total
        return self.offset // PAGE_ROWS + 2 if further and self.shown else None
