"""Commands of many arguments, in several of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from storage.redis_store.replies import Command

_CHUNK = 1000  # arguments of one command; even, since scores and members are pairs

AnyT = TypeVar("AnyT")


def many(head: Command, arguments: Iterable[bytes | str]) -> Iterator[Command]:
    return ((*head, *some) for some in chunks(arguments))


def chunks(items: Iterable[AnyT]) -> Iterator[list[AnyT]]:
    rest = iter(items)
    while some := list(islice(rest, _CHUNK)):
        yield some
