"""What the app leaves alone in its host. A program; each function is a law."""

# ruff: noqa: E402  # Django is set up before its models are imported
from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from pathlib import Path

import django
import httpx

django.setup()

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.sites import AdminSite
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import AsyncClient, Client, override_settings
from django.urls import NoReverseMatch, reverse

from generation import conf
from generation.asgi import get_application
from generation.models import GenerationLog, Profile
from generation.python_api import loop_thread
from generation.runtime import process
from generation.runtime.process import Runtime
from tests.hosts import program
from tests.hosts.policy import POLICY
from tests.support.keys import bearer, make_key

people = get_user_model()
OBJECTS = """
SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_'
"""
before: dict[str, object] = {}


def measured() -> dict[str, object]:
    return {
        "collector": gc.get_threshold(),
        "frozen": gc.get_freeze_count(),
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }


def objects() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(OBJECTS)
        return {row[0] for row in cursor.fetchall()}


def its_migrations_leave_other_rows_alone_and_go_without_a_trace():
    call_command("migrate", "people", verbosity=0)
    call_command("migrate", "admin", verbosity=0)
    call_command("migrate", "sessions", verbosity=0)
    reviewers = Group.objects.create(name="Reviewers")
    clean = objects()
    call_command("migrate", "generation", verbosity=0)
    assert len(objects() - clean) > 30
    assert reviewers.permissions.count() == 0
    call_command("migrate", "generation", "zero", verbosity=0)
    assert objects() == clean
    call_command("migrate", "generation", verbosity=0)


def it_has_people():
    boss = people.objects.create_superuser(username="boss")
    Profile.objects.create(user=boss, prompt_template="Hello.")


async def other_apps_migrations_are_none_of_its_own():
    """As where a router keeps them out of the database, or they are yet to be run."""
    recorder = MigrationRecorder(connection)
    await asyncio.to_thread(recorder.record_unapplied, "sessions", "0001_initial")
    async with Runtime.open() as opened, calling(get_application()) as client:
        assert opened.database_probe.pending_migrations == []
        ready = await client.get("/readyz")
        assert ready.status_code == 200, ready.text
    await asyncio.to_thread(recorder.record_applied, "sessions", "0001_initial")


@contextlib.asynccontextmanager
async def calling(application):
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def it_serves_its_own_addresses_and_leaves_all_others_to_the_host():
    received = []
    django_application = get_asgi_application()

    async def host(scope, receive, send):
        received.append(scope["type"])
        if scope["type"] == "http":
            await django_application(scope, receive, send)

    boss = await people.objects.aget()
    key = bearer(await asyncio.to_thread(make_key))
    application = get_application(host)
    async with Runtime.open(), calling(application) as client:
        generated = await client.post(f"/api/v1/generate/{boss.pk}", headers=key)
        assert generated.status_code == 200, generated.text
        assert received == []
        assert (await client.get("/livez")).json() == {"alive": True}
        for address in ("/api/v1/things", "/api/v1/generate", "/v1/things", "/metrics"):
            assert (await client.get(address)).text == "theirs", address
        for address in ("/nothing", "/v1/nothing", "/readyz/more"):
            answer = await client.get(address)
            assert answer.status_code == 404, address
            assert answer.headers["Content-Type"].startswith("text/html"), address
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
        sent = await asyncio.gather(
            *(client.post("/upload?" + "q" * 9_000, content=b"x" * 3_000_000) for _ in range(4))
        )
        assert {answer.text for answer in sent} == {'{"bytes": 3000000, "query": 9000}'}
        received.clear()
        await application({"type": "websocket", "path": "/"}, None, None)
        assert received == ["websocket"]


async def it_can_be_mounted_below_a_prefix():
    boss = await people.objects.aget()
    key = bearer(await asyncio.to_thread(make_key))
    with override_settings(ROOT_URLCONF="tests.hosts.below"):
        assert reverse("staccato:pool") == "/their/llm/api/v1/pool"
        async with Runtime.open(), calling(get_application()) as client:
            answer = await client.post(f"/their/llm/api/v1/generate/{boss.pk}", headers=key)
            assert answer.status_code == 200, answer.text
            document = await client.get("/their/llm/api/v1/openapi.json", headers=key)
            assert "/their/llm/api/v1/pool" in document.json()["paths"]
            for address in ("/api/v1/pool", "/livez"):
                assert (await client.get(address)).status_code == 404


