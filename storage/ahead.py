"""Reading on while what was read is still at work on."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 2  # made and not taken yet: enough for two that take turns


class _End(Generic[T]):
    """Stands behind the last item; `error` is why there are no more."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """The same items, which a thread of their own makes a little ahead: so that Redis, zlib and we
    are at work at the same time. What making them raises comes in its place. Its caller closes it,
    or takes all: the thread has ended then."""
    found: SimpleQueue[T | _End[T]] = SimpleQueue()
    room, wanted = Semaphore(_MOST), [True]

    def make() -> None:
        source = iter(items)
        try:
            while room.acquire() and wanted[0]:
                found.put(next(source))
        except StopIteration:
            found.put(_End())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where it is waited for
            found.put(_End(error))
        finally:
            if close := getattr(source, "close", None):
                close()

    thread = Thread(target=copy_context().run, args=(make,), daemon=True)
    thread.start()
    try:
        while True:
            item = found.get()
            if isinstance(item, _End):
                break
            room.release()
            yield item
    finally:
        wanted[0] = False
        room.release()
        thread.join()
    if item.error is not None:
        raise item.error
