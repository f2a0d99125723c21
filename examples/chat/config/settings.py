"""A project with users, an API and WebSockets of its own, to which Staccato was added."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", "for development only")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

INSTALLED_APPS = [
    "daphne",  # `manage.py runserver` serves ASGI
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "ninja",
    "generation",
    "people",
    "chat",
]
MIDDLEWARE = [
    "generation.HeldConnectionsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
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


def database(url: str) -> dict[str, Any]:
    """Returns an entry of DATABASES for `postgresql://user:password@host:port/name`."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.removeprefix("/")),
        "USER": given.get("user", unquote(parts.username or "")),
        "PASSWORD": given.get("password", unquote(parts.password or "")),
        "HOST": given.get("host", parts.hostname or ""),
        "PORT": given.get("port", str(parts.port or "")),
    }


DATABASES = {"default": database(os.environ.get("DATABASE_URL", "postgresql://localhost/chat"))}
AUTH_USER_MODEL = "people.User"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Pages of this other origin may call /api/v1/ with their users' sessions.
CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
CORS_ALLOW_CREDENTIALS = True
CORS_URLS_REGEX = r"^/api/"

STACCATO = {
    "PROVIDERS": {"parrot": "chat.providers.Parrot"},
    "LLM_PROVIDER": os.environ.get("LLM_PROVIDER", "parrot"),
    "ANTHROPIC_API_KEY": os.environ.get("ANTHROPIC_API_KEY", ""),
    "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY", ""),
    "PROMPT_SOURCE": "people.prompts.Personas",
    "JOURNAL_DIR": os.environ.get("JOURNAL_DIR", str(BASE_DIR / "var" / "journal")),
}
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "amqp://localhost")
PARROT_PAUSE_S = float(os.environ.get("PARROT_PAUSE_S", "0.06"))