def its_names_are_its_own():
    for name in ("livez", "readyz", "metrics", "api-v1:pool"):
        with contextlib.suppress(NoReverseMatch):
            raise AssertionError(f"{name} is {reverse(name)}")
    assert reverse("staccato:pool") == "/api/v1/pool"
    assert reverse("staccato-readyz") == "/readyz"
    call_command("check", fail_level="WARNING")


async def it_opens_at_its_first_use_where_no_lifespan_reaches_it():
    assert process.opened() is None
    boss = await people.objects.aget()
    key = bearer(await asyncio.to_thread(make_key))
    browser = AsyncClient()
    await browser.aforce_login(boss)
    session = {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}
    async with calling(get_application()) as client:
        # A database has ATOMIC_REQUESTS, which async views can't have.
        pool = await client.get("/api/v1/pool", headers=session)
        assert pool.status_code == 200, pool.text
        address = f"/api/v1/generate/{boss.pk}"
        whole = await client.post(address, headers=key)
        assert whole.status_code == 200, whole.text
        streamed = await client.post(address, headers=key, json={"stream": True})
        assert "event: done" in streamed.text
        docs = await client.get("/api/v1/docs", headers=session)
        assert docs.status_code == 200, docs.text
    assert process.opened().loop is not asyncio.get_running_loop()
    assert await GenerationLog.objects.filter(pk=whole.json()["id"]).aexists()
    await asyncio.to_thread(loop_thread.close)


async def an_asgi_middleware_of_the_hosts_answers_for_other_origins():
    from starlette.middleware.cors import CORSMiddleware

    boss = await people.objects.aget()
    key = bearer(await asyncio.to_thread(make_key))
    application = CORSMiddleware(
        get_application(), allow_origins=["https://app.example"], allow_methods=["POST"],
        allow_headers=["authorization"],
    )  # fmt: skip
    address = f"/api/v1/generate/{boss.pk}"
    origin = {"Origin": "https://app.example"}
    asks = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    async with Runtime.open(), calling(application) as client:
        assert (await client.options(address, headers=asks)).status_code == 200
        answer = await client.post(address, headers={**key, **origin})
        assert answer.status_code == 200, answer.text
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


def its_admin_is_the_hosts():
    assert isinstance(admin.site, AdminSite)
    assert admin.site.__class__.__module__ == "django.contrib.admin.sites"
    assert type(admin.site.get_model_admin(people)).__module__ == "tests.hosts.people.admin"
    browser = Client(raise_request_exception=True)
    browser.force_login(people.objects.get())
    page = browser.get("/admin/people/person/")
    assert "addlink" in page.content.decode()
    for model in apps.get_app_config("generation").get_models():
        if admin.site.is_registered(model):
            page = browser.get(f"/admin/generation/{model._meta.model_name}/")
            assert page.status_code == 200, model
            assert page.headers["Content-Security-Policy"] == POLICY
            assert "unfold" not in page.content.decode(), model


def the_process_is_the_hosts():
    assert measured() == before


def journals_are_below_the_projects_folder_wherever_it_is_started():
    assert Path.cwd() == Path("/")
    folder = Path(conf.load().journal_dir)
    assert folder == settings.BASE_DIR / "journal"
    assert folder.is_dir()


if __name__ == "__main__":
    before.update(measured())
    program.run(
        its_migrations_leave_other_rows_alone_and_go_without_a_trace,
        it_has_people,
        other_apps_migrations_are_none_of_its_own,
        it_serves_its_own_addresses_and_leaves_all_others_to_the_host,
        it_can_be_mounted_below_a_prefix,
        its_names_are_its_own,
        it_opens_at_its_first_use_where_no_lifespan_reaches_it,
        an_asgi_middleware_of_the_hosts_answers_for_other_origins,
        its_admin_is_the_hosts,
        the_process_is_the_hosts,
        journals_are_below_the_projects_folder_wherever_it_is_started,
    )
