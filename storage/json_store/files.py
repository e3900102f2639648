"""Reading one whole version of a file, and replacing it so that no reader ever sees a part."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from storage.base import StoreBusy, StoreDenied, StoreError, StoreReadOnly, StoreUnavailable
from storage.json_store.layout import Corrupt, Document

DocumentT = TypeVar("DocumentT", bound=Document)
Signature = tuple[int, int, int]

LOCK_NAME = ".omnidash.lock"
TEMPORARY_PREFIX = ".omnidash-"
_LOCK_PATIENCE = 10.0
_LARGEST = 1 << 29  # a file beyond 512 MB would not fit into memory parsed
_RACY = 0.05  # seconds: two versions within one clock tick of the file system may look alike


def signature_of(status: os.stat_result) -> Signature:
    """What tells one version of a file from another."""
    return status.st_ino, status.st_mtime_ns, status.st_size


def reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def check_directory(path: str) -> os.stat_result:
    """StoreUnavailable with the exact path and reason if the directory cannot be read."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {reason(error)}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise StoreUnavailable(f"{path}: {os.strerror(errno.ENOTDIR)}")
    if not os.access(path, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreUnavailable(f"{path}: {os.strerror(errno.EACCES)}")
    return status


def status_of(path: str) -> os.stat_result | None:
    """A file's status, None if it is missing; refused if it is no regular file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        check_directory(os.path.dirname(path))
        return None
    except OSError as error:
        check_directory(os.path.dirname(path))
        raise StoreUnavailable(f"{path}: {reason(error)}") from None
    kind = _strange_kind(status.st_mode)
    if kind:
        raise StoreDenied(f"{path} is {kind}, not a regular file; it is not read")
    return status


def _strange_kind(mode: int) -> str:
    """What it is if not a regular file: a link may lead anywhere, a pipe may block for ever."""
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def read_generation(path: str) -> tuple[bytes, os.stat_result] | None:
    """All bytes of one version, the present one if the file holds still; None if it is missing."""
    for attempt in range(5):
        if status_of(path) is None:
            return None
        try:
            raw, before, after = _read_once(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _refusal(path, error) from None
        whole = signature_of(before) == signature_of(after) and len(raw) == before.st_size
        if whole and (attempt == 4 or _is_present(path, after)):
            return raw, after
        time.sleep(0.005)
    raise StoreUnavailable(f"{path} changes faster than it can be read")


def _read_once(path: str) -> tuple[bytes, os.stat_result, os.stat_result]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise StoreDenied(f"{path} is not a regular file; it is not read")
        if before.st_size > _LARGEST:
            raise StoreDenied(f"{path} is larger than {_LARGEST >> 20} MB; it is not read")
        raw = file.read()
        return raw, before, os.fstat(file.fileno())


def _is_present(path: str, status: os.stat_result) -> bool:
    try:
        return signature_of(os.lstat(path)) == signature_of(status)
    except OSError:
        return False


def _refusal(path: str, error: OSError) -> StoreError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreDenied(f"{path}: {reason(error)}")
    if error.errno == errno.ELOOP:
        return StoreDenied(f"{path} is a symbolic link, not a regular file; it is not read")
    return StoreUnavailable(f"{path}: {reason(error)}")


@dataclass(frozen=True, slots=True)
class Version(Generic[DocumentT]):
    """One version of a file. `signature` None: there is no file, and so no data yet. `raw` are the
    bytes of a corrupt one."""

    document: DocumentT | None
    signature: Signature | None
    problem: str = ""
    settled: bool = True
    raw: bytes = b""

    @property
    def modified(self) -> float | None:
        return None if self.signature is None else self.signature[1] / 1e9


class StoreFile(Generic[DocumentT]):
    """One of the store's files, parsed once per version for all threads."""

    def __init__(
        self, directory: str, name: str, parse: Callable[[bytes], DocumentT], empty: bytes
    ) -> None:
        self.name = name
        self.path = os.path.join(directory, name)
        self._parse = parse
        self._nothing: Version[DocumentT] = Version(parse(empty), None)
        self._version: Version[DocumentT] | None = None
        self._lock = threading.Lock()

    def version(self) -> Version[DocumentT]:
        """The present version, perhaps a corrupt one. StoreError if it cannot be read at all."""
        status = status_of(self.path)
        if status is None:
            return self._nothing
        with self._lock:
            known = self._version
            if known and known.settled and known.signature == signature_of(status):
                return known
            found = read_generation(self.path)
            if found is None:
                return self._nothing
            self._version = self._judged(*found)
            return self._version

    def _judged(self, raw: bytes, status: os.stat_result) -> Version[DocumentT]:
        signature = signature_of(status)
        settled = abs(time.time() - status.st_mtime) > _RACY
        known = self._version
        if known and known.document and known.document.raw == raw:
            return Version(known.document, signature, settled=settled)
        try:
            return Version(self._parse(raw), signature, settled=settled)
        except Corrupt as error:
            problem = self._corrupt(status.st_mtime, str(error))
            return Version(None, signature, problem, settled, raw)

    def _corrupt(self, modified: float, why: str) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(modified))
        return (
            f"{self.name} is corrupt since {since} ({why}); "
            "do not restart the daemon: it would overwrite it"
        )

    def document(self) -> DocumentT:
        """The present records; StoreUnavailable if the file is corrupt."""
        return self.checked(self.version())

    def checked(self, version: Version[DocumentT]) -> DocumentT:
        if version.document is None:
            raise StoreUnavailable(version.problem)
        return version.document

    def remember(self, document: DocumentT, status: os.stat_result) -> None:
        """What was just written need not be read again."""
        with self._lock:
            settled = abs(time.time() - status.st_mtime) > _RACY
            self._version = Version(document, signature_of(status), settled=settled)

    def forget(self) -> None:
        with self._lock:
            self._version = None


