"""The admin's doors: lockout, proxies, permissions, and a policy that stops injected scripts."""

from __future__ import annotations

import asyncio
import re

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory
from django.urls import reverse

from project import proxies
from tests.support import http
from tests.support.admin import KEYS, get, save_log

User = get_user_model()
LOGIN = "/admin/login/"

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),  # no proxy of ours
        ("10.0.0.7", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.7", "1.1.1.1, 198.51.100.1", "198.51.100.1"),  # the left is the client's word
        ("10.0.0.7", "1.1.1.1, 198.51.100.1, 192.168.4.2", "198.51.100.1"),
        ("10.0.0.7", None, "10.0.0.7"),
        ("10.0.0.7", "not an address", None),
        ("10.0.0.7", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:203.0.113.1", None, "203.0.113.1"),
    ],
)
async def test_only_a_trusted_proxy_says_where_a_request_comes_from(
    settings, peer, forwarded, seen
):
    settings.TRUSTED_PROXIES = ["10.0.0.7", "192.168.4.0/24"]
    seen_by_django = []

    async def application(scope, _receive, _send):
        factory = RequestFactory(REMOTE_ADDR=scope["client"][0])
        seen_by_django.append((proxies.client_address(factory.get("/")), scope["scheme"]))

    headers = [(b"x-forwarded-proto", b"https")]
    if forwarded:
        headers.append((b"x-forwarded-for", forwarded.encode()))
    scope = {"type": "http", "client": (peer, 1), "scheme": "http", "headers": headers}
    await proxies.trust_proxies(application)(scope, None, None)
    assert seen_by_django == [(seen, "https" if peer == "10.0.0.7" else "http")]


def test_without_trusted_proxies_there_is_no_middleware_for_them(settings):
    settings.TRUSTED_PROXIES = []
    application = object()
    assert proxies.trust_proxies(application) is application


# --- logins ---------------------------------------------------------------------------------------


def test_a_login_by_its_own_address_leads_to_the_admin(committed):
    User.objects.create_superuser("boss", password="typed by hand 7")
    answer = Client().post(LOGIN, {"username": "boss", "password": "typed by hand 7"})
    assert (answer.status_code, answer["location"]) == (302, reverse("admin:index"))


# --- policy ---------------------------------------------------------------------------------------


def directives(response) -> dict[str, list[str]]:
    policy = response.headers["content-security-policy"]
    return {part.split()[0]: part.split()[1:] for part in policy.split(";") if part.strip()}


@pytest.mark.parametrize("path", ["/", LOGIN, "/api/v1/docs"])
async def test_every_page_forbids_scripts_that_are_not_files_of_ours(client, path):
    policy = directives(await client.get(path))
    assert policy["script-src"] == ["'self'", "'unsafe-eval'"]
    assert policy["default-src"] == ["'self'"]
    assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]


def test_no_page_of_the_admin_needs_a_script_of_its_own(staff):
    """One inline script would not run under the policy, and the page would be broken."""
    log = save_log()
    pages = [
        reverse("admin:index"),
        LOGIN,
        "/admin/generation/generationlog/",
        f"/admin/generation/generationlog/{log.pk}/change/",
        "/admin/generation/profile/add/",
        f"{KEYS}add/",
        "/admin/auth/user/add/",
        "/admin/auth/group/add/",
    ]
    for page in pages:
        text = staff.get(page).content.decode()
        for attributes, code in re.findall(r"<script\b([^>]*)>(.*?)</script>", text, re.DOTALL):
            assert "src=" in attributes or "json" in attributes or not code.strip(), page
        assert not re.search(r"<[a-z]+[^>]*\son[a-z]+=", text), page


# --- permissions ----------------------------------------------------------------------------------


def test_a_reviewer_sees_the_logs_and_nothing_else(reviewer):
    log = save_log(prompt="to be reviewed")
    assert "to be reviewed" in get(reviewer, "/admin/generation/generationlog/").html
    get(reviewer, f"/admin/generation/generationlog/{log.pk}/change/")
    for page in (
        "/admin/generation/profile/",
        "/admin/generation/usagelog/",
        KEYS,
        f"{KEYS}add/",
        "/admin/auth/user/",
        "/admin/auth/group/",
        f"/admin/generation/generationlog/{log.pk}/delete/",
        "/admin/generation/generationlog/add/",
    ):
        assert reviewer.get(page).status_code == 403, page
    assert reviewer.post(f"/admin/generation/generationlog/{log.pk}/change/").status_code == 403


async def test_strangers_learn_nothing_from_the_admin(serve, orm):
    async with serve() as service:
        answers = await asyncio.gather(
            *(http.request(service.port, "GET", path) for path in ("/admin/", KEYS))
        )
        assert {answer.status for answer in answers} == {302}
