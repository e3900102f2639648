"""Backups: files in one private folder, what is known of each, and proofs that they are good."""

from __future__ import annotations

from omnidash.backups.checking import check, trial
from omnidash.backups.copies import catch_up, fetch_all, second, send
from omnidash.backups.folder import (
    GONE,
    NAME,
    BackupError,
    adopt,
    counts_of,
    delete,
    drop,
    folder,
    good,
    is_last_good,
    last_good,
    limits,
    newest,
    open_to,
    path_of,
    records_of,
    refused_elsewhere,
    tidy,
)
from omnidash.backups.making import create
from omnidash.backups.receiving import receive
from omnidash.backups.retention import chosen, retain, retention

__all__ = [
    "GONE", "NAME", "BackupError", "adopt", "catch_up", "check", "chosen", "counts_of", "create",
    "delete", "drop", "fetch_all", "folder", "good", "is_last_good", "last_good", "limits",
    "newest", "open_to", "path_of", "receive", "records_of", "refused_elsewhere", "retain",
    "retention", "second", "send", "tidy", "trial",
]  # fmt: skip
