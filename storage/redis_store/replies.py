"""What Redis answers where something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import exceptions as driver

from storage.base import StoreError

Command = Sequence[bytes | str | int | float]
ResponseError = driver.ResponseError


def has_errors(replies: Sequence[Any]) -> bool:
    """A tenth of what it costs to look at each reply: almost never is there one."""
    return any(issubclass(kind, ResponseError) for kind in set(map(type, replies)))


def require_no_error(replies: Sequence[Any], commands: Sequence[Command]) -> None:
    for reply, command in zip(replies, commands, strict=False) if has_errors(replies) else ():
        if isinstance(reply, ResponseError):
            raise unexpected(reply, command)


def unexpected(error: ResponseError, command: Command) -> StoreError:
    key = command[1] if len(command) > 1 else b""
    where = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else ""
    what = "has another type" if is_wrong_type(error) else f"Redis answered: {str(error)[:200]}"
    return StoreError(f"{command[0]!s} {where[:200]}: {what}")


def is_wrong_type(reply: object) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
