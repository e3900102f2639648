"""The pages of backups: the list, one of them, downloads, uploads, and what the overview says."""

from __future__ import annotations

import gzip
import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from omnidash import backups
from omnidash.models import Backup, Run, Schedule
from omnidash.stores import registry
from storage.archive import ArchiveWriter, Header
from storage.changes import Record
from tests.backups.asking import did, finished
from tests.pages import elements, get_part, links, serving
from tests.servers import RedisServer
from tests.stores import Backend, JsonBackend

pytest_plugins = ["tests.store_fixtures"]
pytestmark = pytest.mark.django_db

PAGE = "/prod/backups/"
HOSTILE = "\"><svg onload=alert(1)>\u202e\x1b[31m' hx-get=/x {{ 7|add:7 }}"


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.OMNIDASH_BACKUP_DIR = tmp_path / "backups"
    return tmp_path / "backups"


@pytest.fixture
def served(redis_backend: Backend) -> Iterator[Backend]:
    redis_backend.open().add_agent("topic", {"name": "agent"})
    redis_backend.open().save_result("task", {"x": 1}, 3600)
    with serving(prod=redis_backend.url):
        yield redis_backend


@pytest.fixture
def json_served(json_backend: JsonBackend) -> Iterator[JsonBackend]:
    json_backend.open().add_agent("topic", {"name": "agent"})
    with serving(prod=json_backend.url):
        yield json_backend


def row(age: float = 60, **fields: Any) -> Backup:
    """A backup without a file."""
    pk = uuid.uuid4().hex
    at = time.time() - age
    known = {
        "id": pk, "name": f"omnidash-20261125T000000Z-{pk[:16]}.odb.gz", "store": "prod",
        "backend": "redis", "address": "redis://localhost/0", "made_at": at, "reason": "asked",
        "size": 1000, "unpacked": 5000, "checked": "good", "checked_at": at,
        "counts": json.dumps({"agent": 18, "result": 1200}),
        "sections": json.dumps([["agent", "point-in-time", at, at],
                                ["result", "fuzzy", at, at + 2]]),
    }  # fmt: skip
    return Backup.objects.create(**{**known, **fields})


def made(name: str = "prod") -> Backup:
    """A real one of what the store holds now."""
    steps = backups.create(registry()[name], Backup.Reason.ASKED, None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Backup = end.value
            return found


def body(response: HttpResponse) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]


def said_on(response: HttpResponse) -> str:
    """What is read, with a space between what stands in different elements."""
    (html,) = elements(response, "html")
    return re.sub(r"\s+", " ", " ".join(html.itertext()))


def upload(client: Client, content: bytes, name: str = "x.odb.gz") -> HttpResponse:
    return client.post(f"{PAGE}upload", {"file": SimpleUploadedFile(name, content)})


