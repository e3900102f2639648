"""Actions: what would happen, to be confirmed, and the confirmation that starts a run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from omnidash import audit, bins, runs
from omnidash.actions import Action, Params, one
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.cleanup import BY_NAME
from omnidash.actions.plans import unpack
from omnidash.actions.records import expiry_of
from omnidash.asked import BadQuestion, params_of, refuse_elsewhere, run_of
from omnidash.asked import again as params_again
from omnidash.expiry import lives_until
from omnidash.htmx import from_htmx, page
from omnidash.meanings import beginning_of
from omnidash.models import Plan, Run
from omnidash.roles import person
from omnidash.stores import Entry, StoreRequest
from omnidash.sudo import require_recent
from omnidash.sums import by_kind, sums_of
from omnidash.views.wishes import TITLE_OF_LEVEL, WORDS_OF, choice_of, chosen_anew, of_choice
from storage.base import StoreDenied, StoreError, StoreUnavailable
from storage.changes import Target
from storage.patience import patience
from storage.records import to_text

_NAMED = 10  # records that the confirmation names


def act(request: StoreRequest, store: str, action: str, **given: Any) -> HttpResponseBase:
    """The confirmation of an action, and with a plan's token its start."""
    wanted = ACTIONS[action]
    return _answered(request, wanted, None, request.path, given)


def _answered(
    request: StoreRequest,
    wanted: Action,
    params: Params | None,
    address: str,
    given: dict[str, Any] | None = None,
) -> HttpResponseBase:
    """Its confirmation or its start, or why there is none. `params` None: what the request asks."""
    entry = request.entry
    asked = request.POST if request.method == "POST" else request.GET
    try:
        runs.require(request.user, wanted, entry)
        with patience(wanted.patience):
            if params is None and "plan" in asked:
                plan = _shown(request, wanted, asked["plan"])
                if anew := chosen_anew(json.loads(plan.params), request.POST):
                    return _to(request, f"{address}?{urlencode(anew)}")
            else:
                if params is None:
                    params = params_of(wanted, entry, asked, given or {})
                plan = runs.plan(person(request), wanted, entry, params)
            # What was shown is kept while the password is asked, and shown once more.
            back = f"{address}?{urlencode({'plan': plan.token})}"
            if wanted.sudo and (answer := require_recent(request, back)) is not None:
                return answer
            if request.method == "POST" and "plan" in asked:
                return _start(request, wanted, plan)
            return _confirm(request, wanted, plan, address)
    except runs.NotAllowed as error:
        audit.refused(request, wanted.name, str(error))
        return refusal(request, "You may not do this", str(error), 403)
    except runs.Refused as error:
        audit.refused(request, wanted.name, str(error))
        return refusal(request, "Not possible now", str(error), 409)
    except BadQuestion as error:
        return unclear(request, error)
    except StoreError as error:
        if isinstance(error, StoreUnavailable | StoreDenied):
            raise
        return refusal(request, "Not possible now", str(error), 409)


def again(request: StoreRequest, store: str) -> HttpResponseBase:
    """The confirmation of the same as an earlier run."""
    found = run_of(request.GET, store)
    if found is None or found.action not in ACTIONS or not found.digest:  # a refusal has none
        raise Http404
    params = params_again(found)
    if params is None:
        raise Http404
    try:
        refuse_elsewhere(found, request.entry.store)
    except BadQuestion as error:
        return unclear(request, error)
    address = reverse(found.action, args=[store, *([params["what"]] if "what" in params else [])])
    return _answered(request, ACTIONS[found.action], params, address)


def refusal(request: HttpRequest, title: str, why: str, status: int) -> HttpResponse:
    context = {"title": title, "why": why}
    return page(request, "actions/refusal.html", "actions/_refusal.html", context, status=status)


def unclear(request: HttpRequest, error: BadQuestion) -> HttpResponse:
    """What was asked for cannot be: its reason is all that there is to say."""
    return refusal(request, str(error).rstrip("."), "", 400)


def _confirm(
    request: StoreRequest,
    action: Action,
    plan: Plan,
    address: str,
    problem: str = "",
    status: int = 200,
) -> HttpResponse:
    entry, params = request.entry, json.loads(plan.params)
    targets = unpack(bytes(plan.content or b""))
    choice = choice_of(params)
    context = {
        "action": action,
        "plan": plan,
        "title": title_of(action, params, plan.count),
        "lines": details_of(action, of_choice(params) if choice else params)
        + _values(action, entry, params),
        "until": _until(action, entry, params, targets),
        "named": [] if action.summed else targets[:_NAMED],
        "more": len(targets) - _NAMED,
        "kinds": [] if action.summed else by_kind(targets),
        "destroys": action.destroys(targets),
        "backs_up_first": action.kept and action.typed,
        "stay": bool(targets) and all(one.stays for one in targets),
        "sums": sums_of(targets) if action.summed else None,
        "choice": choice,
        "left": plan.left,
        "warns": action.warns(entry.store, params, targets),
        "typing": entry.name if action.asks_typing(targets) else "",
        "typed": request.POST.get("typed", ""),
        "address": address,
        "problem": problem,
        "busy": entry.store.owned_by() if action.changes else "",
        "unproven": entry.store.owner_unproven() if action.changes else "",
        "too_large": action.kept and bins.too_large(plan.bytes),
        "bin_days": settings.OMNIDASH_BIN_DAYS,
        "back": _back(action, entry),
    }
    return page(request, "actions/confirm.html", "actions/_confirm.html", context, status=status)


def _until(
    action: Action, entry: Entry, params: Params, targets: Sequence[Target]
) -> tuple[float, float] | None:
    if action.name != "extend-results":
        return None
    return lives_until(entry.store, expiry_of(params), targets)


