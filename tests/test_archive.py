"""The file of the recycle bin: nothing kept is lost, and nothing is read that was not written."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.archive import (
    OWN,
    ArchiveError,
    ArchiveReader,
    ArchiveWriter,
    Header,
    Limits,
    present,
)
from storage.changes import CHANGED, GONE, Change, Kind, Record

ROOT = Path(__file__).resolve().parent.parent
HEADER = Header("bin", "json", "json:///store", 1_764_000_000.5, {"run": 7, "who": "ü"})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "bin" / "run-7.gz")


def result(name: str, raw: bytes = b'{"task_id": "x"}', **fields: Any) -> Record:
    return Record("result", (name,), raw, **fields)


def results(count: int, first: int = 0) -> list[Record]:
    return [result(f"task-{number}") for number in range(first, first + count)]


def deleted(writer: ArchiveWriter, records: Sequence[Record]) -> None:
    """As a run does with a batch of which everything could be deleted."""
    writer.keep(records)
    writer.done(Change(done=len(records)))


def read(path: str, limits: Limits = OWN) -> tuple[list[tuple[list[Record], bool]], bool]:
    """The batches, and whether the archive is complete."""
    with ArchiveReader(path, limits) as reader:
        batches = [(batch.records, batch.done) for batch in reader]
        return batches, reader.complete


def packed(path: str, lines: list[bytes]) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    return path


@contextmanager
def holding_less_than(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


# What is written is what is read

NAMES = st.text(st.characters())
IDS = st.builds("{}-{}".format, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
PAIRS = st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), min_size=1, max_size=3)


@st.composite
def any_records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(get_args(Kind)))
    form = draw(st.sampled_from(["text", "hash", "dump", "none"]))
    raw = draw(st.binary() | st.text().map(lambda text: text.encode("utf-8")))
    if form == "hash":
        raw = json.dumps(
            [[base64.b64encode(part).decode() for part in pair] for pair in draw(PAIRS)]
        ).encode()
    parts = 2 if kind in ("agent", "member", "hash") else 1
    names = tuple(draw(NAMES) for _ in range(parts))
    if kind == "file":
        names = draw(st.sampled_from([("agents.json",), ("agents.json", "2")]))
    elif kind in ("entry", "topic", "metrics") and form == "dump" and draw(st.booleans()):
        names = ()
    return Record(
        kind=kind,
        names=names,
        raw=raw,
        form=form,
        expires_at_ms=draw(st.none() | st.integers(-(1 << 62), 1 << 62)),
        score=draw(st.none() | st.floats(allow_nan=False).map(repr)),
        stream_id=draw(st.none() | IDS),
    )


RECORDS = any_records()


@given(st.lists(st.lists(RECORDS, min_size=1, max_size=4), max_size=4))
@settings(deadline=None, max_examples=60)
def test_whatever_is_kept_is_read_back_exactly(batches: list[list[Record]]):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/archive"
        with ArchiveWriter(path, HEADER) as writer:
            for records in batches:
                deleted(writer, records)
            writer.finish(verify=True)
        assert read(path) == ([(records, True) for records in batches], True)
        assert gzip.decompress(Path(path).read_bytes()).isascii()


@pytest.mark.parametrize("name", ["\ud83d\ude00", "\udcff\udc80", "\ud800", "a\0b", "\u2028", ""])
def test_names_of_any_characters_survive(path: str, name: str):
    records = [Record("agent", (name, name), name.encode("utf-8", "surrogatepass"))]
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, records)
    assert read(path) == ([(records, True)], True)


def test_a_record_of_nothing_but_escapes_does_not_swell(path: str):
    records = [result("x", b"\0" * 1_000_000)]
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, records)
    assert len(gzip.decompress(Path(path).read_bytes())) < 1_500_000
    assert read(path) == ([(records, True)], True)


def test_the_header_says_what_the_writer_wanted_to_be_remembered(path: str):
    about = {"agent": "\udcff", "nested": [{"a": None}], "number": 1 << 70}
    with ArchiveWriter(path, Header("bin", "redis", "redis://h", 1.5, about)):
        pass
    with ArchiveReader(path) as reader:
        assert reader.header == Header("bin", "redis", "redis://h", 1.5, about)
        assert list(reader) == []
        assert reader.complete


def test_nobody_else_may_read_it(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, results(1))
        assert stat.S_IMODE(os.stat(path + ".part").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


def test_it_has_its_name_only_when_it_is_finished(path: str):
    with ArchiveWriter(path, HEADER):
        assert present(path) == path + ".part"
    assert present(path) == path
    assert os.listdir(os.path.dirname(path)) == ["run-7.gz"]
    assert present(path + "x") is None


def test_no_archive_is_written_over_another(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        with pytest.raises(FileExistsError):
            ArchiveWriter(path, HEADER)
        deleted(writer, results(1))
    with pytest.raises(FileExistsError):
        ArchiveWriter(path, HEADER)
    assert read(path) == ([(results(1), True)], True)
    assert os.listdir(os.path.dirname(path)) == ["run-7.gz"]


def test_a_link_in_its_place_is_not_followed(path: str, tmp_path: Path):
    os.mkdir(os.path.dirname(path))
    os.symlink(tmp_path / "elsewhere", path + ".part")
    with pytest.raises(FileExistsError):
        ArchiveWriter(path, HEADER)
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic links"):
        ArchiveReader(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_is_refused_and_not_waited_for(path: str):
    os.mkdir(os.path.dirname(path))
    os.mkfifo(path)
    with pytest.raises(ArchiveError, match="no regular file"):
        ArchiveReader(path)


# What was deleted in the end


def test_a_batch_without_a_note_may_have_been_deleted_or_not(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, results(2))
        writer.keep(results(2, first=2))
    assert read(path) == ([(results(2), True), (results(2, first=2), False)], True)


def test_what_was_not_deleted_is_not_read(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        writer.keep(results(3))
        writer.done(Change(done=0, skipped=[(one.names, CHANGED) for one in results(3)]))
        writer.keep(results(3))
        writer.done(Change(done=2, skipped=[(("task-1",), GONE), (("other",), GONE)]))
        assert writer.counts == {"result": 2}
    kept = results(3)
    assert read(path) == ([([kept[0], kept[2]], True)], True)


def test_of_a_record_kept_again_the_last_version_counts(path: str):
    newer = result("task-1", b"newer")
    with ArchiveWriter(path, HEADER) as writer:
        writer.keep(results(3))
        writer.keep([newer])
        writer.done(Change(done=2, skipped=[(("task-2",), CHANGED)]))
        writer.keep([newer])  # of another batch now
        writer.done(Change(done=1))
    assert read(path) == ([([results(1)[0], newer], True), ([newer], True)], True)


def test_two_records_of_one_name_are_two(path: str):
    twins = [Record("agent", ("t", "a"), b"1"), Record("agent", ("t", "a"), b"2")]
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, twins)
        writer.keep(twins[:1])
        writer.done(Change(done=1, skipped=[(("t", "a"), CHANGED)]))
    assert read(path) == ([(twins, True), (twins[:1], True)], True)


def test_an_error_of_a_run_leaves_what_was_deleted_until_then(path: str):
    with pytest.raises(RuntimeError, match="the store"), ArchiveWriter(path, HEADER) as writer:
        deleted(writer, results(2))
        raise RuntimeError("the store is gone")
    assert read(path) == ([(results(2), True)], True)


def test_a_backup_that_fails_is_none(path: str):
    header = Header("backup", "json", "json:///store", 1.0)
    with pytest.raises(RuntimeError), ArchiveWriter(path, header) as writer:
        writer.add(results(2))
        raise RuntimeError("the store is gone")
    assert present(path) is None
    with ArchiveWriter(path, header) as writer:
        writer.add(results(2))
        writer.add(results(2, first=2))
        writer.finish(verify=True)
    assert read(path, Limits()) == ([(results(2), True), (results(2, first=2), True)], True)


def test_what_is_discarded_was_never_there(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        writer.discard()
    assert present(path) is None


# Cut off, damaged, hostile


def small_archive(path: str) -> tuple[bytes, list[list[Record]]]:
    batches = [results(2), [result("y", b"\xff\0")], results(1, first=5)]
    with ArchiveWriter(path, HEADER) as writer:
        for records in batches:
            deleted(writer, records)
    return Path(path).read_bytes(), batches


def test_cut_off_anywhere_it_is_read_as_far_as_it_is_whole(path: str):
    whole, batches = small_archive(path)
    most = 0
    for length in range(len(whole)):
        Path(path).write_bytes(whole[:length])
        try:
            found, complete = read(path)
        except ArchiveError as error:
            assert "cut off before its header" in str(error)
            assert most == 0
            continue
        assert not complete
        assert [records for records, _ in found] == batches[: len(found)]
        assert all(done for _, done in found[:-1])
        assert len(found) >= most
        most = len(found)
    assert most == len(batches)


def test_no_flipped_bit_ever_shows_what_was_not_written(path: str):
    whole, batches = small_archive(path)
    rejected = 0
    for position in range(len(whole) * 2):  # two bits of each byte, not always the same
        damaged = bytearray(whole)
        damaged[position // 2] ^= 1 << position * 3 % 8
        Path(path).write_bytes(damaged)
        found: list[list[Record]] = []
        try:
            with ArchiveReader(path) as reader:
                for batch in reader:
                    found.append(batch.records)
                if reader.complete:  # a date or an operating system in gzip's own header
                    assert found == batches
                    assert reader.header == HEADER
                else:
                    rejected += 1
        except ArchiveError:
            rejected += 1
        assert found == batches[: len(found)]
    assert rejected > len(whole) * 2 - 25


def test_a_damaged_end_does_not_hide_what_was_kept_before_it(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, results(2))
        writer.keep(results(2, first=2))
        kept = os.path.getsize(path + ".part")
    with open(path, "r+b") as file:
        file.truncate(kept)  # as after a power cut: longer, but of zeros
        file.truncate(kept + 5000)
    found = []
    with ArchiveReader(path) as reader:
        with pytest.raises(ArchiveError, match="damaged"):
            for batch in reader:
                found.append((batch.records, batch.done))
        assert not reader.complete
    assert found == [(results(2), True), (results(2, first=2), False)]


@pytest.mark.parametrize("tail", [b"x", b"\0", gzip.compress(b'{"kind":"result"}\n', mtime=0)])
def test_nothing_may_follow_the_end(path: str, tail: bytes):
    whole, _ = small_archive(path)
    Path(path).write_bytes(whole + tail)
    with pytest.raises(ArchiveError, match="something follows"):
        read(path)


@pytest.mark.parametrize(
    "raw", [b"", b"\x1f\x8b", b"PK\x03\x04", b"{}\n", gzip.compress(b"", mtime=0)]
)
def test_other_files_are_no_archives(path: str, raw: bytes):
    os.mkdir(os.path.dirname(path))
    Path(path).write_bytes(raw)
    with pytest.raises(ArchiveError):
        read(path)


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"{", b'{"a": 1}', b'{"format": "omnidash-archive", "version": 1}', b"\xff"],
)
def test_a_first_line_that_is_no_header_is_refused(path: str, line: bytes):
    with pytest.raises(ArchiveError):
        read(packed(path, [line]))


def test_an_archive_with_another_record_put_in_is_refused(path: str):
    small_archive(path)
    lines = gzip.decompress(Path(path).read_bytes()).splitlines()
    for position in range(1, len(lines) + 1):
        more = [*lines[:position], lines[1], *lines[position:]]
        with pytest.raises(ArchiveError):
            read(packed(path, more))
    for position in range(len(lines) - 1):  # without the last it is one that was cut off
        with pytest.raises(ArchiveError):
            read(packed(path, lines[:position] + lines[position + 1 :]))


def sealed_lines(path: str, lines: list[dict[str, Any]]) -> str:
    """An archive whose checksums are right, as only a liar would write it."""
    digest, found = hashlib.sha256(), []
    for line in lines:
        text = json.dumps(line).encode()
        if "names" not in line:
            text = text[:-1]
            digest.update(text)
            seal = b',"sha256":"' + digest.hexdigest().encode() + b'"}'
            text, rest = text + seal, seal + b"\n"
        else:
            rest = text + b"\n"
        digest.update(rest)
        found.append(text)
    return packed(path, found)


HEAD = {
    "format": "omnidash-archive",
    "version": 1,
    "kind": "bin",
    "backend": "json",
    "address": "",
    "created_at": 1,
    "about": {},
}
KEPT = {"kept": 1, "records": 1}
DONE = {"done": 1, "except": []}
END = {"counts": {"result": 1}, "complete": True}
GOOD = {"kind": "result", "names": ["a"], "raw": "{}"}


def test_a_forged_archive_is_read_if_it_is_well_formed(path: str):
    found = read(sealed_lines(path, [HEAD, GOOD, KEPT, DONE, END]), Limits())
    assert found == ([([result("a", b"{}")], True)], True)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "file:///etc"},
        {"kind": ["result"]},
        {"names": "abc"},
        {"names": [1]},
        {"names": [{"b64": 1}]},
        {"names": [{"b64": "/w=="}]},
        {"raw": 5},
        {"raw": None},
        {"raw": None, "raw_b64": "%%%"},
        {"form": "pickle"},
        {"form": {}},
        {"expires_at_ms": 1.5},
        {"expires_at_ms": True},
        {"expires_at_ms": 10**30},
        {"expires_at_ms": 1 << 63},
        {"score": 1},
        {"score": "nan"},
        {"score": "1_0"},
        {"stream_id": []},
        {"stream_id": "5"},
        {"stream_id": "18446744073709551616-0"},
        {"names": []},
        {"names": [], "form": "dump"},
        {"kind": "metrics", "names": []},
        {"kind": "file", "names": ["agents.json", "x"]},
        {"names": ["a", "b"]},
        {"kind": "agent"},
        {"kind": "file", "names": ["../agents.json"]},
        {"kind": "file", "names": [".."]},
        {"form": "hash", "raw": "{}"},
        {"form": "hash", "raw": "[]"},
        {"form": "hash", "raw": '[["YQ=="]]'},
        {"form": "hash", "raw": '[["YQ==", "%"]]'},
        {"raw": "\ud800"},
        {"raw_b64": "e30="},
        {"another": 1},
    ],
    ids=str,
)
def test_a_forged_record_is_refused(path: str, bad: dict[str, Any]):
    with pytest.raises(ArchiveError, match="a record of the archive"):
        read(sealed_lines(path, [HEAD, {**GOOD, **bad}, KEPT, DONE, END]))


@pytest.mark.parametrize(
    "lines",
    [
        [{**HEAD, "version": 2}],
        [{**HEAD, "kind": "shell"}],
        [{**HEAD, "about": []}],
        [{**HEAD, "created_at": 10**400}],
        [{**HEAD, "created_at": float("nan")}],
        [{**HEAD, "created_at": True}],
        [{**HEAD, "about": {"a": json.loads("[" * 150 + "]" * 150)}}],
        [HEAD, GOOD, {"kept": 2, "records": 1}],
        [HEAD, GOOD, {"kept": 1, "records": 2}],
        [HEAD, GOOD, DONE],
        [HEAD, GOOD, KEPT, {"done": 2, "except": []}],
        [HEAD, GOOD, KEPT, {"done": 1}],
        [HEAD, GOOD, KEPT, {"done": 1, "except": [5]}],
        [HEAD, GOOD, KEPT, DONE, DONE],
        [HEAD, GOOD, KEPT, {"what": 1}],
        [HEAD, GOOD, KEPT, DONE, {**END, "counts": {"result": 2}}],
        [HEAD, GOOD, KEPT, DONE, {**END, "complete": 1}],
        [HEAD, GOOD, KEPT, DONE, END, GOOD],
        [HEAD, GOOD, END],
    ],
)
def test_a_forged_structure_is_refused(path: str, lines: list[dict[str, Any]]):
    with pytest.raises(ArchiveError):
        read(sealed_lines(path, lines))


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(line=1000), "line of the archive is longer than 1,000"),
        (Limits(output=100_000), "more than 100,000 bytes"),
        (Limits(records=50), "more than 50 records"),
        (Limits(ratio=20), "packed more than 20 times"),
    ],
)
def test_limits_stop_a_file_from_anywhere(path: str, limits: Limits, why: str):
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, [result(str(number), b" " * 50_000) for number in range(60)])
    with pytest.raises(ArchiveError, match=why):
        read(path, limits)
    assert read(path)[1]


def test_a_line_without_end_is_given_up_within_the_limit(path: str):
    os.mkdir(os.path.dirname(path))
    Path(path).write_bytes(gzip.compress(b" " * 300_000_000))
    with holding_less_than(40 << 20), pytest.raises(ArchiveError, match="longer than"):
        read(path, Limits(line=8 << 20, ratio=None))


def test_never_more_than_a_batch_is_held(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        for number in range(60):
            deleted(writer, [result(str(number), b"x" * 1_000_000)])
    with holding_less_than(24 << 20), ArchiveReader(path) as reader:
        assert sum(len(batch.records) for batch in reader) == 60


# A writer that is killed, a disk that is full

WRITER = """
import sys
from storage.archive import ArchiveWriter, Header
from storage.changes import Change, Record
with ArchiveWriter(sys.argv[1], Header("bin", "json", "", 1.0)) as writer:
    for batch in range(100_000):
        records = [Record("result", (f"{batch}-{n}",), b"x" * 200) for n in range(50)]
        writer.keep(records)
        print(batch, flush=True)
        writer.done(Change(done=50))
