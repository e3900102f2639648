"""What holds for every request, whichever page it is for."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import middleware as auth_middleware
from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url
from whitenoise.middleware import WhiteNoiseFileResponse

from omnidash.htmx import current_path, from_htmx, notice
from omnidash.stores import registry
from omnidash.views import door
from storage.base import RecordNotFound, StoreError
from storage.patience import patience

logger = logging.getLogger(__name__)

PAGE_SECONDS = 2.5  # that all questions of a page may take together; nobody waits longer than 3

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")

GetResponse = Callable[[HttpRequest], HttpResponse]

HEADERS = {
    # data: for images is what Tabler's style sheet draws its check marks and arrows with.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class TrustedProxyMiddleware:
    """Believes X-Forwarded-For and -Proto from the proxies in OMNIDASH_TRUSTED_PROXIES only.

    REMOTE_ADDR becomes the last address in the chain that no trusted proxy vouches for as its own;
    what stands before it could have been written by anyone.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        forwarded = request.META.pop("HTTP_X_FORWARDED_FOR", "")
        if not self._trusts(request.META.get("REMOTE_ADDR", "")):
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
            return self.get_response(request)
        for address in reversed([part.strip() for part in forwarded.split(",")]):
            try:
                request.META["REMOTE_ADDR"] = str(ipaddress.ip_address(address))
            except ValueError:
                break
            if not self._trusts(address):
                break
        return self.get_response(request)

    @staticmethod
    def _trusts(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in settings.OMNIDASH_TRUSTED_PROXIES)


class SecurityHeadersMiddleware:
    """The policy on every answer; only static files may be kept by a browser or a proxy."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        for name, value in HEADERS.items():
            response.headers[name] = value
        if not isinstance(response, WhiteNoiseFileResponse):
            response.headers["Cache-Control"] = "no-store"
        return response


class SameOriginMiddleware:
    """Refuses what another site's page sends here, beside the token that CSRF asks for: what
    browsers say of themselves is not for that page to choose."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        if request.method in SAFE_METHODS:
            return None
        own = f"{request.scheme}://{request.get_host()}"
        same = (
            request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
            and request.headers.get("Origin", own) == own
        )
        return None if same else door.foreign(request)


class DatabaseMiddleware:
    """Says that OmniDash's own database cannot be used, in the place of a failure.

    Every page begins with the question who asks, so it is put here, where it may fail.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        try:
            # /healthz needs no database even with a cookie sent.
            _ = getattr(view_func, "login_required", True) and request.user.is_authenticated
        except (InterfaceError, DatabaseError) as error:
            found = self.process_exception(request, error)
            if found is None:
                raise
            return found
        return None

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        if not _is_unusable(exception):
            return None
        logger.warning("the database cannot be used: %s", " ".join(str(exception).split()))
        return door.unavailable(request)


def _is_unusable(error: Exception) -> bool:
    """Whether the database itself is at fault, and not a statement. Of one that is a file but none
    of SQLite's, the error has no kind of its own."""
    return isinstance(error, (InterfaceError, OperationalError)) or type(error) is DatabaseError


class LoginRequiredMiddleware(auth_middleware.LoginRequiredMiddleware):
    """Django's, but htmx is sent to the login page as a whole.

    It would follow a redirect and swap the form into the page. It obeys HX-Redirect with any
    status.
    """

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        # Asked before who it is, so that /healthz needs no database even with a cookie sent.
        if not getattr(view_func, "login_required", True):
            return None
        return super().process_view(request, view_func, view_args, view_kwargs)

    def get_login_url(self, view_func: Callable[..., HttpResponseBase]) -> str:
        """There is one door: Django's admin names another one."""
        return str(settings.LOGIN_URL)

    def handle_no_permission(  # type: ignore[override]
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseBase:
        if not from_htmx(request):
            return super().handle_no_permission(request, view_func)
        login = redirect_to_login(current_path(request) or "/", resolve_url(settings.LOGIN_URL))
        return HttpResponse(status=401, headers={"HX-Redirect": login.url})


class StoreMiddleware:
    """Gives a page the store that its address names, and answers when that store cannot.

    A store that does not answer keeps the page's frame: a notice says why and since when, above
    the last good data of that page, if there is any.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with patience(PAGE_SECONDS):
            response = self.get_response(request)
            entry = getattr(request, "entry", None)
            if entry is not None and response.status_code < 400:
                entry.answered(request.path)
        return response

    def process_view(
        self,
        request: HttpRequest,
        view_func: Callable[..., HttpResponseBase],
        view_args: tuple[Any, ...],
        view_kwargs: dict[str, Any],
    ) -> None:
        if "store" not in view_kwargs:
            return
        if view_kwargs["store"] not in settings.OMNIDASH_STORES:
            raise Http404
        request.entry = registry()[view_kwargs["store"]]  # type: ignore[attr-defined]

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        if not isinstance(exception, StoreError):
            return None
        entry = request.entry  # type: ignore[attr-defined]
        if isinstance(exception, RecordNotFound):
            entry.answered(request.path)
            return notice(request, "gone", 404, {"message": str(exception)})
        stale, stale_since = entry.kept(request) or (None, None)
        logger.warning("store %s cannot be read: %s", entry.name, exception)
        outage = entry.failed(request.path)
        return notice(request, "outage", 503, {
            "outage": outage,
            "cause": str(exception),
            "good_at": stale_since or (entry.good_at if outage.whole else None),
            "stale": stale,
        })  # fmt: skip
