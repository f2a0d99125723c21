"""A host's settings, as docs/embedding.md says. The environment says what differs."""

import os
import sys
from pathlib import Path

if os.environ.get("DRIVER") == "psycopg2":
    sys.modules["psycopg"] = None  # as where it is not installed

SECRET_KEY = "theirs"
ALLOWED_HOSTS = ["*"]
BASE_DIR = Path(os.environ["BASE_DIR"])
ROOT_URLCONF = "tests.hosts.urls"
AUTH_USER_MODEL = "people.Person"
INSTALLED_APPS = [
    *os.environ.get("LOOK", "").split(),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "tests.hosts.people",
    "generation",
]
MIDDLEWARE = [
    "tests.hosts.policy.EnforcedPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
_AT = {
    name: os.environ.get(f"DB_{name}", "") for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")
}
DATABASES = {
    name: {"ENGINE": "django.db.backends.postgresql", **_AT, "ATOMIC_REQUESTS": True}
    for name in ("default", "other")
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STACCATO = {
    "LLM_PROVIDER": "simulated",
    "LLM_SIMULATED_LATENCY": "0",
    "JOURNAL_DIR": "journal",
}
