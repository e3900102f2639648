"""How long whoever asks a store is ready to wait for all of their questions together."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Questions asked within, in this thread, fail with StoreUnavailable once the time is over: a
    server that answers each of them late would otherwise make a page of many questions wait."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def left() -> float:
    """Seconds; infinite outside of `patience`, negative once it is over."""
    return _deadline.get() - time.monotonic()


def is_over() -> bool:
    return left() <= 0
