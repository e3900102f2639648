"""Schedules: add, switch, delete. What can be scheduled is any action that `SCHEDULED` names; its
part of the form is read as the action itself reads it."""

from __future__ import annotations

import json
import time
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from omnidash import audit
from omnidash.actions import Params
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.cleanup import lines_of
from omnidash.asked import BadQuestion, limits_of, params_of
from omnidash.htmx import from_htmx, page
from omnidash.models import Run, Schedule
from omnidash.roles import person, reserved
from omnidash.schedules import DAYS, following, what, words
from omnidash.stores import Entry, StoreRequest
from omnidash.views.actions import refusal

SCHEDULED = {"clean-up": "cleanup", "back-up": "backups", "verify-backup": "backups"}
"""Actions that can be scheduled, each with the page where its schedules are."""

_INTERVALS = [("day", "daily"), ("week", "weekly"), ("hours", "every so many hours")]
_FIELDS = {"hours": ("hours",), "day": ("at", "zone"), "week": ("weekday", "at", "zone")}


class ScheduleForm(forms.Form):
    """When it is due. What belongs to another interval is hidden, so it is not looked at."""

    action = forms.ChoiceField(choices=[(name, name) for name in SCHEDULED])
    every = forms.ChoiceField(choices=Schedule.Every.choices)
    hours = forms.IntegerField(min_value=1, max_value=24 * 31, required=False)
    weekday = forms.IntegerField(min_value=0, max_value=6, required=False)
    at = forms.TimeField(required=False)
    zone = forms.CharField(max_length=64, required=False)

    def clean_zone(self) -> str:
        zone = str(self.cleaned_data.get("zone") or "UTC")
        if zone not in available_timezones():
            raise forms.ValidationError("There is no such time zone; one is Europe/Berlin.")
        return zone

    def clean(self) -> None:
        used = _FIELDS.get(self.cleaned_data.get("every", ""), ())
        for name in {"hours", "weekday", "at", "zone"}.difference(used):
            self.errors.pop(name, None)

    @property
    def values(self) -> dict[str, Any]:
        at = self.cleaned_data.get("at")
        return {
            "every": self.cleaned_data["every"],
            "hours": self.cleaned_data.get("hours") or 24,
            "weekday": self.cleaned_data.get("weekday") or 0,
            "minute": at.hour * 60 + at.minute if at else 180,
            "zone": self.cleaned_data.get("zone") or "UTC",
        }


_NEW = {"every": "day", "hours": "24", "weekday": "0", "at": "03:00", "zone": "UTC"}


def when_of(data: QueryDict) -> dict[str, Any]:
    """The context of the form of a new schedule, as far as `data` fills it in."""
    return {
        "new": {name: data.get(name, value) for name, value in _NEW.items()},
        "intervals": _INTERVALS,
        "days": list(enumerate(DAYS)),
    }


def form_of(entry: Entry, data: QueryDict, limits: Params) -> dict[str, Any]:
    """The same, of a schedule of the cleanup."""
    return {
        **when_of(data),
        "chosen": data.getlist("line"),
        "lines": [
            (line, data.get(line.asks) or f"{limits[line.asks]:.10g}" if line.asks else "")
            for line in lines_of(entry.store)
        ],
    }


def listed(store: str, page: str) -> list[tuple[Schedule, str, str]]:
    """Those that are shown on a page, each with what it does, and when."""
    names = [name for name, place in SCHEDULED.items() if place == page]
    found = Schedule.objects.filter(store=store, action__in=names)
    return [
        (one, what(one), words(one))
        for one in found.order_by("pk").select_related("last_run", "user")
    ]


def _refused(request: StoreRequest) -> HttpResponse | None:
    if not request.user.has_perm("omnidash.edit_schedules"):
        why = reserved("Changing schedules", "edit_schedules")
        audit.refused(request, "edit-schedules", why)
        return refusal(request, "You may not do this", why, 403)
    if request.entry.read_only:
        audit.refused(request, "edit-schedules", request.entry.read_only)
        return refusal(request, "Not possible now", request.entry.read_only, 409)
    return None