def _values(action: Action, entry: Entry, params: Params) -> list[tuple[str, str]]:
    """What a key holds, and what it is to hold."""
    if action.name != "set-config":
        return []
    (key,) = params["keys"]
    known = entry.store.config_entries([key])
    now = beginning_of(key, to_text(known[0].raw)) if known else "no such key yet"
    written = json.dumps(json.loads(params["text"]), ensure_ascii=False)
    return [("Value now", now), ("New value", beginning_of(key, written))]


_PAGES = {
    "delete-agents": "agents", "delete-topic": "agents", "set-config": "config",
    "delete-config": "config", "clean-up": "cleanup", "clear": "storage",
    "back-up": "backups", "verify-backup": "backups", "delete-backup": "backups",
    "save-rdb": "backups", "restore": "backups", "copy-store": "backups",
}  # fmt: skip
"""Where an action is usually asked for; of the others, results."""


def _back(action: Action, entry: Entry) -> str:
    if action.name == "put-back":
        return reverse("runs")
    return reverse(_PAGES.get(action.name, "results"), args=[entry.name])


def _shown(request: StoreRequest, action: Action, token: str) -> Plan:
    """The plan that this person was shown."""
    plan = Plan.objects.filter(
        token=token[:64].replace("\0", ""), user=person(request), action=action.name,
        store=request.entry.name,
    ).first()  # fmt: skip
    late = plan is not None and plan.made_at < time.time() - runs.PLANS_KEPT
    started = plan is not None and Run.objects.filter(plan=plan).exists()
    if plan is None or (late and not started):
        raise BadQuestion("What was shown is kept for an hour. Ask again, to see what is now.")
    if started and request.method != "POST":
        raise BadQuestion("That was confirmed already, and is in the log of runs.")
    return plan


def _start(request: StoreRequest, action: Action, plan: Plan) -> HttpResponseBase:
    known = Run.objects.filter(plan=plan).first()
    if known is None:
        problem = _missing(request, action, plan)
        if problem:
            return _confirm(request, action, plan, request.path, problem, status=422)
        if plan.content is None:
            raise BadQuestion("What was shown is kept no longer. Ask again, to see what is now.")
        known = runs.start(
            plan, person(request), request.META.get("REMOTE_ADDR", ""),
            vouched=_vouches(request), undoes=_undone(plan),
        )  # fmt: skip
    return _to(request, reverse("runs-one", args=[known.pk]))


def _to(request: HttpRequest, address: str) -> HttpResponseBase:
    """Another page, as a whole, for htmx too."""
    if from_htmx(request):
        return HttpResponse(status=204, headers={"HX-Redirect": address})
    return redirect(address)


def _undone(plan: Plan) -> Run | None:
    number = json.loads(plan.params).get("run")
    return Run.objects.filter(pk=number).first() if plan.action == "put-back" else None


def _missing(request: StoreRequest, action: Action, plan: Plan) -> str:
    """What the confirmation lacks; empty if nothing."""
    targets, store = unpack(bytes(plan.content or b"")), request.entry.store
    if action.asks_typing(targets) and request.POST.get("typed", "").strip() != request.entry.name:
        return "Type the name of the store as it is written."
    if not action.changes:
        return ""
    if store.owned_by():
        return "A running OmniDaemon would undo the change."
    if store.owner_unproven() and not _vouches(request):
        asked = "state it here" if _may_vouch(request) else "ask an administrator to do this"
        return f"It cannot be proven that OmniDaemon has stopped. If you know it, {asked}."
    if not plan.count or (targets and all(one.stays for one in targets)):
        return "There is nothing to do."
    return ""


def _vouches(request: StoreRequest) -> bool:
    """An administrator states that no OmniDaemon is at work."""
    return "vouched" in request.POST and _may_vouch(request)


def _may_vouch(request: StoreRequest) -> bool:
    return person(request).has_perm("omnidash.clear_store")


def title_of(action: Action, params: Params, count: int) -> str:
    """What the action does, with its number."""
    if action.counted is one:
        return TITLE_OF_LEVEL.get(params.get("level", ""), action.label)
    noun = action.object if count == 1 else f"{action.object}s"
    return f"{action.verb} {count:,} {noun}"


def details_of(action: Action, params: Params) -> list[tuple[str, str]]:
    """What was asked for, in words, for the confirmation and the log."""
    found: list[tuple[str, str]] = []
    if action.name == "extend-results":
        found.append(("New expiry", expiry_words(params)))
    for name, value in params.items():
        if name == "backup" and "file" in params:
            continue
        if name == "lines":
            titles = [BY_NAME[line].title for line in value if line in BY_NAME]
            found.append(("Lines", "; ".join(titles)))
        elif name == "vouched":
            found.append(("Stated", "no OmniDaemon uses this folder"))
        elif name == "what":
            found.append(("What", "configuration" if value == "config" else str(value)))
        elif name in _LIMITS:
            found.append((_LIMITS[name][0], f"{value:,.10g} {_LIMITS[name][1]}"))
        elif name in _SHOWN:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((_SHOWN[name], text))
        elif name in WORDS_OF:
            found.append((WORDS_OF[name][0], WORDS_OF[name][1](value)))
        elif name == "query":
            found += [(key.replace("_", " "), str(part)) for key, part in value.items()]
    return found


_SHOWN = {"topic": "Topic", "keys": "Keys"}
_LIMITS = {
    "days": ("Older than", "days"), "megabytes": ("Larger than", "MB"),
    "metric_days": ("Events older than", "days"), "newest": ("Kept", "newest events"),
}  # fmt: skip


def expiry_words(params: Params) -> str:
    if params.get("more"):
        return f"{params['more'] / 3600:g} h later than now set; without one, from now on"
    if params.get("at"):
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(params["at"]))
    return "none: kept for ever"
