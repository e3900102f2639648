"""A JSON store looked at closely: the directory, each file, who owns it, what is unreadable."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from typing import Any

from storage.base import Counts, Fact, Inspection, StoreDenied, StoreError
from storage.json_store import files, journal
from storage.json_store.agents import index_agents
from storage.json_store.files import StoreFile
from storage.json_store.layout import Unreadable
from storage.json_store.metrics import CAP
from storage.json_store.results import ResultIndex
from storage.json_store.store import JsonFiles, listing_or_none, objects_or_none
from storage.records import Broken

_LOW_SHARE, _LOW_BYTES = 0.05, 100_000_000
_PREVIEW = 200
_OWNER_WORDS = {
    "live": "a running OmniDaemon",
    "unproven": "cannot be proven stopped",
    "free": "nobody",
}
_LEFTOVERS = dict.fromkeys(files.HALF_WRITTEN, "half-written by OmniDaemon") | {
    ".health_check": "left behind by a health check of OmniDaemon"
}


def _mode(status: os.stat_result) -> str:
    return stat.filemode(status.st_mode)


def _owner_name(status: os.stat_result) -> str:
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{user}:{group}"


def _file_system(path: str) -> str | None:
    """The type of the file system that holds a path, by the longest mount point above it."""
    path = os.path.realpath(path)
    best, found = "", None
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                point = left.split()[4].replace("\\040", " ")
                under = path == point or path.startswith(point.rstrip("/") + "/")
                if under and len(point) >= len(best):
                    best, found = point, right.split()[0]
    except (OSError, IndexError):
        return None
    return found


class JsonInspection(JsonFiles):
    """Health, counts and evidence."""

    def health_check(self) -> dict[str, Any]:
        started = time.perf_counter()
        answer: dict[str, Any] = {"status": "healthy", "backend": "json"}
        try:
            counts = self.counts()
            troubles = [trouble for trouble in map(self._trouble, self._files) if trouble]
        except StoreError as error:
            return {"status": "unhealthy", "backend": "json", "error": str(error)}
        answer |= {
            "storage_dir": self.directory,
            "connected": True,
            "agents_count": counts.agents,
            "results_count": counts.results,
            "metrics_count": counts.metrics,
            "latency_ms": (time.perf_counter() - started) * 1000,
        }
        if troubles:
            answer |= {"status": "unhealthy", "error": "; ".join(troubles)}
        return answer

    def counts(self) -> Counts:
        counts = Counts(metrics_cap=CAP)
        agents = objects_or_none(self._agents)
        if agents is not None:
            index = agents.derive(index_agents)
            counts.agents, counts.topics = len(index.rows), len(index.topics)
        results = objects_or_none(self._results)
        if results is not None:
            found = results.derive(ResultIndex)
            counts.expired = found.expired(time.time())
            counts.results = len(results.values) - counts.expired
            counts.learnt = len(results.values)
            counts.forever = len(found.forever)
            counts.results_indexed = len(results.values)
            counts.unreadable = len(found.problems)
        metrics = listing_or_none(self._metrics)
        if metrics is not None:
            counts.metrics = len(metrics.values)
        config = objects_or_none(self._config)
        counts.config = None if config is None else len(config.values)
        return counts

    def inspect(self) -> Inspection:
        started = time.perf_counter()
        directory = files.check_directory(self.directory)
        for file in self._files:
            self._status(file)
        latency = (time.perf_counter() - started) * 1000
        found = Inspection("json", self.address, latency)
        self._inspect_directory(found, directory)
        for file in self._files:
            self._inspect_file(found, file)
        self._inspect_owner(found)
        found.broken = list(self._broken())
        found.scanned = sum(map(_record_count, found.facts))
        return found

    def _inspect_directory(self, found: Inspection, status: os.stat_result) -> None:
        note = "a symbolic link" if os.path.islink(self.directory) else ""
        space = os.statvfs(self.directory)
        free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        facts = [
            Fact("directory", "path", self.directory, note=note),
            Fact("directory", "owner", _owner_name(status)),
            Fact("directory", "permissions", _mode(status)),
            Fact("directory", "file system", _file_system(self.directory)),
            Fact("directory", "read-only", bool(space.f_flag & os.ST_RDONLY), "flag"),
            Fact("directory", "free space", free, "bytes"),
            Fact("directory", "size of the file system", size, "bytes"),
            Fact("directory", "free inodes", space.f_favail if space.f_files else None, "count"),
        ]
        found.facts += facts
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            found.risks.append(f"{self.directory} may be written by everybody on this host")
        if free < _LOW_BYTES or free < size * _LOW_SHARE:
            found.troubles.append(f"only {free / 1e6:.0f} MB are free at {self.directory}")
        if space.f_files and space.f_favail < space.f_files * 0.01:
            found.troubles.append(f"only {space.f_favail} inodes are free at {self.directory}")
        if journal.is_pending(self.directory):
            found.troubles.append(
                f"a restore of {self.directory} is being made or was left half done: the next "
                "change of it by OmniDash finishes or undoes it"
            )
        self._inspect_leftovers(found)

    def _inspect_leftovers(self, found: Inspection) -> None:
        try:
            names = sorted(os.listdir(self.directory))
        except OSError as error:
            found.denied.append(f"listing {self.directory}: {files.reason(error)}")
            return
        for name in names:
            if name in _LEFTOVERS:
                note = f"{_LEFTOVERS[name]}; ignored"
                found.facts.append(Fact("directory", "leftover", name, note=note))
            elif files.is_leftover(self.directory, name):
                note = "of an interrupted write of OmniDash; the next write removes it"
                found.facts.append(Fact("directory", "leftover", name, note=note))

    def _inspect_file(self, found: Inspection, file: StoreFile[Any]) -> None:
        group = file.name
        try:
            status = files.status_of(file.path)
            version = file.version()
        except StoreError as error:
            target = found.denied if isinstance(error, StoreDenied) else found.troubles
            target.append(str(error))
            found.facts.append(Fact(group, "state", "refused", note=str(error)))
            return
        if status is None:
            found.facts.append(Fact(group, "state", "no data yet", note="there is no such file"))
            return
        state = "corrupt" if version.problem else "readable"
        records = None if version.document is None else _records(file, version.document)
        lag = "OmniDaemon may hold up to 99 newer ones in memory"
        found.facts += [
            Fact(group, "state", state, note=version.problem),
            Fact(group, "size", status.st_size, "bytes"),
            Fact(group, "modified", status.st_mtime, "moment"),
            Fact(group, "records", records, "count", lag if file is self._metrics else ""),
            Fact(group, "permissions", _mode(status)),
            Fact(group, "owner", _owner_name(status)),
        ]
        if version.problem:
            found.troubles.append(version.problem)
            found.broken.append(Broken(file.name, version.problem))
        elif broken := _unparsed(version.document):
            found.troubles.append(
                f"{file.name}: {broken} records are not JSON; do not restart the daemon: it cannot "
                "read the file and would overwrite it"
            )
        if status.st_mode & stat.S_IWOTH:
            found.risks.append(f"{file.path} may be written by everybody on this host")

    def _inspect_owner(self, found: Inspection) -> None:
        owner = self.owner()
        note = "; ".join(owner.evidence)
        found.facts.append(Fact("ownership", "used by", _OWNER_WORDS[owner.state], note=note))

    def _broken(self) -> Iterator[Broken]:
        agents = objects_or_none(self._agents)
        if agents is not None:
            for row in agents.derive(index_agents).rows:
                if row.problem:
                    key = f"agents.json: {row.topic} / {row.name}"
                    yield Broken(key, row.problem, agents.text(row.topic)[:_PREVIEW])
        results = objects_or_none(self._results)
        if results is not None:
            for key, result in results.derive(ResultIndex).problems.items():
                yield Broken(f"results.json: {key}", result.problem, results.text(key)[:_PREVIEW])
        metrics = listing_or_none(self._metrics)
        for position, value in enumerate(metrics.values if metrics else []):
            if metrics and not isinstance(value, dict):
                why = value.reason if isinstance(value, Unreadable) else "is no object"
                preview = metrics.text(position)[:_PREVIEW]
                yield Broken(f"metrics.json: event {position}", why, preview)
        config = objects_or_none(self._config)
        for key, value in config.values.items() if config else ():
            if config and isinstance(value, Unreadable):
                yield Broken(f"config.json: {key}", value.reason, config.text(key)[:_PREVIEW])


def _record_count(fact: Fact) -> int:
    return fact.value if fact.name == "records" and isinstance(fact.value, int) else 0


def _records(file: StoreFile[Any], document: Any) -> int:
    return len(
        document.derive(index_agents).rows if file.name == "agents.json" else document.values
    )


def _unparsed(document: Any) -> int:
    values = document.values.values() if isinstance(document.values, dict) else document.values
    return sum(isinstance(value, Unreadable) for value in values)
