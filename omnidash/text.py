"""Text from a store, made fit to show, to put into an address, and to hide secrets in."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_UNSEEN_IN_LINES = re.compile(_UNSEEN.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
# Zero-width (non-)joiners hold emoji and many scripts together.
_JOINERS = "\u200c\u200d"

MASK = "••••••"
_SECRET_KEY = re.compile(
    r"passw|passphrase|pwd|secret|token|api[-_. ]?key|access[-_. ]?key|private[-_. ]?key|credential"
    r"|(^|[-_. :])auth(?!or(?!iz))|bearer|cookie|signature|dsn$|connection[-_. ]?string"
    r"|(^|[-_. :])pass$|(encryption|session|signing|master)[-_. ]?key|jwt|pem$",
    re.IGNORECASE,
)
_URL = re.compile(r"[^\s\"'<>]*+")
_PORT = re.compile(r"[0-9]{1,5}[/?#]")

# A name, and what stands between it and its value. Names are matched whole and never twice, so that
# the time is in proportion to the text; whether one is a secret's is asked afterwards.
_ASSIGNED = re.compile(
    r"(?<![\w.-])(?P<key>(?:(?:api|access|private|secret|signing|master) )?+[\w.-]++"
    r"(?: provided)?+)(?:\\{0,3}[\"'])?+\]?+\s*+[=:]=*+>?+\s*+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"(?:passw\w{0,4}|passphrase|pwd|secrets?|tokens?|credentials?|authorization|cookie|signature"
    r"|jwt|dsn|connection[-_. ]?string|(?<![a-z])(?:auth|pass|sig)"
    r"|(?:api|access|private|secret|encryption|session|signing|master|account|shared)[-_. ]?keys?"
    r")(?:[-_.]?(?:id|hash|value|[0-9]+))?(?: provided)?$",
    re.IGNORECASE,
)
_HEADER_NAME = re.compile(r"(?:authorization|cookie)$", re.IGNORECASE)
_QUOTED = re.compile(
    r"(?:\w{0,20}[\[({]{1,3})?[bruf]{0,2}(\\{0,3}[\"'])(?P<hidden>(?:(?!\1)(?:\\.|.))++)",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN = re.compile(
    r"(?P<hidden>(?:(?:basic|bearer|digest|token)\s++)*+[^\s;&\"'<>]++)", re.IGNORECASE
)
_REST_OF_LINE = re.compile(r"(?P<hidden>[^\r\n\"'<>]++)")
_BEARER = re.compile(r"\b(bearer\s++)[^\s;,&\"'<>]++", re.IGNORECASE)


def printable(text: str, *, lines: bool = False) -> str:
    """The text with what cannot be seen made visible: bytes that are not UTF-8 as `\\xff`, control
    characters as their pictures, direction marks by number, lone surrogates as U+FFFD. `lines`
    keeps line breaks and tabs. The answer can always be encoded as UTF-8."""
    return (_UNSEEN_IN_LINES if lines else _UNSEEN).sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in _JOINERS:
        return match[0]
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return f"\\x{code:02x}" if code < 0x100 else f"⟨U+{code:04X}⟩"


def duration(seconds: float) -> str:
    """In its two largest units: 3 d 4 h, 12 min, 41 s."""
    whole = int(seconds)
    for size, unit, rest_size, rest_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            rest = whole % size // rest_size
            return f"{whole // size} {unit}" + (f" {rest} {rest_unit}" if rest else "")
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"


_LONGEST_REF = 1000  # characters: servers and proxies refuse addresses of a few thousand
_DIGEST = "!"  # begins the address of names that would make a longer one
_FEWEST = 150  # characters that may do so: each takes at most 4 bytes, and those a third more


def ref(*parts: str) -> str:
    """An address segment for names that may hold anything, or nothing: base64url, joined by ~; of
    long names a digest, which `from_ref` can only compare."""
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    if sum(map(len, raw)) <= _LONGEST_REF:
        found = "~".join(base64.urlsafe_b64encode(part).decode().rstrip("=") or "_" for part in raw)
        if len(found) <= _LONGEST_REF:
            return found
    digest = blake2b(digest_size=32)
    for part in raw:
        digest.update(b"%d:" % len(part) + part)
    return _DIGEST + digest.hexdigest()


def from_ref(
    segment: str, count: int, long_names: Callable[[int], Iterable[tuple[str, ...]]]
) -> tuple[str, ...] | None:
    """The names that `ref` was made of. ValueError if it was not made by `ref`. For a digest they
    are looked for among those that have more than so many characters together; None if it is of
    none of them."""
    if segment.startswith(_DIGEST):
        return next((names for names in long_names(_FEWEST) if ref(*names) == segment), None)
    parts = segment.split("~")
    if len(parts) != count:
        raise ValueError("not an address of a record")
    names = tuple("" if part == "_" else _decoded(part) for part in parts)
    if ref(*names) != segment:
        raise ValueError("not an address of a record")
    return names


def _decoded(part: str) -> str:
    try:
        padded = part + "=" * (-len(part) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not an address of a record") from error


def is_secret(key: str) -> bool:
    """True if a setting of this name usually holds a secret."""
    return bool(_SECRET_KEY.search(key))


def masked(value: Any, key: str = "") -> Any:
    """The JSON value with secrets hidden: by the names of their keys, and inside URLs."""
    if value is not None and not isinstance(value, (bool, dict, list)) and is_secret(key):
        return MASK
    if isinstance(value, dict):
        return {name: masked(found, f"{key}.{name}") for name, found in value.items()}
    if isinstance(value, list):
        return [masked(found, key) for found in value]
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """Free text with the credentials inside its URLs hidden, and what is called a secret in it."""
    return _BEARER.sub(rf"\1{MASK}", _without_assigned(_without_users(text)))


def _without_users(text: str) -> str:
    """Without what stands before the host of a URL. A password may hold any sign, also such as end
    a host, so that after a colon all is hidden up to the last @."""
    head, *rest = text.split("://")
    return "://".join([head, *map(_without_user, rest)])


def _without_user(text: str) -> str:
    url = _URL.match(text)[0]  # type: ignore[index]  # it matches anything
    end = url.rfind("@")
    host = len(re.split("[/?#]", url, maxsplit=1)[0])
    colon = url.find(":", 0, min(host, max(end, 0)))
    if end < 0 or colon < 0 or (colon > 0 and _PORT.match(url, colon + 1)):
        end = url.rfind("@", 0, host)
    return text if end < 0 else MASK + text[end:]


def _without_assigned(text: str) -> str:
    pieces, done = [], 0
    for name in _ASSIGNED.finditer(text):
        if name.end() > done and (value := _secret_after(name, text)):
            pieces += [text[done : value.start("hidden")], MASK]
            done = value.end()
    return "".join([*pieces, text[done:]])


def _secret_after(name: re.Match[str], text: str) -> re.Match[str] | None:
    """The value of a name that is a secret's."""
    key, start = name["key"], name.end()
    is_option = text[max(0, name.start() - 1) : name.start()] in tuple("?&;#")
    if not _SECRET_NAME.search(key) and not (is_option and key.lower().endswith("key")):
        return None
    value = _PLAIN.match(text, start)
    if value and key.lower().endswith("tokens") and value[0].rstrip(",.)}]").isdigit():
        return None  # how many, and not which
    if value and _HEADER_NAME.search(key):
        value = _REST_OF_LINE.match(text, start)
    return _QUOTED.match(text, start) or value


def without_user(address: str) -> str:
    """Without what may be a name and a password, which may hold anything."""
    return re.sub(r"://.*@", "://***@", address, flags=re.DOTALL)
