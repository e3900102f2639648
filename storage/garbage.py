"""Large answers without the cyclic garbage collector walking them again and again meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 1000  # records from which this is worth it


@contextmanager
def collector_paused(records: int) -> Iterator[None]:
    """All that is made in here stays and is not cyclic, so that the collector's passes, which grow
    with it, find nothing: for 100,000 results they are half of the time."""
    pause = records >= LARGE and gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()