@contextmanager
def errors_of_reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refusal(path, error) from None


@contextmanager
def errors_of_writing(path: str) -> Iterator[None]:
    """What the system says against a write, in our words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreReadOnly(f"{path}: no space left; nothing changed") from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG):
            raise StoreReadOnly(f"{path}: {reason(error)}; nothing changed") from None
        raise StoreUnavailable(f"{path}: {reason(error)}; nothing changed") from None


@contextmanager
def directory_lock(directory: str) -> Iterator[int]:
    """The lock that all our processes and threads take to write; gives its file descriptor."""
    path = os.path.join(directory, LOCK_NAME)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with errors_of_writing(path):
        descriptor = os.open(path, flags, 0o600)
    try:
        _lock(descriptor, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: str) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreBusy(
                    f"another OmniDash process has been writing {directory} for a while; try again"
                ) from None
            time.sleep(0.005)


def write_beside(path: str, raw: bytes, durable: bool) -> str:
    """A complete file under a name of its own in the same directory, with the permissions of the
    file that it will replace. The caller holds the lock."""
    directory, name = os.path.split(path)
    beside = os.path.join(directory, f"{TEMPORARY_PREFIX}{name}.{secrets.token_hex(8)}.tmp")
    write_new(beside, raw, path, durable)
    return beside


def write_new(path: str, raw: bytes, like: str, durable: bool = True) -> None:
    """A complete file where there is none yet, or none at all; with the permissions of `like`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        rest = memoryview(raw)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        _take_over_permissions(descriptor, like)
        if durable:
            os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _take_over_permissions(descriptor: int, path: str) -> None:
    """Those of the file replaced; a new file is as open to readers as its directory, so that the
    daemon, perhaps under another user, can read it."""
    try:
        like = os.lstat(path)
        mode = stat.S_IMODE(like.st_mode)
    except FileNotFoundError:
        like = os.stat(os.path.dirname(path))
        mode = stat.S_IMODE(like.st_mode) & 0o644
    for owner, group in ((like.st_uid, like.st_gid), (-1, like.st_gid)):
        try:
            os.fchown(descriptor, owner, group)
            break
        except OSError:  # only root may give files away; the group may work
            continue
    os.fchmod(descriptor, mode)


def move_into_place(beside: str, path: str, durable: bool) -> os.stat_result:
    status = os.lstat(beside)
    os.rename(beside, path)
    if durable:
        sync_directory(os.path.dirname(path))
    return status


def sync_directory(path: str) -> None:
    """What was renamed, made or removed in it stays so after a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


HALF_WRITTEN = ("agents.tmp", "results.tmp", "metrics.tmp", "config.tmp")  # OmniDaemon's own names
_IS_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}.*\.tmp")
_LONG_WRITE = 60.0  # seconds that no write of ours takes


def is_leftover(directory: str, name: str) -> bool:
    """Whether it is a temporary file of a writer of ours that was killed."""
    if not _IS_TEMPORARY.fullmatch(name):
        return False
    try:
        return time.time() - os.lstat(os.path.join(directory, name)).st_mtime > _LONG_WRITE
    except FileNotFoundError:
        return False


def of_killed_writers(directory: str) -> dict[str, os.stat_result]:
    """Temporary files, OmniDaemon's and ours, that nobody can still be writing."""
    found = {}
    with errors_of_reading(directory):
        for name in sorted(os.listdir(directory)):
            if name in HALF_WRITTEN or _IS_TEMPORARY.fullmatch(name):
                status = _if_old(os.path.join(directory, name))
                if status is not None:
                    found[name] = status
    return found


def _if_old(path: str) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    old = time.time() - status.st_mtime > _LONG_WRITE
    return status if old and stat.S_ISREG(status.st_mode) else None


def remove_leftovers(directory: str) -> None:
    """Temporary files of writers that were killed. Only the holder of the lock may have any."""
    for name in os.listdir(directory):
        if _IS_TEMPORARY.fullmatch(name):
            os.unlink(os.path.join(directory, name))
