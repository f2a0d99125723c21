"""Effects: a project's own rows are there exactly when their log row is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session

from generation import FromGeneration, Insert, Update, generate, generate_sync, generation
from generation.errors import LLMTimedOut
from generation.journal import lines
from generation.models import GenerationLog
from generation.python_api import loop_thread
from generation.python_api.effects import InvalidEffect
from generation.records import KeyedRow
from tests.support.rows import make_claim, make_row

OURS = ("Operators", "Reviewers")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def theirs(embedded):
    """Tables of the project's own, without what other tests have left in them."""

    def empty() -> None:
        Group.objects.exclude(name__in=OURS).delete()
        Session.objects.all().delete()

    empty()
    yield
    empty()


def named_after_it(**more):
    return Insert(Group, {"name": FromGeneration("id")}, **more)


def kept_in_a_session():
    return Insert(
        Session,
        {
            "session_key": FromGeneration("request_id"),
            "session_data": FromGeneration("result"),
            "expire_date": LATER,
        },
    )


def groups() -> set[str]:
    return set(Group.objects.exclude(name__in=OURS).values_list("name", flat=True))


def logged() -> set[str]:
    return {str(key) for key in GenerationLog.objects.values_list("pk", flat=True)}


def test_rows_of_the_projects_own_come_with_the_log_row(theirs):
    answer = generate_sync(
        1,
        prompt="x",
        effects=[
            named_after_it(),
            Insert(Group, {"name": "an earlier message"}),
            kept_in_a_session(),
            Update(User, {"pk": 1}, {"last_name": FromGeneration("status"), "is_staff": True}),
        ],
    )
    assert groups() == {str(answer.id), "an earlier message"}
    session = Session.objects.get()
    assert (session.session_data, session.expire_date) == (answer.result, LATER)
    user = User.objects.get(pk=1)
    assert (user.last_name, user.is_staff) == ("succeeded", True)
    assert not User.objects.get(pk=2).is_staff


def test_what_is_left_out_gets_djangos_default(theirs):
    generate_sync(1, prompt="x", effects=[Insert(User, {"pk": 77, "username": "made"})])
    made = User.objects.get(username="made")
    assert made.is_active
    assert made.date_joined.year >= 2020
    assert made.email == ""
    made.delete()


def test_ones_own_llm_call_has_effects_too(theirs):
    with generation(effects=[kept_in_a_session()]) as g:
        g.reply("an answer")
    assert Session.objects.get().session_data == "an answer"


def test_a_failure_has_those_that_do_not_ask_for_success(theirs, settings):
    settings.STACCATO = {**settings.STACCATO, "LLM_SIMULATED_LATENCY": "30"}
    with pytest.raises(LLMTimedOut):
        generate_sync(
            1,
            prompt="x",
            timeout=0.1,
            effects=[
                named_after_it(only_if_succeeded=True),
                Insert(Group, {"name": FromGeneration("status")}),
            ],
        )
    assert groups() == {"timed_out"}


def test_a_repetition_under_a_key_has_no_effect_again(theirs):
    for _ in range(2):
        answer = generate_sync(1, prompt="x", idempotency_key="k", effects=[named_after_it()])
    assert groups() == {str(answer.id)}


def store(*rows: KeyedRow) -> list[object]:
    runtime = loop_thread.runtime()

    async def insert():
        return await asyncio.gather(
            *(runtime.store.logs.insert(row) for row in rows), return_exceptions=True
        )

    return runtime.run(insert())


def with_group(name: str) -> KeyedRow:
    return KeyedRow(make_row().row, None, (Insert(Group, {"name": name}),))


def test_a_row_that_is_stored_again_has_its_effects_once(theirs):
    row = with_group("once")
    store(row, row)
    store(row)
    assert groups() == {"once"}


def test_an_effect_that_postgresql_refuses_takes_its_log_row_along_and_no_neighbour(theirs):
    good, bad = with_group("good"), with_group("x" * 151)  # the column takes 150
    action = {"user_id": 999_999, "object_repr": "", "action_flag": 1, "change_message": ""}
    dangling = KeyedRow(make_row().row, None, (Insert(LogEntry, action),))  # found at the commit
    outcomes = store(bad, good, dangling)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "RowRefused", "NoneType", "RowRefused",
    ]  # fmt: skip
    assert logged() == {str(good.row.id)}
    assert groups() == {"good"}


def test_many_at_once_of_many_shapes_are_all_there(theirs):
    async def ask(number: int) -> str:
        effects = [named_after_it()]
        if number % 2:
            effects.append(kept_in_a_session())
        if number % 3:
            effects.append(Update(User, {"pk": 1}, {"first_name": FromGeneration("id")}))
        return str((await generate(None, prompt="x", effects=effects)).id)

    async def ask_all() -> set[str]:
        return set(await asyncio.gather(*map(ask, range(200))))

    ids = asyncio.run(ask_all())
    assert groups() == logged() == ids
    assert Session.objects.count() == 100
    assert User.objects.get(pk=1).first_name in ids


def test_effects_survive_the_journals_lines():
    effects = (
        Insert(Group, {"name": '"claim":{"user_id":1,"key":"k"}'}),
        Update(User, {"pk": uuid4().int % 1000}, {"last_login": LATER}),
    )
    keyed = KeyedRow(make_row().row, make_claim(), effects)
    encoded = lines.encode(lines.from_row(keyed))
    assert lines.to_row(lines.decode(encoded[:-1])) == keyed
    assert {ref.key for ref in lines.keys_in(encoded)} == {"k"}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Insert(Group, {"nmae": "x"}), "no field 'nmae'"),
        (lambda: Insert(Group, {"permissions": []}), "no column"),
        (lambda: Insert(Session, {"session_key": "x", "session_data": "\0"}), "value"),
        (lambda: Insert(Group, {"name": "\0"}), "NUL"),
        (lambda: Update(User, {}, {"is_staff": True}), "find the rows"),
        (lambda: Update(User, {"pk": None}, {"is_staff": True}), "None"),
        (lambda: FromGeneration("secret"), "no 'secret'"),
    ],
)
def test_what_could_not_be_written_is_refused_where_it_is_said(make, why):
    with pytest.raises(ValueError, match=why):
        make()


def test_two_updates_of_a_model_that_could_meet_are_refused():
    effects = [
        Update(User, {"pk": 1}, {"is_staff": True}),
        Update(User, {"pk": 1}, {"first_name": "x"}),
    ]
    with pytest.raises(InvalidEffect, match="same fields"):
        generate_sync(1, prompt="x", effects=effects)
    with pytest.raises(InvalidEffect, match="at most 50"):
        generate_sync(1, prompt="x", effects=[named_after_it()] * 51)
