"""Every form of the admin, filled in by typing on a phone, where it is hardest.

Each page is also looked at in a wide window, in the dark."""

from __future__ import annotations

import contextlib
import shlex
from urllib.parse import urlsplit

import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection
from playwright.async_api import TimeoutError as PlaywrightTimeout

from generation.models import ApiKey, Profile
from tests.support import http
from tests.support.admin import KEYS, LOGS, PROFILES, make_log

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
LOOKS = {"phone": (PHONE, False), "wide and dark": (WIDE, True)}
USERS, GROUPS = "/admin/auth/user/", "/admin/auth/group/"
PASSWORD = "typed by hand 7"

# What a person can't see or hit: without a border, also around it, next to no size, or covered.
UNSEEN = """() => [...document.querySelectorAll("#content-main :is(input, select, textarea)")]
    .filter(field => !["hidden", "checkbox", "radio", "file"].includes(field.type))
    .filter(field => field.offsetParent && !field.closest(".select2"))
    .filter(field => !field.classList.contains("select2-hidden-accessible"))
    .filter(field => {
        field.scrollIntoView({block: "center"});
        const {x, y, width, height} = field.getBoundingClientRect();
        const shown = [field, field.parentElement, field.parentElement.parentElement]
            .map(element => getComputedStyle(element))
            .some(({borderTopWidth}) => borderTopWidth !== "0px");
        const hit = field.contains(document.elementFromPoint(x + width / 2, y + height / 2));
        return !shown && !field.closest(".selector") || width < 60 || height < 20 || !hit;
    }).map(field => field.name || field.id)"""
DARKEN = "isDark => document.documentElement.classList.toggle('dark', isDark)"
IS_DARK = "document.documentElement.classList.contains('dark')"


@pytest_asyncio.fixture(loop_scope="session")
async def person(watched):
    """An admin with a phone."""
    await watched.page.set_viewport_size(PHONE)
    return watched


TOO_WIDE = """[...document.querySelectorAll("body *")].filter(
  one => one.getBoundingClientRect().right > innerWidth
).map(one => `${one.tagName}.${one.className}#${one.id}`).slice(0, 8)"""


async def look(person, path: str) -> None:
    """Open a page; all of it is within the window, can be seen, and is allowed."""
    await person.open(path)
    await check(person, path)


async def check(person, path: str) -> None:
    page = person.page
    for look, (size, is_dark) in LOOKS.items():
        await page.set_viewport_size(size)
        await page.evaluate(DARKEN, is_dark)
        width, window = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= window, f"{path}, {look}, is too wide: {await page.evaluate(TOO_WIDE)}"
        with contextlib.suppress(PlaywrightTimeout):  # the sidebar moves when the window does
            await page.wait_for_function(f"!({UNSEEN})().length")
        assert await page.evaluate(UNSEEN) == [], (path, look)
    await page.set_viewport_size(PHONE)
    await page.evaluate(DARKEN, False)
    assert person.faults == [], path


async def choose(page, field: str, text: str) -> None:
    """Type into a field that searches, and take what it finds."""
    await page.locator(f".field-{field} .select2-selection").click()
    await page.keyboard.type(text)
    found = page.locator(".select2-results__option--highlighted", has_text=text)
    await found.wait_for(state="visible")
    await page.keyboard.press("Enter")


async def type_into(page, **values: str) -> None:
    for name, text in values.items():
        await page.click(f"[name={name}]")
        await page.keyboard.type(text)


async def save(person, *, leads_to_list: bool = False) -> None:
    """Lists are looked at with all other pages."""
    async with person.leaving():
        await person.page.click("[name=_save]")
    if not leads_to_list:
        await check(person, person.page.url)


async def text_of(page, field: str) -> str:
    return await page.locator(f"[data-field={field}]").inner_text()


async def test_who_prefers_the_dark_gets_it(person):
    for scheme in ("light", "dark"):
        await person.page.emulate_media(color_scheme=scheme)
        await person.open("/admin/")
        assert await person.page.evaluate(IS_DARK) is (scheme == "dark")


