"""Text from a store: made visible, addressable, and its secrets hidden."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnidash.text import MASK, from_ref, masked, masked_text, printable, ref
from storage.records import to_text

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_printable_text_can_always_be_encoded(text: str) -> None:
    printable(text).encode("utf-8")
    printable(text, lines=True).encode("utf-8")


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        (to_text(b"a\xffb"), "a\\xffb"),
        ("\ud800", "\ufffd"),
        ("a\nERROR forged", "a␊ERROR forged"),
        ("\x1b[31mred", "␛[31mred"),
        ("nul\x00", "nul␀"),
        ("\u202egpj.exe", "⟨U+202E⟩gpj.exe"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("翻訳エージェント-日本語 🚀", "翻訳エージェント-日本語 🚀"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


def test_lines_keep_their_breaks_only_where_lines_are_asked_for() -> None:
    assert printable("a\n\tb", lines=True) == "a\n\tb"
    assert printable("a\r\nb", lines=True) == "a␍\nb"


def no_long_names(length: int) -> list[tuple[str, ...]]:
    return []


@given(st.lists(ANY_TEXT, min_size=1, max_size=3))
def test_an_address_leads_back_to_exactly_its_names(parts: list[str]) -> None:
    segment = ref(*parts)
    assert re.fullmatch(r"[A-Za-z0-9_~-]+", segment), "it must survive a browser unchanged"
    assert from_ref(segment, len(parts), no_long_names) == tuple(parts)


@pytest.mark.parametrize("letter", ["x", "ü", "翻", "🚀", "\udcff", "\0"])
def test_an_address_is_short_however_long_the_names(letter: str) -> None:
    for length in [*range(140, 1100), 5000, 1_000_000]:
        names = (letter * (length - 1), "a")
        segment = ref(*names)
        assert len(segment) <= 1000

        def long_names(least: int, names: tuple[str, ...] = names) -> list[tuple[str, ...]]:
            return [one for one in (names, ("b", "c")) if len("".join(one)) > least]

        assert from_ref(segment, 2, long_names) == names
    assert from_ref(segment, 2, no_long_names) is None


def test_long_names_that_are_alike_have_addresses_of_their_own() -> None:
    long = "x" * 5000
    names = [(long, "a"), (long + "a", ""), ("", long + "a"), (long, "b"), (long + "a",)]
    segments = {ref(*one) for one in names}
    assert len(segments) == len(names)
    assert all(re.fullmatch(r"![0-9a-f]{64}", segment) for segment in segments)
    found = from_ref(ref("", long + "a"), 2, lambda length: [*names[:4]])
    assert found == ("", long + "a")


@given(st.text())
def test_an_address_that_was_not_made_here_is_refused_not_guessed(segment: str) -> None:
    try:
        parts = from_ref(segment, 2, no_long_names)
    except ValueError:
        return
    assert parts is None or len(parts) == 2


@pytest.mark.parametrize("segment", ["", "a", "~", "a~b", "../..", "%2e%2e", "YQ==~YQ", "gA~YQ"])
def test_a_broken_address_is_a_value_error(segment: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        from_ref(segment, 2, no_long_names)


SECRETS = {
    "smtp.password": "hunter2",
    "API_KEY": "hunter2",
    "service": {"nested": [{"access-token": "hunter2"}]},
    "credentials": ["hunter2", {"x": "hunter2"}],
    "auth.header": "hunter2",
    "session_cookie": 12342,
    "hook": "https://user:hunter2@example.test/path",
    "dsn": "postgres://hunter2",
    "redis": "redis://:hunter2@cache:6379/0",
    "headers": {"Authorization": "Bearer hunter2"},
    "DB_PASS": "hunter2",
    "encryption_key": "hunter2",
    "odbc": "Server=x;Password=hunter2;Database=y",
    "curl": "curl -H 'X: Bearer hunter2'",
    "link": "see https://example.test/?a=1&token=hunter2&b=2 please",
}


def test_secrets_are_masked_by_key_and_inside_urls() -> None:
    shown = str(masked(SECRETS))
    assert "hunter2" not in shown
    assert "12342" not in shown
    assert MASK in shown
    assert "example.test/path" in shown, "the rest of a URL stays"


@pytest.mark.parametrize(
    "harmless",
    [{"theme": "dark"}, {"retention.days": 30}, {"author": "me"}, {"beta": True}, [1, None]],
)
def test_what_is_no_secret_stays_as_it_is(harmless: object) -> None:
    assert masked(harmless) == harmless


def test_free_text_without_credentials_is_unchanged() -> None:
    assert masked_text("mail me@example.test, see https://example.test/?page=2") == (
        "mail me@example.test, see https://example.test/?page=2"
    )


def test_a_long_run_of_letters_is_searched_in_linear_time() -> None:
    """A pattern that starts again at each letter would take hours here, and hold every thread."""
    assert masked_text("a" * 3_000_000 + "://u:p@h").endswith(f"://{MASK}@h")
