"""Backups made, verified and deleted, and a server told to save itself."""

from __future__ import annotations

from collections.abc import Sequence

from omnidash import backups
from omnidash.actions import Action, Changes, Params, Refused, Work, one
from omnidash.backups import BackupError
from omnidash.models import Backup
from omnidash.progress import Step
from storage.base import Store
from storage.changes import Change, Kind, Target

_KINDS: tuple[tuple[Kind, str], ...] = (
    ("agent", "agents"), ("result", "results"), ("metrics", "metrics"), ("config", "config"),
)  # fmt: skip


def found(params: Params) -> Backup:
    """The backup that is meant. BackupError if it is not there any more."""
    backup = Backup.objects.filter(pk=params["backup"]).first()
    if backup is None:
        raise BackupError("the backup is not there any more")
    return backup


def target_of(backup: Backup) -> Target:
    return Target("file", (backup.name,), "", backup.size)


# Making one


def _stored(store: Store, params: Params) -> list[Target]:
    """About what a backup would hold; nothing is compared with it later. Not where nobody sees it:
    to count learns the whole store, which takes memory."""
    if params.get("unseen"):
        return []
    counts = store.counts()
    return [
        Target(kind, (name,), "", 0, count)
        for kind, name in _KINDS
        if (count := getattr(counts, name)) is not None
    ]


def _back_up(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    scheduled = work.run.origin == "schedule"
    work.says = "No backup was made."
    reason = Backup.Reason.SCHEDULE if scheduled else Backup.Reason.ASKED
    made = yield from backups.create(work.entry, reason, work.run)
    records = backups.records_of(made)
    work.total = records
    work.says = f"{made.name}: {records:,} records, read back and verified."
    if refused := backups.refused_elsewhere(made):
        work.says += f" Another OmniDash would refuse it: {refused}."
    yield Change(done=records, bytes=made.size)
    if backups.second() is not None:
        yield Step("Sending it to the second destination")
        there = backups.send(made)
        why = "checked at the second destination" if there else f"not copied: {made.copy_note}"
        work.says += f" It is {why}."


def _of_stored(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    return [
        "Agents, results with their remaining life, metric events and configuration are read, and "
        "nothing is changed.",
        "The event bus is not in it: messages that wait, or are being worked on.",
        "The file holds every secret of the store as it is stored.",
    ]


# Verifying one


def _one(store: Store, params: Params) -> list[Target]:
    """The one that is named, or the newest of the store."""
    return [target_of(_meant(store, params))]


def _meant(store: Store, params: Params) -> Backup:
    if params["backup"] != NEWEST:
        return found(params)
    newest = Backup.objects.filter(address=store.address).order_by("-made_at", "-pk").first()
    if newest is None:
        raise BackupError("there is no backup of this store")
    return newest


NEWEST = "newest"
LEVELS = ("file", "trial")


def _verify(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    backup = _meant(work.store, params)
    work.says = "Nothing was found out."
    is_good = yield from backups.check(backup)
    problem = backup.checked_note
    if is_good and params["level"] == "trial":
        is_good = yield from backups.trial(backup)
        problem = backup.tried_note
    if not is_good:
        work.says = "Do not rely on it."
        raise BackupError(f"{backup.name} is not good: {problem}")
    records = backups.records_of(backup)
    how = (
        "restored for trial and compared record by record"
        if params["level"] == "trial"
        else "its checksum, its counts and its records are as they should be"
    )
    work.says = f"{backup.name} is good: {records:,} records, {how}."
    yield Change(done=1)


# Deleting one


def _delete(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    backup = found(params)
    work.says = "It was not deleted."
    if backups.is_last_good(backup):
        raise Refused(f"{backup.name} is the last good backup of {backup.store}")
    backups.delete(backup)
    work.says = f"{backup.name} was deleted."
    yield Change(done=1, bytes=backup.size)


def _of_deleted(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    if backups.is_last_good(backup := found(params)):
        return [f"It is the last good backup of {backup.store}, so it will be refused."]
    copied = ", its copy at the second destination with it" if backup.copied_at else ""
    said = [f"The file is deleted for good{copied}."]
    if backup.reason == Backup.Reason.SAFETY:
        said.append("It was made before a restore, to be able to go back.")
    return said


# The server's own


def _server(store: Store, params: Params) -> list[Target]:
    if not store.can_save:
        raise BackupError("this store has no server that could save itself")
    return [Target("file", ("dump of the server",), "")]


def _save(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    work.says = "Whether the server saves by itself is said on the page of the storage."
    for seconds in work.store.save_to_disk():
        yield Step(f"The server saves, for {seconds:.0f} s now")
    work.says = "The server says that it saved everything to its own disk."
    yield Change(done=1)


def _of_server(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    return [
        "The server writes all its databases, the event bus with them, into its own file (BGSAVE). "
        "OmniDash does not get that file: copy it from the server.",
        "It counts as done when the server itself says so: by its status and a later time.",
    ]


ACTIONS = (
    Action(
        "back-up",
        "Back up",
        "store",
        "back_up",
        _stored,
        _back_up,
        _of_stored,
        kept=False,
        title="Back up the store",
        changes=False,
        alone=True,
        summed=True,
        counted=one,
    ),
    Action(
        "verify-backup",
        "Verify",
        "backup",
        "back_up",
        _one,
        _verify,
        kept=False,
        title="Verify a backup",
        changes=False,
        counted=one,
    ),
    Action(
        "delete-backup",
        "Delete",
        "backup",
        "restore_store",
        _one,
        _delete,
        _of_deleted,
        kept=False,
        sudo=True,
        title="Delete a backup",
        changes=False,
        counted=one,
    ),
    Action(
        "save-rdb",
        "Save",
        "server",
        "back_up",
        _server,
        _save,
        _of_server,
        kept=False,
        title="Save the server to its disk",
        counted=one,
    ),
)
