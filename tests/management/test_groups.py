"""`manage.py staccato_groups`."""

from __future__ import annotations

import io

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command

CONTENT = "generation.read_content"


@pytest.fixture(autouse=True)
def _no_groups(committed):
    """They are there again after the test."""
    Group.objects.all().delete()
    yield
    Group.objects.all().delete()
    make()


def make(*options: str) -> str:
    out = io.StringIO()
    call_command("staccato_groups", *options, stdout=out)
    return out.getvalue()


def permissions(group: str) -> set[str]:
    names = Permission.objects.filter(group__name=group).values_list("codename", flat=True)
    return set(names)


def test_reviewers_read_texts_and_operators_see_figures():
    said = make()
    assert "Reviewers: made, with read_content, view_generationlog." in said
    assert permissions("Reviewers") == {"view_generationlog", "read_content"}
    assert "view_generationlog" in permissions("Operators")
    assert all(name.startswith("view_") for name in permissions("Operators"))
    assert not User.objects.filter(groups__isnull=False).exists()


def test_a_second_run_changes_nothing():
    make()
    Group.objects.get(name="Reviewers").permissions.add(
        Permission.objects.get(codename="view_profile")
    )
    said = make()
    assert said.count("is there and has its permissions") == 2
    assert "view_profile" in permissions("Reviewers")


def test_a_group_that_is_there_already_is_only_reported():
    """Its members are not those whom we mean."""
    theirs = Group.objects.create(name="Reviewers")
    someone = User.objects.create(username="someone")
    someone.groups.add(theirs)
    said = make()
    assert "lacks read_content, view_generationlog" in said
    assert "--adopt" in said
    assert not User.objects.get(pk=someone.pk).has_perm(CONTENT)
    assert permissions("Operators"), "the other one is made"
    assert "Reviewers: adopted" in make("--adopt")
    assert User.objects.get(pk=someone.pk).has_perm(CONTENT)
