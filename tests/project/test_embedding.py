"""docs/embedding.md: each block of Python in its tutorial runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.module_loading import import_string

from generation import aheld_connections, held_connections

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"


def names_of(heading: str, **given) -> dict:
    """Runs the blocks under a heading one after the other. Returns what they define."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    names = {"__name__": "theirs", **given}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, f"docs/embedding.md: {heading}", "exec"), names)
    return names


@pytest.fixture
def somebody(users, orm) -> None:
    """User 1, and no connection left in the thread of async code's ORM calls."""


def test_give_back_in_synchronous_code(somebody):
    def ask_llm(prompt: str) -> str:
        assert held_connections() == ()
        return prompt

    names = names_of("Give a connection back before a slow call", ask_llm=ask_llm)
    answer = names["summarize"](RequestFactory().get("/"))
    assert answer.content == b"Greet user1.5"
    for path in names["MIDDLEWARE"]:
        import_string(path)


async def test_give_back_in_async_code(somebody):
    async def aask_llm(prompt: str) -> str:
        assert await aheld_connections() == ()
        return prompt

    names = names_of("Give a connection back before a slow call", aask_llm=aask_llm)
    answer = await names["asummarize"](AsyncRequestFactory().get("/"))
    assert answer.content == b"Greet user1."
    assert await sync_to_async(get_user_model().objects.count)() == 5
