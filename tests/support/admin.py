"""The admin's pages, and logs for them to show."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.test import AsyncClient, Client, RequestFactory

from generation.models import GenerationBody, GenerationLog
from generation.partitions.intervals import first_id
from tests.support.partitions import make_room

LOGS = "/admin/generation/generationlog/"
PROFILES = "/admin/generation/profile/"
KEYS = "/admin/generation/apikey/"
USAGE = "/admin/generation/usagelog/"
ACCESSES = "/admin/generation/generationaccess/"
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
TEXTS = {field.name for field in GenerationBody._meta.get_fields()} - {"log"}


def make_id(moment: datetime) -> UUID:
    return UUID(int=first_id(moment).int | 7 << 76 | uuid4().int & 0xFFF_3FFFFFFFFFFFFFFF)


def make_log(minutes_ago: float = 0, **values: Any) -> GenerationLog:
    """With its `body`; neither is saved."""
    moment = NOON - timedelta(minutes=minutes_ago)
    return with_body(
        **{
            "id": make_id(moment + timedelta(seconds=5)),
            "user_id": 1,
            "prompt": "A prompt.",
            "result": "A result.",
            "provider": "anthropic",
            "model": "claude-sonnet-5-5",
            "input_tokens": 10,
            "output_tokens": 20,
            "total_tokens": 30,
            "status": GenerationLog.Status.SUCCEEDED,
            "latency_ms": 5004,
            "llm_latency_ms": 5000,
            "request_id": str(uuid4()),
            "created_at": moment,
            **values,
        }
    )


def with_body(**values: Any) -> GenerationLog:
    texts = {name: value for name, value in values.items() if name in TEXTS}
    log = GenerationLog(**{name: value for name, value in values.items() if name not in TEXTS})
    excerpt = values.get("prompt", "")[:240]
    log.body = GenerationBody(**{"log": log, "excerpt": excerpt, **texts})
    return log


def save(*logs: GenerationLog) -> None:
    GenerationLog.objects.bulk_create(logs)
    GenerationBody.objects.bulk_create(log.body for log in logs)


def save_log(minutes_ago: float = 0, **values: Any) -> GenerationLog:
    log = make_log(minutes_ago, **values)
    save(log)
    return log


def arrived(minutes_ago: float, cost_usd: Any = "0.25", **values: Any) -> GenerationLog:
    """A log row of now, where others have a fixed day."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    with connection.cursor() as cursor:
        make_room(cursor, moment)
    return save_log(id=make_id(moment), created_at=moment, cost_usd=cost_usd, **values)


def save_logs(count: int, **values) -> list[GenerationLog]:
    """Newest first."""
    logs = [make_log(n, **values) for n in range(count)]
    save(*logs)
    return logs


def log_in(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def get(client: Client, url: str, **query) -> Any:
    response: Any = client.get(url, query or None)
    assert response.status_code == 200
    response.html = response.content.decode()
    return response


async def session_of(user) -> dict[str, str]:
    browser = AsyncClient()
    await browser.aforce_login(user)
    return {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}


def find(**query) -> list:
    """The keys of the rows that the list of logs would show."""
    model_admin = admin.site.get_model_admin(GenerationLog)
    request = RequestFactory().get(LOGS, query)
    request.user = AnonymousUser()
    changelist = model_admin.get_changelist_instance(request)
    return [row.pk for row in changelist.result_list]


def shown(response) -> list:
    """The keys of the rows of a list."""
    return [row.pk for row in response.context["cl"].result_list]


def keys(logs) -> list:
    return [log.pk for log in logs]


def follow(client: Client, response, rel: str):
    """The page that the list's own link leads to."""
    href = re.search(rf'href="([^"]+)" rel="{rel}"', response.html).group(1)
    return get(client, LOGS, **parse_qs(urlsplit(unescape(href)).query))


def row_html(response, log: GenerationLog) -> str:
    rows = response.html.split("<tbody")
    return next(row for row in rows if str(log.pk) in row)
