"""Backups: what there is of a store, one of them with its files, and downloads."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.messages import get_messages
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.db.models import Sum
from django.http import FileResponse, Http404, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_POST, require_safe

from omnidash import audit
from omnidash.actions.catalogue import ACTIONS
from omnidash.backups import (
    BackupError,
    counts_of,
    open_to,
    path_of,
    receive,
    refused_elsewhere,
    second,
)
from omnidash.bins import MEGABYTE
from omnidash.htmx import page, wants_part
from omnidash.models import Backup, Run, Schedule
from omnidash.originals import Original, original, originals
from omnidash.protection import bad_because, protection_of
from omnidash.queries import PAGE_ROWS, Pager, Query
from omnidash.roles import person
from omnidash.schedules import words
from omnidash.sections import Sections
from omnidash.stores import Entry, StoreRequest, registry
from omnidash.sums import NOUNS
from omnidash.text import printable
from omnidash.uploads import Quota
from omnidash.views.actions import refusal, title_of
from omnidash.views.schedules import listed, when_of
from storage.base import Fact, StoreError
from storage.changes import Kind
from storage.records import LATEST, moment
from storage.snapshots import Section

ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)
_ID = re.compile(r"[0-9a-f]{32}")
_SCHEDULED = ("back-up", "verify-backup")
_RUNS = 20  # that the page of one backup lists
_LISTED = tuple(NOUNS)[:4]
"""The kinds that people look for; of the others only the page of one backup tells."""


@dataclass(frozen=True, slots=True)
class KindRow:
    """What a backup holds of one kind; None where that is not known. `took` seconds."""

    name: str
    count: int | None
    section: Section | None

    @property
    def noun(self) -> str:
        return NOUNS.get(self.name, self.name)

    @property
    def took(self) -> float | None:
        return self.section.ended - self.section.began if self.section else None


@dataclass(frozen=True, slots=True)
class Row:
    """A backup as listed; `bad`: why it cannot be trusted."""

    backup: Backup
    kinds: list[KindRow]
    bad: str

    @classmethod
    def of(cls, backup: Backup) -> Row:
        counts = counts_of(backup)
        known = bool(counts) or backup.checked == Backup.State.GOOD
        sections: dict[str, Section] = {one.kind: one for one in _sections(backup)}
        kinds = [
            KindRow(kind, counts.get(kind, 0) if known else None, sections.get(kind))
            for kind in dict.fromkeys([*counts, *sections])
        ]
        return cls(backup, kinds, bad_because(backup))

    @property
    def named(self) -> list[KindRow]:
        return [kind for kind in self.kinds if kind.name in _LISTED]

    @property
    def refused(self) -> str:
        """Why another OmniDash would refuse it; empty if it would not."""
        return refused_elsewhere(self.backup)

    @property
    def others(self) -> int:
        """Records of the kinds that are not named; files are none."""
        kinds = [kind for kind in self.kinds if kind.name not in (*_LISTED, "file")]
        return sum(kind.count or 0 for kind in kinds)

    @property
    def notes(self) -> list[str]:
        """What is stored and not among the records."""
        notes = [kind.section.note for kind in self.kinds if kind.section and kind.section.note]
        return list(dict.fromkeys(notes))

    @property
    def consistency(self) -> str:
        """In one word, that of the least consistent kind; empty if nothing is known."""
        said = {kind.section.consistency for kind in self.kinds if kind.section}
        return "fuzzy" if "fuzzy" in said else "point in time" if said else ""


def _sections(backup: Backup) -> Iterator[Section]:
    """As far as they are any: an upload says of itself what it likes."""
    for one in json.loads(backup.sections):
        match one:
            case [str(kind), "point-in-time" | "fuzzy" as said, began, ended, *rest]:
                times = (moment(began), moment(ended))
                note = rest[0] if rest and isinstance(rest[0], str) else ""
                if all(isinstance(at, float) and at < LATEST for at in times):
                    yield Section(cast(Kind, kind), said, float(began), float(ended), note)


def backups(request: StoreRequest, store: str) -> HttpResponse:
    """The list is ours, and stands while the store is down."""
    entry, asked, now = request.entry, Query.read(request.GET), time.time()
    found = open_to(entry.name)
    rows = list(found[asked.offset : asked.offset + PAGE_ROWS])
    protection = protection_of(entry.name)
    due = Schedule.objects.filter(store=entry.name, action="back-up", enabled=True)
    scheduled = due.order_by("next_at").first()
    context = {
        "asked": asked,
        "rows": [Row.of(one) for one in rows],
        "pager": Pager(asked.offset, len(rows), found.count()),
        "size": found.aggregate(size=Sum("size"))["size"] or 0,
        "protection": protection,
        "newest_bad": bad_because(protection.newest) if protection.newest else "",
        "old": protection.is_old(now),
        "scheduled": scheduled,
        "scheduled_words": words(scheduled) if scheduled else "",
        # Told once, and not to the part of the page that refreshes itself.
        "not_taken": "" if wants_part(request) else " ".join(map(str, get_messages(request))),
        "folder": settings.OMNIDASH_BACKUP_DIR,
        **({} if wants_part(request) else _around(entry)),
    }
    return page(request, "backups/index.html", "backups/_board.html", context)


def _around(entry: Entry) -> dict[str, Any]:
    """What the cards below the list say."""
    sections, keep = Sections(), settings.OMNIDASH_BACKUP_KEEP
    return {
        "copy": destination.address if (destination := second()) else "",
        "persistence": sections.read("facts", lambda: _persistence(entry), []),
        "unread": sections.unread.get("facts", ""),
        "others": [other for other in registry().values() if other is not entry],
        "schedules": listed(entry.name, "backups"),
        **when_of(QueryDict()),
        "keep": [(name, most) for name, most in asdict(keep).items() if most],
        "max_age": settings.OMNIDASH_BACKUP_MAX_AGE_HOURS,
        "upload_mb": settings.OMNIDASH_BACKUP_MB,
        "output_mb": settings.OMNIDASH_BACKUP_OUTPUT_MB,
    }


def _persistence(entry: Entry) -> list[Fact]:
    """How the server saves by itself; empty where there is none."""
    facts = entry.inspection(max_age=0).facts  # a save that has just ended is to be seen
    return [fact for fact in facts if fact.group == "persistence" and fact.name != "loading"]


def _one(request: StoreRequest, ref: str) -> Backup:
    """Http404 for what is not there, and for what is another store's: the answer is the same."""
    found = open_to(request.entry.name).filter(pk=ref).first() if _ID.fullmatch(ref) else None
    if found is None:
        raise Http404
    return found


