"""The door: login, logout, the first administrator, liveness, and what a closed door says."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import (
    AuthenticationForm,
    PasswordChangeForm,
    UserCreationForm,
    UsernameField,
)
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView, RedirectURLMixin
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe
from django.views.generic import FormView

from omnidash import audit, roles, stores, sudo
from omnidash.htmx import from_htmx


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The first store's overview."""
    return redirect(f"/{next(iter(settings.OMNIDASH_STORES))}/")


class LoginForm(AuthenticationForm):
    """Django's writes the longest name into the page, but takes a longer one, whose failure
    PostgreSQL refuses to note: an answer 500 for anybody who asks for one."""

    username = UsernameField(max_length=150)


class Login(LoginView):
    """Django's: it checks `next` and gives the session a new key."""

    authentication_form = LoginForm
    template_name = "door/login.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        nobody = not get_user_model().objects.exists()
        return super().get_context_data(nobody=nobody, **kwargs)


# Who is no longer logged in is let through too: they are where they wanted to be.
logout = login_not_required(LogoutView.as_view())


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """What django-axes answers in the place of the login page after too many failures."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    headers = {"Retry-After": str(seconds)}
    body = render_to_string("door/locked.html", {"minutes": seconds // 60}, request)
    return HttpResponse(body, status=429, headers=headers)


# --- The own password ---


class ConfirmForm(forms.Form):
    password = forms.CharField(strip=False, widget=forms.PasswordInput)

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request = request

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not sudo.is_own_password(self._request, password):
            raise forms.ValidationError("This is not your password.")
        return password


@method_decorator(sensitive_post_parameters(), name="dispatch")
class ConfirmPassword(RedirectURLMixin, FormView):
    """Where `sudo.require_recent` leads to; it checks `next` as the login does."""

    form_class = ConfirmForm
    template_name = "door/confirm.html"
    next_page = "home"

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(next=self.get_redirect_url(), **kwargs)

    def form_valid(self, form: ConfirmForm) -> HttpResponse:
        sudo.password_shown(self.request)
        return super().form_valid(form)


class ChangeForm(PasswordChangeForm):
    """Django's, but guesses of the old password are counted as those at the login are."""

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request = request

    def clean_old_password(self) -> str:
        old: str = self.cleaned_data["old_password"]
        if not sudo.is_own_password(self._request, old):
            raise forms.ValidationError("This is not your password.")
        return old


class ChangePassword(PasswordChangeView):
    """Django's: it ends all other sessions of this user."""

    form_class = ChangeForm
    template_name = "door/password.html"
    success_url = reverse_lazy("password-changed")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_valid(self, form: ChangeForm) -> HttpResponse:  # type: ignore[override]
        sudo.password_shown(self.request)
        return super().form_valid(form)


@require_safe
def password_changed(request: HttpRequest) -> HttpResponse:
    return render(request, "door/password_changed.html")


# --- The first administrator ---


def _token_file() -> Path:
    return Path(settings.DATA_DIR) / "setup_token"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_setup_token() -> str | None:
    """A token that creates the first administrator, once; None if there is a user already.

    Only its hash is kept, so who reads the data folder cannot use it. A token made before is void.
    """
    if get_user_model().objects.exists():
        _token_file().unlink(missing_ok=True)
        return None
    token = secrets.token_urlsafe(32)
    path = _token_file()
    path.touch(mode=0o600)
    path.write_text(_digest(token), encoding="ascii")
    return token


def _is_setup_token(token: str) -> bool:
    try:
        stored = _token_file().read_text(encoding="ascii")
    except OSError:
        return False
    return hmac.compare_digest(stored, _digest(token)) and not get_user_model().objects.exists()


class _First(UserCreationForm[User]):
    def validate_password_for_user(self, user: User, *_: str) -> None:
        """What is wrong with a password stands under it, not under its repetition."""
        super().validate_password_for_user(user, "password1")  # type: ignore[misc]


@login_not_required
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def setup(request: HttpRequest, token: str) -> HttpResponse:
    if not _is_setup_token(token):
        raise Http404
    form = _First(request.POST or None)
    if not form.is_valid():
        status = 422 if form.is_bound else 200
        return render(request, "door/setup.html", {"form": form}, status=status)
    user = _create_administrator(form)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("home")


def _create_administrator(form: UserCreationForm[User]) -> User:
    try:
        # Of two who hold the link, one takes the token away and only that one goes on.
        _token_file().unlink()
    except FileNotFoundError:
        raise Http404 from None
    with transaction.atomic():
        user = form.save(commit=False)
        user.is_staff = user.is_superuser = True
        user.save()
        user.groups.add(roles.group_of(roles.ADMINISTRATOR))
    return user


# --- For whoever watches this process ---


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers. Asks neither database nor store, so a dead store restarts nothing."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether pages can be served. No details: anybody may ask."""
    if _is_ready():
        return HttpResponse("ready\n", content_type="text/plain")
    return HttpResponse("not ready\n", content_type="text/plain", status=503)


def _is_ready() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
        return stores.ready()
    except Exception:  # noqa: BLE001 - whatever it is, the answer is no; the pages say what
        return False


# --- Error pages: they never repeat what was asked for ---


def _error(request: HttpRequest, status: int) -> HttpResponse:
    # Without the request: an error page must not depend on the session or the database.
    response = HttpResponse(render_to_string(f"{status}.html"), status=status)
    if hasattr(request, "htmx") and from_htmx(request):
        # Not to be swapped into the middle of a page; the page's script tells of the failure.
        response.headers["HX-Reswap"] = "none"
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    audit.refused(request, "permission")
    return _error(request, 403)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    audit.refused(request, "csrf")
    return _error(request, 403)


def foreign(request: HttpRequest) -> HttpResponse:
    """What SameOriginMiddleware refuses."""
    audit.refused(request, "origin")
    return _error(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 404)


def unavailable(request: HttpRequest) -> HttpResponse:
    """Without its own database OmniDash cannot tell who asks."""
    return _error(request, 503)


def server_error(request: HttpRequest) -> HttpResponse:
    return _error(request, 500)
