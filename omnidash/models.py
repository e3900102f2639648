"""What the dashboard itself remembers: the history of each store's metric events.

Names and messages come from a store and may hold any character, so they are kept as bytes (see
`storage.records.to_bytes`): no database takes NUL and lone surrogates as text. Times are Unix
seconds, because that is what events carry.
"""

from __future__ import annotations

from django.db import models


class Source(models.Model):
    """The events of one store, as far as they were read: the cursor, and what was not counted."""

    key = models.BinaryField(max_length=16, unique=True)
    address = models.TextField()
    cursor = models.TextField(null=True)
    version = models.BigIntegerField(default=0)
    """Counts the changes of the history; who ingests changes it in the same transaction."""
    changes = models.TextField(default="[]")
    """JSON: [version, earliest moment that it changed] of the newest versions, oldest first."""
    events = models.BigIntegerField(default=0)
    unreadable = models.BigIntegerField(default=0)
    """Events that are none: no JSON object, or without a kind."""
    undated = models.BigIntegerField(default=0)
    """Events whose time is unknown or cannot be; counted here, as they belong to no interval."""
    untimed = models.BigIntegerField(default=0)
    """Events that are counted, but whose processing time is no number, negative or impossible."""
    since = models.FloatField(null=True)
    """When the store took the oldest event that it had at the first reading: from then on all was
    read. Events of earlier times are counted, but beside them nothing is known."""
    newest = models.FloatField(null=True)
    read_at = models.FloatField(null=True)
    runner_id = models.TextField(default="")

    class Meta:
        db_table = "omnidash_source"


class Subject(models.Model):
    """Whom a roll-up is about: everything, a topic, an agent, or a kind of failure of an agent."""

    class Kind(models.IntegerChoices):
        ALL = 0
        TOPIC = 1
        AGENT = 2
        ERROR = 3

    source = models.ForeignKey(Source, models.CASCADE)
    kind = models.SmallIntegerField(choices=Kind)
    key = models.BinaryField(max_length=16, unique=True)
    topic = models.BinaryField(default=b"")
    agent = models.BinaryField(default=b"")
    error_type = models.BinaryField(default=b"")
    message = models.BinaryField(default=b"")
    first_seen = models.FloatField(null=True)
    last_seen = models.FloatField(null=True)
    recent = models.TextField(default="[]")
    """JSON: the newest events, newest first (`omnidash.history.recent`)."""

    class Meta:
        db_table = "omnidash_subject"


class Rollup(models.Model):
    """The events of one subject in one interval of a level (seconds), beginning at `start`."""

    pk = models.CompositePrimaryKey("subject_id", "level", "start")
    subject = models.ForeignKey(Subject, models.DO_NOTHING, db_constraint=False, db_index=False)
    level = models.IntegerField()
    start = models.BigIntegerField()
    received = models.BigIntegerField()
    processed = models.BigIntegerField()
    failed = models.BigIntegerField()
    other = models.BigIntegerField()
    timed = models.BigIntegerField()
    """Processing times: their number, sum, least and greatest (seconds), and sketch."""
    seconds = models.FloatField()
    low = models.FloatField(null=True)
    high = models.FloatField(null=True)
    sketch = models.BinaryField()

    class Meta:
        db_table = "omnidash_rollup"
        indexes = [
            models.Index(fields=["level", "start", "subject"], name="omnidash_rollup_interval")
        ]


class Mark(models.Model):
    """Something to be marked on the time axis."""

    class Kind(models.TextChoices):
        STATE = "state"
        RUNNER = "runner"

    source = models.ForeignKey(Source, models.CASCADE, db_index=False)
    at = models.FloatField()
    kind = models.CharField(max_length=8, choices=Kind)
    subject = models.BinaryField()
    text = models.BinaryField()

    class Meta:
        db_table = "omnidash_mark"
        indexes = [models.Index(fields=["source", "at"], name="omnidash_mark_time")]


class Gap(models.Model):
    """From `start` to `end` events may be missing: they were dropped before they were read."""

    source = models.ForeignKey(Source, models.CASCADE)
    start = models.FloatField()
    end = models.FloatField()

    class Meta:
        db_table = "omnidash_gap"


class Gauge(models.Model):
    """The last value of a figure of a store (sizes, counts, fill) in an interval of a level."""

    pk = models.CompositePrimaryKey("source_id", "name", "level", "start")
    source = models.ForeignKey(Source, models.CASCADE, db_index=False)
    name = models.CharField(max_length=64)
    level = models.IntegerField()
    start = models.BigIntegerField()
    value = models.FloatField()

    class Meta:
        db_table = "omnidash_gauge"