def backup(request: StoreRequest, store: str, ref: str) -> HttpResponse:
    found = _one(request, ref)
    row = Row.of(found)
    files, problem = _files(found) if any(kind.name == "file" for kind in row.kinds) else ((), "")
    context = {
        "row": row,
        "verifications": _verifications(found),
        "files": files,
        "files_problem": problem,
    }
    return page(request, "backups/backup.html", "backups/_backup.html", context)


def _files(found: Backup) -> tuple[tuple[Original, ...], str]:
    """Those that it holds, and why they cannot be told."""
    try:
        return originals(path_of(found)), ""
    except StoreError as error:
        return (), str(error)


def _verifications(found: Backup) -> list[tuple[str, Run]]:
    """The runs that were asked for about it, newest first, each with what was asked for."""
    runs = Run.objects.filter(store=found.store, params__contains=f'"{found.pk}"')
    return [(_asked_for(run), run) for run in runs.order_by("-pk").defer("report")[:_RUNS]]


def _asked_for(run: Run) -> str:
    if run.action in ACTIONS:
        return title_of(ACTIONS[run.action], json.loads(run.params), run.total)
    return audit.KINDS.get(run.action, "")


@require_safe
def download(request: StoreRequest, store: str, ref: str) -> HttpResponseBase:
    """The file itself."""
    if (answer := _refused(request, "download_backups", "download-backup")) is not None:
        return answer
    found = _one(request, ref)
    try:
        content = open(path_of(found), "rb", opener=_plain)  # noqa: SIM115 - closed when it is sent
    except OSError:
        raise Http404 from None
    _noted(request, found, "download-backup", "was downloaded")
    return _sent(request, FileResponse(content, content_type="application/gzip"), found.name)