async def test_keys_of_each_scope_are_made_and_one_is_revoked(person):
    page = person.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await look(person, f"{KEYS}add/")
    await type_into(page, name="a shop")
    await save(person)
    key = await text_of(page, "key")
    assert key.startswith("stc_")
    await page.click("[data-copy=new-key]")
    await page.wait_for_selector("[data-copy=new-key]:has-text('Copied')")
    assert await page.evaluate("navigator.clipboard.readText()") == key
    assert await works(await text_of(page, "curl"))

    await look(person, f"{KEYS}add/")
    await type_into(page, name="one's own", expires_at_0="2099-01-31", expires_at_1="12:00")
    await page.select_option("[name=scope]", "user")
    await save(person)
    assert "Name a user here" in await page.content(), "and the field for it is in sight"
    await choose(page, "user", "user2")
    await save(person)
    assert await works(await text_of(page, "curl"))

    await look(person, f"{KEYS}add/")
    await type_into(page, name="several", allowed_models="anthropic")
    await page.select_option("[name=scope]", "users")
    await choose(page, "users", "user3")
    await choose(page, "users", "user1")
    await save(person)
    curl = await text_of(page, "curl")
    async with person.leaving():
        await page.click("text=This key’s page")
    await check(person, page.url)
    assert "user1, user3" in await page.inner_text("#content-main")
    assert await works(curl)

    await look(person, urlsplit(page.url).path.replace("change", "revoke"))
    async with person.leaving():
        await page.click("text=Revoke the key")
    await check(person, page.url)
    assert "is revoked" in await page.content()
    scopes = {row.name: (row.scope, bool(row.revoked_at)) async for row in ApiKey.objects.all()}
    assert scopes == {
        "a shop": ("all", False), "one's own": ("user", False), "several": ("users", True),
    }  # fmt: skip
    await look(person, KEYS)
    assert key not in await page.content()


