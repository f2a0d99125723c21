"""The export of a list."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import AsyncClient

from generation.admin import export
from generation.models import GenerationAccess
from generation.privacy.encryption import TEXTS
from tests.support.admin import LOGS, save_log, save_logs

EXPORT = f"{LOGS}export/"

pytestmark = pytest.mark.usefixtures("orm", "_no_export_under_way")


@pytest.fixture
def _no_export_under_way(monkeypatch) -> None:
    monkeypatch.setattr(export, "_place", export.Place())


async def log_in(codenames: str = "view_generationlog export") -> AsyncClient:
    def make():
        user = get_user_model().objects.create(username="clerk", is_staff=True)
        user.user_permissions.add(*Permission.objects.filter(codename__in=codenames.split()))
        return user

    client = AsyncClient()
    await client.aforce_login(await sync_to_async(make)())
    return client


async def visit(codenames: str, query: str = ""):
    client = await log_in(codenames)
    response: Any = await client.get(EXPORT + query)
    if response.streaming:
        parts = [part async for part in response.streaming_content]
        response.rows = [orjson.loads(line) for part in parts for line in part.splitlines()]
    return response


def accesses() -> list:
    return list(GenerationAccess.objects.values_list("action", "rows", "selection"))


@pytest.mark.parametrize(
    "codenames", ["view_generationlog", "view_generationlog read_content", "export", ""]
)
async def test_only_who_may_view_and_export_exports(codenames):
    await sync_to_async(save_log)()
    assert (await visit(codenames)).status_code == 403
    assert await sync_to_async(accesses)() == []


async def test_without_the_right_to_read_it_has_no_text(monkeypatch):
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
    logs = await sync_to_async(save_logs)(5, status="failed", metadata={"ticket": "4711"})
    await sync_to_async(save_log)(9)
    response = await visit("view_generationlog export", "?status=failed")
    assert response["Content-Type"] == export.TYPE
    assert [row["id"] for row in response.rows] == [str(log.pk) for log in logs]
    assert response.rows[0]["metadata"] == {"ticket": "4711"}
    assert not {*TEXTS} & {*response.rows[0]}
    assert await sync_to_async(accesses)() == [("export", 5, "status=failed")]


async def test_with_the_right_to_read_it_has_the_texts_that_are_still_kept():
    newest, old = await sync_to_async(save_logs)(2, prompt="a prompt", result="über")
    await sync_to_async(old.body.delete)()
    first, second = (await visit("view_generationlog export read_content")).rows
    assert (first["id"], first["prompt"], first["result"]) == (str(newest.pk), "a prompt", "über")
    assert "prompt" not in second


async def test_too_much_is_refused_whole(monkeypatch):
    monkeypatch.setattr(export, "MOST_ROWS", 2)
    await sync_to_async(save_logs)(3)
    response = await visit("view_generationlog export")
    assert response.status_code == 400
    assert b"More than 2 generations" in response.content
    assert await sync_to_async(accesses)() == []


async def test_one_export_at_a_time_and_its_end_makes_room(monkeypatch):
    """Whether it was sent to its end, refused, or never begun because its client left."""
    await sync_to_async(save_log)()
    clerk = await log_in()
    running = await clerk.get(EXPORT)
    refused = await clerk.get(EXPORT)
    assert (refused.status_code, refused["Retry-After"]) == (503, "10")
    assert b"Another export" in refused.content
    assert len(await sync_to_async(accesses)()) == 1, "what is refused is no export"
    running.close()
    monkeypatch.setattr(export, "MOST_ROWS", 0)
    assert (await clerk.get(EXPORT)).status_code == 400
    monkeypatch.undo()
    assert (await clerk.get(EXPORT)).status_code == 200
    assert (await clerk.get(EXPORT)).status_code == 503
    monkeypatch.setattr(export, "LONGEST_S", 0.0)
    assert (await clerk.get(EXPORT)).status_code == 200, "nobody closed the last one"


async def test_a_filter_that_is_none_is_refused():
    response = await visit("view_generationlog export", "?body__prompt=x")
    assert response.status_code == 400
