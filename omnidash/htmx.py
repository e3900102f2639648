"""One address, two answers: the whole page, or the part that htmx asked for."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers

from storage.base import StoreError


def from_htmx(request: HttpRequest) -> bool:
    """Whether htmx sent this, for whatever purpose."""
    return bool(request.htmx)  # type: ignore[attr-defined]


def current_path(request: HttpRequest) -> str:
    """Path and query of the page that htmx is on; empty if unknown or on another host."""
    return request.htmx.current_url_abs_path or ""  # type: ignore[attr-defined]


def wants_part(request: HttpRequest) -> bool:
    """htmx asks for whole pages too: for a boosted link, to restore history, to select from."""
    htmx = request.htmx  # type: ignore[attr-defined]
    whole = htmx.boosted or htmx.history_restore_request or htmx.request_type == "full"
    return bool(htmx) and not whole


def page(
    request: HttpRequest,
    template: str,
    part: str | None = None,
    context: Mapping[str, Any] | None = None,
    status: int = 200,
    version: str = "",
    trouble: StoreError | None = None,
    good_at: float | None = None,
) -> HttpResponse:
    """The page `template` with `part` in it as `{{ part }}`, or for htmx the part alone.

    A part carries its version, or else its digest, as `X-Part` and, for the side bar, counts as
    `X-Counts`. A refresh that sends the one it has gets 204 when nothing changed, which htmx does
    not swap. A view that knows the version asks `unchanged` first, and spares the rendering.

    With `trouble` the store cannot be read, and the context holds what was remembered until
    `good_at`: that is kept as the last good content, and the trouble raised, for which
    StoreMiddleware answers.
    """
    piece = render_to_string(part, context, request) if part else ""
    entry = getattr(request, "entry", None)
    if entry is not None and piece and request.method == "GET" and status == 200:
        entry.keep(request, piece, good_at)
    if trouble is not None:
        raise trouble
    partial = part is not None and wants_part(request)
    whole = {**(context or {}), "part": piece}
    text = piece if partial else render_to_string(template, whole, request)
    # Names from a store may hold lone surrogates, which no encoding can carry: show a "?".
    body = text.encode("utf-8", errors="replace")
    response = HttpResponse(body, status=status)
    if partial:
        digest = version or blake2b(body, digest_size=8).hexdigest()
        if status == 200 and request.headers.get("X-Part") == digest:
            response = HttpResponse(status=204)
        response.headers["X-Part"] = digest
        beside = entry or getattr(request, "beside", None)  # whose side bar is shown
        if beside is not None:
            counts = beside.known_counts()
            known = {"agents": counts.agents, "results": counts.results}
            shown = {noun: f"{count:,}" for noun, count in known.items() if count is not None}
            response.headers["X-Counts"] = urlencode(shown)
    patch_vary_headers(response, ["HX-Request"])
    return response


def unchanged(request: HttpRequest, version: str) -> HttpResponse | None:
    """The answer to a refresh that has this version of the part already."""
    if not wants_part(request) or request.headers.get("X-Part") != version:
        return None
    response = HttpResponse(status=204, headers={"X-Part": version})
    patch_vary_headers(response, ["HX-Request"])
    return response


def notice(
    request: HttpRequest, name: str, status: int, context: Mapping[str, Any]
) -> HttpResponse:
    """Something that the reader must be told instead of the page: `frame/<name>.html`, or for htmx
    `frame/_<name>.html`, which takes the place of the notice above what is on the screen."""
    if not wants_part(request):
        return page(request, f"frame/{name}.html", context=context, status=status)
    response = page(request, f"frame/_{name}.html", context=context, status=status)
    response.headers["HX-Retarget"] = "#notice"
    response.headers["HX-Reswap"] = "outerMorph"
    return response
