"""How a backup is to be verified or restored: in words, and as a choice before it is confirmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import QueryDict

from omnidash.actions import Params
from omnidash.asked import how_of
from omnidash.models import Backup
from omnidash.text import duration

_DAY = 86_400
_CHOSEN = ("mode", "volatile", "extend")
_LONGER = (0, 3600, _DAY, 7 * _DAY, 30 * _DAY)  # seconds


def _backup(value: str) -> str:
    if value == "newest":
        return "the newest of this store"
    found = Backup.objects.filter(pk=value).first()
    return found.name if found else f"{value}, which is not there any more"


def _level(value: str) -> str:
    return "a trial restore" if value == "trial" else "its file"


def _noted(value: bool) -> str:
    return "restored too" if value else "left as it is"


def _longer(seconds: float) -> str:
    return f"{duration(seconds)} longer" if seconds else "as they were backed up"


TITLE_OF_LEVEL = {"file": "Verify the file of a backup", "trial": "Try to restore a backup"}
WORDS_OF: dict[str, tuple[str, Callable[[Any], str]]] = {
    "backup": ("Backup", _backup),
    "file": ("Backup", str),
    "from": ("From", str),
    "level": ("By", _level),
    "mode": ("Mode", str),
    "volatile": ("What runners noted", _noted),
    "extend": ("Results live", _longer),
}
"""Parameter -> its label, and its value in words."""


def choice_of(params: Params) -> dict[str, Any] | None:
    """What the confirmation of a restore lets one choose anew; None for all others."""
    if "mode" not in params:
        return None
    extend = params.get("extend", 0)
    return {
        "mode": params["mode"],
        "volatile": params.get("volatile", False),
        "extend": extend,
        "longer": [(one, _longer(one)) for one in sorted({*_LONGER, extend})],
    }


def chosen_anew(params: Params, data: QueryDict) -> dict[str, str]:
    """The query that asks for what a form has chosen, where that is another thing than what was
    compared, or should be compared again; empty where it is the same, or there is no choice.
    BadQuestion if it cannot be chosen."""
    if "mode" not in params or "mode" not in data:
        return {}
    how = how_of(data)
    same = all(params.get(name, 0) == how.get(name, 0) for name in _CHOSEN)
    if same and "compare" not in data:
        return {}
    source = "backup" if "backup" in params else "from"
    return {source: params[source], **{name: data[name] for name in _CHOSEN if name in data}}


def of_choice(params: Params) -> Params:
    """Those that are said beside what can be chosen anew."""
    return {name: params[name] for name in ("backup", "file", "from") if name in params}