class TestTheList:
    def test_none_yet_is_explained(self, operator_client: Client, served: Backend) -> None:
        said = said_on(operator_client.get(PAGE))
        assert "No backup of this store yet" in said
        assert "Last good backup — there is none yet" in said
        assert "0 backups" in said

    def test_each_says_when_why_how_large_and_how_far_it_is_proven(
        self, viewer_client: Client, served: Backend
    ) -> None:
        row(reason="safety")
        row(tried="bad", tried_at=time.time(), tried_note="3 differ")
        row(7200, reason="schedule", copied_at=time.time())
        row(90_000, checked="", checked_at=None, counts="{}", sections="[]", reason="found")
        said = said_on(viewer_client.get(PAGE))
        assert "before a restore · 1000 B" in said
        assert "18 agents 1,200 results" in said
        assert "trial bad" in said
        assert "3 differ" in said
        assert "found in the folder" in said
        assert "Last good backup 2 h ago its file was proven; a restore was not tried" in said
        assert "the newest one" not in said
        assert "bad: 3 differ" in said

    def test_the_records_that_are_listed_are_all_of_them(
        self, viewer_client: Client, served: Backend
    ) -> None:
        row(counts=json.dumps({"agent": 2, "metrics": 5, "entry": 3, "hash": 1, "file": 4}),
            sections="[]")  # fmt: skip
        assert "2 agents 5 events 4 others" in said_on(viewer_client.get(PAGE))

    def test_the_newest_comes_first_and_fifty_are_on_a_page(
        self, viewer_client: Client, served: Backend
    ) -> None:
        rows = [row(age) for age in range(60, 60 + 52)]
        shown = list(links(viewer_client.get(PAGE), PAGE))
        assert shown == [f"{PAGE}{one.pk}/" for one in rows[:50]]
        shown = list(links(viewer_client.get(f"{PAGE}?page=2"), PAGE))
        assert shown == [f"{PAGE}{one.pk}/" for one in rows[50:]]

    def test_another_stores_are_not_listed_and_those_of_no_store_are(
        self, viewer_client: Client, served: Backend
    ) -> None:
        other, lost = row(store="other"), row(store="", address="redis://elsewhere/7")
        page = viewer_client.get(PAGE)
        assert f"{PAGE}{lost.pk}/" in links(page, PAGE)
        assert f"{PAGE}{other.pk}/" not in links(page, PAGE)
        assert "of redis://elsewhere/7" in said_on(page)
        assert "Last good backup — there is none yet" in said_on(page), "they are not of this store"

    def test_it_is_there_while_the_store_is_down(
        self, operator_client: Client, server: RedisServer
    ) -> None:
        found = row()
        with serving(prod=server.url):
            server.stop()
            page = operator_client.get(PAGE)
            assert page.status_code == 200
            assert f"{PAGE}{found.pk}/" in links(page, PAGE)
            assert "How it is saved could not be read" in said_on(page)
            assert operator_client.get(f"{PAGE}{found.pk}/").status_code == 200

    @pytest.mark.parametrize("role", ["viewer", "operator", "administrator"])
    def test_each_role_finds_what_it_may_do(
        self, role: str, request: pytest.FixtureRequest, served: Backend, json_backend: JsonBackend
    ) -> None:
        client, one = request.getfixturevalue(f"{role}_client"), row()
        with serving(prod=served.url, other=json_backend.url):
            page = client.get(PAGE)
        texts = {text for href, text in links(page, PAGE).items() if not href.endswith("/")}
        texts |= {"".join(button.itertext()) for button in elements(page, "button")}
        operator = {"Back up now", "Verify", "Trial restore", "Save now"}
        administrator = {"Restore", "Download", "Delete", "Upload", "Look what would come",
                         "Add schedule"}  # fmt: skip
        expected = {"viewer": set(), "operator": operator,
                    "administrator": operator | administrator}[role]  # fmt: skip
        assert texts & (operator | administrator) == expected
        assert f"{PAGE}{one.pk}/" in links(page, PAGE)

    def test_a_read_only_store_can_be_backed_up_and_not_restored(
        self, administrator_client: Client, served: Backend
    ) -> None:
        row()
        with serving(prod=f"{served.url}&mode=read-only"):
            texts = set(links(administrator_client.get(PAGE), PAGE).values())
        assert {"Back up now", "Verify", "Download"} <= texts
        assert "Restore" not in texts

    def test_hostile_words_are_text(self, administrator_client: Client, served: Backend) -> None:
        one = row(
            address=HOSTILE, checked="bad", checked_note=HOSTILE, tried_note=HOSTILE,
            copy_note=HOSTILE, counts=json.dumps({HOSTILE: 1}), store="", backend="x",
            sections=json.dumps([[HOSTILE, "fuzzy", 1, 2], [1], {}, ["agent", HOSTILE, 1e300, 0]]),
        )  # fmt: skip
        for path in (PAGE, f"{PAGE}{one.pk}/"):
            for page in (administrator_client.get(path), get_part(administrator_client, path)):
                assert page.status_code == 200
                assert not [e for e in elements(page, "svg") if "onload" in e.attrib]
                assert "\u202e" not in page.content.decode()
                assert b"\x1b" not in page.content
                assert not re.findall(rb"x 14", page.content)

    def test_the_cards_say_what_is_kept_scheduled_and_set(
        self, administrator_client: Client, served: Backend, settings: Settings
    ) -> None:
        Schedule.objects.create(store="prod", action="back-up", every="day", next_at=9e9)
        Schedule.objects.create(store="prod", action="clean-up", every="day", next_at=9e9)
        settings.OMNIDASH_BACKUP_COPY = "s3://bucket/prefix"
        settings.OMNIDASH_S3_KEY, settings.OMNIDASH_S3_SECRET = "key", "hunter2"
        page = administrator_client.get(PAGE)
        said = said_on(page)
        assert "Back up daily at 03:00 UTC" in said
        assert "Clean up" not in said
        assert "All backups are kept" in said
        assert "s3://bucket/prefix" in said
        assert b"hunter2" not in page.content
        assert "Append-only file no" in said

    def test_a_save_that_has_just_ended_is_seen(
        self, operator_client: Client, served: Backend
    ) -> None:
        before = re.search(r"Changes since[^0-9]*([0-9,]+)", said_on(operator_client.get(PAGE)))
        assert before and before[1] != "0", before
        did("save-rdb")
        assert re.search(r"Changes since[^0-9]*0 ", said_on(operator_client.get(PAGE)))

    def test_a_backup_is_scheduled_from_here(
        self, administrator_client: Client, served: Backend
    ) -> None:
        form = {"action": "verify-backup", "every": "week", "weekday": "6", "at": "04:00",
                "zone": "UTC", "level": "trial"}  # fmt: skip
        response = administrator_client.post("/prod/cleanup/schedules", form)
        assert response.headers["Location"] == PAGE
        assert Schedule.objects.get().action == "verify-backup"
        assert "No cleanup is scheduled" in said_on(administrator_client.get("/prod/cleanup/"))


