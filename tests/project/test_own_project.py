"""The app in somebody else's project, set up as docs/embedding.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from tests.support.admin import save_log

ROOT = Path(__file__).parents[2]
THEIRS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
SETTINGS = """
import os
from project.settings import database
SECRET_KEY = "theirs"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "theirs_urls"
INSTALLED_APPS = {apps!r}
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
STATIC_URL = "static/"
DATABASES = {{"default": database(os.environ["DATABASE_URL"]) | {{"ATOMIC_REQUESTS": True}}}}
STACCATO = {{"LLM_PROVIDER": "simulated", "LLM_SIMULATED_LATENCY": "0", "JOURNAL_DIR": {journal!r}}}
"""
URLS = """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("admin/", admin.site.urls), path("", include("generation.urls"))]
"""
VISIT = """
import asyncio, django
django.setup()
from django.contrib.auth import get_user_model
from django.test import Client
from generation.models import GenerationLog
browser = Client(raise_request_exception=True)
browser.force_login(get_user_model().objects.get(username="boss"))
log = GenerationLog.objects.get().pk
for page in ("", "generationlog/", f"generationlog/{log}/change/", "profile/",
             "profile/1/change/", "usagelog/", "apikey/", "apikey/add/"):
    assert browser.get(f"/admin/generation/{page}").status_code == 200, page

import httpx
from generation.asgi import get_application
from generation.runtime.process import Runtime

async def generate():
    async with Runtime.open():
        transport = httpx.ASGITransport(get_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/api/v1/generate/1")
            assert answer.status_code == 401, answer.text  # DEBUG is off, so a key is asked for

asyncio.run(generate())
"""


@pytest.fixture
def theirs(tmp_path, users, database_url):
    """Run Python in a project of theirs that has these apps."""

    def run(apps, *arguments):
        (tmp_path / "theirs_urls.py").write_text(URLS)
        (tmp_path / "theirs.py").write_text(
            SETTINGS.format(apps=apps, journal=str(tmp_path / "journal"))
        )
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "theirs", "DATABASE_URL": database_url,
                 "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        )  # fmt: skip

    return run


def test_the_app_works_in_another_project(theirs):
    get_user_model().objects.create_superuser("boss", password="a right one 7", id=50)
    save_log()
    apps = ["unfold", "unfold.contrib.filters", *THEIRS, "generation"]
    checked = theirs(apps, "-m", "django", "check", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
    visited = theirs(apps, "-c", VISIT)
    assert visited.returncode == 0, visited.stderr


def test_a_check_reports_what_the_admin_pages_lack(theirs):
    apps = [*THEIRS, "generation"]
    checked = theirs(apps, "-m", "django", "check", "--fail-level", "WARNING")
    assert checked.returncode == 1
    assert "staccato.W003" in checked.stderr
    assert "unfold.contrib.filters" in checked.stderr
