"""Failed logins: who is locked out, and who never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from asgiref.sync import sync_to_async
from axes.models import AccessAttempt
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.test import Client

from project import lockout
from project import settings as project_settings

User = get_user_model()
LOGIN = "/admin/login/"
PASSWORD = "a right one 7"
REAL_ACCOUNT_LIMIT = lockout.ACCOUNT_LIMIT
LIMIT, ACCOUNT_LIMIT = 3, 6  # for these tests: an attempt takes a while

STRANGER = Client()

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture(autouse=True)
def _no_attempts(committed, settings, monkeypatch):
    settings.AXES_FAILURE_LIMIT = LIMIT
    monkeypatch.setattr(lockout, "ACCOUNT_LIMIT", ACCOUNT_LIMIT)


@pytest.fixture
def admin_user(committed):
    return User.objects.create_superuser("boss", password=PASSWORD)


def attempt(
    password: str, username: str = "boss", address: str = "192.0.2.1", browser: Client | None = None
) -> int:
    """The status that a login is answered with: 302 is success, 429 locked out."""
    values = {"username": username, "password": password}
    if browser is None:
        browser = STRANGER  # each new one would load all middleware
        browser.cookies.clear()
    return browser.post(LOGIN, values, REMOTE_ADDR=address).status_code


def known_browser(password: str = PASSWORD, username: str = "boss") -> Client:
    """A browser that logged in to the account once."""
    browser = Client()
    assert attempt(password, username, "203.0.113.77", browser) == 302
    browser.post("/admin/logout/")
    return browser


def lock_account() -> list[int]:
    """Fail from many addresses."""
    return [attempt("wrong", address=f"198.51.100.{n}") for n in range(ACCOUNT_LIMIT + 2)]


def test_an_account_is_locked_after_so_many_failures_from_wherever_they_come(admin_user):
    statuses = lock_account()
    assert statuses[: ACCOUNT_LIMIT - 1] == [200] * (ACCOUNT_LIMIT - 1)
    assert set(statuses[ACCOUNT_LIMIT - 1 :]) == {429}
    assert attempt(PASSWORD, address="203.0.113.9") == 429, "the right password is no way around"


def test_no_single_address_locks_an_account(admin_user):
    """However long it goes on: it is locked itself, and its failures are no longer counted."""
    for _quarter_of_an_hour in range(3):
        statuses = [attempt("wrong") for _ in range(2 * ACCOUNT_LIMIT)]
        assert statuses.count(200) == LIMIT - 1
        assert attempt(PASSWORD, address="203.0.113.9") == 302
        past = datetime.now(UTC) - django_settings.AXES_COOLOFF_TIME - timedelta(seconds=1)
        AccessAttempt.objects.update(attempt_time=past)


def test_it_takes_several_addresses_to_lock_an_account():
    assert REAL_ACCOUNT_LIMIT >= 5 * project_settings.AXES_FAILURE_LIMIT


def test_a_browser_that_the_account_knows_gets_in_while_strangers_lock_it(admin_user):
    browser = known_browser()
    lock_account()
    for _ in range(LIMIT):
        attempt("wrong", address="192.0.2.1")
    assert attempt(PASSWORD, address="192.0.2.1") == 429
    assert attempt(PASSWORD, address="192.0.2.1", browser=browser) == 302, "from a locked address"


def test_who_is_logged_in_stays_logged_in_while_the_account_is_locked(admin_user):
    browser = Client()
    assert attempt(PASSWORD, browser=browser) == 302
    lock_account()
    assert browser.get("/admin/").status_code == 200


def test_a_known_browser_may_fail_as_often_as_an_address(admin_user):
    """A stolen cookie is worth that many guesses, wherever it is used."""
    browser = known_browser()
    statuses = [attempt("wrong", address=f"192.0.2.{n}", browser=browser) for n in range(LIMIT + 5)]
    assert statuses.count(200) == LIMIT - 1
    assert attempt(PASSWORD, address="203.0.113.9", browser=browser) == 429
    assert attempt(PASSWORD, address="203.0.113.9") == 302, "the account is not locked by it"


def test_a_browser_is_known_to_one_account_only(admin_user):
    User.objects.create_superuser("insider", password="insider's own 7")
    browser = known_browser("insider's own 7", "insider")
    for _ in range(LIMIT):
        attempt("wrong", browser=browser)
    assert attempt(PASSWORD, browser=browser) == 429


def test_a_forged_cookie_makes_no_browser_known(admin_user):
    browser = known_browser()
    good = browser.cookies[lockout.COOKIE].value
    lock_account()
    for forged in (f"x{good}", good[:-1], ""):
        browser.cookies[lockout.COOKIE] = forged
        assert attempt(PASSWORD, address="203.0.113.9", browser=browser) == 429, forged
    browser.cookies[lockout.COOKIE] = good
    assert attempt(PASSWORD, address="203.0.113.9", browser=browser) == 302, "the good one is"


def test_the_cookie_is_kept_from_scripts_and_sent_to_the_login_alone(admin_user, settings):
    settings.SESSION_COOKIE_SECURE = True
    cookie = known_browser().cookies[lockout.COOKIE]
    assert (cookie["path"], cookie["httponly"], cookie["secure"]) == (LOGIN, True, True)
    assert "boss" not in cookie.value


def test_a_success_of_ones_own_buys_no_guesses_at_another_account(admin_user):
    User.objects.create_superuser("insider", password="insider's own 7")
    guesses = 0
    for _ in range(2 * LIMIT):
        guesses += [attempt("wrong") for _ in range(LIMIT - 2)].count(200)
        attempt("insider's own 7", "insider")
    assert guesses < LIMIT


def test_one_account_under_many_spellings_is_one_account(admin_user):
    """The form reads a name as Unicode's NFKC, without the spaces around it."""
    names = [
        "boss",
        "\N{FULLWIDTH LATIN SMALL LETTER B}oss",
        " boss ",
        "bos\N{LATIN SMALL LETTER LONG S}",
    ]
    statuses = [attempt("wrong", names[n % 4], f"198.51.100.{n}") for n in range(ACCOUNT_LIMIT + 5)]
    assert statuses.count(200) == ACCOUNT_LIMIT - 1