class TestOneBackup:
    def test_it_says_whether_another_would_refuse_it(
        self, viewer_client: Client, served: Backend
    ) -> None:
        usual, packed = row(), row(size=1000, unpacked=2_000_000)
        told = "is packed more than 200 times"
        assert told not in said_on(viewer_client.get(f"{PAGE}{usual.pk}/"))
        assert told in said_on(viewer_client.get(f"{PAGE}{packed.pk}/"))

    def test_it_says_all_that_is_known(self, operator_client: Client, served: Backend) -> None:
        run = Run.objects.create(action="back-up", store="prod", who="olga", created_at=1.0,
                                 state="done")  # fmt: skip
        one = row(run=run, tried="good", tried_at=time.time(), address="redis://before/0")
        Run.objects.create(
            action="verify-backup", store="prod", who="olga", created_at=2.0, state="done",
            params=json.dumps({"backup": one.pk, "level": "trial"}),
        )  # fmt: skip
        page = operator_client.get(f"{PAGE}{one.pk}/")
        said = said_on(page)
        assert "not what prod is now" in said
        assert f"run {run.pk} by olga" in said
        assert "1000 B , 4.9 KB unpacked" in said
        assert "results 1,200 fuzzy, over 2.00 s" in said
        assert "Try to restore a backup done" in said

    def test_what_an_empty_store_holds_is_known(
        self, viewer_client: Client, backend: Backend
    ) -> None:
        with serving(prod=backend.url):
            one = made()
            for path in (PAGE, f"{PAGE}{one.pk}/"):
                said = said_on(viewer_client.get(path))
                assert re.search("0 agents|agents 0", said), said
                assert not re.search("— agents|agents —", said)

    def test_a_trial_that_never_was_is_not_told_as_if(
        self, viewer_client: Client, served: Backend
    ) -> None:
        one = row()
        assert "never not tried yet" in said_on(viewer_client.get(f"{PAGE}{one.pk}/"))
        Backup.objects.update(tried="good", tried_at=1.0)
        assert "not tried yet" not in said_on(viewer_client.get(f"{PAGE}{one.pk}/"))

    def test_a_real_one_tells_of_each_kind_how_it_belongs_together(
        self, viewer_client: Client, backend: Backend
    ) -> None:
        with serving(prod=backend.url):
            page = viewer_client.get(f"{PAGE}{made().pk}/")
        kinds = [
            ["".join(cell.itertext()).strip() for cell in row.iter("td")]
            for row in elements(page, "tr")
        ]
        told = {cells[0]: cells[2] for cells in kinds if len(cells) == 3}
        assert {"agents", "results", "events", "keys"} <= told.keys()
        for noun in ("agents", "results", "events", "keys"):
            assert re.match("as at|fuzzy, over", told[noun]), noun

    def test_a_corrupt_file_of_a_json_directory_is_saved_by_its_bytes(
        self, administrator_client: Client, json_served: JsonBackend
    ) -> None:
        damaged = b'{"topic": [{"name": "agent"\xff'
        (json_served.folder / "results.json").write_bytes(damaged)
        one = made()
        address = f"{PAGE}{one.pk}/"
        assert "results.json is corrupt" in said_on(administrator_client.get(PAGE))
        page = administrator_client.get(address)
        (bad,) = [e for e in elements(page, "tr") if e.get("class") == "row-bad"]
        assert "results.json" in "".join(bad.itertext())
        assert "corrupt" in "".join(bad.itertext())
        (download,) = [e.get("href") for e in bad.iter("a")]
        response = administrator_client.get(download)
        assert body(response) == damaged
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Disposition"] == 'attachment; filename="results.json"'
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert administrator_client.get(f"{address}files/99").status_code == 404

    @pytest.mark.parametrize(
        "ref",
        ["..", "%2e%2e", "%2e%2e%2fsecret_key", "a%00b", "0" * 31, "0" * 32, "0" * 33, "G" * 32,
         "omnidash-20261125T000000Z-0000000000000000.odb.gz", "%ED%A0%80", "0" * 32 + "%0A"],
    )  # fmt: skip
    def test_whatever_is_no_id_of_one_is_not_found(
        self, administrator_client: Client, served: Backend, ref: str
    ) -> None:
        for path in ("/", "/download", "/files/0"):
            assert administrator_client.get(f"{PAGE}{ref}{path}").status_code == 404


