"""Before what cannot be undone, whoever asks must have shown their password a short while ago: a
screen that was left open is not enough."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth import authenticate
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from omnidash.htmx import current_path, from_htmx

RECENT = 15 * 60  # seconds
_SHOWN = "password_shown_at"  # in the session; Unix seconds by this server's clock


def password_shown(request: HttpRequest) -> None:
    request.session[_SHOWN] = time.time()


@receiver(user_logged_in)
def _logged_in(request: HttpRequest, **kwargs: Any) -> None:
    password_shown(request)


def recently_confirmed(request: HttpRequest) -> bool:
    """Whether the password was given in this session not longer than 15 minutes ago."""
    age = time.time() - request.session.get(_SHOWN, 0)
    return 0 <= age < RECENT  # a clock that was set back proves nothing


def require_recent(request: HttpRequest, back: str = "") -> HttpResponse | None:
    """The way to the page that asks for the password and leads back here, or to the address `back`;
    None if it was given. It leads there with GET: what was posted is not kept."""
    if recently_confirmed(request):
        return None
    htmx = from_htmx(request)
    if not back:
        back = current_path(request) or "/" if htmx else request.get_full_path()
    address = f"{reverse('confirm-password')}?{urlencode({'next': back})}"
    return HttpResponse(status=401, headers={"HX-Redirect": address}) if htmx else redirect(address)


@sensitive_variables("password")
def is_own_password(request: HttpRequest, password: str) -> bool:
    """Asked of the same door as a login, so that guesses are counted and locked out together."""
    name = request.user.get_username()
    return authenticate(request, username=name, password=password) == request.user
