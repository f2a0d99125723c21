"""docs/embedding.md: each block of Python in its tutorial runs as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import AsyncRequestFactory, RequestFactory
from django.urls import include, path
from django.utils.module_loading import import_string

from generation import (
    aheld_connections,
    conf,
    generate,
    generation_stored,
    held_connections,
    stream,
)
from generation.database.dsn import from_django
from generation.models import GenerationLog
from generation.python_api import loop_thread
from generation.testing import override_llm

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embedding.md"
# Those that need Channels or Django REST framework run in the example's environment.
TESTS = [Path(__file__), ROOT / "examples" / "chat" / "tests" / "test_embedding.py"]


def blocks_of(heading: str) -> list[str]:
    section = f"\n#{PAGE.read_text()}".split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(block: str, **given) -> dict:
    """Returns what it defines."""
    names = {"__name__": "theirs", **given}
    exec(compile(block, "docs/embedding.md", "exec"), names)
    return names


def names_of(heading: str, **given) -> dict:
    """Runs the blocks under a heading one after the other. Returns what they define."""
    return run("\n".join(blocks_of(heading)), **given)


def install(monkeypatch, name: str, members: dict) -> None:
    """Makes the module `yours.<name>` of a block."""
    module = ModuleType(f"yours.{name}")
    vars(module).update(members | {"__name__": module.__name__})
    monkeypatch.setitem(sys.modules, "yours", ModuleType("yours"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def somebody(users, orm):
    """User 1, and no connection left in the thread of async code's ORM calls."""
    yield get_user_model()(pk=1)
    loop_thread.close()


def test_no_block_of_the_page_is_left_out():
    here = {name for path in TESTS for name in re.findall(r'"([A-Z][^"]+)"', path.read_text())}
    for section in f"\n#{PAGE.read_text()}".split("\n## ")[1:]:
        heading = section.splitlines()[0]
        assert heading in here or "```python" not in section, (
            f"nothing runs the blocks of {heading!r}"
        )


def test_the_app_is_added(monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    settings, urls, asgi, wrapped = blocks_of("In your own project")
    given = run(settings, os=os)
    assert conf.parse(given["STACCATO"]).max_in_flight == 2000
    assert from_django(given["DATABASES"]["default"])
    for app in given["INSTALLED_APPS"]:
        assert app is ... or import_module(app)
    assert run(urls, path=path, include=include)["urlpatterns"][1].url_patterns
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    application = run(asgi)["application"]
    assert callable(application)
    assert callable(run(wrapped, get_application=lambda: application)["application"])


async def test_a_connection_of_the_pool_is_borrowed(runtime):
    assert await names_of("What is public")["count_users"]() == 5


def test_give_back_in_synchronous_code(somebody):
    def ask_llm(prompt: str) -> str:
        assert held_connections() == ()
        return prompt

    names = names_of("Give a connection back before a slow call", ask_llm=ask_llm)
    answer = names["summarize"](RequestFactory().get("/"))
    assert answer.content == b"Greet user1.5"
    for each in names["MIDDLEWARE"]:
        import_string(each)


async def test_give_back_in_async_code(somebody):
    async def aask_llm(prompt: str) -> str:
        assert await aheld_connections() == ()
        return prompt

    names = names_of("Give a connection back before a slow call", aask_llm=aask_llm)
    answer = await names["asummarize"](AsyncRequestFactory().get("/"))
    assert answer.content == b"Greet user1."
    assert await sync_to_async(get_user_model().objects.count)() == 5


def asking(user, factory=RequestFactory):
    request = factory().get("/", {"question": "Why?"})
    request.user = user

    async def auser():
        return user

    request.auser = auser
    return request


async def test_generate(somebody):
    names = names_of("Generate from your own code")
    answer = await names["answer"](asking(somebody, AsyncRequestFactory))
    answer_sync = await sync_to_async(names["answer_sync"])(asking(somebody))
    chat = await names["chat"](asking(somebody, AsyncRequestFactory))
    streamed = b"".join([piece async for piece in chat])
    results = [row.body.result async for row in GenerationLog.objects.select_related("body")]
    assert {answer.content, answer_sync.content, streamed} == {each.encode() for each in results}
    assert len(results) == 3


async def test_ones_own_library(somebody):
    class Agent:
        async def run(self, prompt: str):
            return SimpleNamespace(output=prompt, usage=lambda: {"input_tokens": 3})

    names = names_of("Call the LLM with a library of your own", agent=Agent())
    answer = await names["summarize"](asking(somebody, AsyncRequestFactory))
    row = await GenerationLog.objects.select_related("body").aget()
    assert (row.model, row.input_tokens) == ("gpt-5-mini", 3)
    assert answer.content == row.body.result.encode() == "Summarize: …".encode()


class TheirModel:
    """Busy once; then it answers."""

    def __init__(self):
        self.busy = [True]

    @property
    def is_busy(self):
        return bool(self.busy) and self.busy.pop()

    async def complete(self, text, system, model):
        return f"{model} heard {text}"

    async def words(self, text, system, model):
        for word in ("one", " ", "two"):
            yield word


async def test_an_llm_of_ones_own(somebody, settings, monkeypatch):
    provider, named = blocks_of("Ask an LLM that Staccato does not know")
    install(monkeypatch, "providers", run(provider, house=TheirModel()))
    settings.STACCATO = {**settings.STACCATO, **run(named)["STACCATO"]}
    assert (await generate(somebody, prompt="Why?")).result == "house-1 heard Why?"
    async with stream(somebody, prompt="Why?") as answer:
        assert [text async for text in answer.texts()] == ["one", " ", "two"]
    rows = [row async for row in GenerationLog.objects.order_by("id")]
    assert [len(row.attempts) for row in rows] == [2, 1]
    assert {(row.provider, row.status) for row in rows} == {("house", "succeeded")}


async def test_prompts_of_ones_own(somebody, settings, monkeypatch):
    source, named = blocks_of("Keep prompts in a table of your own")
    install(monkeypatch, "prompts", run(source))
    settings.STACCATO = {**settings.STACCATO, **run(named)["STACCATO"]}
    await get_user_model().objects.filter(pk=1).aupdate(first_name="Ada")
    await generate(somebody, input="this.")
    row = await GenerationLog.objects.select_related("body").aget()
    assert (row.body.prompt, row.body.system) == ("Answer this.", "You speak to Ada.")


async def test_effects(somebody):
    names = names_of("Write your own rows in the same commit")
    made = await sync_to_async(names["ask"])(somebody)
    group = await names["Group"].objects.aget(name=str(made.id))
    await group.adelete()
    assert (await get_user_model().objects.aget(pk=1)).last_name == "succeeded"


def test_their_tests(committed, django_user_model):
    test = names_of("Test your code")["test_a_rate_limit_is_shown"]
    with override_llm() as llm:
        test(django_user_model, llm, lambda: None)


async def test_hear_of_each_generation(somebody):
    names = names_of("Hear of each generation", get_user_model=get_user_model)
    try:
        await generate(somebody, prompt="x")
        await asyncio.to_thread(loop_thread.close)
    finally:
        generation_stored.disconnect(names["on_generation"])
    assert (await get_user_model().objects.aget(pk=1)).last_name == "succeeded once"
