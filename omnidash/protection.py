"""How well a store is protected by its backups: the last good one, and what needs a person."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from omnidash.backups import last_good, newest
from omnidash.health import Attention, Level
from omnidash.models import Backup

HOUR = 3600.0
_NOTED = 200  # characters of why one is bad


@dataclass(frozen=True, slots=True)
class Protection:
    """The last good backup of a store, and the newest of all."""

    good: Backup | None
    newest: Backup | None

    def is_old(self, now: float) -> bool:
        """Whether the last good one is older than the settings want it."""
        hours = settings.OMNIDASH_BACKUP_MAX_AGE_HOURS
        return bool(self.good and hours and now - self.good.made_at > hours * HOUR)

    def lines(self, now: float) -> list[Attention]:
        """For "Needs attention". Sample data is nobody's loss. That there is no backup at all is
        only said: the store may be backed up by other means."""
        if settings.OMNIDASH_SAMPLE:
            return []
        found = []
        if self.newest is not None and (why := bad_because(self.newest)):
            text = f"the newest one is bad: {why[:_NOTED]}"
            found.append(
                Attention("bad", "Backups", text, "made", "backups", at=self.newest.made_at)
            )
        if self.good is None:
            level: Level = "quiet" if self.newest is None else "warn"
            text = "none yet" if self.newest is None else "no good one"
            found.append(Attention(level, "Backups", text, "", "backups"))
        elif self.is_old(now):
            text = "the last good one is old"
            found.append(
                Attention("warn", "Backups", text, "made", "backups", at=self.good.made_at)
            )
        return found


def protection_of(store: str) -> Protection:
    """What is known in our own database; asks neither the store nor the files."""
    return Protection(last_good(store), newest(store))


def bad_because(backup: Backup) -> str:
    """Why it cannot be trusted; empty if nothing is known against it."""
    if backup.checked == Backup.State.BAD:
        return backup.checked_note or "its file is damaged"
    if backup.tried == Backup.State.BAD:
        return backup.tried_note or "its trial restore failed"
    return ""
