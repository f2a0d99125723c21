"""API keys: who gets in, who does not, and how soon a key that is taken away opens nothing."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from generation import conf
from generation.api_keys import cache as keys
from generation.api_keys import tokens as credentials
from generation.api_keys.cache import KEPT_S, REFRESH_S, Keys, Known, Recent
from generation.checks import check_keys_required
from generation.errors import DatabaseUnavailable, Unauthorized
from generation.llm.client import LLMClient
from generation.models import ApiKey, GenerationLog, Profile
from generation.records import Grant
from generation.runtime import process as runtime
from generation.runtime.process import Runtime
from tests.api.test_generate import problem
from tests.api.test_health import session_of
from tests.conftest import in_process_client
from tests.pipeline.test_hot_path import django_connections, thread_entries  # noqa: F401
from tests.support import http
from tests.support.keys import amake_key, bearer, make_key, rows_of

Scope = ApiKey.Scope
GENERATE = "/api/v1/generate/1"


@pytest.fixture
def keys_required(settings):
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": "1"}


@pytest.fixture
async def closed(keys_required, client):
    """The service in this process, which asks for keys."""
    return client


class Clock:
    """Stands still unless told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- who gets in ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic dXNlcjE6cGFzc3dvcmQ="},
        {"Authorization": f"Bearer stc_{'0' * 12}_{'A' * 43}"},
        {"X-API-Key": ""},
        {"X-API-Key": f"stc_{'0' * 12}_{'A' * 43}"},
        {"Authorization": "Bearer " + "x" * 20_000},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("path", "body"), [("1", b""), ("1", b"{"), ("abc", b""), ("1", b"x" * 2_000_000)]
)
async def test_who_has_no_key_is_told_so_before_anything_is_parsed(closed, headers, path, body):
    answer = await closed.post(f"/api/v1/generate/{path}", headers=headers, content=body)
    assert problem(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_stranger_is_refused_before_the_body_is_read(keys_required, runtime):
    from generation.asgi import get_application

    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": GENERATE, "raw_path": GENERATE.encode(),
        "query_string": b"", "root_path": "", "headers": [(b"content-length", b"1000")],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
    }  # fmt: skip
    await get_application()(scope, receive, send)
    assert sent[0]["status"] == 401


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_a_key_is_taken_from_either_header(closed, header):
    key = await amake_key()
    value = key if header == "X-API-Key" else f"bearer  {key}"
    assert (await closed.post(GENERATE, headers={header: value})).status_code == 200


async def test_two_different_keys_are_none(closed):
    one, other = await amake_key(), await amake_key()
    answer = await closed.post(GENERATE, headers={**bearer(one), "X-API-Key": other})
    assert problem(answer) == (401, "unauthorized")
    assert (await closed.post(GENERATE, headers={**bearer(one), "X-API-Key": one})).is_success


async def test_the_public_part_alone_opens_nothing(closed):
    key = await amake_key()
    forged = key[:-43] + "A" * 43
    assert problem(await closed.post(GENERATE, headers=bearer(forged))) == (401, "unauthorized")
    assert (await closed.post(GENERATE, headers=bearer(key))).is_success, "a guess harmed the key"


async def test_a_revoked_an_expired_and_an_inactive_owners_key_open_nothing(closed):
    past = datetime.now(UTC) - timedelta(seconds=1)
    for values in (
        {"revoked_at": past},
        {"expires_at": past},
        {"scope": Scope.USER, "user_id": 4},
    ):
        key = await amake_key(**values)
        answer = await closed.post("/api/v1/generate/4", headers=bearer(key))
        assert problem(answer) == (401, "unauthorized"), values


async def test_a_key_that_is_given_counts_even_where_none_is_required(client):
    key = await amake_key(scope=Scope.USER, user_id=2)
    assert problem(await client.post(GENERATE, headers=bearer(key))) == (403, "user-forbidden")
    answer = await client.post(GENERATE, headers=bearer("wrong"))
    assert problem(answer) == (401, "unauthorized")


