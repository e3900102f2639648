"""Queries of addresses, checked: a value that cannot be is named and left out, never an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from django import forms
from django.http import QueryDict

from omnidash.health import STATES
from storage.records import LATEST

PAGE_ROWS = 50
_LAST_PAGE = 100_000
FormT = TypeVar("FormT", bound="Query")


class Query(forms.Form):
    """A page's query. `value` answers what was asked for, or the default of the field."""

    page = forms.IntegerField(required=False, min_value=1, max_value=_LAST_PAGE)
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
    def filters(self) -> bool:
        """Whether anything narrows the list."""
        neutral = {"page", "order", "deep"}
        return any(found for name, found in self.cleaned_data.items() if name not in neutral)

    @property
    def ignored(self) -> list[str]:
        """What is wrong with the query, by parameter."""
        return [f"{name}: {' '.join(map(str, messages))}" for name, messages in self.errors.items()]


class AgentsQuery(Query):
    q = forms.CharField(required=False, max_length=128)
    topic = forms.CharField(required=False, max_length=1000, strip=False)
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
    agent = forms.CharField(required=False, max_length=1000, strip=False)
    topic = forms.CharField(required=False, max_length=1000, strip=False)
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


class MetricsQuery(Query):
    topic = forms.CharField(required=False, max_length=1000, strip=False)
    agent = forms.CharField(required=False, max_length=1000, strip=False)
    order = forms.ChoiceField(
        required=False,
        choices=[(name, name) for name in
                 ("topic", "agent", "received", "processed", "failed", "p95", "max", "last_seen")],
    )  # fmt: skip
    defaults = {"order": "topic"}


class ConfigQuery(Query):
    q = forms.CharField(required=False, max_length=128)


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
