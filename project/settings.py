"""Django's settings, computed from the environment. Importing them starts nothing."""

from __future__ import annotations

import logging
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import django
from django.templatetags.static import static
from django.urls import reverse_lazy
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from generation.database import dsn
from project import embedded_postgres, hosting
from project.environment import Environment, stop

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(BASE_DIR / ".env")

# --- the deployment -------------------------------------------------------------------------

DEBUG = env.boolean(
    "DEBUG", default=False, meaning="Development mode. `make run` turns it on unless it is set."
)
INSECURE_SECRET_KEY = "insecure-for-development-only"  # noqa: S105  # not a secret, and a check refuses it
SECRET_KEY = (
    env.text("SECRET_KEY", meaning="Django's secret. Required unless DEBUG is on.")
    or INSECURE_SECRET_KEY
)
ALLOWED_HOSTS = env.words(
    "ALLOWED_HOSTS",
    "localhost,127.0.0.1,[::1]",
    meaning="Host names that the admin answers to, separated by commas.",
)
for host in ALLOWED_HOSTS:
    if "/" in host:
        stop(f"ALLOWED_HOSTS={host!r}: use host names, e.g. example.org")
CSRF_TRUSTED_ORIGINS = env.words(
    "CSRF_TRUSTED_ORIGINS",
    meaning="Origins whose forms the admin accepts, e.g. `https://example.org`, "
    "separated by commas.",
)
for origin in CSRF_TRUSTED_ORIGINS:
    if "://" not in origin:
        stop(f"CSRF_TRUSTED_ORIGINS={origin!r}: use origins, e.g. https://example.org")
DATABASE_URL = env.text(
    "DATABASE_URL",
    meaning="`postgresql://user:password@host:5432/name?sslmode=verify-full`; PostgreSQL 14 or "
    "newer. Required unless DEBUG is on; without it, the embedded server.",
)
TRUSTED_PROXIES = env.words(
    "TRUSTED_PROXIES",
    meaning="Addresses or networks of your proxies, separated by commas. X-Forwarded-For and "
    "X-Forwarded-Proto count only from these.",
)
for proxy in TRUSTED_PROXIES:
    try:
        ip_network(proxy)
    except ValueError:
        stop(f"TRUSTED_PROXIES={proxy!r}: use addresses or networks, e.g. 10.0.0.7,192.168.0.0/24")


def database(url: str) -> dict[str, Any]:
    """Returns Django's settings for a libpq URL or connection string, or the embedded server's."""
    # For the admin and the commands; the hot path has its own pool.
    pool = {"min_size": 0, "max_size": 4, "timeout": 5}
    if not url:
        return {
            "ENGINE": "project.embedded_postgres",
            **embedded_postgres.address(BASE_DIR / "var"),
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"pool": pool},
        }
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError as error:
        stop(f"DATABASE_URL=(hidden): {hosting.advice(url, str(error))}")
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host"}
    settings: dict[str, Any] = {key: str(parts.pop(name, "")) for key, name in names.items()}
    settings["PORT"] = str(parts.pop("port", ""))
    if not settings["NAME"]:
        stop("DATABASE_URL=(hidden): it names no database; use postgresql://user@host/name")
    # A leading @ names an abstract socket.
    if "@" in settings["HOST"][1:] or ("://" in url and "@" in settings["NAME"]):
        stop("DATABASE_URL=(hidden): write @ and / in the user or password as %40 and %2F")
    try:
        dsn.from_django({**settings, "OPTIONS": parts})
    except dsn.BadDatabase as error:
        stop(f"DATABASE_URL=(hidden): {error}")
    return {
        "ENGINE": "django.db.backends.postgresql",
        **settings,
        "CONN_HEALTH_CHECKS": True,  # pooled connections may be older than the server
        "OPTIONS": {**parts, "pool": pool},
    }


DATABASES = {"default": database(DATABASE_URL)}
STACCATO = {"JOURNAL_DIR": str(BASE_DIR / "var" / "journal"), **env.staccato()}
# A server-side cursor belongs to one connection, which PgBouncer lends per transaction.
DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = (
    STACCATO.get("DB_POOL_MODE") == "pgbouncer-transaction"
)

# --- the application ------------------------------------------------------------------------

INSTALLED_APPS = [
    "project",  # before staticfiles, so that its runserver, which serves ASGI, is found first
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
    "ninja",  # for the assets of its docs page
    "axes",
    "generation",
]
# Django 6 has its own; both get the directives below.
HAS_CSP = django.VERSION >= (6, 0)
CSP_MIDDLEWARE = (
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if HAS_CSP
    else "csp.middleware.CSPMiddleware"
)
# For the admin, the docs and the start page; lean views skip it.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    CSP_MIDDLEWARE,
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "project.unavailable.DatabaseAwayMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it answers a locked-out login
]
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en"
USE_I18N = False  # English alone: to look up translations took a sixth of a page's CPU
TIME_ZONE = "UTC"
USE_TZ = True

