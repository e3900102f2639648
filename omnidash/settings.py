"""Everything that can be set, and the only reader of the environment.

A value that cannot be used raises ImproperlyConfigured: one line that names the variable and never
repeats a secret. The README's table of variables says the same for operators.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import django
from django.core.exceptions import ImproperlyConfigured

from omnidash import __version__, database
from omnidash.addresses import checked_url, json_url, named_stores
from omnidash.keeping import copy_of, folder_of, keep_of

BASE_DIR = Path(__file__).resolve().parent.parent

_OMNIDAEMON_VARIABLES = ("STORAGE_BACKEND", "JSON_STORAGE_DIR", "REDIS_URL", "REDIS_KEY_PREFIX")
_WORDS = {"on": True, "true": True, "yes": True, "1": True} | {
    "off": False, "false": False, "no": False, "0": False
}  # fmt: skip

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _text(env: Mapping[str, str], name: str, default: str = "") -> str:
    """An empty variable counts as unset: that is how compose files and units leave one out."""
    return env.get(name, "").strip() or default


def _switch(env: Mapping[str, str], name: str, default: bool) -> bool:
    value = _text(env, name).lower()
    if value and value not in _WORDS:
        raise ImproperlyConfigured(f"{name} must be on or off.")
    return _WORDS.get(value, default)


def _data_dir(env: Mapping[str, str]) -> Path:
    path = Path(_text(env, "OMNIDASH_DATA_DIR", str(BASE_DIR / "var"))).expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"OMNIDASH_DATA_DIR cannot be used: {error.strerror}.") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ImproperlyConfigured("OMNIDASH_DATA_DIR cannot be used: it is not writable.")
    return path


def _secret_key(env: Mapping[str, str], data_dir: Path) -> str:
    """The key that signs sessions: given, or made once and kept in the data folder."""
    key, source = _text(env, "OMNIDASH_SECRET_KEY"), "OMNIDASH_SECRET_KEY"
    if not key:
        path = data_dir / "secret_key"
        source = f"OMNIDASH_SECRET_KEY (kept in {path})"
        try:
            if not path.exists():
                _write_once(path, secrets.token_urlsafe(64))
            key = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ImproperlyConfigured(f"{source} cannot be read or written.") from None
    if len(key) < 50:
        raise ImproperlyConfigured(f"{source} is too short: it needs 50 characters or more.")
    return key


def _write_once(path: Path, text: str) -> None:
    """Write a private file whole, or leave the one that another process wrote first."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _omnidaemon_store(env: Mapping[str, str]) -> str:
    """The store that OmniDaemon itself would open in this environment, by its own defaults."""
    backend = _text(env, "STORAGE_BACKEND", "json").lower()
    if backend == "json":
        return json_url(_text(env, "JSON_STORAGE_DIR", ".omnidaemon_data"))
    if backend != "redis":
        raise ImproperlyConfigured(
            f"STORAGE_BACKEND is {backend[:40]!a}: it must be json or redis."
        )
    url = _text(env, "REDIS_URL", "redis://localhost:6379")
    prefix = quote(_text(env, "REDIS_KEY_PREFIX", "omni"), safe="")
    joint = "&" if "?" in url else "?"
    return checked_url("REDIS_URL", f"{url}{joint}prefix={prefix}")


def _stores(env: Mapping[str, str], data_dir: Path) -> tuple[dict[str, str], bool]:
    """The stores by name, and whether the only one is the sample that we keep writing ourselves."""
    named = _text(env, "OMNIDASH_STORES")
    sample = _text(env, "OMNIDASH_SAMPLE")
    forced = _switch(env, "OMNIDASH_SAMPLE", False)
    if named and forced:
        raise ImproperlyConfigured("OMNIDASH_SAMPLE and OMNIDASH_STORES exclude each other.")
    if named:
        return named_stores(named), False
    configured = any(_text(env, name) for name in _OMNIDAEMON_VARIABLES)
    found = configured or Path(".omnidaemon_data").is_dir() or (sample and not forced)
    if found and not forced:
        return {"default": _omnidaemon_store(env)}, False
    return {"default": json_url(str(data_dir / "sample"))}, True


def _hint(env: Mapping[str, str]) -> str:
    """What an operator may have meant otherwise; empty if nothing looks odd."""
    if _text(env, "REDIS_URL") and not (
        _text(env, "STORAGE_BACKEND") or _text(env, "OMNIDASH_STORES")
    ):
        return "REDIS_URL is set without STORAGE_BACKEND=redis: OmniDaemon then keeps JSON files."
    return ""


def _database(env: Mapping[str, str], data_dir: Path) -> dict[str, Any]:
    url = _text(env, "DATABASE_URL")
    try:
        return database.postgresql(url) if url else database.sqlite(data_dir / "omnidash.sqlite3")
    except ValueError as error:
        # Its message never repeats the URL, which holds a password.
        raise ImproperlyConfigured(f"DATABASE_URL: {error}.") from None