# --- for whom ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "allowed", "forbidden"),
    [
        ({"scope": Scope.USER, "user_id": 1}, [1], [2, 99]),
        ({"scope": Scope.USERS, "users": [1, 2]}, [1, 2], [3, 99]),
        ({"scope": Scope.USERS}, [], [1, 99]),
        ({"scope": Scope.ALL}, [1, 2], []),
    ],
)
async def test_a_key_generates_for_its_users_only(closed, values, allowed, forbidden):
    key = await amake_key(**values)
    for user in allowed:
        answer = await closed.post(f"/api/v1/generate/{user}", headers=bearer(key))
        assert answer.status_code == 200
    for user in forbidden:
        answer = await closed.post(f"/api/v1/generate/{user}", headers=bearer(key))
        assert problem(answer) == (403, "user-forbidden")


async def test_a_refusal_does_not_tell_whether_there_is_such_a_user(closed):
    key = await amake_key(scope=Scope.USER, user_id=1)
    there, inactive, nobody = [
        await closed.post(f"/api/v1/generate/{user}", headers=bearer(key)) for user in (2, 4, 999)
    ]
    assert there.text.replace("user 2", "user 999") == nobody.text
    assert inactive.text.replace("user 4", "user 999") == nobody.text


async def test_a_set_of_users_that_becomes_empty_is_not_everybody(closed):
    key = await amake_key(scope=Scope.USERS, users=[3])
    await get_user_model().objects.filter(pk=3).adelete()
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert problem(answer) == (403, "user-forbidden")


def test_the_database_itself_refuses_a_key_for_one_user_without_that_user(committed):
    for values in ({"scope": Scope.USER}, {"scope": Scope.ALL, "user_id": 1}):
        with pytest.raises(IntegrityError), transaction.atomic():
            make_key(**values)


async def test_a_users_deletion_takes_the_users_keys_along(closed):
    key = await amake_key(scope=Scope.USER, user_id=3)
    await get_user_model().objects.filter(pk=3).adelete()
    answer = await closed.post("/api/v1/generate/3", headers=bearer(key))
    assert problem(answer) == (401, "unauthorized")


# --- with which model -------------------------------------------------------------------------


async def test_a_key_uses_its_models_only_whoever_names_them(closed):
    default = (await closed.post(GENERATE, headers=bearer(await amake_key()))).json()["model"]
    for allowed in (f"simulated:{default}", "simulated", f"anthropic, simulated:{default}"):
        key = await amake_key(allowed_models=allowed)
        assert (await closed.post(GENERATE, headers=bearer(key))).status_code == 200, allowed
    key = await amake_key(allowed_models="anthropic:claude-x,openai")
    before = await GenerationLog.objects.acount()
    for body in ({}, {"provider": "simulated"}, {"model": default}):
        answer = await closed.post(GENERATE, headers=bearer(key), json=body)
        assert problem(answer) == (403, "model-forbidden")
    await Profile.objects.filter(user_id=1).aupdate(provider="simulated", model=default)
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert problem(answer) == (403, "model-forbidden")
    assert await GenerationLog.objects.acount() == before, "nothing was spent, so no row"


async def test_models_that_can_not_be_read_allow_nothing(closed):
    key = await amake_key(allowed_models="oracle:9i")
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert problem(answer) == (403, "model-forbidden")


async def test_a_fallback_that_the_key_forbids_is_not_asked(monkeypatch):
    from generation.records import Prompt

    settings = conf.parse(
        {
            "LLM_SIMULATED_FAULTS": "529=1",
            "LLM_FALLBACKS": "openai:gpt-b",
            "OPENAI_API_KEY": "k",
            "LLM_PROVIDER": "simulated",
            "LLM_SIMULATED_LATENCY": "0",
            "LLM_MAX_ATTEMPTS": "1",
        }
    )
    async with LLMClient.open(settings) as llm:
        asked = []

        async def ask(call, model, *, has_fallback):
            asked.append(model)
            from generation.errors import LLMOverloaded

            raise LLMOverloaded("no")

        for upstream in llm._upstreams.values():
            monkeypatch.setattr(upstream, "ask", ask)
        for targets, count in (((), 2), ((("simulated", ""),), 1)):
            asked.clear()
            grant = Grant(1, None, targets)
            with pytest.raises(Exception, match="no"):
                await llm.complete(Prompt("x", "", "simulated", "", 10, grant))
            assert len(asked) == count