# The admin's theme: Tailwind's teal, with Material Symbols as icons.
TEAL = {
    "50": "oklch(98.4% .014 180.72)",
    "100": "oklch(95.3% .051 180.801)",
    "200": "oklch(91% .096 180.426)",
    "300": "oklch(85.5% .138 181.071)",
    "400": "oklch(77.7% .152 181.912)",
    "500": "oklch(70.4% .14 182.503)",
    "600": "oklch(60% .118 184.704)",
    "700": "oklch(51.1% .096 186.391)",
    "800": "oklch(43.7% .078 188.216)",
    "900": "oklch(38.6% .063 188.416)",
    "950": "oklch(27.7% .046 192.524)",
}
UNFOLD = {
    "SITE_TITLE": "Staccato",
    "SITE_HEADER": "Staccato",
    "SITE_SUBHEADER": "No connection held",
    "SITE_SYMBOL": "graphic_eq",
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda _request: static("generation/icon.svg"),
        }
    ],
    "SITE_URL": reverse_lazy("start"),
    "SHOW_VIEW_ON_SITE": False,
    "COLORS": {"primary": TEAL},
    "DASHBOARD_CALLBACK": "generation.admin.navigation.add_figures",
    "SIDEBAR": {"navigation": "generation.admin.navigation.sidebar"},
}

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
SERVESTATIC_AUTOREFRESH = DEBUG
SERVESTATIC_USE_FINDERS = DEBUG

# --- security -------------------------------------------------------------------------------

SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
redirect_to_https = env.boolean(
    "SECURE_SSL_REDIRECT",
    default=True,
    meaning="Redirect the admin's visitors to https; ignored while DEBUG is on.",
)
hsts_seconds = env.integer(
    "SECURE_HSTS_SECONDS",
    3600,
    meaning="How long browsers then insist on https for this host; 0 turns it off, and it is "
    "ignored while DEBUG is on. Raise it once https works.",
)
if not DEBUG:
    SECURE_HSTS_SECONDS = hsts_seconds
    # Not for this host to decide: HSTS for subdomains, and preloading.
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
    SECURE_SSL_REDIRECT = redirect_to_https
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# Our pages contain no inline scripts, so an injected one can't run.
CONTENT_SECURITY_POLICY_DIRECTIVES = {
    "default-src": ["'self'"],
    # Unfold uses Alpine, which compiles the expressions in its templates.
    "script-src": ["'self'", "'unsafe-eval'"],
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'", "data:"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}
if HAS_CSP:
    SECURE_CSP = CONTENT_SECURITY_POLICY_DIRECTIVES
else:
    CONTENT_SECURITY_POLICY = {"DIRECTIVES": CONTENT_SECURITY_POLICY_DIRECTIVES}

# Unfold's login form forgets where Django's leads to.
LOGIN_REDIRECT_URL = "admin:index"
# How failed logins are counted, project/lockout.py says.
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_HANDLER = "project.lockout.LoginHandler"
AXES_USERNAME_CALLABLE = "project.lockout.counted_name"
AXES_LOCKOUT_TEMPLATE = "project/locked_out.html"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # else a lock would never end
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "project.proxies.client_address"
AXES_ENABLE_ADMIN = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False

# --- logging --------------------------------------------------------------------------------

LOG_LEVEL = env.choice(
    "LOG_LEVEL",
    "INFO",
    *("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    meaning="`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`; goes to standard error.",
)
LOG_FORMAT = env.choice(
    "LOG_FORMAT",
    "line",
    *("line", "json"),
    meaning="`line`: lines for people. `json`: one object a line, and a line for each generation, "
    "with the ids of its request, log row and trace; never a prompt or an answer.",
)
UVICORN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def as_root_logs(logger: logging.Logger) -> dict[str, Any]:
    """Returns the logger's settings with the root's handler and format in place of its own.

    uvicorn has set it up before. What its command line asks for stays: the level, and no access
    log, for which it takes the logger's handlers away.
    """
    is_heard = logger.propagate or bool(logger.handlers)
    return {"handlers": [], "level": logger.level, "propagate": is_heard}


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "generation.telemetry.logs.LineFormatter",
            "format": "{asctime} {levelname:7} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "generation.telemetry.logs.JsonFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": []},  # else each message would appear twice
        "generation.each": {"level": LOG_LEVEL if LOG_FORMAT == "json" else "WARNING"},
        **{name: as_root_logs(logging.getLogger(name)) for name in UVICORN_LOGGERS},
    },
}
MISSPELT = env.misspelt()