class TestDownloads:
    def test_it_is_the_file_and_the_log_says_who_took_it(
        self, administrator_client: Client, served: Backend, folder: Path
    ) -> None:
        one = made()
        response = administrator_client.get(
            f"{PAGE}{one.pk}/download", headers={"Accept-Encoding": "gzip"}
        )
        assert body(response) == (folder / one.name).read_bytes()
        assert response.headers["Content-Disposition"] == f'attachment; filename="{one.name}"'
        assert response.headers["Content-Type"] == "application/gzip"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "Content-Encoding" not in response.headers
        run = Run.objects.get()
        assert (run.action, run.who, run.state) == ("download-backup", "administrator", "done")
        assert one.name in run.message
        assert one.name in said_on(administrator_client.get("/runs/"))

    @pytest.mark.parametrize("role", ["viewer", "operator"])
    def test_who_may_not_is_refused_and_that_is_written_down(
        self, role: str, request: pytest.FixtureRequest, json_served: JsonBackend
    ) -> None:
        client, one = request.getfixturevalue(f"{role}_client"), made()
        for path in ("download", "files/0"):
            assert client.get(f"{PAGE}{one.pk}/{path}").status_code == 403
        assert set(Run.objects.values_list("action", "state")) == {("download-backup", "refused")}

    def test_what_is_gone_and_what_is_another_stores_get_the_same_answer(
        self, administrator_client: Client, served: Backend, folder: Path
    ) -> None:
        gone, other = made(), made()
        (folder / gone.name).unlink()
        Backup.objects.filter(pk=other.pk).update(store="other")
        answers = {
            administrator_client.get(f"{PAGE}{pk}/download").content
            for pk in (gone.pk, other.pk, "0" * 32)
        }
        assert len(answers) == 1
        assert not Run.objects.exists()

    def test_a_link_in_its_place_is_not_followed(
        self, administrator_client: Client, served: Backend, folder: Path, tmp_path: Path
    ) -> None:
        one = made()
        (tmp_path / "secret").write_bytes(b"secret")
        (folder / one.name).unlink()
        (folder / one.name).symlink_to(tmp_path / "secret")
        assert administrator_client.get(f"{PAGE}{one.pk}/download").status_code == 404