# --- how it is kept ---------------------------------------------------------------------------


def test_only_an_hmac_under_the_pepper_is_kept(committed, settings):
    key = make_key()
    row = rows_of(key).values().get()
    secret = key.removeprefix(f"stc_{row['prefix']}_")
    assert len(secret) >= 40
    assert all(secret not in str(value) for value in row.values())
    assert credentials.matches(key, row["digest"])
    settings.STACCATO = {**settings.STACCATO, "API_KEY_PEPPER": "another"}
    assert not credentials.matches(key, row["digest"])
    with_pepper = credentials.digest(key)
    settings.SECRET_KEY = "rotated"
    assert credentials.digest(key) == with_pepper, "a pepper of its own outlives SECRET_KEY"


def test_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    compare = credentials.hmac.compare_digest
    monkeypatch.setattr(
        credentials.hmac, "compare_digest", lambda *pair: compared.append(pair) or compare(*pair)
    )
    new = credentials.make()
    assert credentials.matches(new.text, new.digest)
    assert not credentials.matches(new.text, None)
    assert len(compared) == 2, "one of them was compared otherwise, or not at all"
    assert {len(part) for pair in compared for part in pair} == {credentials.DIGEST_CHARS}


def test_a_key_has_256_bits_and_shows_them_to_no_log():
    new = credentials.make()
    assert credentials.prefix_of(new.text) == new.prefix
    assert len(new.text.removeprefix(f"stc_{new.prefix}_")) >= 40
    assert new.text not in repr(new)
    assert len({credentials.make().text for _ in range(100)}) == 100


# --- what it costs ----------------------------------------------------------------------------


async def test_a_key_that_is_known_costs_no_statement_and_no_thread(
    closed, runtime, thread_entries, django_connections  # noqa: F811
):  # fmt: skip
    key = await amake_key()
    await closed.post(GENERATE, headers=bearer(key))
    lookups = count_lookups(runtime)
    thread_entries.clear()
    django_connections.clear()
    answer = await closed.post(GENERATE, headers=bearer(key))
    assert answer.status_code == 200
    assert lookups == []
    assert thread_entries == [], "the hot path hopped to a thread"
    assert django_connections == [], "the hot path opened a connection of the Django ORM"


