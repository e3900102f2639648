"""Text from a store: made visible, addressable, and its secrets hidden."""

from __future__ import annotations

import re
import time

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


# Longer ones have a digest for an address.
SHORT = st.lists(ANY_TEXT, min_size=1, max_size=3).filter(lambda parts: sum(map(len, parts)) < 150)


@given(SHORT)
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


@pytest.mark.parametrize(
    "text",
    [
        "connect(password='hunter2')",
        "password='hunter2",
        "password='it\\'s hunter2'",
        "{'password': 'hunter2'}",
        '{"api_key": "hunter2"}',
        '"{\\"api_key\\": \\"hunter2\\"}"',
        '"password" => "hunter2"',
        "headers['X-Api-Key'] = b'hunter2'",
        "token=SecretStr('hunter2')",
        "DB_PASSWORD=hunter2",
        "OPENAI_API_KEY=hunter2",
        "aws_secret_access_key=hunter2",
        "error: password=hunter2",
        "password: token: hunter2",
        "password=one,hunter2",
        "Authorization: Basic hunter2",
        "{'Authorization': 'Digest a, hunter2'}",
        "Cookie: a=b; c=hunter2",
        "api key: hunter2",
        "Incorrect API key provided: hunter2",
        "redis://:hunter2/x@h",
        "redis://:x/hunter2@h",
        "redis://:12/hunter2@h",
        "redis://:hunter2#x@h",
        "redis://u:p@x/hunter2@h",
        "redis://:a@one,redis://:hunter2@two",
        "postgresql://u:p?hunter2@h/db",
        "https://h:80/#access_token=hunter2",
        "https://h/?key=hunter2&b=1",
        "https://h/?a_token=a,hunter2",
    ],
)
def test_what_is_called_a_secret_is_masked_in_free_text(text: str) -> None:
    shown = masked_text(text)
    assert "hunter2" not in shown
    assert MASK in shown
    assert masked_text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "token count: 5 tokens",
        "max_tokens=4096, prompt_tokens: 15",
        "openai.AuthenticationError: Error code: 401",
        "InvalidTokenError: it has expired",
        "KeyError: 'password'",
        "the secret agent: Bond",
        "author: me, monkey=5, bypass: true, keyboard: none",
        "https://example.test/@user and http://h:8080/@scope/x?mail=a@b",
        "password=''",
    ],
)
def test_what_only_sounds_like_a_secret_stays(text: str) -> None:
    assert masked_text(text) == text


UNITS = [
    "://", "://u:", "://:/@", "u:p@", "passw", "?passw", "password='", 'password="\\', "password=",
    "password= ", "token1", "token: ", "api ", "authorization: ", "bearer ", "a=", "a ", " ", "\\",
    "'", "?key=",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_masking_takes_time_in_proportion_to_the_text(unit: str) -> None:
    """Eight times the text takes about eight times as long; with a pattern that begins again and
    again it would be 64 times."""

    def work(size: int) -> float:
        """The least of three runs, as others may use this machine too."""
        text, runs = "password" + unit * (size // len(unit)), []
        for _ in range(3):
            before = time.thread_time()
            masked_text(text)
            runs.append(time.thread_time() - before)
        return min(runs)

    assert work(1_000_000) < 24 * work(125_000) + 0.01