def move_on() -> None:
    """The test's users took their ids without the sequence."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval(pg_get_serial_sequence('auth_user', 'id'), 100)")


async def works(curl: str) -> bool:
    """Send what the line says, without a shell."""
    _curl, _x, method, url, _h, header = shlex.split(curl)
    at = urlsplit(url)
    name, value = header.split(": ")
    answer = await http.request(at.port, method, at.path, headers=[(name, value)])
    return answer.status == 200


async def test_profiles_users_and_groups_are_made_and_changed(person):
    page = person.page
    await look(person, f"{PROFILES}add/")
    await choose(page, "user", "user5")
    await type_into(page, prompt_template="Costs 5 $", system="Be brief.", max_tokens="50")
    await save(person)
    assert "Line 1 has a $ without a name" in await page.content()
    await page.fill("[name=prompt_template]", "")
    await type_into(page, prompt_template="Say: $input")
    await page.select_option("[name=provider]", "anthropic")
    await page.select_option("[name=model]", "claude-sonnet-5-5")
    await save(person, leads_to_list=True)
    made = await Profile.objects.aget(pk=5)
    assert (made.prompt_template, made.system, made.max_tokens) == ("Say: $input", "Be brief.", 50)
    assert (made.provider, made.model) == ("anthropic", "claude-sonnet-5-5")

    await Profile.objects.filter(pk=5).aupdate(model="old-one")
    await look(person, f"{PROFILES}5/change/")
    assert "anthropic:old-one is not offered here" in await page.content()
    await page.select_option("[name=model]", "")
    await save(person, leads_to_list=True)
    assert (await Profile.objects.aget(pk=5)).model == ""

    await look(person, f"{GROUPS}add/")
    await type_into(page, name="Editors")
    await save(person, leads_to_list=True)
    assert await Group.objects.filter(name="Editors").aexists()

    await sync_to_async(move_on)()
    await look(person, f"{USERS}add/")
    await type_into(page, username="typed", password1=PASSWORD, password2=PASSWORD)
    await save(person)
    users = get_user_model().objects
    await type_into(page, first_name="Tea", email="tea@example.com")
    await save(person, leads_to_list=True)
    user = await users.aget(username="typed")
    assert (user.first_name, user.email) == ("Tea", "tea@example.com")
    await look(person, f"{USERS}{user.pk}/password/")
    await type_into(page, password1=f"{PASSWORD}b", password2=f"{PASSWORD}b")
    async with person.leaving():
        await page.press("[name=password2]", "Enter")
    assert (await users.aget(username="typed")).password != user.password


async def test_logs_are_searched_and_every_other_page_is_in_sight(person):
    log = make_log(prompt="find me", request_id="checkout-1")
    await sync_to_async(log.save)(force_insert=True)
    await sync_to_async(log.body.save)(force_insert=True)
    other = make_log(1, prompt="not me", status="cancelled", error="the client left")
    await sync_to_async(other.save)(force_insert=True)
    await sync_to_async(other.body.save)(force_insert=True)
    page = person.page
    await look(person, LOGS)
    await page.click("[name=q]")
    await page.keyboard.type("checkout-1")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**q=checkout-1**")
    assert "find me" in await page.content()
    assert "not me" not in await page.content()
    pages = [
        *("/", "/admin/", "/admin/password_change/", "/admin/generation/usagelog/"),
        "/admin/generation/maintenance/",
        *(f"{LOGS}{page}" for page in ("dashboard/", "errors/", "spending/?user=1")),
        *(PROFILES, USERS, GROUPS, f"{USERS}50/change/", f"{USERS}50/delete/"),
        *(f"{LOGS}{row.pk}/change/" for row in (log, other)),
        *(f"{PROFILES}1/{name}/" for name in ("change", "history", "delete")),
    ]
    for path in pages:
        await look(person, path)
    await page.wait_for_load_state("networkidle")  # what a script asks for is allowed, too
    assert person.faults == []


async def test_filters_are_typed_and_applied_without_a_search_for_the_button(person):
    """The filters are two windows high."""
    for minute, latency in enumerate((900, 4000)):
        log = make_log(minute, user_id=1, model="gpt", latency_ms=latency)
        await sync_to_async(log.save)(force_insert=True)
    page = person.page
    await person.open(LOGS)
    await page.click("text=Filters")
    await check(person, "the filters")
    await type_into(page, user="1", latency_min="2.5")
    apply = await page.locator("text=Apply").bounding_box()
    assert apply["y"] + apply["height"] <= PHONE["height"], "it has left the window"
    async with person.leaving():
        await page.click("text=Apply")
    assert "user=1&latency_min=2.5" in page.url
    assert await page.locator(".log-rows tbody tr").count() == 1
    assert person.faults == []


async def test_a_view_is_saved_and_what_it_shows_is_exported_and_sent_again(person):
    log = make_log(status="failed", prompt="What is it?", result="", provider="anthropic")
    await sync_to_async(log.save)(force_insert=True)
    await sync_to_async(log.body.save)(force_insert=True)
    page = person.page
    await person.open(f"{LOGS}?status=failed")
    await page.click("text=Save view")
    await check(person, "its form")
    await type_into(page, name="All that failed")
    async with person.leaving():
        await page.click(".view-chips button")
    assert await page.locator(".view-chips [aria-current]").inner_text() == "All that failed"
    await look(person, f"{LOGS}views/")
    await look(person, f"{LOGS}export/choose/?status=failed")
    async with page.expect_download() as started:
        await page.click(".key-copy")
    assert str(log.pk) in await sync_to_async((await (await started.value).path()).read_text)()
    await person.open(f"{LOGS}{log.pk}/change/")
    async with person.leaving():
        await page.click("text=Send again")
    await check(person, page.url)
    assert page.url.endswith("/compare/")
    assert await page.locator("[data-field=prompt]").inner_text() == "What is it?"