async def test_many_callers_with_new_keys_share_their_lookups(closed, runtime):
    mine = [await amake_key() for _ in range(40)]
    lookups = count_lookups(runtime)
    answers = await asyncio.gather(
        *(closed.post(GENERATE, headers=bearer(key)) for key in mine * 5)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert sum(len(batch) for batch in lookups) == 40, "a key was looked up twice"
    assert len(lookups) < 20


async def test_an_unknown_key_is_looked_up_once(closed, runtime):
    lookups = count_lookups(runtime)
    headers = bearer(f"stc_{'0' * 12}_{'A' * 43}")
    for _ in range(5):
        assert (await closed.post(GENERATE, headers=headers)).status_code == 401
    assert len(lookups) == 1


def count_lookups(opened: Runtime) -> list:
    """What is asked of the database from now on."""
    asked: list = []
    select = opened.keys._select

    async def recorded(prefixes):
        asked.append(list(prefixes))
        return await select(prefixes)

    opened.keys._select = recorded  # type: ignore[method-assign]
    return asked


# --- how long it is remembered ----------------------------------------------------------------


@pytest.fixture
async def ring(runtime, monkeypatch):
    """The keys of a process whose clock stands still."""
    clock = Clock()
    ring = Keys(runtime.database, runtime.settings, clock)
    ring.clock = clock  # type: ignore[attr-defined]
    task = asyncio.create_task(ring.batchers[0].run())
    yield ring
    ring.batchers[0].close()
    await task


async def test_a_revoked_key_works_for_half_a_minute_at_most(ring):
    key = await amake_key()
    await ring.recognise(key)
    await rows_of(key).aupdate(revoked_at=datetime.now(UTC))
    ring.clock.now += KEPT_S - 11
    await ring.recognise(key)  # from memory
    ring.clock.now += 11
    with pytest.raises(Unauthorized):
        await ring.recognise(key)


async def test_a_key_in_use_is_refreshed_while_nobody_waits(ring):
    key = await amake_key()
    await ring.recognise(key)
    ring.clock.now += REFRESH_S + 1
    await rows_of(key).aupdate(revoked_at=datetime.now(UTC))
    await ring.recognise(key)  # answered from memory, and asks again behind the caller's back
    (refresh,) = ring._asked.values()
    await asyncio.wait([refresh])
    with pytest.raises(Unauthorized):
        await ring.recognise(key)


async def test_a_key_that_was_unknown_works_half_a_minute_later(ring):
    key = await amake_key(revoked_at=datetime.now(UTC))
    with pytest.raises(Unauthorized):
        await ring.recognise(key)
    await rows_of(key).aupdate(revoked_at=None)
    ring.clock.now += KEPT_S
    assert (await ring.recognise(key)).users is None


async def test_a_key_expires_at_once_though_it_is_remembered(ring):
    key = await amake_key(expires_at=datetime.now(UTC) + timedelta(hours=1))
    await ring.recognise(key)
    prefix = credentials.prefix_of(key)
    known, at = ring._known._entries[prefix]
    soon = Known(known.digest, datetime.now(UTC), known.grant)
    ring._known._entries[prefix] = (soon, at)
    with pytest.raises(Unauthorized, match="expired"):
        await ring.recognise(key)


def test_what_is_remembered_is_bounded():
    recent = Recent(3, Clock())
    for number in range(10):
        recent.put(str(number), None, Clock.now)
    assert len(recent) == 3
    assert recent.get("9") is not None
    assert recent.get("0") is None


async def test_guesses_push_out_no_key_in_use(ring, monkeypatch):
    monkeypatch.setattr(ring._unknown, "_size", 5)
    key = await amake_key()
    await ring.recognise(key)
    guesses = [f"stc_{number:012x}_{'A' * 43}" for number in range(50)]
    results = await asyncio.gather(*map(ring.recognise, guesses), return_exceptions=True)
    assert {type(result) for result in results} == {Unauthorized}
    assert len(ring._unknown) == 5
    assert len(ring._known) == 1


# --- without a database -----------------------------------------------------------------------


async def test_without_a_database_a_new_key_gets_503_and_a_known_one_is_still_known(
    closed, runtime, monkeypatch
):
    known, new = await amake_key(), await amake_key()
    await runtime.keys.recognise(known)

    async def gone(_prefixes):
        raise DatabaseUnavailable("the database can't be reached", retry_after=1)

    monkeypatch.setattr(runtime.keys, "_select", gone)
    answer = await closed.post(GENERATE, headers=bearer(new))
    assert problem(answer) == (503, "database-unavailable")
    assert answer.headers["retry-after"]
    assert (await closed.post(GENERATE, headers=bearer(known))).status_code == 200
    answer = await closed.get("/metrics", headers=bearer(new))
    assert problem(answer) == (503, "database-unavailable")


async def test_a_frozen_database_is_waited_for_within_its_bound(ring, monkeypatch):
    never = asyncio.Event()

    async def frozen(_prefixes):
        await never.wait()
        return {}

    monkeypatch.setattr(ring, "_select", frozen)
    monkeypatch.setattr(ring, "_patience", 0.05)
    with pytest.raises(DatabaseUnavailable):
        await ring.recognise(credentials.make().text)
    never.set()


# --- last use ---------------------------------------------------------------------------------


async def test_the_last_use_is_written_in_one_statement_off_the_requests_path(ring):
    for _ in range(3):
        await ring.recognise(await amake_key())
    assert not await ApiKey.objects.filter(last_used_at__isnull=False).aexists()
    holds = ring._database.pool.holds
    before = holds.count
    await ring.record_use()
    assert holds.count - before == 1
    assert await ApiKey.objects.filter(last_used_at__isnull=False).acount() == 3
    await ring.record_use()
    assert holds.count - before == 1, "nothing was used, so nothing is said"


async def test_a_later_use_stands_whichever_process_tells_it_last(ring):
    key = await amake_key()
    row = await rows_of(key).aget()
    late, early = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    for moment in (late, early):
        ring._used = {row.pk: moment}
        await ring.record_use()
    await row.arefresh_from_db()
    assert row.last_used_at == late


async def test_a_use_that_could_not_be_written_is_written_later(ring, monkeypatch):
    key = await amake_key()
    await ring.recognise(key)
    run = ring._database.run

    async def gone(*_):
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(ring._database, "run", gone)
    with pytest.raises(DatabaseUnavailable):
        await ring.record_use()
    monkeypatch.setattr(ring._database, "run", run)
    await ring.record_use()
    assert (await rows_of(key).aget()).last_used_at


async def test_what_was_used_last_is_written_at_shutdown(keys_required, users, orm):
    key = await amake_key()
    async with Runtime.open(), in_process_client() as client:
        assert (await client.post(GENERATE, headers=bearer(key))).status_code == 200
    assert (await rows_of(key).aget()).last_used_at


# --- the operators' pages ---------------------------------------------------------------------


@pytest.mark.parametrize("page", ["/metrics", "/api/v1/pool"])
async def test_with_keys_required_the_pages_are_for_staff_and_service_keys(closed, page):
    service = await amake_key()
    one_users = await amake_key(scope=Scope.USER, user_id=1)
    staff = await get_user_model().objects.acreate(id=50, username="staff", is_staff=True)
    assert problem(await closed.get(page)) == (403, "staff-only")
    assert problem(await closed.get(page, headers=bearer(one_users))) == (403, "staff-only")
    assert problem(await closed.get(page, headers=bearer("wrong"))) == (401, "unauthorized")
    assert (await closed.get(page, headers=bearer(service))).status_code == 200
    assert (await closed.get(page, headers=await session_of(staff))).status_code == 200


@pytest.mark.parametrize("page", ["/metrics", "/api/v1/pool"])
async def test_a_service_key_sees_the_pages_without_a_thread(
    closed, thread_entries, page  # noqa: F811
):  # fmt: skip
    key = await amake_key()
    await closed.get(page, headers=bearer(key))
    thread_entries.clear()
    assert (await closed.get(page, headers=bearer(key))).status_code == 200
    assert thread_entries == []


async def test_whoever_may_ask_is_alive_and_ready_need_no_key(closed):
    assert (await closed.get("/livez")).status_code == 200
    assert (await closed.get("/readyz")).status_code == 200


# --- without keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Host": "rebound.example"}, 403),
    ],
)
async def test_another_sites_page_can_not_spend_what_is_open_on_localhost(
    client, headers, status, settings
):
    settings.ALLOWED_HOSTS = ["localhost"]
    answer = await client.post(GENERATE, headers=headers)
    assert answer.status_code == status
    assert status == 200 or problem(answer) == (403, "cross-site")