@require_POST
def save(request: StoreRequest, store: str) -> HttpResponse:
    """Add one, or switch or delete the one that is named."""
    if (answer := _refused(request)) is not None:
        return answer
    if "schedule" in request.POST:
        return _change(request)
    form, problem = ScheduleForm(request.POST), ""
    if form.is_valid():
        action = form.cleaned_data["action"]
        try:
            params = params_of(ACTIONS[action], request.entry, request.POST, {})
        except BadQuestion as error:
            problem = str(error)
        else:
            _add(request, action, params, form)
            return _back(request, action)
    return _corrected(request, form, problem)


def _corrected(request: StoreRequest, form: ScheduleForm, problem: str) -> HttpResponse:
    """The form again, with what is wrong."""
    place = SCHEDULED.get(request.POST.get("action", ""), "cleanup")
    context = {"form": form, "problem": problem, "chosen_action": request.POST.get("action")}
    if place == "cleanup":
        limits = limits_of(request.POST).values(request.entry.counts())
        context |= form_of(request.entry, request.POST, limits)
    else:
        context |= when_of(request.POST)
    part = f"{place}/_schedule_form.html"
    return page(request, f"{place}/schedule.html", part, context, 422)


def _add(request: StoreRequest, action: str, params: Params, form: ScheduleForm) -> None:
    made = Schedule(
        store=request.entry.name, action=action, params=json.dumps(params), user=person(request),
        next_at=0, **form.values,
    )  # fmt: skip
    made.next_at = following(made, time.time())
    made.save()
    _note(request, made, "added")


def delete(request: StoreRequest, store: str) -> HttpResponse:
    """The confirmation of deleting one; what it posts goes to `save`."""
    if (answer := _refused(request)) is not None:
        return answer
    found = _named(request.GET, store)
    if found is None:
        raise Http404
    context = {
        "schedule": found, "what": what(found), "when": words(found),
        "back": reverse(SCHEDULED[found.action], args=[store]),
    }  # fmt: skip
    return page(request, "cleanup/delete.html", "cleanup/_delete.html", context)


def _named(data: QueryDict, store: str) -> Schedule | None:
    number = data.get("schedule", "")
    return Schedule.objects.filter(
        pk=int(number) if number.isdecimal() and len(number) < 19 else 0, store=store
    ).first()


def _change(request: StoreRequest) -> HttpResponse:
    found = _named(request.POST, request.entry.name)
    if found is None:  # somebody else was quicker
        return _back(request, "clean-up")
    match request.POST.get("do"):
        case "delete":
            _note(request, found, "deleted")
            found.delete()
        case "off":
            Schedule.objects.filter(pk=found.pk).update(enabled=False)
            _note(request, found, "switched off")
        case "on":
            Schedule.objects.filter(pk=found.pk).update(
                enabled=True, next_at=following(found, time.time())
            )
            _note(request, found, "switched on")
    return _back(request, found.action)


def _back(request: HttpRequest, action: str) -> HttpResponse:
    address = reverse(SCHEDULED[action], args=[request.entry.name])  # type: ignore[attr-defined]
    if from_htmx(request):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return redirect(address)


def _note(request: StoreRequest, schedule: Schedule, told: str) -> None:
    """Schedules do things later in somebody's name, so the log tells who made them."""
    now = time.time()
    Run.objects.create(
        action="edit-schedules", store=schedule.store, address=request.entry.store.address,
        who=person(request).get_username(), user=person(request), state=Run.State.DONE,
        origin=request.META.get("REMOTE_ADDR", ""), params=schedule.params,
        message=f"{what(schedule)}, {words(schedule)}: {told}.", created_at=now, ended_at=now,
    )  # fmt: skip
