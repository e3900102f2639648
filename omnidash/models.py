"""What the dashboard itself remembers: the history of each store's metric events, and what people
did to the stores.

Names and messages come from a store and may hold any character, so they are kept as bytes (see
`storage.records.to_bytes`): no database takes NUL and lone surrogates as text. Times are Unix
seconds, because that is what events carry.
"""

from __future__ import annotations

from django.conf import settings
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
        RUN = "run"

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


class Plan(models.Model):
    """What an action would change, as it was seen: shown to be confirmed, and then executed."""

    token = models.CharField(max_length=64, primary_key=True)
    """Not to be guessed; a run takes it, so that whoever confirms twice starts one run."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    action = models.CharField(max_length=40)
    store = models.CharField(max_length=100)
    params = models.TextField(default="{}")
    made_at = models.FloatField(db_index=True)
    count = models.BigIntegerField()
    bytes = models.BigIntegerField()
    left = models.BigIntegerField(default=0)
    """Records beyond those that one run takes."""
    digest = models.BinaryField(max_length=16)
    """The same for the same action on the same records in the same state."""
    content = models.BinaryField(null=True)
    """The records (`actions.plans`); None once they are kept no longer."""

    class Meta:
        db_table = "omnidash_plan"


class Run(models.Model):
    """One execution of an action: its progress, its outcome, and its entry in the audit log. What
    was refused, and logins that failed, are entries too. Never changed after its end."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"
        INTERRUPTED = "interrupted"
        REFUSED = "refused"

    UNFINISHED = (State.QUEUED, State.RUNNING)

    plan = models.OneToOneField(Plan, models.SET_NULL, null=True, related_name="run")
    action = models.CharField(max_length=40, db_index=True)
    store = models.CharField(max_length=100, db_index=True)
    """Empty for what concerns none."""
    address = models.TextField(default="")
    params = models.TextField(default="{}")
    """JSON in ASCII: names of records may hold what no database takes as text."""
    who = models.CharField(max_length=150, db_index=True)
    """The name at that time, whatever becomes of the account."""
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    origin = models.CharField(max_length=64, default="")
    """The address of the browser, or "schedule"."""
    state = models.CharField(max_length=12, choices=State, default=State.QUEUED, db_index=True)
    done = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    message = models.TextField(default="")
    report = models.TextField(default="{}")
    """JSON in ASCII: why records were skipped, and how many."""
    stop_asked = models.CharField(max_length=150, default="")
    """Who asked the run to stop."""
    task = models.CharField(max_length=40, default="")
    """Its number in the queue."""
    worker = models.CharField(max_length=100, default="")
    bin = models.CharField(max_length=100, default="")
    """The name of the file that holds what was removed; empty when there is none (any more)."""
    undoes = models.ForeignKey("self", models.SET_NULL, null=True, related_name="undone_by")
    digest = models.BinaryField(max_length=16, default=b"")
    created_at = models.FloatField(db_index=True)
    started_at = models.FloatField(null=True)
    beat_at = models.FloatField(null=True)
    """When its worker last said that it is alive."""
    ended_at = models.FloatField(null=True)

    class Meta:
        db_table = "omnidash_run"
        default_permissions = ("view",)
        permissions = [
            ("extend_results", "Can set the expiry of results"),
            ("delete_records", "Can delete single and selected records"),
            ("clean_up", "Can clean up what belongs to nothing or has outlived its use"),
            ("put_back", "Can put back what was deleted"),
            ("clear_store", "Can delete all records of a kind"),
            ("edit_config", "Can add, change and delete configuration"),
            ("edit_schedules", "Can change schedules"),
            ("back_up", "Can make and verify backups"),
            ("restore_store", "Can restore, copy, upload and delete backups"),
            ("download_backups", "Can download backups, which hold every secret of a store"),
        ]


class Backup(models.Model):
    """A backup's file, and what is known of it. The file says all that matters itself; this is
    what was found when it was looked at."""

    class Reason(models.TextChoices):
        ASKED = "asked"
        SCHEDULE = "schedule"
        SAFETY = "safety"
        """Made before a restore."""
        COPY = "copy"
        UPLOAD = "upload"
        FOUND = "found"
        """Its file lay in the folder."""

    class State(models.TextChoices):
        UNKNOWN = ""
        GOOD = "good"
        BAD = "bad"

    id = models.CharField(max_length=32, primary_key=True)
    """Made by the server at random; the only way to name a backup from outside."""
    name = models.CharField(max_length=100, unique=True)
    """Of its file in the folder of backups."""
    store = models.CharField(max_length=100, db_index=True)
    """The configured store that it is of; empty for one from elsewhere."""
    backend = models.CharField(max_length=16)
    address = models.TextField()
    made_at = models.FloatField(db_index=True)
    reason = models.CharField(max_length=8, choices=Reason)
    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="backups")
    size = models.BigIntegerField()
    """Bytes of the file; `unpacked` of what is in it."""
    unpacked = models.BigIntegerField()
    counts = models.TextField(default="{}")
    """JSON: records by kind."""
    sections = models.TextField(default="[]")
    """JSON: [kind, consistency, began, ended]."""
    checked = models.CharField(max_length=4, choices=State, default=State.UNKNOWN)
    """By its checksum, counts and schema; `checked_at` when, `checked_note` what was found."""
    checked_at = models.FloatField(null=True)
    checked_note = models.TextField(default="")
    tried = models.CharField(max_length=4, choices=State, default=State.UNKNOWN)
    """By a trial restore, compared record by record."""
    tried_at = models.FloatField(null=True)
    tried_note = models.TextField(default="")
    copied_at = models.FloatField(null=True)
    """When it was at the second destination and checked there; `copy_note` why it is not."""
    copy_note = models.TextField(default="")

    class Meta:
        db_table = "omnidash_backup"


class Schedule(models.Model):
    """A cleanup that is started by the clock, in the name of who made the schedule."""

    class Every(models.TextChoices):
        HOURS = "hours"
        DAY = "day"
        WEEK = "week"

    store = models.CharField(max_length=100)
    action = models.CharField(max_length=40)
    params = models.TextField(default="{}")
    every = models.CharField(max_length=8, choices=Every)
    hours = models.IntegerField(default=24)
    """For HOURS, how many."""
    weekday = models.IntegerField(default=0)
    """For WEEK, Monday is 0."""
    minute = models.IntegerField(default=180)
    """For DAY and WEEK, of the day in the zone `zone`."""
    zone = models.CharField(max_length=64, default="UTC")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    enabled = models.BooleanField(default=True)
    next_at = models.FloatField(db_index=True)
    last_run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="+")

    class Meta:
        db_table = "omnidash_schedule"
