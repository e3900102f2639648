"""The audit log: every run, what was refused, and one run with its progress and its report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from omnidash import audit, bins
from omnidash import runs as execution
from omnidash.actions.catalogue import ACTIONS
from omnidash.actions.plans import unpack
from omnidash.asked import again as params_again
from omnidash.backups.reports import path_of_report
from omnidash.downloads import Columns, download, moment
from omnidash.htmx import page, wants_part
from omnidash.models import Run
from omnidash.queries import PAGE_ROWS, Pager, RunsQuery
from omnidash.roles import reserved
from omnidash.sections import Sections
from omnidash.stores import registry
from omnidash.sums import sums_of
from omnidash.views.actions import details_of, refusal, title_of
from storage.changes import Target

_LABELS = {**audit.KINDS, **{action.name: action.label for action in ACTIONS.values()}}
_SHOWN = 20  # records of a run on its page
_WAITS = 15.0  # seconds after which a queued run has no worker, it seems


def runs(request: HttpRequest) -> HttpResponseBase:
    if (answer := _refused(request)) is not None:
        return answer
    asked = RunsQuery.read(request.GET)
    found = _matching(asked)
    _beside(request, asked.value("store"))
    if asked.value("format"):
        return download(request, "runs", _COLUMNS, found.iterator(chunk_size=500))
    total = found.count()
    rows = list(found[asked.offset : asked.offset + PAGE_ROWS])
    context = {
        "asked": asked,
        "rows": [Row.of(run) for run in rows],
        "pager": Pager(asked.offset, len(rows), total),
        "actions": sorted(_LABELS.items(), key=lambda item: item[1]),
        "states": Run.State.values,
        "stores": list(registry()),
    }
    return page(request, "runs/index.html", "runs/_table.html", context)


def _refused(request: HttpRequest) -> HttpResponse | None:
    if request.user.has_perm("omnidash.view_run"):
        return None
    why = reserved("The log of runs", "view_run")
    audit.refused(request, "view-runs", why)
    _beside(request, "")
    return refusal(request, "You may not see this", why, 403)


def _beside(request: HttpRequest, store: str) -> None:
    """The frame around the page is that of this store, or of the first, whose marks then are not
    the page's."""
    entries = registry()
    request.of_store = store in entries  # type: ignore[attr-defined]
    request.beside = entries.get(store) or next(iter(entries.values()))  # type: ignore[attr-defined]


def _matching(asked: RunsQuery) -> QuerySet[Run]:
    found = Run.objects.order_by("-created_at", "-pk").defer("report")
    for name in ("action", "who", "store", "state"):
        if asked.cleaned_data.get(name):
            found = found.filter(**{name: asked.cleaned_data[name]})
    if asked.cleaned_data.get("from"):
        found = found.filter(created_at__gte=asked.cleaned_data["from"].timestamp())
    if asked.cleaned_data.get("to"):
        found = found.filter(created_at__lt=asked.cleaned_data["to"].timestamp())
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """A run as listed."""

    run: Run
    title: str
    details: list[tuple[str, str]]
    said: str
    """Its message without the count that stands beside it."""

    @classmethod
    def of(cls, run: Run) -> Row:
        action = ACTIONS.get(run.action)
        counted = f"{run.done:,} of {run.total:,} done"
        said = run.message.removeprefix(counted).removeprefix("; ").removeprefix(".")
        if action is None or run.state == Run.State.REFUSED:
            return cls(run, _LABELS.get(run.action, run.action), [], said)
        params = json.loads(run.params)
        return cls(run, title_of(action, params, run.total), details_of(action, params), said)


_COLUMNS: Columns[Run] = {
    "run": lambda run: run.pk,
    "asked_at": lambda run: moment(run.created_at),
    "action": lambda run: run.action,
    "store": lambda run: run.store or None,
    "address": lambda run: run.address or None,
    "who": lambda run: run.who,
    "from": lambda run: run.origin or None,
    "state": lambda run: run.state,
    "done": lambda run: run.done,
    "skipped": lambda run: run.skipped,
    "total": lambda run: run.total,
    "size_bytes": lambda run: run.bytes,
    "message": lambda run: run.message,
    "parameters": lambda run: json.loads(run.params),
    "started_at": lambda run: moment(run.started_at),
    "ended_at": lambda run: moment(run.ended_at),
}


