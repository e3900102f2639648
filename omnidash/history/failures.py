"""Failures of one kind: what in their messages differs from task to task is taken out."""

from __future__ import annotations

import re

LONGEST = 300  # characters of a message that tell its kind

_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "<hex>"),
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{16,64}\b", re.I), "<hex>"),
    (re.compile(r"[0-9]+(?:[.,:][0-9]+)*"), "<n>"),
)


def normalised(message: str) -> str:
    """The message without ids, addresses and numbers, at most LONGEST characters of it."""
    text = message[: 2 * LONGEST]
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text[:LONGEST]
