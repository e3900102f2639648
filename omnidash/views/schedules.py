"""Schedules of the cleanup: add, switch, delete."""

from __future__ import annotations

import json
import time
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from omnidash import audit
from omnidash.actions.catalogue import ACTIONS
from omnidash.asked import BadQuestion, params_of
from omnidash.models import Run, Schedule
from omnidash.roles import person
from omnidash.schedules import following, words
from omnidash.stores import StoreRequest
from omnidash.views.actions import refusal


class ScheduleForm(forms.Form):
    every = forms.ChoiceField(choices=Schedule.Every.choices)
    hours = forms.IntegerField(min_value=1, max_value=24 * 31, required=False)
    weekday = forms.IntegerField(min_value=0, max_value=6, required=False)
    at = forms.TimeField(required=False)
    zone = forms.CharField(max_length=64, required=False)

    def clean_zone(self) -> str:
        zone = str(self.cleaned_data.get("zone") or "UTC")
        if zone not in available_timezones():
            raise forms.ValidationError("There is no such time zone.")
        return zone

    @property
    def values(self) -> dict[str, Any]:
        at = self.cleaned_data.get("at")
        return {
            "every": self.cleaned_data["every"],
            "hours": self.cleaned_data.get("hours") or 24,
            "weekday": self.cleaned_data.get("weekday") or 0,
            "minute": at.hour * 60 + at.minute if at else 180,
            "zone": self.cleaned_data["zone"],
        }


@require_POST
def save(request: StoreRequest, store: str) -> HttpResponse:
    """Add one, or switch or delete the one that is named."""
    if not request.user.has_perm("omnidash.edit_schedules"):
        audit.refused(request, "edit-schedules", "needs the permission edit_schedules")
        return refusal(request, "You may not do this", "Schedules are for administrators.", 403)
    if request.entry.read_only:
        audit.refused(request, "edit-schedules", request.entry.read_only)
        return refusal(request, "Not possible now", request.entry.read_only, 409)
    if "schedule" in request.POST:
        return _change(request)
    form = ScheduleForm(request.POST)
    if not form.is_valid():
        why = "; ".join(f"{name}: {' '.join(map(str, found))}"
                        for name, found in form.errors.items())  # fmt: skip
        return refusal(request, "That is no schedule", why, 422)
    try:
        params = params_of(ACTIONS["clean-up"], request.entry, request.POST, {})
    except BadQuestion as error:
        return refusal(request, "That cannot be asked", str(error), 400)
    made = Schedule(
        store=store, action="clean-up", params=json.dumps(params), user=person(request), next_at=0,
        **form.values,
    )  # fmt: skip
    made.next_at = following(made, time.time())
    made.save()
    _note(request, made, "added")
    return redirect("cleanup", store)


def _change(request: StoreRequest) -> HttpResponse:
    number = request.POST["schedule"]
    found = Schedule.objects.filter(
        pk=int(number) if number.isdecimal() and len(number) < 19 else 0, store=request.entry.name
    ).first()
    if found is not None:
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
    return redirect("cleanup", request.entry.name)


def _note(request: StoreRequest, schedule: Schedule, what: str) -> None:
    """Schedules do things later in somebody's name, so the log tells who made them."""
    now = time.time()
    lines = ", ".join(json.loads(schedule.params)["lines"])
    Run.objects.create(
        action="edit-schedules", store=schedule.store, address=request.entry.store.address,
        who=person(request).get_username(), user=person(request), state=Run.State.DONE,
        origin=request.META.get("REMOTE_ADDR", ""), params=schedule.params,
        message=f"Clean up {lines}, {words(schedule)}: {what}.", created_at=now, ended_at=now,
    )  # fmt: skip