@require_safe
def file(request: StoreRequest, store: str, ref: str, number: int) -> HttpResponseBase:
    """One of the files that a JSON directory consisted of, by its bytes."""
    if (answer := _refused(request, "download_backups", "download-backup")) is not None:
        return answer
    found = _one(request, ref)
    record = original(path_of(found), number)
    if record is None:
        raise Http404
    name = record.names[-1] if record.names else ""
    _noted(request, found, "download-backup", f"gave its file {printable(name)[:100]}")
    response = HttpResponse(record.raw, content_type="application/octet-stream")
    return _sent(request, response, name)


def _sent(request: StoreRequest, response: ResponseT, name: str) -> ResponseT:
    """As a file of this name, as far as it is harmless in a header and on a disk."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-100:].lstrip(".") or "file"
    # Not compressed once more: what is cut off would look whole.
    request.META.pop("HTTP_ACCEPT_ENCODING", None)
    response.headers["Content-Disposition"] = f'attachment; filename="{plain}"'
    return response


def _plain(path: str, flags: int) -> int:
    """Never through a link."""
    return os.open(path, flags | os.O_NOFOLLOW)


def _refused(request: StoreRequest, permission: str, what: str) -> HttpResponse | None:
    if request.user.has_perm(f"omnidash.{permission}"):
        return None
    audit.refused(request, what, f"{what} needs the permission {permission}")
    return refusal(request, "You may not do this", "It is for administrators.", 403)


def _noted(request: StoreRequest, found: Backup, action: str, what: str) -> None:
    """A backup holds every secret of its store, so the log tells who took it away, and it can
    replace all of one, so it tells who brought it."""
    now = time.time()
    Run.objects.create(
        action=action, store=request.entry.name, address=request.entry.store.address,
        who=person(request).get_username(), user=person(request), state=Run.State.DONE,
        origin=request.META.get("REMOTE_ADDR", ""), params=json.dumps({"backup": found.pk}),
        message=f"{found.name} {what}.", created_at=now, ended_at=now,
    )  # fmt: skip


@csrf_exempt
@require_POST
def upload(request: StoreRequest, store: str) -> HttpResponseBase:
    """Take a file from a form. The token is looked for only after it is known who asks and how much
    is allowed: to look for it reads the whole body."""
    if (answer := _refused(request, "restore_store", "upload-backup")) is not None:
        return answer
    limit = settings.OMNIDASH_BACKUP_MB * MEGABYTE
    request.upload_handlers = [Quota(request, limit), TemporaryFileUploadHandler(request)]
    return _uploaded(request)


@csrf_protect
def _uploaded(request: StoreRequest) -> HttpResponseBase:
    quota, found = request.upload_handlers[0], request.FILES.get("file")
    if isinstance(quota, Quota) and quota.exceeded:
        return _not_taken(request, f"It has more than {settings.OMNIDASH_BACKUP_MB:,} MB.")
    if found is None:
        return _not_taken(request, "No file was chosen.")
    try:
        made = receive(found.chunks())
    except BackupError as error:
        return _not_taken(request, f"{error}.")
    _noted(request, made, "upload-backup", "was uploaded")
    return redirect("backups-one", request.entry.name, made.pk)


def _not_taken(request: StoreRequest, why: str) -> HttpResponse:
    """Said in the form of the page that it leads back to, which can be loaded again."""
    audit.refused(request, "upload-backup", why)
    messages.error(request, printable(why))
    return redirect(f"{reverse('backups', args=[request.entry.name])}#upload")
