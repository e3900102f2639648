"""Starts of OmniDaemon's runner as marks of the time axis."""

from __future__ import annotations

from hashlib import blake2b

from django.db import transaction

from omnidash.history.ingest import AHEAD
from omnidash.models import Mark, Source
from storage.base import Runner
from storage.records import to_bytes

_LONGEST = 200  # bytes of a runner's id that are kept


def note_start(source: Source, runner: Runner, now: float) -> bool:
    """Mark that a runner has started, unless that was marked before. `source` must have been read
    before `runner` was: whoever asks with an older one is overtaken and marks nothing.

    OmniDaemon writes the start time first, so a start without an id is not whole yet."""
    started = runner.start_time
    if not isinstance(started, float) or started > now + AHEAD or not runner.runner_id:
        return False
    known = _name_of(runner.runner_id, started)
    if known == source.runner_id:
        return False
    with transaction.atomic():
        current = Source.objects.filter(pk=source.pk, runner_id=source.runner_id)
        if not current.update(runner_id=known):
            return False
        Mark.objects.create(
            source=source, at=started, kind=Mark.Kind.RUNNER,
            subject=to_bytes(runner.runner_id)[:_LONGEST], text=b"started",
        )  # fmt: skip
    return True


def _name_of(runner_id: str, started: float) -> str:
    """What a start is remembered by: a text of any content may not fit into the database."""
    told = b"%s %r" % (to_bytes(runner_id), started)
    return blake2b(told, digest_size=16).hexdigest()