"""


@pytest.mark.parametrize("batches", [1, 2, 7, 40])
def test_all_that_was_kept_is_read_after_the_writer_was_killed(path: str, batches: int):
    command = [sys.executable, "-c", WRITER, path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        for _ in range(batches):
            kept = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        more = writer.stdout.read().split()
    kept = int(more[-1]) if more else kept
    found = present(path)
    assert found == path + ".part"
    read_back, complete = read(found)
    assert not complete
    assert len(read_back) >= kept + 1
    assert all(done for _, done in read_back[:-1])
    for number, (records, _) in enumerate(read_back):
        assert [one.names for one in records] == [(f"{number}-{n}",) for n in range(50)]


def test_a_full_disk_is_told_and_leaves_no_half_batch(path: str):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    large = [result(str(number), os.urandom(500).hex().encode()) for number in range(200)]
    try:
        with ArchiveWriter(path, HEADER) as writer:
            deleted(writer, results(2))
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            with pytest.raises(OSError, match="File too large"):
                writer.keep(large)
            writer.done(Change(done=0))
            deleted(writer, results(2, first=2))  # which still fits
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    assert read(path) == ([(results(2), True), (results(2, first=2), True)], True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_without_space_keeps_what_it_had(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        path = str(disk / "archive")
        large = [result(str(number), os.urandom(500).hex().encode()) for number in range(300)]
        with pytest.raises(OSError, match="No space left"), ArchiveWriter(path, HEADER) as writer:
            deleted(writer, results(2))
            writer.keep(large)
        assert read(path) == ([(results(2), True)], True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_batch_is_on_disk_before_keep_returns(path: str, monkeypatch: pytest.MonkeyPatch):
    real, synced = os.fdatasync, []

    def noted(file: int) -> None:
        real(file)
        synced.append(read(path + ".part")[0])

    monkeypatch.setattr(os, "fdatasync", noted)
    with ArchiveWriter(path, HEADER) as writer:
        for number in range(3):
            deleted(writer, results(1, first=number))
            assert synced[-1][-1] == (results(1, first=number), False)


def test_what_is_read_back_wrongly_is_not_given_its_name(
    path: str, monkeypatch: pytest.MonkeyPatch
):
    writer = ArchiveWriter(path, HEADER)
    deleted(writer, results(3))
    with open(path + ".part", "r+b") as file:
        file.seek(200)
        file.write(b"\0\0\0\0")
    with pytest.raises(ArchiveError):
        writer.finish(verify=True)
    assert present(path) == path + ".part"


# Backups: the whole file is good, or it is refused

BACKUP = Header("backup", "redis", "redis://h", 1_764_000_000.5, {"run_id": "ü"})
KINDS = {"file": 1, "agent": 2, "result": 300, "metrics": 40}


def backup_records() -> list[list[Record]]:
    draw = random.Random(1)
    return [
        [Record("file", ("agents.json",), b"\xff\0{")],
        [Record("agent", ("t", "ä"), b'[["YQ==", "Yg=="]]', "hash"), Record("agent", ("t", "b"))],
        [
            result(f"task-{number}", draw.randbytes(30).hex().encode(), expires_at_ms=number)
            for number in range(300)
        ],
        [Record("metrics", (f"{n}-0",), b"{}", stream_id=f"{n}-0") for n in range(40)],
    ]


def backup(path: str, batches: Sequence[Sequence[Record]] | None = None) -> bytes:
    with ArchiveWriter(path, BACKUP) as writer:
        for records in backup_records() if batches is None else batches:
            writer.add(records)
        writer.finish(verify=True, about={"sections": [["agent", "fuzzy", 1.5, 2.5]]})
    return Path(path).read_bytes()


def verify(path: str, limits: Limits = Limits()) -> ArchiveReader:  # noqa: B008 (frozen)
    with ArchiveReader(path, limits) as reader:
        for _ in reader.verify():
            pass
    return reader


def test_a_backup_is_verified_and_says_at_its_end_what_its_writer_learnt(path: str):
    whole = backup(path)
    reader = verify(path)
    assert reader.complete
    assert reader.header == BACKUP
    assert reader.counts == KINDS
    assert reader.about == {"sections": [["agent", "fuzzy", 1.5, 2.5]]}
    assert reader.unpacked == len(gzip.decompress(whole))
    with ArchiveReader(path) as again:
        assert [batch.records for batch in again] == backup_records()
        assert (again.counts, again.about) == (reader.counts, reader.about)


def test_a_backup_whose_end_says_nothing_is_read(path: str):
    with ArchiveWriter(path, BACKUP) as writer:
        writer.add(results(1))
    assert b'"about"' not in gzip.decompress(Path(path).read_bytes()).splitlines()[-1]
    reader = verify(path)
    assert (reader.complete, reader.about) == (True, {})


def test_the_verification_tells_how_far_it_is(path: str):
    size = len(backup(path))
    with ArchiveReader(path) as reader:
        told = list(reader.verify())
    assert len(told) == 4
    assert told == sorted(told)
    assert 0 < told[-1] <= size


def test_a_recycle_bin_is_no_backup(path: str):
    with ArchiveWriter(path, HEADER) as writer:
        deleted(writer, results(1))
    with pytest.raises(ArchiveError, match="no backup"):
        verify(path)


def test_a_large_batch_becomes_several_that_a_reader_can_hold(path: str):
    many, large = results(25_000), [result(str(n), b"\0\0\0x" * 800_000) for n in range(5)]
    backup(path, [many, large])
    assert verify(path).counts == {"result": 25_005}
    with ArchiveReader(path) as reader:
        sizes = [len(batch.records) for batch in reader]
    assert sizes == [10_000, 10_000, 5_000, 2, 2, 1]


def test_a_batch_of_nothing_but_escapes_is_still_within_the_limits(path: str):
    backup(path, [[result("\1" * 300 + str(n), b"\1" * 800) for n in range(9_000)]])
    assert verify(path, Limits(ratio=None)).counts == {"result": 9_000}


def test_a_batch_too_large_to_be_held_is_refused(path: str):
    lines = [{**GOOD, "names": [str(number)]} for number in range(40_000)]
    end = [{"kept": 1, "records": 40_000}, DONE, {**END, "counts": {"result": 40_000}}]
    sealed_lines(path, [{**HEAD, "kind": "backup"}, *lines, *end])
    with pytest.raises(ArchiveError, match="larger than it should be"):
        verify(path, Limits(ratio=None))
    assert verify(path, OWN).complete
    few = [{**GOOD, "raw": "x" * 35_000_000}] * 2
    end = [{"kept": 1, "records": 2}, DONE, {**END, "counts": {"result": 2}}]
    sealed_lines(path, [{**HEAD, "kind": "backup"}, *few, *end])
    with pytest.raises(ArchiveError, match="larger than it should be"):
        verify(path, Limits(ratio=None))


def test_a_thousand_flipped_bits_are_each_refused(path: str):
    whole = backup(path)
    draw, filling = random.Random(20251124), 0
    for _ in range(1000):
        # Flags, date and system of gzip's own header say nothing of what is in it.
        position = draw.choice([*range(3), *range(10, len(whole))])
        damaged = bytearray(whole)
        damaged[position] ^= 1 << draw.randrange(8)
        Path(path).write_bytes(damaged)
        try:
            verify(path)
        except ArchiveError:
            continue
        # Between the blocks of a gzip stream lie a few bits that fill a byte and are not read.
        assert gzip.decompress(damaged) == gzip.decompress(whole)
        filling += 1
    assert filling < 3


def test_a_backup_cut_off_behind_any_line_is_refused(path: str):
    lines = gzip.decompress(backup(path)).splitlines(keepends=True)
    for count in range(len(lines)):
        Path(path).write_bytes(gzip.compress(b"".join(lines[:count]), 1))
        with pytest.raises(ArchiveError, match="cut off"):
            verify(path)
    Path(path).write_bytes(gzip.compress(b"".join(lines), 1))
    assert verify(path).complete


def test_a_backup_without_any_of_its_last_bytes_is_refused(path: str):
    whole = backup(path)
    for missing in range(1, 201):
        Path(path).write_bytes(whole[:-missing])
        with pytest.raises(ArchiveError, match="cut off"):
            verify(path)


@pytest.mark.parametrize("rest", [b"x", b" ", b"\n", b"{}\n", b"\0" * 5_000_000])
def test_nothing_may_follow_within_the_packed_text(path: str, rest: bytes):
    text = gzip.decompress(backup(path))
    Path(path).write_bytes(gzip.compress(text + rest))
    with pytest.raises(ArchiveError, match="something follows"):
        verify(path)


def test_a_second_member_is_refused_and_not_unpacked(path: str):
    whole = backup(path)
    Path(path).write_bytes(whole + gzip.compress(b"\0" * 100_000_000))
    with holding_less_than(8 << 20), pytest.raises(ArchiveError, match="something follows"):
        verify(path, OWN)


def bomb(path: str, line: bytes) -> str:
    """A header, and then what is to cost a reader dearly."""
    sealed_lines(path, [{**HEAD, "kind": "backup"}])
    text = gzip.decompress(Path(path).read_bytes())
    Path(path).write_bytes(gzip.compress(text + line, 6))
    return path


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[" * 100_000_000, "packed more than 200 times"),
        (b'{"a":' * 20_000_000, "packed more than 200 times"),
        (b"[" * 500_000 + b"]" * 500_000 + b"\n", "no JSON object"),
        (b'{"kind":' + b"9" * 5_000 + b"}\n", "no JSON object"),
        (b'{"kept":' + b"9" * 5_000 + b',"sha256":"00"}\n', "no JSON object"),
        (b'{"kind":"result","raw":' + b"[" * 900 + b"]" * 900 + b"}\n", "not as it should be"),
    ],
)
def test_a_bomb_is_refused_in_little_memory(path: str, line: bytes, why: str):
    bomb(path, line)
    with holding_less_than(16 << 20), pytest.raises(ArchiveError, match=why):
        verify(path)


def test_a_file_too_large_to_be_looked_at_is_refused_by_its_size(path: str):
    whole = backup(path)
    with pytest.raises(ArchiveError, match="larger than"):
        ArchiveReader(path, Limits(size=len(whole) - 1))
    assert verify(path, Limits(size=len(whole))).complete


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD, KEPT, END],
        [GOOD, KEPT, {"void": 1}, {**END, "counts": {}}],
        [GOOD, KEPT, {"done": 1, "except": [["a"]]}, {**END, "counts": {}}],
        [GOOD, KEPT, {"kept": 2, "records": 0}, {"done": 2, "except": []}, END],
        [GOOD, KEPT, DONE, {**END, "about": 5}],
        [GOOD, KEPT, DONE, {**END, "about": {"a": json.loads("[" * 150 + "]" * 150)}}],
        [GOOD, KEPT, DONE, {**END, "counts": {"result": 0}}],
        [GOOD, KEPT, DONE, GOOD, END],
        [GOOD, DONE, END],
    ],
)
def test_a_backup_that_leaves_something_out_is_refused(path: str, lines: list[dict[str, Any]]):
    with pytest.raises(ArchiveError):
        verify(sealed_lines(path, [{**HEAD, "kind": "backup"}, *lines]))


# Old backups are readable for ever

BACKUPS = Path(__file__).parent / "data" / "backups"


@pytest.mark.parametrize(
    ("name", "counts", "digest"),
    [
        (
            "json-1.odb.gz",
            {"file": 2, "agent": 18, "result": 37, "metrics": 60, "config": 27},
            "997f3cd27eff80641b68e556a573830debd05cd2b883bff32690b5c6efa905bc",
        ),
        (
            "redis-1.odb.gz",
            {
                "agent": 18, "member": 1, "hash": 1, "topic": 1, "result": 40, "entry": 3,
                "metrics": 60, "config": 29,
            },
            "0e881ebc958c7699efc8a1c24542cf20122e68e96dbada994cdfbd4d52f742be",
        ),
    ],
)  # fmt: skip
def test_a_backup_of_the_first_format_is_read_for_ever(
    name: str, counts: dict[str, int], digest: str
):
    reader = verify(str(BACKUPS / name))
    assert reader.counts == counts
    assert reader.header.kind == "backup"
    assert reader.header.backend == name.partition("-")[0]
    assert reader.header.created_at == 1_764_000_000.0
    assert reader.header.about["store"] == "production"
    assert len(reader.about["sections"]) == len(counts)
    with ArchiveReader(str(BACKUPS / name)) as again:
        found = [record for batch in again for record in batch.records]
    said = "\n".join(
        repr((one.kind, one.names, one.raw, one.form, one.expires_at_ms, one.score, one.stream_id))
        for one in found
    )
    assert hashlib.sha256(said.encode()).hexdigest() == digest