def test_the_addresses_of_an_ipv6_network_are_one_client(admin_user):
    statuses = [attempt("wrong", f"name{n}", f"2001:db8:1:2::{n:x}") for n in range(1, LIMIT + 6)]
    assert statuses.count(200) == LIMIT - 1
    assert attempt(PASSWORD, address="2001:db8:1:2:aaaa::1") == 429
    assert attempt(PASSWORD, address="2001:db8:1:3::1") == 302


def test_an_address_is_locked_whatever_names_it_tries(admin_user):
    statuses = [attempt("wrong", username=f"name{n}") for n in range(LIMIT + 1)]
    assert statuses[-1] == 429
    assert attempt(PASSWORD) == 429
    assert attempt(PASSWORD, address="203.0.113.9") == 302, "others may log in"


def test_many_logins_with_made_up_forwarding_headers_are_locked_out(admin_user):
    client = Client(REMOTE_ADDR="192.0.2.1")
    statuses = []
    for n in range(3 * LIMIT):
        forged = {
            "X-Forwarded-For": f"10.0.0.{n}",
            "Forwarded": f"for=10.0.0.{n}",
            "X-Real-IP": f"10.0.0.{n}",
        }
        values = {"username": f"name{n}", "password": "wrong"}
        statuses.append(client.post(LOGIN, values, headers=forged).status_code)
    assert set(statuses[LIMIT:]) == {429}


def test_a_lockout_ends(admin_user, monkeypatch):
    for _ in range(LIMIT):
        attempt("wrong")
    assert attempt(PASSWORD) == 429
    past = datetime.now(UTC) - django_settings.AXES_COOLOFF_TIME - timedelta(seconds=1)
    AccessAttempt.objects.update(attempt_time=past)
    assert attempt(PASSWORD) == 302


def test_attempts_while_locked_out_do_not_lock_for_ever(admin_user):
    for _ in range(LIMIT):
        attempt("wrong")
    before = list(AccessAttempt.objects.values_list("attempt_time", flat=True))
    for _ in range(3):
        attempt("wrong")
    assert list(AccessAttempt.objects.values_list("attempt_time", flat=True)) == before


def test_a_success_forgets_the_failures_before_it(admin_user):
    for _ in range(3):
        for _ in range(LIMIT - 1):
            assert attempt("wrong") == 200
        assert attempt(PASSWORD) == 302


def test_no_password_is_written_down(admin_user):
    attempt("canary-password")
    for row in AccessAttempt.objects.values():
        assert "canary" not in str(row)


async def test_the_lockout_works_over_the_wire(serve, orm):
    await sync_to_async(User.objects.create_superuser)("boss", password=PASSWORD, id=50)
    async with serve(LOG_LEVEL="WARNING") as service, httpx.AsyncClient(timeout=60) as browser:
        url = f"http://127.0.0.1:{service.port}{LOGIN}"
        token = (await browser.get(url)).cookies["csrftoken"]
        statuses = []
        for n in range(4):
            if n == 1:
                failures = project_settings.AXES_FAILURE_LIMIT - 1
                await AccessAttempt.objects.aupdate(failures_since_start=failures)
            answer = await browser.post(
                url,
                data={"username": f"boss{n}", "password": "wrong", "csrfmiddlewaretoken": token},
                # uvicorn trusts the loopback address by default.
                headers={"X-Forwarded-For": "192.0.2.1"},
            )
            statuses.append(answer.status_code)
        known = await browser.post(
            url, data={"username": "boss", "password": PASSWORD, "csrfmiddlewaretoken": token}
        )
    assert statuses[0] == 200
    assert statuses[-2:] == [429, 429]
    assert known.status_code == 302, "from another address"
    assert lockout.COOKIE in known.cookies


def test_who_is_locked_out_reads_what_to_do(admin_user):
    values = {"username": "boss", "password": "wrong"}
    for _ in range(LIMIT):
        response = Client().post(LOGIN, values)
    assert response.status_code == 429
    text = response.content.decode()
    assert "Try again in 15 minutes" in text
    assert "axes_reset" in text
    assert "<script" not in text
