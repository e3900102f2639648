"""The marker in a directory that says which restores were made of it."""

from __future__ import annotations

import json
import os
import re

from storage.base import StoreError
from storage.json_store import files

MARKER = ".omnidash-restored"
IS_TOKEN = re.compile(r"[0-9a-f]{32}")
_MOST = 100  # restores that are remembered


def read_marker(folder: str) -> dict[str, bool | None]:
    """By token, the oldest first: True for a restore that was made, None for one of which only a
    part may have been. What is no marker of ours names none."""
    try:
        found = files.read_generation(os.path.join(folder, MARKER))
        noted = json.loads(found[0]) if found else {}
    except (StoreError, ValueError, RecursionError):
        return {}
    if not isinstance(noted, dict):
        return {}
    return {
        token: made
        for token, made in noted.items()
        if IS_TOKEN.fullmatch(token) and (made is True or made is None)
    }


def marker_with(folder: str, token: str, made: bool | None = True) -> bytes:
    """The marker of a folder with one restore more."""
    noted = read_marker(folder)
    noted.pop(token, None)
    noted[token] = made
    return json.dumps(dict(list(noted.items())[-_MOST:]), indent=2).encode("ascii")


def is_full(folder: str) -> bool:
    """Whether older restores may have been forgotten."""
    return len(read_marker(folder)) >= _MOST