@pytest.mark.parametrize(
    ("debug", "word", "required"),
    [
        (True, None, False),
        (False, None, True),
        (True, "1", True),
        (False, "0", False),
    ],
)
def test_keys_are_required_unless_debug_is_on_or_it_is_said(settings, debug, word, required):
    settings.DEBUG = debug
    values = {} if word is None else {"API_KEYS_REQUIRED": word}
    assert conf.parse(values).keys_required is required
    settings.STACCATO = {**settings.STACCATO, **values}
    assert [error.id for error in check_keys_required()] == ([] if required else ["staccato.E004"])


async def test_an_open_service_in_production_says_so_loudly(users, orm, settings, caplog):
    settings.STACCATO = {**settings.STACCATO, "API_KEYS_REQUIRED": "0"}
    for debug, told in ((True, False), (False, True)):
        settings.DEBUG = debug
        settings.SECRET_KEY = settings.DATABASE_URL = "given"
        caplog.clear()
        async with Runtime.open():
            pass
        loud = [one for one in caplog.records if one.levelno >= logging.CRITICAL]
        assert bool(loud) is told
    assert "STACCATO_API_KEYS_REQUIRED" in loud[0].getMessage()


# --- the command ------------------------------------------------------------------------------


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("apikey", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "scope", "reach"),
    [
        (["--user", "user1"], Scope.USER, []),
        (["--user", "1"], Scope.USER, []),
        (["--users", "user1", "2"], Scope.USERS, [1, 2]),
        (["--all-users"], Scope.ALL, []),
    ],
)
def test_the_command_makes_a_key_and_shows_it_once(users, arguments, scope, reach):
    key = command("create", "a name", *arguments).strip()
    row = rows_of(key).get()
    assert credentials.matches(key, row.digest)
    assert row.scope == scope
    assert row.user_id == (1 if scope == Scope.USER else None)
    assert sorted(user.pk for user in row.users.all()) == reach
    listed = command("list")
    assert row.prefix in listed
    assert key not in listed