class TestUploads:
    def test_one_from_another_machine_is_checked_and_listed(
        self, administrator_client: Client, served: Backend, folder: Path
    ) -> None:
        one = made()
        content = (folder / one.name).read_bytes()
        one.delete()
        response = upload(administrator_client, content, "../../../etc/passwd")
        new = Backup.objects.get()
        assert response.headers["Location"] == f"{PAGE}{new.pk}/"
        assert (new.reason, new.checked) == ("upload", "good")
        assert (folder / new.name).read_bytes() == content
        assert "uploaded" in said_on(administrator_client.get(PAGE))
        run = Run.objects.get()
        assert (run.action, run.state) == ("upload-backup", "done")

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"not even gzip", "no gzip file"),
            (gzip.compress(b'{"x": 1}\n', mtime=0), "no archive of OmniDash"),
            (b"", "The submitted file is empty|No file was chosen|cut off"),
        ],
    )
    def test_what_is_none_is_refused_within_the_form_with_the_reason(
        self, administrator_client: Client, served: Backend, folder: Path, content: bytes, why: str
    ) -> None:
        response = upload(administrator_client, content)
        assert response.headers["Location"] == f"{PAGE}#upload"
        page = administrator_client.get(PAGE)
        (problem,) = [e for e in elements(page, "div") if e.get("id") == "upload-problem"]
        assert "".join(problem.itertext()).strip().startswith("Not taken. ")
        assert "Not taken." not in said_on(administrator_client.get(PAGE)), "it is told once"
        assert re.search(why, "".join(problem.itertext()))
        assert not Backup.objects.exists()
        assert not folder.exists() or list(folder.iterdir()) == []
        assert Run.objects.get().state == "refused"

    @pytest.mark.parametrize(
        ("address", "created_at", "about"),
        [
            (HOSTILE, -1e300, {}),
            ("a\0b", 9e300, {"store": HOSTILE, "sections": [["agent", "fuzzy", -1e300, 1e300]]}),
            ("\ud800", 0.0, {"sections": [[[]], None, {}, 7]}),
        ],
        ids=["long ago", "a control character", "a lone surrogate"],
    )
    def test_what_a_file_says_of_itself_breaks_no_page(
        self, administrator_client: Client, served: Backend, tmp_path: Path, address: str,
        created_at: float, about: dict[str, Any],
    ) -> None:  # fmt: skip
        header = Header("backup", "redis", address, created_at, about)
        with ArchiveWriter(str(tmp_path / "x"), header) as writer:
            writer.add([Record("result", ("task",), b"{}")])
            writer.finish(about=about)
        response = upload(administrator_client, (tmp_path / "x").read_bytes())
        assert response.status_code == 302
        assert administrator_client.get(PAGE).status_code == 200
        for one in Backup.objects.all():
            assert administrator_client.get(f"{PAGE}{one.pk}/").status_code == 200

    @pytest.mark.parametrize("backend", ["mysql", "redis\0<svg>"])
    def test_one_of_an_unknown_kind_of_store_is_refused_and_not_adopted(
        self, administrator_client: Client, served: Backend, folder: Path, backend: str
    ) -> None:
        one = made()
        header = Header("backup", backend, "x://h", 1.0)
        one.delete()
        (folder / one.name).unlink()
        with ArchiveWriter(str(folder / one.name), header) as writer:
            writer.finish()
        assert backups.adopt() == 0
        sent = SimpleUploadedFile("x.odb.gz", (folder / one.name).read_bytes())
        response = administrator_client.post(f"{PAGE}upload", {"file": sent}, follow=True)
        assert "a kind of store that OmniDash does not know" in said_on(response)
        assert not Backup.objects.exists()

    def test_a_password_in_what_a_file_says_of_itself_is_not_shown(
        self, administrator_client: Client, served: Backend, tmp_path: Path
    ) -> None:
        header = Header("backup", "redis", "redis://u:s3c/ret@far:1/0", 1.0)
        with ArchiveWriter(str(tmp_path / "x"), header) as writer:
            writer.finish()
        assert upload(administrator_client, (tmp_path / "x").read_bytes()).status_code == 302
        assert Backup.objects.get().address == "redis://***@far:1/0"

    def test_one_that_was_damaged_on_the_way_is_refused(
        self, administrator_client: Client, served: Backend, folder: Path
    ) -> None:
        one = made()
        content = bytearray((folder / one.name).read_bytes())
        content[len(content) // 2] ^= 0x55
        upload(administrator_client, bytes(content))
        assert "Not taken." in said_on(administrator_client.get(PAGE))
        assert Backup.objects.count() == 1

    def test_a_refusal_leads_to_a_page_that_refreshes_itself(
        self, administrator_client: Client, served: Backend
    ) -> None:
        upload(administrator_client, b"no backup")
        get_part(administrator_client, PAGE)
        page = administrator_client.get(PAGE)
        assert said_on(page).count("Not taken.") == 1
        (board,) = [e for e in elements(page, "section") if e.get("id") == "backups-board"]
        assert administrator_client.get(board.get("hx-get")).status_code == 200

    def test_more_than_is_allowed_is_refused(
        self, administrator_client: Client, served: Backend, settings: Settings
    ) -> None:
        settings.OMNIDASH_BACKUP_MB = 1
        upload(administrator_client, b"\0" * 1_000_001)
        assert "more than 1 MB" in said_on(administrator_client.get(PAGE))

    def test_no_file_at_all_is_said(self, administrator_client: Client, served: Backend) -> None:
        administrator_client.post(f"{PAGE}upload", {})
        assert "No file was chosen." in said_on(administrator_client.get(PAGE))

    def test_an_operator_cannot_upload(self, operator_client: Client, served: Backend) -> None:
        assert upload(operator_client, b"x").status_code == 403
        assert Run.objects.get().state == "refused"

    def test_a_form_of_another_site_cannot_upload(
        self, administrator_client: Client, served: Backend
    ) -> None:
        client = Client(enforce_csrf_checks=True)
        client.cookies = administrator_client.cookies
        assert upload(client, b"x").status_code == 403
        assert not Backup.objects.exists()

    def test_no_other_page_takes_a_file(
        self, administrator_client: Client, served: Backend
    ) -> None:
        response = administrator_client.post(
            "/prod/cleanup/schedules", {"every": "day", "file": SimpleUploadedFile("x", b"x" * 99)}
        )
        assert response.wsgi_request.FILES == {}


class TestTheOverview:
    def attention(self, client: Client) -> list[str]:
        found = [
            re.sub(r"\s+", " ", " ".join(e.itertext())).strip()
            for e in elements(client.get("/prod/"), "li")
        ]
        return [text for text in found if text.startswith("Backups ") and text != "Backups "]

    def test_a_store_without_any_is_told_quietly(
        self, viewer_client: Client, served: Backend
    ) -> None:
        assert self.attention(viewer_client) == ["Backups none yet"]
        assert "no good backup" in said_on(viewer_client.get("/prod/"))

    def test_a_good_young_one_needs_nobody(self, viewer_client: Client, served: Backend) -> None:
        row(7200)
        assert self.attention(viewer_client) == []
        assert "backed up 2 h ago" in said_on(viewer_client.get("/prod/"))
        assert "2 h ago last good one" in said_on(viewer_client.get("/prod/storage/"))

    def test_an_old_one_needs_somebody(
        self, viewer_client: Client, served: Backend, settings: Settings
    ) -> None:
        row(7200)
        settings.OMNIDASH_BACKUP_MAX_AGE_HOURS = 1
        assert self.attention(viewer_client) == ["Backups the last good one is old made 2 h ago"]
        settings.OMNIDASH_BACKUP_MAX_AGE_HOURS = 0
        assert self.attention(viewer_client) == []

    def test_a_newest_that_is_bad_is_said_beside_the_last_good_one(
        self, viewer_client: Client, served: Backend
    ) -> None:
        row(7200)
        row(3600, tried="bad", tried_note="3 records differ")
        said = "Backups the newest one is bad: 3 records differ made 1 h ago"
        assert self.attention(viewer_client) == [said]

    def test_none_that_is_good_is_an_alarm(self, viewer_client: Client, served: Backend) -> None:
        row(checked="bad", checked_note="")
        assert self.attention(viewer_client) == [
            "Backups the newest one is bad: its file is damaged made 1 min ago",
            "Backups no good one",
        ]

    def test_what_was_made_before_a_restore_does_not_count(
        self, viewer_client: Client, served: Backend
    ) -> None:
        row(reason="safety")
        assert self.attention(viewer_client) == ["Backups none yet"]
        row(7200)
        assert "backed up 2 h ago" in said_on(viewer_client.get("/prod/"))

    def test_sample_data_asks_for_no_backup(
        self, viewer_client: Client, served: Backend, settings: Settings
    ) -> None:
        settings.OMNIDASH_SAMPLE = True
        assert self.attention(viewer_client) == []


def names_of(page: HttpResponse) -> dict[str, list[str]]:
    """The table of a confirmation or a run: kind -> its numbers."""
    (table,) = [e for e in elements(page, "div") if "sums" in e.get("class", "").split()]
    rows = [["".join(cell.itertext()) for cell in row if cell.tag in ("th", "td")]
            for row in table.iter("tr")]  # fmt: skip
    return {name: numbers for name, *numbers in rows}


class TestAsking:
    @pytest.mark.parametrize(
        ("path", "role", "status"),
        [
            ("create", "viewer", 403), ("create", "operator", 200),
            ("verify?backup={}", "viewer", 403), ("verify?backup={}&level=file", "operator", 200),
            ("restore?backup={}", "operator", 403), ("restore?backup={}", "administrator", 200),
            ("copy?from=other", "operator", 403), ("copy?from=other", "administrator", 200),
            ("copy?from=prod", "administrator", 400), ("restore?backup=../x", "administrator", 400),
            ("restore?backup=" + "0" * 32, "administrator", 404),
            ("delete?backup={}", "operator", 403),
            ("save", "viewer", 403), ("save", "operator", 200),
        ],
    )  # fmt: skip
    def test_each_role_is_asked_or_refused(
        self, request: pytest.FixtureRequest, served: Backend, json_backend: JsonBackend,
        path: str, role: str, status: int,
    ) -> None:  # fmt: skip
        client: Client = request.getfixturevalue(f"{role}_client")
        recently(client)
        with serving(prod=served.url, other=json_backend.url):
            found = client.get(f"{PAGE}{path.format(made().pk)}")
            assert found.status_code == status, said_on(found)
        assert Run.objects.filter(state="refused").exists() == (status == 403)

    def test_what_would_become_of_each_kind_is_a_table(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client)
        store = served.open()
        store.save_result("second", {"x": 1}, 3600)
        one = made()
        store.delete_result("second")
        store.add_agent("topic", {"name": "later"})
        merge = administrator_client.get(f"{PAGE}restore?backup={one.pk}")
        numbers = names_of(merge)
        head = numbers.pop("Kind")
        assert head[:3] == ["added", "replaced", "deleted"]
        assert numbers["results"][:3] == ["1", "0", "0"]
        assert numbers["agents"][:3] == ["0", "0", "0"]
        replace = administrator_client.get(f"{PAGE}restore?backup={one.pk}&mode=replace")
        assert names_of(replace)["agents"][:3] == ["0", "0", "1"]
        assert "backup of the store as it is now is made and verified" in said_on(replace)
        (typed,) = [e for e in elements(replace, "input") if e.get("name") == "typed"]
        assert "required" in typed.attrib

    @pytest.mark.parametrize("path", ["restore", "verify", "delete"])
    def test_a_backup_of_another_store_is_not_there(
        self, administrator_client: Client, served: Backend, json_backend: JsonBackend, path: str
    ) -> None:
        recently(administrator_client)
        with serving(prod=served.url, other=json_backend.url):
            theirs = made("other")
            asked = f"{path}?backup={theirs.pk}"
            assert administrator_client.get(f"{PAGE}{asked}").status_code == 404
            assert administrator_client.get(f"/other/backups/{asked}").status_code == 200

    def test_it_is_said_where_a_backup_of_no_store_says_that_it_is_from(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client)
        own, lost = made(), made()
        Backup.objects.filter(pk=lost.pk).update(store="", address="redis://far:1/7")
        said = said_on(administrator_client.get(f"{PAGE}restore?backup={lost.pk}"))
        assert "its file says that it is from redis://far:1/7." in said
        assert "its file says" not in said_on(
            administrator_client.get(f"{PAGE}restore?backup={own.pk}")
        )

    def test_what_is_lost_on_the_way_is_counted_named_and_told_afterwards(
        self, administrator_client: Client, served: Backend, json_backend: JsonBackend
    ) -> None:
        recently(administrator_client)
        for topic, name in (("one", "two:three"), ("one:two", "three")):  # one key in Redis
            json_backend.open().add_agent(topic, {"name": name})
        with serving(prod=served.url, other=json_backend.url):
            page = administrator_client.get(f"{PAGE}copy?from=other")
            numbers = names_of(page)
            assert dict(zip(numbers["Kind"], numbers["agents"], strict=True))["lost"] == "1"
            said = said_on(page)
            assert re.search(
                r"1 of the agents not copied: would share .* \( one:two / three \)", said
            )
            run = did("copy-store", **{"from": "other"}, mode="merge")
            assert "1 lost" in run.message and "all else is there" in run.message
            told = said_on(administrator_client.get(f"/runs/{run.pk}/"))
            assert "1 of the agents not copied" in told

    def test_where_nothing_would_change_there_is_nothing_to_confirm(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client)
        page = administrator_client.get(f"{PAGE}restore?backup={made().pk}&mode=replace&volatile=1")
        assert "Nothing would change." in said_on(page)
        (button,) = [e for e in elements(page, "button") if "btn-danger" in e.get("class", "")]
        assert "disabled" in button.attrib

    def test_what_was_chosen_is_chosen_when_it_is_compared_again(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client)
        query = f"backup={made().pk}&mode=replace&volatile=1&extend=86400"
        page = administrator_client.get(f"{PAGE}restore?{query}")
        (choice,) = [e for e in elements(page, "div") if "data-compared" in e.attrib]
        form = list(choice.iter("input"))
        assert {e.get("value") for e in form if "checked" in e.attrib} == {"replace", "1"}
        chosen = [e for e in elements(page, "option") if "selected" in e.attrib][-1]
        assert "".join(chosen.itertext()) == "1 d longer"

    @pytest.mark.parametrize(
        "chosen",
        [{"mode": "replace"}, {"mode": "merge", "volatile": "1"},
         {"mode": "merge", "extend": "3600"}, {"mode": "merge", "extend": "0", "compare": "1"}],
        ids=lambda chosen: " ".join(chosen),
    )  # fmt: skip
    def test_another_choice_than_was_compared_is_compared_and_not_done(
        self, administrator_client: Client, served: Backend, chosen: dict[str, str]
    ) -> None:
        recently(administrator_client)
        one = made()
        served.open().delete_result("task")
        page = administrator_client.get(f"{PAGE}restore?backup={one.pk}")
        (token,) = [e.get("value") for e in elements(page, "input") if e.get("name") == "plan"]
        form = {"plan": token, "typed": "prod", **chosen}
        for headers in ({}, {"HX-Request": "true"}):
            response = administrator_client.post(f"{PAGE}restore", form, headers=headers)
            there = response.headers["HX-Redirect" if headers else "Location"]
            assert there.startswith(f"{PAGE}restore?backup={one.pk}&mode={chosen['mode']}")
        assert not Run.objects.exists()
        assert administrator_client.get(there).status_code == 200
        same = {"plan": token, "typed": "prod", "mode": "merge", "extend": "0"}
        response = administrator_client.post(f"{PAGE}restore", same)
        assert response.headers["Location"] == f"/runs/{Run.objects.get().pk}/"

    def test_the_log_names_a_backup_that_was_deleted(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client)
        one, _ = made(), made()
        page = administrator_client.get(f"{PAGE}delete?backup={one.pk}")
        assert "The file is deleted for good." in said_on(page)
        (token,) = [e.get("value") for e in elements(page, "input") if e.get("name") == "plan"]
        run = finished(Run.objects.get(pk=posted(administrator_client, f"{PAGE}delete", token)))
        assert run.state == "done"
        said = said_on(administrator_client.get(f"/runs/{run.pk}/"))
        assert (f"Backup {one.name}" in said, one.pk in said) == (True, False)

    def test_a_choice_that_is_none_is_refused(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client)
        page = administrator_client.get(f"{PAGE}restore?backup={made().pk}")
        (token,) = [e.get("value") for e in elements(page, "input") if e.get("name") == "plan"]
        form = {"plan": token, "typed": "prod", "mode": "destroy"}
        assert administrator_client.post(f"{PAGE}restore", form).status_code == 400
        assert not Run.objects.exists()

    def test_the_preview_needs_the_password_again(
        self, administrator_client: Client, served: Backend
    ) -> None:
        recently(administrator_client, ago=3600)
        response = administrator_client.get(f"{PAGE}restore?backup={made().pk}")
        assert response.headers["Location"].startswith("/confirm-password/")


def posted(client: Client, address: str, token: str | None) -> int:
    """The number of the run that a confirmation began."""
    response = client.post(address, {"plan": token})
    return int(response.headers["Location"].rstrip("/").rpartition("/")[2])


def recently(client: Client, ago: float = 0) -> None:
    """The password was given so many seconds ago."""
    session = client.session
    session["password_shown_at"] = time.time() - ago
    session.save()
