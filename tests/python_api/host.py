"""A project in whose processes no lifespan of ours runs."""

# ruff: noqa: E402  # Django is set up before its models are imported
from __future__ import annotations

import os

import django
from django.conf import settings

from project.settings import database

settings.configure(
    DEBUG=True,
    SECRET_KEY="theirs",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.postgres",
        "generation",
    ],
    DATABASES={"default": database(os.environ["DATABASE_URL"])},
    STACCATO={
        "LLM_PROVIDER": "simulated",
        "LLM_SIMULATED_LATENCY": "0",
        "WRITE_TIMEOUT": os.environ.get("WRITE_TIMEOUT", "2"),
        "JOURNAL_DIR": os.environ["JOURNAL_DIR"],
        "LOG_RETENTION_DAYS": 36_500,
        "BODY_RETENTION_DAYS": 36_500,
    },
)
django.setup()

from generation import generate, generate_sync

__all__ = ["generate", "generate_sync"]
