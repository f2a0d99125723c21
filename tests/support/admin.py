"""The admin's pages, and logs for them to show."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from django.contrib import admin
from django.test import AsyncClient, Client, RequestFactory

from generation.admin.filters import first_id
from generation.models import GenerationLog

LOGS = "/admin/generation/generationlog/"
PROFILES = "/admin/generation/profile/"
KEYS = "/admin/generation/apikey/"
USAGE = "/admin/generation/usagelog/"
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def make_id(moment: datetime) -> UUID:
    return UUID(int=first_id(moment).int | 7 << 76 | uuid4().int & 0xFFF_3FFFFFFFFFFFFFFF)


def make_log(minutes_ago: float = 0, **values: Any) -> GenerationLog:
    moment = NOON - timedelta(minutes=minutes_ago)
    return GenerationLog(
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


def save_log(minutes_ago: float = 0, **values: Any) -> GenerationLog:
    log = make_log(minutes_ago, **values)
    log.save(force_insert=True)
    return log


def save_logs(count: int, **values) -> list[GenerationLog]:
    """Newest first."""
    return GenerationLog.objects.bulk_create(make_log(n, **values) for n in range(count))


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
    changelist = model_admin.get_changelist_instance(RequestFactory().get(LOGS, query))
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
