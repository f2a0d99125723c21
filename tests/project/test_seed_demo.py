"""`manage.py seed_demo`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection

from generation import records
from generation.models import Profile
from generation.pipeline import prompts

User = get_user_model()


@pytest.fixture(autouse=True)
def _debug(settings):
    settings.DEBUG = True


def seed() -> str:
    out = StringIO()
    call_command("seed_demo", stdout=out)
    return out.getvalue()


def render(user_id: int, **request) -> str:
    """The prompt that the service would send."""
    row = Profile.objects.get(pk=user_id)
    profile = records.Profile(
        user_id, row.prompt_template, row.system, row.provider, row.model, row.max_tokens
    )
    return prompts.render(
        profile,
        records.GenerationRequest(
            user_id=user_id, request_id="", arrived_at=datetime.now(UTC), started=0.0, **request
        ),
    )


def test_users_1_to_10_can_be_called_and_cannot_log_in(committed):
    seed()
    users = User.objects.filter(pk__lte=10)
    assert {user.pk: user.get_username() for user in users} == {n: f"user{n}" for n in range(1, 11)}
    assert all(user.is_active and not user.has_usable_password() for user in users)
    assert not any(user.is_staff or user.is_superuser for user in users)
    assert set(Profile.objects.values_list("pk", flat=True)) == set(range(1, 11))


def test_user_1_answers_an_empty_body_and_an_input(committed):
    seed()
    assert render(1)
    assert render(1, input="Why do birds sing?").endswith("\n\nWhy do birds sing?")


def test_users_1_to_6_need_no_variables(committed):
    """A load test sends all of them the same body."""
    seed()
    assert all(render(user_id) for user_id in range(1, 7))


def test_every_template_renders(committed):
    seed()
    names = dict.fromkeys(("name", "product", "ingredients", "version"), "[variable]")
    for user_id in range(1, 11):
        assert "[input]" in render(user_id, input="[input]", variables=names)
    assert "$20 a month" in render(8, variables=names)


def test_later_users_get_later_ids(committed):
    seed()
    assert User.objects.get(username="admin").pk > 10
    assert User.objects.create(username="later").pk > 11


def test_ids_never_go_backwards(committed):
    for name in ("one", "two"):
        User.objects.create(username=name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval(pg_get_serial_sequence('auth_user', 'id'), 57)")
    seed()
    assert User.objects.create(username="later").pk == 59  # the admin's account is 58


def test_a_second_run_keeps_what_was_edited(committed):
    seed()
    Profile.objects.filter(pk=1).update(prompt_template="Mine.")
    User.objects.filter(pk=2).update(is_active=False)
    admin = User.objects.get(username="admin")
    admin.set_password("better")
    admin.save()

    assert "kept: 10" in seed()

    assert Profile.objects.get(pk=1).prompt_template == "Mine."
    assert not User.objects.get(pk=2).is_active
    assert User.objects.get(username="admin").check_password("better")
    assert User.objects.count() == 11


def test_an_id_or_a_name_in_use_is_left_to_its_owner(committed):
    User.objects.create(pk=1, username="alice")
    User.objects.create(pk=40, username="user2")
    said = seed()
    assert "No demo user 1: id 1 is 'alice'." in said
    assert "No demo user 2: user2 has another id." in said
    assert set(Profile.objects.values_list("pk", flat=True)) == set(range(3, 11))


def test_runs_at_the_same_time_take_turns(committed):
    def run(_):
        try:
            return seed()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(run, range(4)))
    assert sum("created: 10" in each for each in said) == 1
    assert User.objects.count() == 11
    assert Profile.objects.count() == 10


def test_the_account_s_known_password_is_printed(committed):
    said = seed()
    admin = User.objects.get(username="admin")
    assert admin.is_superuser
    assert admin.check_password("admin")
    assert "password 'admin'" in said


def test_the_groups_are_there(committed):
    assert "Reviewers: is there and has its permissions." in seed()


def test_it_refuses_with_debug_off(committed, settings):
    settings.DEBUG = False
    with pytest.raises(CommandError, match=r"DEBUG is off.*createsuperuser.*profile set"):
        seed()
    assert not User.objects.exists()
    assert not Profile.objects.exists()