def run(request: HttpRequest, number: int) -> HttpResponseBase:
    if (answer := _refused(request)) is not None:
        return answer
    now = time.time()
    found = Run.objects.select_related("plan", "undoes").filter(pk=number).first()
    if found is None:
        raise Http404
    if execution.is_dead(found, now):  # the clock would note it, too, but who looks is told now
        execution.note_interrupted(now)
        found.refresh_from_db()
    if execution.is_dead(found, now):
        found.state = Run.State.INTERRUPTED
        found.message = "Its worker ended in the middle; the store cannot tell yet what was done."
    _beside(request, found.store)
    report = json.loads(found.report)
    if request.GET.get("format") == "report":
        return _report(found, report)
    if request.GET.get("format") in ("csv", "json"):
        return download(request, f"run-{number}", _RECORD_COLUMNS, records_of(found))
    unfinished = found.state in Run.UNFINISHED
    if not unfinished and found.store in registry():  # for the side bar: it has changed them
        Sections().read("counts", partial(registry()[found.store].counts, max_age=0), None)
    if unfinished and wants_part(request):
        shown: list[Record] = []
    else:
        shown = [record for record, _ in zip(records_of(found), range(_SHOWN), strict=False)]
    action = ACTIONS.get(found.action)
    summed = action is not None and action.summed
    context = {
        "row": Row.of(found),
        "run": found,
        "label": _LABELS.get(found.action, found.action),
        "unfinished": unfinished,
        "share": _share(found, report),
        "step": report.get("step") if unfinished else None,
        "waits": found.state == Run.State.QUEUED and now - found.created_at > _WAITS,
        "report": report,
        "has_report": _report_path(report) is not None,
        "records": [] if summed else shown,
        "sums": sums_of(_targets(found)) if summed else None,
        "made": list(found.backups.filter(store__in=registry()).order_by("made_at")),
        "further": len(shown) == _SHOWN,
        "can_put_back": _can_put_back(request, found),
        "can_again": _can_again(request, found),
        "undone_by": list(found.undone_by.order_by("pk")),
        "kept_until": bins.kept_until(found),
    }  # fmt: skip
    return page(request, "runs/run.html", "runs/_run.html", context)


def _share(found: Run, report: dict[str, Any]) -> int:
    """Of a hundred; of the step that a run is at, if it takes steps. What was skipped counts only
    as long as it goes on."""
    done, total = found.done, found.total
    if found.state in Run.UNFINISHED:
        done += found.skipped
    if found.state in Run.UNFINISHED and "step" in report:
        _, done, total = report["step"]
    return min(100, 100 * done // total) if total else 0


def _report_path(report: dict[str, Any]) -> Path | None:
    return path_of_report(report["file"]) if "file" in report else None


def _report(found: Run, report: dict[str, Any]) -> HttpResponseBase:
    """The file that tells of each record of a restore."""
    path = _report_path(report)
    if path is None:
        raise Http404
    return FileResponse(
        path.open("rb"), as_attachment=True, filename=f"run-{found.pk}.csv.gz",
        content_type="application/gzip",
    )  # fmt: skip


def _targets(found: Run) -> list[Target]:
    """As long as they are kept."""
    if found.plan is None or found.plan.content is None:
        return []
    return unpack(bytes(found.plan.content))


def _can_again(request: HttpRequest, found: Run) -> bool:
    """Where it can do more than before: the rest, or what it skipped."""
    action = ACTIONS.get(found.action)
    return bool(
        action is not None
        and found.digest
        and found.state not in Run.UNFINISHED
        and params_again(found) is not None
        and (found.state != Run.State.DONE or found.skipped)
        and found.store in registry()
        and request.user.has_perm(f"omnidash.{action.permission}")
    )


def _can_put_back(request: HttpRequest, found: Run) -> bool:
    return bool(
        found.bin
        and found.state not in Run.UNFINISHED
        and found.store in registry()
        and request.user.has_perm("omnidash.put_back")
        and not found.undone_by.filter(state=Run.State.DONE, done__gt=0).exists()
    )


_KINDS = {
    "config": "key", "entry": "index entry", "hash": "agent's record",
    "member": "agent's name", "metrics": "metric events",
}  # fmt: skip
"""Kinds of records that their names do not tell."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a run, and what became of it."""

    target: Target
    outcome: str

    @property
    def kind(self) -> str:
        return _KINDS.get(self.target.kind, self.target.kind)


def records_of(found: Run) -> Iterator[Record]:
    """They were done in this order, so what was reached is told by the
    numbers."""
    action = ACTIONS.get(found.action)
    if action is not None and action.summed:
        yield from (Record(target, "") for target in _targets(found))
        return
    report = json.loads(found.report)
    skipped = {tuple(names): why for names, why in report.get("named", [])}
    done = "done" if found.skipped <= len(skipped) else "done, or skipped (the log names 1,000)"
    sure = found.state not in (Run.State.FAILED, Run.State.INTERRUPTED)
    rest = "not touched" if sure else "not touched, or in the batch at which it ended"
    reached, place = found.done + found.skipped, 0
    for target in _targets(found):
        place += target.count
        if target.names in skipped:
            outcome = skipped[target.names]
        elif found.state in Run.UNFINISHED:
            outcome = ""
        else:
            outcome = done if place <= reached else rest
        yield Record(target, outcome)


_RECORD_COLUMNS: Columns[Record] = {
    "kind": lambda record: record.target.kind,
    "names": lambda record: list(record.target.names),
    "size_bytes": lambda record: record.target.size,
    "outcome": lambda record: record.outcome or None,
}


@require_POST
def stop(request: HttpRequest, number: int) -> HttpResponse:
    """Who may start an action may stop a run of it."""
    found = Run.objects.filter(pk=number).first()
    if found is None:
        raise Http404
    action = ACTIONS.get(found.action)
    if action is None or not request.user.has_perm(f"omnidash.{action.permission}"):
        why = reserved(f"Stopping run {number}", action.permission if action else "clear_store")
        audit.refused(request, "stop-run", why)
        _beside(request, found.store)
        return refusal(request, "You may not do this", why, 403)
    execution.ask_to_stop(found, request.user.get_username())
    return redirect("runs-one", number)
