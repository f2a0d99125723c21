"""The proxy of docs/operations.md before two processes, as it stands there: TLS, pages, callers."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model

from tests.support import nginx, service
from tests.support.ports import free_port

PRODUCTION = {
    **service.PRODUCTION,
    "SECURE_SSL_REDIRECT": "1",
    "ALLOWED_HOSTS": "localhost",
    "LLM_PROVIDER": "simulated",
    "DJANGO_SETTINGS_MODULE": "tests.browser.behind_tls",
}


@pytest.fixture(scope="module")
def nginx_found():
    nginx.find()


async def test_an_operator_logs_in_through_tls_and_pages_and_callers_have_their_process(
    nginx_found, users, orm, browser, postgres_url, nothing_left
):
    await sync_to_async(get_user_model().objects.create_superuser)("admin", id=50, password="pw")
    port = free_port()
    url = f"https://localhost:{port}"
    async with (
        service.running(postgres_url, STACCATO_SERVE="api", **PRODUCTION) as api,
        service.running(postgres_url, STACCATO_SERVE="pages", **PRODUCTION) as pages,
        nginx.as_documented(port, api=api.port, pages=pages.port),
    ):
        context = await browser.browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        faults: list[str] = []
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        try:
            await page.goto(f"{url}/admin/")
            await page.fill("#id_username", "admin")
            await page.fill("#id_password", "pw")
            async with page.expect_event("load"):
                await page.click("[type=submit]")
            assert page.url == f"{url}/admin/"
            cookies = {each["name"]: each for each in await context.cookies()}
            assert cookies["sessionid"]["secure"]
            assert cookies["sessionid"]["httpOnly"]
            assert cookies["csrftoken"]["secure"]
            await page.goto(f"{url}/api/v1/live")
            await page.locator(".headline", has_text="0 in flight").wait_for()
            assert faults == []
            login = f"{url}/admin/login/"
            for origin, status in ((url, 200), ("https://elsewhere.example", 403)):
                form = {"csrfmiddlewaretoken": cookies["csrftoken"]["value"], "username": "x"}
                answer = await context.request.post(login, form=form, headers={"Origin": origin})
                assert answer.status == status, origin
            answer = await context.request.post(f"{url}/api/v1/generate/1")
            assert answer.status == 401, "the process for callers asks for a key"
            assert (await context.request.get(f"{url}/api/v1/limits")).status == 401
            answer = await context.request.post(f"{url}/api/v1/generations/{'0' * 32}/replay")
            assert "pages only" not in await answer.text()
        finally:
            await context.close()
