"""Addresses of stores: what they mean, what they refuse, and that they keep secrets."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import StoreURL, open_store, parse_url, safe_url

SECRET = "p4ss/w@rd:?#"
QUOTED = "p4ss%2Fw%40rd%3A%3F%23"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "json",
        "json:",
        "json:/data",
        "json://",
        "redis",
        "redis:/localhost",
        "http://localhost",
        "postgresql://localhost/omni",
        "://localhost",
        "redis://localhost:port",
        "redis://localhost:99999",
        "redis://localhost:-1",
        "redis://[::1",
        "redis://localhost/one",
        "redis://localhost/-1",
        "redis://localhost/1/2",
        "redis://localhost/\u0661",
        "redis://localhost/0?prefix=",
        "redis://localhost/0?db=x",
        "redis://localhost/0?ssl_cert_reqs=none",
        "redis://localhost/0#fragment",
        "json:///data?prefix=omni",
        "json:///data?mode=read-only#fragment",
        "json://?mode=read-only",
        "json:///data#fragment",
    ],
)
def test_a_bad_url_is_refused_with_a_reason(url):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{QUOTED}@host",
        f"redis://user:{QUOTED}@host:port",
        f"redis://user:{QUOTED}@host/one",
        f"redis://user:{QUOTED}@host/0?unknown=1",
        f"redis://user:{QUOTED}@host/0?prefix=",
        f"redis://user:{QUOTED}@[host",
        "redis://user:p4ss/w@rd@host/0",
        f"redis://user:{QUOTED}@host/0?mode=write",
    ],
)
def test_a_refused_url_keeps_its_password(url):
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "p4ss" not in str(error)
        error = error.__cause__


@pytest.mark.parametrize("lead", ["json:///data", "redis://localhost/0", "unix:///run/redis.sock"])
@pytest.mark.parametrize(
    "option",
    ["mode=", "mode", "mode=readonly", "mode=Read-Only", "mode=read-only&mode=write", "env=",
     "env=prod", "env=staging", "mode=read-only&env=x", "Mode=read-only", "read-only"],
)  # fmt: skip
def test_a_word_that_closes_nothing_is_refused_by_name(lead, option):
    name = option.split("&")[-1].partition("=")[0]
    with pytest.raises(ValueError, match=f"{name}=.* in the store URL|store URL: {name}") as caught:
        parse_url(f"{lead}?{option}")
    assert lead not in str(caught.value)


@pytest.mark.parametrize("lead", ["json:///data", "redis://localhost/0", "unix:///run/redis.sock"])
def test_a_store_may_be_read_only_and_production(lead):
    plain, both = parse_url(lead), parse_url(f"{lead}?mode=read-only&env=production")
    assert (plain.mode, plain.env) == ("", "")
    assert both == replace(plain, mode="read-only", env="production")
    assert both.safe == plain.safe  # the same data


def test_a_json_url_may_be_absolute_or_relative(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parse_url("json:///data/omni").path == "/data/omni"
    assert parse_url("json://omni/data").path == str(tmp_path / "omni/data")
    assert parse_url("json://.omnidaemon_data").path == str(tmp_path / ".omnidaemon_data")
    assert parse_url("json://a:99999/[b").path == str(tmp_path / "a:99999/[b")
    assert parse_url("json://./a/../b").path == str(tmp_path / "b")


@pytest.mark.parametrize(
    ("quoted", "path"),
    [
        ("/a%20b", "/a b"),
        ("/a b", "/a b"),
        ("/a%3Fb%23c", "/a?b#c"),
        ("/100%25", "/100%"),
        ("/データ", "/データ"),
        ("/a@b:c", "/a@b:c"),
        ("/a[b", "/a[b"),
        ("/a:99999", "/a:99999"),
        ("/%FF", "/\udcff"),
    ],
)
def test_a_json_path_may_hold_any_character(quoted, path):
    assert parse_url(f"json://{quoted}").path == path


def test_a_redis_url_has_omnidaemons_defaults():
    where = parse_url("redis://localhost")
    assert where == StoreURL(
        scheme="redis", backend="redis", host="localhost", port=6379, db=0, prefix="omni"
    )


def test_a_redis_url_says_everything():
    where = parse_url(f"rediss://us%2Fer:{QUOTED}@redis.example:6380/7?prefix=p%5B1%5D*")
    assert (where.scheme, where.backend) == ("rediss", "redis")
    assert (where.username, where.password) == ("us/er", SECRET)
    assert (where.host, where.port, where.db) == ("redis.example", 6380, 7)
    assert where.prefix == "p[1]*"


def test_a_password_needs_no_user():
    where = parse_url(f"redis://:{QUOTED}@localhost")
    assert (where.username, where.password) == (None, SECRET)


def test_the_database_may_be_an_option():
    assert parse_url("redis://localhost?db=3").db == 3
    assert parse_url("unix:///run/redis.sock?db=3").db == 3


def test_a_unix_url_names_a_socket():
    where = parse_url(f"unix://user:{QUOTED}@/run/redis%20one.sock?prefix=a")
    assert (where.backend, where.path, where.prefix) == ("redis", "/run/redis one.sock", "a")
    assert (where.username, where.password) == ("user", SECRET)


def test_the_scheme_ignores_case():
    assert parse_url("REDIS://localhost/2").db == 2
    assert parse_url("JSON:///data").path == "/data"
    assert parse_url("UNIX:///run/redis.sock?db=1").path == "/run/redis.sock"


def test_an_ipv6_host_is_read_and_shown():
    where = parse_url("redis://[::1]:6380/1")
    assert (where.host, where.port) == ("::1", 6380)
    assert "[::1]:6380" in where.safe


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{QUOTED}@localhost:6379/0",
        f"rediss://:{QUOTED}@localhost",
        f"unix://user:{QUOTED}@/run/redis.sock",
    ],
)
def test_no_way_of_showing_an_address_shows_its_secrets(url):
    where = parse_url(url)
    store = open_store(url)
    for shown in (safe_url(url), where.safe, repr(where), str(where), store.address, repr(store)):
        assert "p4ss" not in shown
        assert "user" not in shown


@given(
    st.sampled_from(["redis", "rediss"]),
    st.sampled_from(["localhost", "10.0.0.1", "redis.example", "::1"]),
    st.integers(1, 65535),
    st.integers(0, 99),
    st.text(min_size=1).filter(lambda text: text.isprintable()),
)
def test_a_safe_address_leads_to_the_same_data(scheme, host, port, db, prefix):
    where = StoreURL(scheme=scheme, backend="redis", host=host, port=port, db=db, prefix=prefix)
    assert parse_url(where.safe) == where


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_safe_json_address_leads_to_the_same_folder(name):
    where = StoreURL(scheme="json", backend="json", path=os.path.abspath(f"/data/{name}"))
    assert parse_url(where.safe) == where


def test_a_folder_whose_name_is_not_utf8_can_be_shown():
    path = os.fsdecode(b"/data/\xff")
    where = StoreURL(scheme="json", backend="json", path=path)
    assert where.safe.isascii()
    assert parse_url(where.safe).path == path


@pytest.mark.parametrize("url", ["json://{folder}/absent", "redis://127.0.0.1:1/0"])
def test_opening_a_store_reads_and_creates_nothing(url, tmp_path: Path):
    store = open_store(url.format(folder=tmp_path))
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_store_says_what_it_is_without_being_read(tmp_path: Path):
    json_store = open_store(f"json://{tmp_path}")
    redis_store = open_store("redis://127.0.0.1:1/0")
    assert (json_store.backend, redis_store.backend) == ("json", "redis")
    assert (json_store.can_expire_natively, redis_store.can_expire_natively) == (False, True)
    assert (json_store.has_bus, redis_store.has_bus) == (False, True)
    assert (json_store.metrics_lag, redis_store.metrics_lag) == (99, 0)
