"""Whether somebody may do something, and whether anybody may."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied

from omnidash.actions import Action, Refused
from omnidash.roles import reserved
from omnidash.stores import Entry


class NotAllowed(PermissionDenied):
    """The message says what is missing."""


def require(user: Any, action: Action, entry: Entry) -> None:
    """NotAllowed where the person may not; Refused where nobody may."""
    if not user.is_active or not user.has_perm(f"omnidash.{action.permission}"):
        raise NotAllowed(reserved(action.label, action.permission))
    if action.changes and entry.read_only:
        raise Refused(f"{entry.name} is read-only: {entry.read_only}")