def _hosts(env: Mapping[str, str]) -> list[str]:
    hosts = [part.strip() for part in _text(env, "OMNIDASH_HOSTS").split(",") if part.strip()]
    if any("*" in host or "/" in host for host in hosts):
        # A host that is not checked is how DNS rebinding reaches a local dashboard.
        raise ImproperlyConfigured("OMNIDASH_HOSTS must be plain host names, without * or /.")
    # These names always lead to this machine, so no rebinding uses them; health checks do.
    return [*hosts, "127.0.0.1", "localhost", "[::1]"]


def _bind(env: Mapping[str, str]) -> tuple[str, int]:
    text = _text(env, "OMNIDASH_BIND", "127.0.0.1:8000")
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.netloc != text or "@" in text:
        raise ImproperlyConfigured("OMNIDASH_BIND must be host:port, such as 127.0.0.1:8000.")
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _trusted_proxies(env: Mapping[str, str]) -> list[Network]:
    text = _text(env, "OMNIDASH_TRUSTED_PROXIES")
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ImproperlyConfigured(
            "OMNIDASH_TRUSTED_PROXIES must be addresses or networks, such as 10.0.0.5,10.1.0.0/16."
        ) from None


def _log_level(env: Mapping[str, str]) -> str:
    level = _text(env, "OMNIDASH_LOG_LEVEL", "info").upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ImproperlyConfigured("OMNIDASH_LOG_LEVEL must be debug, info, warning or error.")
    return level


def _number(env: Mapping[str, str], name: str, default: int, most: int, least: int = 1) -> int:
    text = _text(env, name, str(default))
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        raise ImproperlyConfigured(f"{name} must be a whole number from {least} to {most}.")
    return int(text)


_KNOWN = {
    "OMNIDASH_BACKUP_COPY", "OMNIDASH_BACKUP_DIR", "OMNIDASH_BACKUP_KEEP",
    "OMNIDASH_BACKUP_MAX_AGE_HOURS", "OMNIDASH_BACKUP_MB", "OMNIDASH_BACKUP_OUTPUT_MB",
    "OMNIDASH_BACKUP_TRUST",
    "OMNIDASH_BIN_DAYS", "OMNIDASH_BIN_MB", "OMNIDASH_S3_KEY", "OMNIDASH_S3_SECRET",
    "OMNIDASH_BIND", "OMNIDASH_DATA_DIR", "OMNIDASH_DEBUG", "OMNIDASH_HOSTS", "OMNIDASH_LOG_LEVEL",
    "OMNIDASH_READ_ONLY", "OMNIDASH_SAMPLE", "OMNIDASH_SECRET_KEY", "OMNIDASH_STORES",
    "OMNIDASH_TLS", "OMNIDASH_TRUSTED_PROXIES",
}  # fmt: skip


def _refuse_unknown(env: Mapping[str, str]) -> None:
    """A mistyped name would otherwise leave its default in force without a word."""
    unknown = sorted(name for name in env if name.startswith("OMNIDASH_") and name not in _KNOWN)
    if unknown:
        raise ImproperlyConfigured(f"{unknown[0]} is not a setting; docs/configuration.md has all.")


# --- What the environment says ---

_refuse_unknown(os.environ)
DATA_DIR = _data_dir(os.environ)
SECRET_KEY = _secret_key(os.environ, DATA_DIR)
OMNIDASH_VERSION = __version__
OMNIDASH_STORES, OMNIDASH_SAMPLE = _stores(os.environ, DATA_DIR)
OMNIDASH_HINT = _hint(os.environ)
OMNIDASH_READ_ONLY = _switch(os.environ, "OMNIDASH_READ_ONLY", False)
ALLOWED_HOSTS = _hosts(os.environ)
OMNIDASH_BIND = _bind(os.environ)
OMNIDASH_LOOPBACK = _is_loopback(OMNIDASH_BIND[0])
OMNIDASH_TLS = _switch(os.environ, "OMNIDASH_TLS", not OMNIDASH_LOOPBACK)
OMNIDASH_TRUSTED_PROXIES = _trusted_proxies(os.environ)
OMNIDASH_BIN_DAYS = _number(os.environ, "OMNIDASH_BIN_DAYS", 7, 3650)
OMNIDASH_BIN_MB = _number(os.environ, "OMNIDASH_BIN_MB", 2000, 10_000_000)
STATIC_ROOT = DATA_DIR / "static"
OMNIDASH_BACKUP_DIR = folder_of(
    Path(_text(os.environ, "OMNIDASH_BACKUP_DIR", str(DATA_DIR / "backups"))),
    OMNIDASH_STORES, STATIC_ROOT,
)  # fmt: skip
OMNIDASH_BACKUP_MB = _number(os.environ, "OMNIDASH_BACKUP_MB", 256, 1_000_000)
OMNIDASH_BACKUP_OUTPUT_MB = _number(os.environ, "OMNIDASH_BACKUP_OUTPUT_MB", 2048, 10_000_000)
OMNIDASH_BACKUP_TRUST = _switch(os.environ, "OMNIDASH_BACKUP_TRUST", False)
OMNIDASH_BACKUP_KEEP = keep_of(_text(os.environ, "OMNIDASH_BACKUP_KEEP"))
OMNIDASH_BACKUP_MAX_AGE_HOURS = _number(
    os.environ, "OMNIDASH_BACKUP_MAX_AGE_HOURS", 48, 100_000, least=0
)
OMNIDASH_S3_KEY = _text(os.environ, "OMNIDASH_S3_KEY")
OMNIDASH_S3_SECRET = _text(os.environ, "OMNIDASH_S3_SECRET")
OMNIDASH_BACKUP_COPY = copy_of(
    _text(os.environ, "OMNIDASH_BACKUP_COPY"), OMNIDASH_S3_KEY, OMNIDASH_S3_SECRET,
    OMNIDASH_BACKUP_DIR,
)  # fmt: skip
DEBUG = _switch(os.environ, "OMNIDASH_DEBUG", False)
if DEBUG and not OMNIDASH_LOOPBACK:
    raise ImproperlyConfigured("OMNIDASH_DEBUG shows secrets: only for a loopback OMNIDASH_BIND.")

