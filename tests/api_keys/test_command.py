"""The command that makes and revokes keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError

from generation import conf
from generation.api_keys import tokens
from generation.models import ApiKey
from tests.support.keys import command, rows_of

Scope = ApiKey.Scope
GENERATE = "/api/v1/generate/1"


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
    assert tokens.matches(key, conf.load().pepper, row.digest)
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
    assert conf.parse_targets(row.allowed_models) == (
        ("anthropic", "claude-x"),
        ("simulated", ""),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "x", "--user", "nobody"], "no user nobody"),
        (["create", "x", "--all-users", "--expires", "soon"], "--expires soon"),
        (["create", "x", "--all-users", "--expires", "0d"], "--expires 0d"),
        (["create", "x", "--all-users", "--expires", "99999999999d"], "--expires 9"),
        (["create", "x", "--all-users", "--expires", "2020-01-31"], "in the past"),
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
    command("revoke", made[0], tokens.parse_prefix(made[1]))
    assert [rows_of(key).get().revoked_at is not None for key in made] == [True, True, False]
