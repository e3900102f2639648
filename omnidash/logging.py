"""One event, one line: nothing that an outsider can name may forge a second one."""

from __future__ import annotations

import logging
import re
import time

from gunicorn.config import Config
from gunicorn.glogging import Logger

# Control characters, line and paragraph separators, direction overrides, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]"
)
_URL_USER = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s/'\"]*@")


def one_line(text: str) -> str:
    """The text with what could break, hide or reorder a line escaped, and URL passwords hidden."""
    return _UNSAFE.sub(_escape, _URL_USER.sub("***@", text))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z WARNING omnidash.serve what happened`, then any traceback, escaped."""

    def __init__(self) -> None:
        self.converter = time.gmtime
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


class GunicornLogger(Logger):
    """gunicorn's own messages, in the same lines as ours."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(LineFormatter())
