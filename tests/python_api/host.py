"""A project whose servers run no lifespan of ours: its views, and its applications."""

# ruff: noqa: E402  # Django is set up before its models are imported
from __future__ import annotations

import os

import django
from django.conf import settings

from project.settings import database

settings.configure(
    DEBUG=True,
    SECRET_KEY="theirs",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.postgres",
        "generation",
    ],
    MIDDLEWARE=["generation.HeldConnectionsMiddleware"],
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

from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from generation import generate, generate_sync


async def view(request):
    user = await get_user_model().objects.aget(pk=1)
    return HttpResponse((await generate(user, prompt="x")).id.hex)


def sync_view(request):
    user = get_user_model().objects.get(pk=1)
    return HttpResponse(generate_sync(user, prompt="x").id.hex)


urlpatterns = [path("async", view), path("sync", sync_view)]
application = get_asgi_application()
wsgi = get_wsgi_application()