# --- The parts ---

INSTALLED_APPS = [
    # Simple: it looks for nothing to register but what omnidash/admin.py does.
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "django_htmx",
    "django_tasks",
    "django_tasks_db",
    "omnidash",
]
MIDDLEWARE = [
    "omnidash.middleware.TrustedProxyMiddleware",
    "omnidash.middleware.SecurityHeadersMiddleware",
    # Pages only: static files are compressed already. Django pads them against BREACH.
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "omnidash.middleware.SameOriginMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "omnidash.middleware.DatabaseMiddleware",
    "omnidash.middleware.LoginRequiredMiddleware",
    # After the login, so that nobody learns the stores' names by guessing.
    "omnidash.middleware.StoreMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "omnidash.urls"
WSGI_APPLICATION = "omnidash.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,  # those of Django's admin
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "omnidash.context.frame",
            ],
        },
    }
]
DATABASES = {"default": _database(os.environ, DATA_DIR)}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["runs"]}}
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False

# --- Static files ---

STATIC_URL = "/static/"
_ADMIN = Path(django.__file__).parent / "contrib" / "admin" / "static" / "admin"
STATICFILES_DIRS = [BASE_DIR / "static", ("admin", _ADMIN)]
# Only ours and the admin's: django-htmx brings another htmx than the one that we vendor.
STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
FILE_UPLOAD_HANDLERS: list[str] = []  # no page takes files but the one that names its own
FILE_UPLOAD_PERMISSIONS = 0o600  # collected files too: Django would open them to all
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- The door ---

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in (
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"min_length": 10}),
        ("CommonPasswordValidator", {}),
        ("NumericPasswordValidator", {}),
    )
]
# A user and an address together: nobody can lock another out from somewhere else.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
# Hidden in the log: a password typed into the wrong field. The address is what one looks for.
AXES_SENSITIVE_PARAMETERS = ["username"]
AXES_LOCKOUT_CALLABLE = "omnidash.views.door.locked_out"

# Not in a cache, and never in the Redis that is watched: reading one there runs pickle.
SESSION_ENGINE = "django.contrib.sessions.backends.db"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())
# Browsers take a __Host- cookie only over TLS and from this very host. Named ours, so that two
# Django sites on one loopback address do not log each other out.
SESSION_COOKIE_NAME = "__Host-omnidash" if OMNIDASH_TLS else "omnidash"
SESSION_COOKIE_SECURE = OMNIDASH_TLS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = f"{SESSION_COOKIE_NAME}-csrf"
CSRF_COOKIE_SECURE = OMNIDASH_TLS
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "omnidash.views.door.csrf_failure"

SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds()) if OMNIDASH_TLS else 0
# Without a proxy that we believe, every request looks like plain HTTP: a redirect would never end.
SECURE_SSL_REDIRECT = OMNIDASH_TLS and bool(OMNIDASH_TRUSTED_PROXIES)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
# TrustedProxyMiddleware drops this header unless it comes from a proxy named in the settings.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
# HSTS for all subdomains, and preloading: whose domain it is may decide that, we may not.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# --- The log ---

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "omnidash.logging.LineFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": _log_level(os.environ)},
    "loggers": {
        # Django's own handlers would print a second time, and mail.
        "django": {"handlers": [], "propagate": True},
        # A line for each 404 would let anyone fill the disk.
        "django.request": {"level": "ERROR"},
        "axes": {"level": "WARNING"},
    },
}
