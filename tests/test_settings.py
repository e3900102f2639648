"""A bad value refuses to start, in one line that names the variable and tells no secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

import storage
from omnidash import settings as ours

ROOT = Path(__file__).resolve().parent.parent
PRINT = (
    "from django.conf import settings as s;"
    "print(s.OMNIDASH_STORES, s.OMNIDASH_SAMPLE, s.SESSION_COOKIE_SECURE, s.DEBUG)"
)


def manage(tmp_path: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "OMNIDASH_DATA_DIR": str(tmp_path / "var"), **env}
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *args],
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMNIDASH_SECRET_KEY", "hunter2"),
        ("OMNIDASH_STORES", "hunter2"),
        ("OMNIDASH_STORES", "Hunter2=json:///tmp/x"),
        ("OMNIDASH_STORES", "a=json:///tmp/x,a=json:///tmp/y"),
        ("OMNIDASH_STORES", "login=json:///tmp/x"),
        ("OMNIDASH_STORES", "password=json:///tmp/x"),
        ("OMNIDASH_STORES", "confirm-password=json:///tmp/x"),
        ("OMNIDASH_STORES", "a=redis://u:hunter2@h/0?mode=readonly"),
        ("OMNIDASH_STORES", "a=json:///hunter2?env=prod"),
        ("OMNIDASH_READ_ONLY", "hunter2"),
        ("OMNIDASH_STORES", "a=ftp://u:hunter2@h/x"),
        ("OMNIDASH_STORES", "a=redis://u:x,hunter2@h/0"),
        ("OMNIDASH_HOSTS", "*"),
        ("OMNIDASH_BIND", "hunter2"),
        ("OMNIDASH_BIND", "127.0.0.1:hunter2"),
        ("OMNIDASH_TLS", "hunter2"),
        ("OMNIDASH_SAMPLE", "hunter2"),
        ("OMNIDASH_DEBUG", "hunter2"),
        ("OMNIDASH_TRUSTED_PROXIES", "hunter2"),
        ("OMNIDASH_LOG_LEVEL", "hunter2"),
        ("OMNIDASH_DATA_DIR", "/dev/null/hunter2"),
        ("OMNIDASH_BACKUP_DIR", "/dev/null/hunter2"),
        ("OMNIDASH_BACKUP_COPY", "ftp://u:hunter2@h/x"),
        ("OMNIDASH_BACKUP_KEEP", "last=hunter2"),
        ("OMNIDASH_BACKUP_MB", "hunter2"),
        ("OMNIDASH_BACKUP_OUTPUT_MB", "0"),
        ("OMNIDASH_BACKUP_MAX_AGE_HOURS", "-1"),
        ("OMNIDASH_BACKUP_TRUST", "hunter2"),
        ("OMNIDASH_S3_KEY", "hunter2"),
    ],
)
def test_a_bad_value_refuses_to_start_and_is_not_repeated(
    tmp_path: Path, name: str, value: str
) -> None:
    done = manage(tmp_path, "check", **{name: value})
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert name in done.stderr
    assert "hunter2" not in done.stderr.lower() + done.stdout.lower()


def test_a_bad_redis_url_of_omnidaemon_is_named_without_its_password(tmp_path: Path) -> None:
    bad = "redis://:hunter2@h:notaport/0"
    done = manage(tmp_path, "check", STORAGE_BACKEND="redis", REDIS_URL=bad)
    assert done.returncode == 1
    assert done.stderr.startswith("omnidash: REDIS_URL: ")
    assert "hunter2" not in done.stderr


def test_an_unknown_storage_backend_is_named(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", STORAGE_BACKEND="Postgres")
    assert done.returncode == 1
    assert done.stderr == "omnidash: STORAGE_BACKEND is 'postgres': it must be json or redis.\n"


def test_debug_is_refused_where_others_can_reach_it(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", OMNIDASH_DEBUG="on", OMNIDASH_BIND="0.0.0.0:8000")
    assert done.returncode == 1
    assert "OMNIDASH_DEBUG" in done.stderr


def stores(tmp_path: Path, **env: str) -> tuple[dict[str, str], bool]:
    return ours._stores(env, tmp_path)


def test_without_any_configuration_a_sample_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stores(tmp_path) == ({"default": f"json://{tmp_path}/sample"}, True)


def test_a_data_folder_of_omnidaemon_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".omnidaemon_data").mkdir()
    assert stores(tmp_path) == ({"default": f"json://{tmp_path}/.omnidaemon_data"}, False)
    assert stores(tmp_path, OMNIDASH_SAMPLE="on")[1]


def test_the_sample_can_be_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not stores(tmp_path, OMNIDASH_SAMPLE="off")[1]


@pytest.mark.parametrize(
    ("env", "scheme", "host", "prefix"),
    [
        ({"STORAGE_BACKEND": "redis"}, "redis", "localhost", "omni"),
        ({"STORAGE_BACKEND": "Redis", "REDIS_URL": "redis://r:1/2"}, "redis", "r", "omni"),
        ({"STORAGE_BACKEND": "redis", "REDIS_KEY_PREFIX": "a&:[]"}, "redis", "localhost", "a&:[]"),
    ],
)  # fmt: skip
def test_omnidaemons_variables_name_its_redis(
    tmp_path: Path, env: dict[str, str], scheme: str, host: str, prefix: str
) -> None:
    found, sample = stores(tmp_path, **env)
    url = storage.parse_url(found["default"])
    assert (url.scheme, url.host, url.prefix, sample) == (scheme, host, prefix, False)


def test_omnidaemons_backend_is_json_unless_it_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stores(tmp_path, REDIS_URL="redis://r")[0]["default"].endswith("/.omnidaemon_data")
    odd, _ = stores(tmp_path, JSON_STORAGE_DIR="a b/c?d#e%41")
    assert storage.parse_url(odd["default"]).path == f"{tmp_path}/a b/c?d#e%41"


def test_named_stores_keep_their_order(tmp_path: Path) -> None:
    text = "production=redis://u:p%2Cw@h/0?prefix=omni, dev=json:///tmp/dev"
    found, sample = stores(tmp_path, OMNIDASH_STORES=text, STORAGE_BACKEND="redis")
    assert list(found) == ["production", "dev"]
    assert not sample


def test_a_health_check_from_this_machine_is_never_a_wrong_host() -> None:
    assert ours._hosts({}) == ["127.0.0.1", "localhost", "[::1]"]
    given = ours._hosts({"OMNIDASH_HOSTS": "dash.example.org, .example.net"})
    assert given == ["dash.example.org", ".example.net", "127.0.0.1", "localhost", "[::1]"]


def test_the_secret_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = ours._secret_key({}, tmp_path)
    assert len(first) >= 50
    assert ours._secret_key({}, tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    (tmp_path / "secret_key").write_text("short")
    with pytest.raises(ImproperlyConfigured, match="too short"):
        ours._secret_key({}, tmp_path)


def test_everything_that_is_written_is_private(tmp_path: Path) -> None:
    assert manage(tmp_path, "migrate").returncode == 0
    paths = [tmp_path / "var", *(tmp_path / "var").rglob("*")]
    assert len(paths) >= 3
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_cookies_are_secure_unless_served_on_loopback(tmp_path: Path) -> None:
    here = manage(tmp_path, "shell", "-v0", "-c", PRINT)
    assert here.stdout.split()[-2:] == ["False", "False"], here.stderr
    wide = manage(tmp_path, "shell", "-v0", "-c", PRINT, OMNIDASH_BIND="0.0.0.0:8000")
    assert wide.stdout.split()[-2:] == ["True", "False"], wide.stderr


def test_deployed_behind_a_proxy_djangos_checks_are_clean(tmp_path: Path) -> None:
    env = {
        "OMNIDASH_BIND": "0.0.0.0:8000",
        "OMNIDASH_HOSTS": "dash.example.org",
        "OMNIDASH_TRUSTED_PROXIES": "10.0.0.5",
    }
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **env)
    assert done.returncode == 0, done.stderr


def test_no_migration_is_missing(tmp_path: Path) -> None:
    done = manage(tmp_path, "makemigrations", "--check", "--dry-run")
    assert done.returncode == 0, done.stdout


def test_nothing_of_ours_is_kept_in_the_redis_that_is_watched() -> None:
    assert settings.SESSION_ENGINE == "django.contrib.sessions.backends.db"
    assert not any("redis" in cache["BACKEND"].lower() for cache in settings.CACHES.values())
