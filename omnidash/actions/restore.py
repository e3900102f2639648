"""Restoring a backup into a store, and copying one store into another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress

from omnidash import backups
from omnidash.actions import NOT_YET, Action, Changes, Params, Refused, Work
from omnidash.actions.backups import found
from omnidash.backups import BackupError, reports, restoring
from omnidash.backups.restoring import CHANGING, Comparing, Source, Wish
from omnidash.models import Backup
from omnidash.progress import Step
from omnidash.stores import registry
from storage.base import Store, StoreError
from storage.changes import CHANGED, EXPIRED, Change, Target
from storage.conversion import Loss

MODES = ("merge", "replace")
_NOTHING = "Nothing was changed."
_SAID = 8  # reasons that an end names
_LOOKS = 60.0  # seconds that comparing two whole stores may take


def wish_of(params: Params) -> Wish:
    return Wish(params["mode"], params.get("volatile", False), params.get("extend", 0.0))


# Looking


def _look_restore(store: Store, params: Params) -> list[Target]:
    backup = found(params)
    for _ in backups.check(backup):
        pass
    if backup.checked != Backup.State.GOOD:
        raise BackupError(f"{backup.name} is not good: {backup.checked_note}")
    source = restoring.of_backup(backup)
    return restoring.compared_now(store, source, wish_of(params)).targets()


def _look_copy(store: Store, params: Params) -> list[Target]:
    source = restoring.of_store(_origin(params))
    return restoring.compared_now(store, source, wish_of(params)).targets()


def _origin(params: Params) -> Store:
    entry = registry().get(params["from"])
    if entry is None:
        raise BackupError("the store to copy from is not configured any more")
    return entry.store


def _changing(targets: Sequence[Target]) -> int:
    return sum(one.count for one in targets if one.names[0] in CHANGING)


def _warns(store: Store, params: Params, targets: Sequence[Target]) -> list[str]:
    merge = params["mode"] == "merge"
    said = [
        *_elsewhere(store, params),
        "What is only in the store stays, and of what is in both the newer. Configuration that is "
        "there stays as it is."
        if merge
        else "The store becomes what was backed up: whatever else it holds is deleted.",
        "A backup of the store as it is now is made and verified before anything is changed. Then "
        "all of it happens at once, or nothing.",
        "It is compared once more at that moment: if the store has changed in what it would lose, "
        "nothing happens, and you are asked again.",
    ]
    if "from" in params:
        said.append(
            "Agents and configuration come as they are counted here, or not at all; results and "
            "events as they are at that moment."
        )
    if not params.get("volatile"):
        said.append(
            "What OmniDaemon notes while it runs (subscriptions, supervisors) is left as it is."
        )
    agents = sum(one.count for one in targets if one.kind == "agent" and one.names[0] in CHANGING)
    if agents and not store.owned_by():
        said.append("Runners that are at work notice agents only when they start.")
    return said


def _elsewhere(store: Store, params: Params) -> list[str]:
    """Where a backup is from, if not from this store, or if only its file says so."""
    backup = found(params) if "backup" in params else None
    brought = backup is not None and backup.reason == Backup.Reason.UPLOAD
    if backup is None or (backup.store and backup.address == store.address and not brought):
        return []
    whose = f"It is a backup of {backup.store}" if backup.store else "It is of no store known here"
    return [f"{whose}: its file says that it is from {backup.address}."]


# Performing


def _restore(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    backup = found(params)
    work.says = _NOTHING
    if not (yield from backups.check(backup)):
        raise BackupError(f"{backup.name} is not good: {backup.checked_note}")
    source = restoring.of_backup(backup, sum(backups.counts_of(backup).values()))
    yield from _restored(work, source, targets, params)


def _copy(work: Work, targets: Sequence[Target], params: Params) -> Changes:
    work.says = _NOTHING
    origin = registry().get(params["from"])
    if origin is None:
        raise BackupError("the store to copy from is not configured any more")
    made = yield from backups.create(origin, Backup.Reason.COPY, work.run)
    source = restoring.of_backup(made, sum(backups.counts_of(made).values()))
    yield from _restored(work, source, targets, params)


def _restored(work: Work, source: Source, targets: Sequence[Target], params: Params) -> Changes:
    store, wish = work.store, wish_of(params)
    if why := store.owned_by():
        raise Refused(why)
    safety = yield from backups.create(work.entry, Backup.Reason.SAFETY, work.run)
    with reports.report_of(work.run) as report:
        token = work.begin()
        with _told(work, token), store.stage(token) as staging:
            now = yield from restoring.compared(store, source, wish)
            if now.difference.digest != targets[0].mark:
                raise Refused(f"what it would do has {CHANGED}; look again")
            work.total, difference = now.changing, now.difference
            judged = difference.judged(source.for_store(store, wish, Loss()))
            skipped = yield from restoring.put(
                staging, report.telling(judged), work.total, report.settled
            )  # fmt: skip
            for kind, names in difference.deleted:
                report.line(kind, names, "deleted")
            for kind, names, why in now.loss.named:
                report.line(kind, names, f"lost or altered on the way: {why}")
            report.finish()
            yield Step("Making the change, all at once")
            work.says = NOT_YET
            staging.commit(difference.deleted, difference.keep_events)
            work.says = f"{_words(now)} The store as it was: {safety.name}."
    if now.changing != (shown := _changing(targets)):
        work.says += f" {shown:,} were shown: what was to come has changed since."
    work.report = report.name
    yield Change(done=max(0, now.changing - len(skipped)), skipped=skipped)
    if refused := Counter(why for _, why in skipped if why != EXPIRED):
        told = "; ".join(f"{count:,} {why}" for why, count in refused.most_common(_SAID))
        raise BackupError(f"not all could be stored: {told}")
    yield from _proven(work, source, wish)


def _words(found: Comparing) -> str:
    sums = {
        outcome: sum(getattr(tally, outcome) for tally in found.difference.tallies.values())
        for outcome in restoring.OUTCOMES
    }
    sums["lost on the way"] = found.loss.refused.total()
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sums.items() if count)
    altered = " Some were altered on the way, as was shown before." if found.loss.altered else ""
    return f"{(told or 'nothing to do').capitalize()}.{altered}"


def _proven(work: Work, source: Source, wish: Wish) -> Generator[Step, None, None]:
    """Afterwards: whether all is there that was to be. BackupError if not, which may be the work of
    somebody who is at work there."""
    after = yield from restoring.compared(work.store, source, wish)
    tallies = after.difference.tallies.values()
    if missing := sum(one.added + one.replaced for one in tallies):
        raise BackupError(
            f"compared afterwards, {missing:,} records are not, or no longer, as they were restored"
        )
    work.says += f" Compared afterwards: all {'else ' if after.loss.refused else ''}is there."


# What became of it


@contextmanager
def _told(work: Work, token: str) -> Iterator[None]:
    """Of the one change, if it goes wrong, nobody knows but the store; who stages holds its lock.
    Where it cannot tell that now, it is asked again later."""
    try:
        yield
    except Exception:
        if work.says == NOT_YET:
            with suppress(StoreError):
                work.says = became(work.store, token)
        raise


def became(store: Store, token: str) -> str:
    match store.committed(token):
        case True:
            return "The store is the new one: all of it was done. Verify it by looking again."
        case False:
            return "The store is the old one: nothing was changed."
        case _:
            return "Whether the store is the old one or the new one cannot be told any more."


ACTIONS = (
    Action(
        "restore", "Restore", "record", "restore_store", _look_restore, _restore, _warns,
        kept=False, sudo=True, typed=True, alone=True, summed=True, counted=_changing,
        patience=_LOOKS, interrupted=became,
    ),
    Action(
        "copy-store", "Copy", "record", "restore_store", _look_copy, _copy, _warns,
        kept=False, sudo=True, typed=True, alone=True, summed=True, counted=_changing,
        patience=_LOOKS, interrupted=became,
    ),
)  # fmt: skip
