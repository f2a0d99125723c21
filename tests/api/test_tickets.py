"""The ticket with which the start page's visitor asks the LLM, where callers need a key."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth import get_user_model
from django.core import signing

from generation.api import tickets
from generation.models import GenerationLog
from tests.support.admin import session_of
from tests.support.problems import problem

CONVERSATION = {"messages": [{"role": "user", "content": "Why?"}]}


@pytest.fixture
def keys_required(settings):
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": "1"}


@pytest.fixture
def closed(keys_required, client, settings):
    """The service in this process as in production: it asks for keys."""
    settings.DEBUG = False
    return client


def shown(ticket: str) -> dict[str, str]:
    return {"Staccato-Ticket": ticket}


async def test_the_staff_generate_from_the_start_page_as_themselves(closed):
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    html = (await closed.get("/", headers=await session_of(staff))).text
    found = re.search(r'action="([^"]+)" data-ticket="([^"]+)"', html)
    assert found, "the start page has no form for the staff"
    answer = await closed.post(found[1], headers=shown(found[2]), json=CONVERSATION)
    assert answer.status_code == 200
    row = await GenerationLog.objects.aget(pk=answer.json()["id"])
    assert (row.user_id, row.api_key_id) == (50, None)
    other = await closed.post("/api/v1/generate/1", headers=shown(found[2]))
    assert problem(other) == (403, "user-forbidden")


async def test_who_is_not_of_the_staff_gets_no_ticket(closed):
    user = await get_user_model().objects.aget(id=1)
    for headers in ({}, await session_of(user)):
        assert "data-ticket" not in (await closed.get("/", headers=headers)).text


async def test_a_session_alone_generates_nothing(closed):
    """Else another site's page could spend money with it."""
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    answer = await closed.post("/api/v1/generate/50", headers=await session_of(staff))
    assert problem(answer) == (401, "unauthorized")


async def test_a_ticket_is_for_one_purpose_and_a_quarter_of_an_hour(closed, monkeypatch):
    ticket = tickets.issue("generate", 1)
    ways = (("/api/v1/generate/1", "post"), ("/api/v1/pool", "get"))
    for (path, method), good, foreign in zip(
        ways,
        (ticket, tickets.issue("pool")),
        (tickets.issue("pool"), ticket),
        strict=True,
    ):
        ask = getattr(closed, method)
        assert (await ask(path, headers=shown(good))).status_code == 200
        for forged in ("", "nonsense", good[:-1], foreign, signing.dumps(1, salt="another")):
            answer = await ask(path, headers=shown(forged))
            assert problem(answer) == (401, "unauthorized"), (path, forged)
    with monkeypatch.context() as patch:
        patch.setattr(tickets, "VALID_S", -1)
        answer = await closed.post("/api/v1/generate/1", headers=shown(ticket))
        assert problem(answer) == (401, "unauthorized")
    assert problem(await closed.get("/metrics", headers=shown(ticket))) == (403, "staff-only")
