"""One event is one line, whatever was named in it."""

from __future__ import annotations

import logging

import pytest

from omnidash.logging import LineFormatter


def formatted(message: str, *args: object, exc_info: object = None) -> str:
    record = logging.LogRecord("test", logging.ERROR, "x.py", 1, message, args, exc_info)  # type: ignore[arg-type]
    record.created = 0.0
    return LineFormatter().format(record)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nERROR forged", r"a\nERROR forged"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("\ud800", r"\ud800"),
        ("Grüße 東京", "Grüße 東京"),
    ],
)
def test_a_name_cannot_forge_break_or_reorder_a_line(name: str, shown: str) -> None:
    assert formatted("agent %s", name) == f"1970-01-01T00:00:00Z ERROR test agent {shown}"


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        line = formatted("failed", exc_info=(ValueError, error, error.__traceback__))
    assert "\n" not in line
    assert r"ValueError: two\nlines" in line


@pytest.mark.parametrize(
    "url", ["redis://ada:hunter2@h:1/0", "redis://:hunter2@h", "rediss://a:hunter2@b@h/0"]
)
def test_the_password_of_a_url_is_not_logged(url: str) -> None:
    assert "hunter2" not in formatted("cannot reach %s", url)
