"""`manage.py limit`, and the limits of `apikey create`."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from generation import checks
from generation.models import ApiKey, Limit, LimitWindow
from tests.support.keys import command as apikey
from tests.support.windows import zone_of_noon

pytestmark = pytest.mark.usefixtures("users")


def limit(*arguments: str) -> str:
    out = io.StringIO()
    call_command("limit", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_a_limit_is_made_changed_and_listed():
    limit("set", "user:user1", "usd", "20.50", "--per", "month", "--zone", "Europe/Berlin")
    limit("set", "user:user1", "usd", "30", "--per", "month", "--shadow")
    row = Limit.objects.get()
    assert (row.amount, row.zone, row.is_enforced) == (30 * 10**9, "", False)
    limit("set", "each-key", "in_flight", "8")
    limit("set", "all", "tokens", "none", "--per", "ever", "--target", "openai:gpt-b")
    listed = limit("list").splitlines()
    assert "user user1: $30.00 ($0.00 used, $30.00 left) usd per month, not enforced" in listed[0]
    assert "each key: 8 in_flight" in listed[1]
    assert "all: no limit tokens in all for openai:gpt-b" in listed[2]


def test_a_budget_in_dollars_names_the_models_that_it_refuses_for_want_of_a_price(settings):
    settings.STACCATO = {
        **settings.STACCATO,
        "LLM_ALLOWED": "simulated:a,simulated:b",
        "LLM_PRICES": "simulated:a=0/0",
    }
    said = io.StringIO()
    for target in ("simulated:a", "simulated:b"):
        call_command("limit", "set", "all", "usd", "1", "--per", "day", "--target", target,
                     stdout=io.StringIO(), stderr=said)  # fmt: skip
    assert said.getvalue().startswith("It refuses simulated:b, whose price is unknown")
    found = checks.check_prices(databases=["default"])
    assert [(each.id, each.msg.rpartition(": ")[2]) for each in found] == [
        ("staccato.W005", "simulated:b.")
    ]
    assert checks.check_prices(databases=None) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("all", "usd", "-1", "--per", "day"),
        ("all", "usd", "1,5", "--per", "day"),
        ("all", "usd", "NaN", "--per", "day"),
        ("all", "usd", "1e400", "--per", "day"),
        ("all", "tokens", "1.5", "--per", "day"),
        ("all", "usd", "1"),
        ("all", "usd", "1", "--per", "minute"),
        ("all", "in_flight", "1", "--per", "day"),
        ("all", "usd", "1", "--per", "day", "--zone", "Mars/Olympus"),
        ("all", "usd", "1", "--per", "day", "--target", "nobody:x"),
        ("user:nobody", "usd", "1", "--per", "day"),
        ("key:nobody", "usd", "1", "--per", "day"),
        ("group:x", "usd", "1", "--per", "day"),
    ],
)
def test_what_is_no_limit_is_refused_in_words(arguments):
    with pytest.raises(CommandError):
        limit("set", *arguments)
    assert not Limit.objects.exists()


def test_a_key_is_made_with_its_limits():
    apikey(
        *("create", "backend", "--all-users", "--rpm", "600", "--tpm", "200000"),
        *("--budget", "20/month", "--at-once", "8"),
    )
    key = ApiKey.objects.get()
    made = set(key.limits.values_list("scope", "unit", "amount", "window"))
    assert made == {
        ("key", "requests", 600, "minute"),
        ("key", "tokens", 200_000, "minute"),
        ("key", "usd", 20 * 10**9, "month"),
        ("key", "in_flight", 8, ""),
    }
    limit("set", "key:backend", "requests", "0", "--per", "minute")
    assert key.limits.get(unit="requests").amount == 0


@pytest.mark.parametrize("given", [("--rpm", "-1"), ("--budget", "20"), ("--budget", "x/month")])
def test_a_key_with_a_limit_at_fault_is_not_made(given):
    with pytest.raises(CommandError):
        apikey("create", "backend", "--all-users", *given)
    assert not ApiKey.objects.exists()


def test_an_override_ends_with_its_window_and_a_reset_begins_one():
    limit("set", "all", "requests", "10", "--per", "month", "--zone", zone_of_noon())
    row = Limit.objects.get()
    assert "15 (0 used, 15 left)" in limit("grant", str(row.pk), "5")
    row.refresh_from_db()
    LimitWindow.objects.create(
        limit=row, subject="", start=row.extra_start, committed=7, as_of=row.extra_start
    )
    assert "left 8" in limit("show", str(row.pk))
    limit("reset", str(row.pk))
    assert "left 15" in limit("show", str(row.pk))
    Limit.objects.update(extra_start="2020-01-01T00:00Z")
    assert "left 10" in limit("show", str(row.pk))
    limit("set", "all", "requests", "10", "--per", "minute")
    with pytest.raises(CommandError, match="only budgets"):
        limit("grant", str(Limit.objects.get(window="minute").pk), "5")
