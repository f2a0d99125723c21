"""Words in texts: the same is found with an index and without."""

from __future__ import annotations

import json
from urllib.parse import quote
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections

from generation import conf
from generation.conversation import Message, Options, Text, dump_conversation
from generation.database.engine import Database
from generation.log_search import words
from generation.log_search.search import search
from generation.log_search.selection import parse_query
from generation.log_search.sought import Sought
from generation.models import GenerationBody, GenerationLog, Maintenance
from generation.partitions.ddl import Parent
from generation.partitions.intervals import DAY
from generation.partitions.words import index_words
from tests.support.admin import save_log
from tests.support.log_search import leaf_through
from tests.support.rollups import NOW

TEXTS = {
    "a": {"prompt": "The bridge is CLOSED until Friday.", "result": "Thank you."},
    "b": {"prompt": "Bridges close on Fridays, 100%_sure.", "result": "Über die Brücke"},
    "c": {"prompt": "", "result": "closed", "conversation": dump_conversation(
        [Message("user", (Text("first line\nbridge at its start"),))], [], Options())},
    "d": {"prompt": "", "result": "", "blocks": json.dumps([{"text": "the bridge"}])},
    "e": {"prompt": "the bridge is closed", "result": "", "encryption_key": "k1"},
}  # fmt: skip
FOUND = {
    "bridge": "acd",
    "BRIDGE closed": "ac",
    "closed bridge": "ac",
    "bridg": "",
    "100%_sure": "b",
    "100 sure": "b",
    "Brücke": "b",
    "start": "c",
    "friday": "a",
    "'; DROP TABLE x; --": "",
}


@pytest.fixture
def bodies(committed) -> dict:
    return {
        save_log(minutes, **texts).pk: name for minutes, (name, texts) in enumerate(TEXTS.items())
    }


@async_to_sync
async def index(reported: list[str]) -> bool:
    settings = conf.load()
    async with Database.open(settings, connections.settings["default"], strict=True) as database:
        parent = Parent(GenerationBody._meta.db_table, DAY)
        return await index_words(database, parent, reported.append, due_after=NOW)


@pytest.fixture
def unindexed():
    """Drops what a test has indexed: the tables outlive it."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relname LIKE '%\\_words'")
        for (name,) in cursor.fetchall():
            cursor.execute(f'DROP INDEX "{name}"')


def test_whole_words_are_found_in_any_case_with_and_without_an_index(
    bodies, unindexed, settings, subtests
):
    for indexed in (False, True):
        if indexed:
            settings.STACCATO = {**settings.STACCATO, "SEARCH": "words"}
            reported: list[str] = []
            assert index(reported)
            assert "indexed the words of generation_generationbody_20260131" in reported
            assert index(reported), "what is indexed is left"
            assert len(reported) == len(set(reported))
        for term, names in FOUND.items():
            with subtests.test(term, indexed=indexed):
                found, _pages = leaf_through(f"words={quote(term)}")
                assert sorted(bodies[key] for key in found) == sorted(names)


def test_an_indexed_day_is_searched_through_its_index(bodies, unindexed):
    index([])
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_indexscan = off")
        try:
            plan = words.bodies("bridge", ["bridge"]).explain()
        finally:
            cursor.execute("RESET enable_seqscan; RESET enable_indexscan")
    assert "generation_generationbody_20260131_words" in plan


def test_a_text_is_read_through_its_key_once_for_each_row(bodies):
    """In a join over a few minutes, of which the planner expects one row, all texts were read again
    for each row: half a second for 600 rows."""
    asked, _faults = parse_query("words=bridge&model=m")
    plans: list[str] = []

    def explained(execute, sql, params, many, context):
        if "plainto_tsquery" in sql:
            with connection.cursor() as cursor:
                cursor.cursor.execute(f"EXPLAIN {sql}", params)
                plans.append("\n".join(row[0] for row in cursor.cursor.fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explained):
        search(Sought(GenerationLog.objects.all(), asked), size=50)
    assert plans
    for plan in plans:
        assert "Join" not in plan and "Nested Loop" not in plan, plan
        assert "= generation_generationlog.id)" in plan, plan


def test_an_index_whose_making_was_cut_off_is_made_again(bodies, unindexed):
    index([])
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid ="
            " 'generation_generationbody_20260131_words'::regclass"
        )
    reported: list[str] = []
    assert index(reported)
    assert reported == ["indexed the words of generation_generationbody_20260131"]


def test_a_day_is_indexed_under_a_lease_that_outlasts_it(bodies, unindexed, monkeypatch):
    """A second process would take an index that is being made for one that was cut off, and drop
    it. So each day begins with the whole lease; without it, the next process goes on."""
    made = []

    async def lose(_self, sql, **_limit):
        made.append(sql)
        await sync_to_async(Maintenance.objects.update)(holder=uuid4())

    monkeypatch.setattr(Database, "administer", lose)
    assert not index([])
    assert [sql.split()[0] for sql in made] == ["CREATE", "ANALYZE"], "of one day of many"
