"""The files of a JSON directory as a backup holds them: by their bytes, corrupt ones too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from storage.archive import OWN, ArchiveError, ArchiveReader
from storage.base import StoreError
from storage.changes import Record
from storage.records import parse_json

_LOOKED_AT = 50_000_000  # bytes; to parse a larger one takes too long for a page


@dataclass(frozen=True, slots=True)
class Original:
    """`problem` empty: it reads well; None: nobody looked."""

    name: str
    size: int
    problem: str | None

    @classmethod
    def of(cls, record: Record) -> Original:
        looks = len(record.raw) <= _LOOKED_AT
        problem = parse_json(record.raw)[1] if looks else None
        return cls(record.names[-1] if record.names else "", len(record.raw), problem)


@lru_cache(maxsize=64)  # a backup's file never changes
def originals(path: str) -> tuple[Original, ...]:
    """StoreError if the file cannot be read."""
    return tuple(map(Original.of, _records(path)))


def original(path: str, number: int) -> Record | None:
    """The bytes of one of them, by its place."""
    return next((one for place, one in enumerate(_records(path)) if place == number), None)


def _records(path: str) -> Iterator[Record]:
    """They come before all others, so no more than they is read."""
    try:
        with ArchiveReader(path, OWN) as reader:
            for batch in reader:
                for record in batch.records:
                    if record.kind != "file":
                        return
                    yield record
    except ArchiveError as error:
        raise StoreError(f"its file cannot be read: {error}") from None
    except OSError as error:
        raise StoreError(f"its file cannot be read: {error.strerror}") from None
