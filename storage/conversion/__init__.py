"""Records of one backend as another would store them, and what is lost on the way.

Values are laid out as OmniDaemon itself writes them in either place, so that a record which it
stores again is the same record still. What is made of a record never depends on the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from storage.changes import Record
from storage.conversion.loss import Loss, Refused
from storage.conversion.to_json import ToJson
from storage.conversion.to_redis import ToRedis

_CONVERSIONS: dict[tuple[str, str], type[ToJson | ToRedis]] = {
    ("json", "redis"): ToRedis,
    ("redis", "json"): ToJson,
}


def convertible(source: str, target: str) -> bool:
    """Whether records of one backend can be stored in another."""
    return source == target or (source, target) in _CONVERSIONS


def converted(
    records: Iterable[Record], source: str, target: str, loss: Loss
) -> Iterator[Record]:  # fmt: skip
    """Records of a whole store, in the order of its snapshot, as the backend `target` would store
    them; between two of one kind as they are. What a directory keeps of its files is left out.
    ValueError if these two are not `convertible`."""
    if source == target:
        return iter(records)
    if not convertible(source, target):
        raise ValueError(f"no record of {source} can be stored in {target}")
    return _all(records, _CONVERSIONS[source, target](loss), loss)


def _all(
    records: Iterable[Record], conversion: ToJson | ToRedis, loss: Loss
) -> Iterator[Record]:  # fmt: skip
    for record in records:
        if record.kind != "metrics":
            yield from conversion.events()
        try:
            found = conversion.take(record)
        except Refused as refused:
            loss.refuse(record, str(refused))
        else:
            if found is not None:
                yield found
    yield from conversion.events()


__all__ = ["Loss", "converted", "convertible"]
