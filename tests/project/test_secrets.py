"""Errors reveal no secrets: canaries in every one, every error forced, and everything searched."""

from __future__ import annotations

import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection

from generation.models import GenerationLog
from generation.runtime.admission import Admission
from generation.runtime.process import Runtime
from tests.support import http
from tests.support.admin import get, log_in
from tests.support.in_process import in_process_client
from tests.support.keys import amake_key, bearer
from tests.support.provider import Provider, resets, says, sends
from tests.support.service import PRODUCTION

PROVIDER_KEY = "canary-provider-key-5f3a9d7e21"
DSN_PASSWORD = "canary-dsn-password"
ECHO = json.dumps({"error": {"type": "x", "message": f"Incorrect API key: {PROVIDER_KEY}"}})
BEHAVIOURS = [
    *(says(status, ECHO.encode()) for status in (200, 302, 400, 401, 403, 404, 413, 429, 500, 529)),
    says(200, PROVIDER_KEY.encode()),
    says(200, b"{" + PROVIDER_KEY.encode() * 500),
    sends(f"HTTP/1.1 {PROVIDER_KEY}\r\n\r\n".encode()),
    sends(b""),
    resets,
]
LOUD = {
    **PRODUCTION,
    "LLM_PROVIDER": "anthropic",
    "LOG_LEVEL": "DEBUG",
    "ANTHROPIC_API_KEY": PROVIDER_KEY,
    "LLM_TIMEOUT": "2",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # nobody listens there
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary-collector",
}


def found_in(text: str, key: str) -> list[str]:
    """Returns the secrets that the text contains."""
    text = text.lower()
    secrets = ["canary", key[len("stc_000000000000_") :]]
    return [secret for secret in secrets if secret.lower() in text]


def everything_stored() -> str:
    """All that the tables of this service hold, but for who may log in."""
    with connection.cursor() as cursor:
        tables = [name for name in connection.introspection.table_names(cursor)
                  if name.startswith(("generation_", "django_admin_log", "axes_"))]  # fmt: skip
        rows = []
        for table in tables:
            cursor.execute(f'SELECT * FROM "{table}"')
            rows += cursor.fetchall()
    return repr(rows)


def admin_pages() -> str:
    staff = log_in(get_user_model().objects.create_superuser("root", id=60))
    pages = ["/admin/generation/generationlog/", "/admin/generation/apikey/"]
    pages += [
        f"/admin/generation/generationlog/{log.pk}/change/" for log in GenerationLog.objects.all()
    ]
    return "".join(get(staff, page).html for page in pages)


@pytest.fixture
def url_with_password(database_url) -> str:
    """As DATABASE_URL names it, and a password that the server doesn't ask for."""
    return database_url + ("" if "password=" in database_url else f"&password={DSN_PASSWORD}")


@pytest.mark.filterwarnings("ignore:Overriding get_action_choices")
async def test_a_secret_that_a_provider_quotes_reaches_no_caller(
    serve, orm, peppered, url_with_password
):
    key = await amake_key()
    async with Provider(BEHAVIOURS[0]).serve() as provider:
        how = {**LOUD, "ANTHROPIC_BASE_URL": provider.url, "DATABASE_URL": url_with_password}
        async with serve(**how) as service:
            headers = bearer(key).items()
            answers = [
                await http.generate(service.port, headers=headers) for provider.behave in BEHAVIOURS
            ]
            assert {answer.status for answer in answers} <= {422, 429, 502, 503, 504}
            answers += [
                await http.request(service.port, "GET", path, headers=headers)
                for path in ("/metrics", "/api/v1/pool", "/readyz", "/api/v1/openapi.json")
            ]
            shown = [service.log, *(repr(vars(answer)) for answer in answers)]
    assert await GenerationLog.objects.acount() == len(BEHAVIOURS), "each left its row"
    shown += [await sync_to_async(look)() for look in (everything_stored, admin_pages)]
    for text in shown:
        assert not found_in(text, key), text[-2000:]
        assert "Traceback" not in text


async def test_an_unreachable_database_is_reported_without_its_password(serve, orm, peppered):
    key = await amake_key()
    away = f"postgresql://user:{DSN_PASSWORD}@127.0.0.1:1/name"
    async with serve(**LOUD, DATABASE_URL=away, DB_POOL_TIMEOUT="1") as service:
        answers = [
            await http.generate(service.port, headers=bearer(key).items()),
            await http.request(service.port, "GET", "/readyz"),
            await http.request(service.port, "GET", "/metrics", headers=bearer(key).items()),
            await http.request(
                service.port, "GET", "/admin/", headers=[("Cookie", "sessionid=" + "a" * 32)]
            ),
        ]
        log = service.log
    assert [answer.status for answer in answers] == [503, 503, 503, 503]
    for text in (log, *(repr(vars(answer)) for answer in answers)):
        assert not found_in(text, key), text[-2000:]
    for answer in answers:
        assert b"Traceback" not in answer.body


async def test_the_answer_to_a_bug_reveals_nothing(users, orm, settings, monkeypatch):
    """With DEBUG on as well as off: the log has the traceback."""

    def broken(*_args):
        raise RuntimeError("canary")

    monkeypatch.setattr(Admission, "start", broken)
    async with Runtime.open(), in_process_client() as client:
        for settings.DEBUG in (False, True):
            answer = await client.post("/api/v1/generate/1", headers=bearer(await amake_key()))
            assert answer.status_code == 500
            assert answer.json()["type"].endswith("internal-error")
            assert "canary" not in answer.text
            assert "Traceback" not in answer.text
