"""The fixtures that a project's own tests get, used by tests of such a project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
THEIR_TESTS = """
import asyncio
import socket

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from generation import (
    FromGeneration, Insert, Update, generate, generate_sync, generation, released, stream,
)
from generation.errors import LLMRateLimited, LLMTimedOut, UnknownUser
from generation.models import GenerationLog
from generation.testing import override_llm


@pytest.fixture(autouse=True)
def no_socket(monkeypatch, db):
    def refuse(*args):
        raise AssertionError("a socket was opened")
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def user(db):
    return User.objects.create(username="uncommitted")


def test_rows_are_in_the_tests_transaction(user, staccato_llm, assert_no_connections_held):
    staccato_llm.answers("first", "second")
    assert generate_sync(user, prompt="Why?").result == "first"
    effects = [Insert(Group, {"name": FromGeneration("result")}),
               Update(User, {"pk": user.pk}, {"last_name": FromGeneration("status")})]
    again = {"prompt": "And?", "effects": effects, "idempotency_key": "k"}
    assert generate_sync(user, **again).result == "second"
    assert generate_sync(user, **again).replayed
    assert [prompt.text for prompt in staccato_llm.prompts] == ["Why?", "And?"]
    assert [row.body.result for row in GenerationLog.objects.order_by("id")] == ["first", "second"]
    assert Group.objects.get().name == "second"
    user.refresh_from_db()
    assert user.last_name == "succeeded"


def test_faults_leave_rows(user, staccato_llm):
    staccato_llm.fails(LLMRateLimited("slow down"))
    staccato_llm.hangs()
    with pytest.raises(LLMRateLimited):
        generate_sync(user, prompt="x")
    with pytest.raises(LLMTimedOut):
        generate_sync(user, prompt="x", timeout=0.01)
    with pytest.raises(UnknownUser):
        generate_sync(-1, prompt="x")
    assert GenerationLog.objects.count() == 2


def test_ones_own_call(user, staccato_llm):
    with generation(user, kind="summary") as g:
        g.reply("mine")
    assert GenerationLog.objects.get().metadata == {"kind": "summary"}


@pytest.mark.xfail(strict=True, reason="it queries inside released()")
def test_a_query_inside_is_found(staccato_llm, transactional_db, assert_no_connections_held):
    connection.close()
    with released():
        User.objects.count()
    assert_no_connections_held()
    raise RuntimeError("the fixture has to fail, too")


def test_nothing_is_left_of_the_others(db):
    assert not GenerationLog.objects.exists()
    assert not Group.objects.exists()


class TestTheirs(TestCase):
    def setUp(self):
        self.llm = self.enterContext(override_llm())

    async def test_async_code_under_a_test_case(self):
        self.llm.answers("in two words")
        async with stream(None, prompt="x") as answer:
            pieces = [text async for text in answer.texts()]
        assert "".join(pieces) == answer.generation.result == "in two words"
        assert await GenerationLog.objects.acount() == 1
        answers = await asyncio.gather(*(generate(None, prompt="x") for _ in range(5)))
        assert {answer.result for answer in answers} == {"An answer."}
        async with generation() as g:
            g.reply("mine")
        assert await GenerationLog.objects.acount() == 7


class TestTheirTransactions(TransactionTestCase):
    def test_all_tables_are_emptied_after_it(self):
        User.objects.create(username="committed")
"""
SETTINGS = """
import os
from project.settings import database
SECRET_KEY = "theirs"
BASE_DIR = os.getcwd()
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.postgres", "generation",
]
DATABASES = {"default": database(os.environ["DATABASE_URL"])}
DATABASES["default"]["TEST"] = {"NAME": f"test_theirs_{os.getpid()}"}
DATABASES["default"]["OPTIONS"].pop("pool", None)
STACCATO = {"LLM_PROVIDER": "simulated"}
"""


def test_their_tests_pass(tmp_path, postgres_url):
    (tmp_path / "theirs_settings.py").write_text(SETTINGS)
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "generation.pytest_plugin",
         "-p", "no:schemathesis", "-p", "no:asyncio", "-W", "error"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={
            **os.environ,
            "DATABASE_URL": postgres_url,
            "DJANGO_SETTINGS_MODULE": "theirs_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed, 2 xfailed" in done.stdout, done.stdout  # the call, and its teardown
