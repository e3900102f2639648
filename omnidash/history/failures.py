"""Failures of one kind: what in their messages differs from task to task is taken out."""

from __future__ import annotations

import re

from omnidash.text import masked_text

LONGEST = 300  # characters of a message that tell its kind

# Ids are words of their own, though an underscore may join them to others, as in task_3f2a….
_WORD = r"(?<![0-9a-z]){}(?![0-9a-z])"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MIXED = r"(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{7,}"  # hexadecimal, and neither word nor number
_CODE = r"(?=[a-z]*[0-9])(?=[0-9]*[a-z])[0-9a-z]{16,}"  # ULIDs, tokens
_NUMBER = r"[0-9]+(?:[.,:][0-9]+)*(?:e[+-]?[0-9]+)?"

# Each looks ahead from where a word or a number begins and no further than its end, so that the
# time of all is in proportion to the text.
_VARYING = [
    (re.compile(pattern, re.IGNORECASE | re.ASCII), mark)
    for pattern, mark in (
        (_WORD.format(_UUID), "<id>"),
        (_WORD.format(r"0x[0-9a-f]+"), "<hex>"),
        (_WORD.format(_MIXED), "<hex>"),
        (_WORD.format(_CODE), "<id>"),
        (_NUMBER, "<n>"),
    )
]


def normalised(message: str) -> str:
    """The message without secrets, ids, addresses and numbers, at most LONGEST characters."""
    text = masked_text(message[: 2 * LONGEST])
    for pattern, mark in _VARYING:
        text = pattern.sub(mark, text)
    return text[:LONGEST]
