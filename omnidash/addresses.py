"""Addresses of stores as the settings name them, checked without repeating a secret."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

import storage

# First words of addresses that are the dashboard's own, so no store may be called so.
RESERVED = {
    "admin", "confirm-password", "healthz", "login", "logout", "password", "readyz", "runs",
    "setup", "static",
}  # fmt: skip


def checked_url(variable: str, url: str) -> str:
    try:
        storage.parse_url(url)
    except ValueError as error:
        # The message of parse_url never repeats the URL, which may hold a password.
        raise ImproperlyConfigured(f"{variable}: {error}.") from None
    return url


def named_stores(text: str) -> dict[str, str]:
    stores: dict[str, str] = {}
    for number, entry in enumerate(text.split(","), start=1):
        name, equals, url = (part.strip() for part in entry.partition("="))
        # The entry is not repeated: it may be the tail of a password that has a comma in it.
        if not equals or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise ImproperlyConfigured(
                f"OMNIDASH_STORES: entry {number} is not name=url, the name in small letters, "
                "digits and hyphens (a comma inside a URL is written %2C)."
            )
        if name in RESERVED:
            raise ImproperlyConfigured(f"OMNIDASH_STORES: a store cannot be called {name}.")
        if name in stores:
            raise ImproperlyConfigured(f"OMNIDASH_STORES: {name} is there twice.")
        stores[name] = checked_url(f"OMNIDASH_STORES: {name}", url)
    return stores


def json_url(folder: str) -> str:
    return f"json://{quote(os.path.abspath(os.path.expanduser(folder)))}"
