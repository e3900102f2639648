"""A page of several sections: one that cannot be read is said, and the others still stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from storage.base import StoreError

AnswerT = TypeVar("AnswerT")
UnknownT = TypeVar("UnknownT")


class Sections:
    """Reads a page's sections; `unread` says which failed and why. After a server was too slow
    once, the store refuses at once for a while, so that a page never waits for each section."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}

    def read(
        self, name: str, question: Callable[[], AnswerT], unknown: UnknownT
    ) -> AnswerT | UnknownT:
        """The answer, or what stands for "unknown"."""
        try:
            return question()
        except StoreError as error:
            self.unread[name] = str(error)
            return unknown

    @property
    def troubles(self) -> list[str]:
        return [f"{name}: {cause}" for name, cause in self.unread.items()]
