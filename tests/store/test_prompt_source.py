"""A project's own prompt source takes the place of the table of profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connections

from generation import (
    PromptRequest,
    PromptSource,
    PromptTemplate,
    generate,
    generate_sync,
    generation,
)
from generation.checks import check_prompt_source
from generation.errors import DatabaseUnavailable, UnknownUser
from generation.models import GenerationLog, Profile
from generation.python_api import loop_thread
from generation.runtime.process import Runtime
from generation.testing import override_llm
from tests.support.in_process import in_process_client

PATH = f"{__name__}.Prompts"


class Prompts(PromptSource):
    """Users' prompts by their names, in Django's own tables."""

    batches: ClassVar[list[int]] = []
    fails: Exception | None = None

    async def read(self, requests: Sequence[PromptRequest]) -> Sequence[PromptTemplate | None]:
        self.batches.append(len(requests))
        if self.fails:
            raise self.fails
        asked = {request.user_id for request in requests}
        users = get_user_model().objects.filter(pk__in=asked, is_active=True)
        names = {user.pk: user.username async for user in users}
        return [self.template(names.get(each.user_id), each.metadata) for each in requests]

    def template(self, name, metadata):
        if name is None:
            return None
        system = metadata.get("kind", "")
        return PromptTemplate(f"{name} asks: $input", system=system, max_tokens=100)


@pytest.fixture(autouse=True)
def sourced(settings, monkeypatch):
    settings.STACCATO = {**settings.STACCATO, "PROMPT_SOURCE": PATH}
    monkeypatch.setattr(Prompts, "batches", [])
    monkeypatch.setattr(Prompts, "fails", None)


@pytest.fixture
def embedded(users, monkeypatch):
    async def nothing(_runtime: Runtime) -> None: ...

    monkeypatch.setattr(Runtime, "tidy_up", nothing)
    Profile.objects.all().delete()
    connections.close_all()
    yield
    loop_thread.close()
    connections.close_all()


def test_its_template_is_filled_and_no_profile_is_read(embedded):
    answer = generate_sync(1, input="Why?", metadata={"kind": "brief"})
    row = GenerationLog.objects.select_related("body").get()
    assert row.id == answer.id
    assert (row.body.prompt, row.body.system) == ("user1 asks: Why?", "brief")
    with generation(1) as g:
        g.reply("mine")


@pytest.mark.parametrize("user", [4, 99], ids=["inactive", "unknown"])
def test_whom_it_does_not_know_is_unknown_whatever_is_asked(embedded, user):
    with pytest.raises(UnknownUser):
        generate_sync(user, prompt="Why?")
    assert not GenerationLog.objects.exists()


async def test_requests_at_once_share_reads_and_hold_no_connection(runtime, django_connections):
    await asyncio.gather(*(generate(1, input="Why?") for _ in range(50)))
    assert sum(Prompts.batches) == 50
    assert len(Prompts.batches) < 10, "each request was read alone"
    assert [each for each in django_connections if each.connection is not None] == []


@pytest.mark.parametrize(
    "error", [OperationalError("gone"), ConnectionResetError(), TimeoutError()]
)
async def test_a_database_problem_of_its_own_is_a_503(runtime, monkeypatch, error):
    monkeypatch.setattr(Prompts, "fails", error)
    with pytest.raises(DatabaseUnavailable, match="the prompts can't be read"):
        await generate(1, input="Why?")
    async with in_process_client() as client:
        answer = await client.post("/api/v1/generate/1", json={"input": "Why?"})
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_what_it_returns_is_checked(runtime, monkeypatch, caplog):
    async def short(self, requests):
        return []

    monkeypatch.setattr(Prompts, "read", short)
    with pytest.raises(TypeError, match="returned 0 for 1 requests"):
        await generate(1, input="Why?")


def test_the_fake_llm_of_tests_asks_it_too(committed, users):
    with override_llm() as llm:
        generate_sync(2, input="Why?")
    assert llm.prompts[0].text == "user2 asks: Why?"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("nowhere.Prompts", "can't be imported: ModuleNotFoundError"),
        ("generation.PromptSource", "inherits read() and does not write it"),
        ("generation.PromptTemplate", "lacks read"),
    ],
)
def test_a_wrong_path_is_an_error_of_check(settings, path, fault):
    settings.STACCATO = {**settings.STACCATO, "PROMPT_SOURCE": path}
    [error] = check_prompt_source()
    assert error.id == "staccato.E009"
    assert fault in error.msg