def test_the_command_takes_an_end_and_models(users):
    key = command(
        "create", "x", "--all-users", "--expires", "90d", "--models", "anthropic:claude-x,simulated"
    ).strip()
    row = rows_of(key).get()
    assert timedelta(days=89) < row.expires_at - datetime.now(UTC) <= timedelta(days=90)
    assert credentials.parse_targets(row.allowed_models) == (
        ("anthropic", "claude-x"),
        ("simulated", ""),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "x", "--user", "nobody"], "no user nobody"),
        (["create", "x", "--all-users", "--expires", "soon"], "--expires soon"),
        (["create", "x", "--all-users", "--expires", "2020-01-31"], "past already"),
        (["create", "x", "--all-users", "--expires", "2027-02-31"], "--expires 2027-02-31"),
        (["create", "x", "--all-users", "--models", "oracle:x"], "oracle"),
        (["revoke", "000000000000"], "no key 000000000000"),
        (["create", "x"], "one of the arguments"),
    ],
)
def test_the_command_explains_what_it_can_not_do(users, arguments, message):
    with pytest.raises(CommandError, match=message):
        command(*arguments)
    assert not ApiKey.objects.exists()


def test_the_command_revokes_by_prefix_or_by_the_key_itself(users):
    made = [command("create", "x", "--all-users").strip() for _ in range(3)]
    command("revoke", made[0], credentials.prefix_of(made[1]))
    assert [rows_of(key).get().revoked_at is not None for key in made] == [True, True, False]


# --- several processes ------------------------------------------------------------------------


async def test_revocation_and_expiry_reach_every_process_within_half_a_minute(serve, orm):
    """The processes' half a minute is short here; that it is one is shown by the clock above."""
    revoked, expiring, kept = await amake_key(), await amake_key(), await amake_key()
    hasty = {
        "application": "tests.support.hasty:application",
        "KEPT_S": "3",
        "STACCATO_API_KEYS_REQUIRED": "1",
    }
    async with serve(**hasty) as one, serve(**hasty) as other:
        ports = (one.port, other.port)

        async def statuses(key: str) -> list[int]:
            answers = [await http.generate(port, headers=bearer(key).items()) for port in ports]
            return [answer.status for answer in answers]

        for key in (revoked, expiring, kept):
            assert await statuses(key) == [200, 200]
        await rows_of(expiring).aupdate(expires_at=datetime.now(UTC))
        await sync_to_async(command)("revoke", revoked)
        began = time.monotonic()
        waited_for = [revoked, expiring]
        while waited_for and time.monotonic() - began < 3 + 2:
            waited_for = [key for key in waited_for if await statuses(key) != [401, 401]]
        assert not waited_for, "a key that was taken away still works"
        assert await statuses(kept) == [200, 200]
        new = await amake_key(expires_at=datetime.now(UTC) + timedelta(seconds=1))
        assert await statuses(new) == [200, 200]
        async with asyncio.timeout(2):  # an end that is known needs no half a minute
            while await statuses(new) != [401, 401]:
                pass


def test_the_purge_of_memory_needs_no_more_than_its_bounds():
    assert keys.KNOWN_MAX <= 10_000
    assert keys.UNKNOWN_MAX <= 10_000
    assert keys.REFRESH_S < keys.KEPT_S <= 30
    assert runtime.RECORD_USE_S >= 60
