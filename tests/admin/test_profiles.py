"""Profiles and users: what a form takes and refuses."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from generation.models import GenerationLog, Profile
from tests.support.admin import PROFILES, get, shown

User = get_user_model()
Status = GenerationLog.Status


pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def profile_form(**values) -> dict[str, object]:
    return {"prompt_template": "Say: $input", "system": "", "provider": "", "model": "", **values}


def test_a_profile_can_be_created_and_edited(staff, user):
    staff.post(f"{PROFILES}add/", profile_form(user=user.pk))
    assert Profile.objects.get(pk=user.pk).prompt_template == "Say: $input"
    response = staff.post(f"{PROFILES}{user.pk}/change/", profile_form(max_tokens=7))
    assert response.status_code == 302
    assert Profile.objects.get(pk=user.pk).max_tokens == 7


@pytest.mark.parametrize("registered", [True, False])
def test_a_profile_s_user_is_never_chosen_from_a_list_of_all(staff, monkeypatch, registered):
    User.objects.create(username="one-of-a-million")
    if not registered:  # as in a project that takes this app and has no admin for users
        monkeypatch.delitem(admin.site._registry, User)
    html = get(staff, f"{PROFILES}add/").html
    assert ("admin-autocomplete" in html) is registered
    assert bool(re.search('<input[^>]*name="user"', html)) is not registered
    assert "one-of-a-million" not in html


def test_a_profile_stays_with_its_user(staff, user):
    other = User.objects.create(username="other")
    Profile.objects.create(user=user, prompt_template="Hello.")
    staff.post(f"{PROFILES}{user.pk}/change/", profile_form(user=other.pk))
    assert list(Profile.objects.values_list("pk", flat=True)) == [user.pk]


@pytest.mark.parametrize(
    ("template", "line"),
    [("$", 1), ("costs 5$", 1), ("one\ntwo $5", 2), ("${input", 1), ("$$$", 1), ("a\n\n${}", 3)],
)
def test_a_dollar_that_names_nothing_is_refused(staff, user, template, line):
    response = get_form_errors(staff, user, prompt_template=template)
    assert response["prompt_template"][0].startswith(f"Line {line} has a $ without a name.")
    assert not Profile.objects.exists()


@pytest.mark.parametrize("template", ["plain", "$$5", "$name and ${other}: $input", "ünï$_x"])
def test_a_template_that_can_be_filled_is_taken(staff, user, template):
    staff.post(f"{PROFILES}add/", profile_form(user=user.pk, prompt_template=template))
    assert Profile.objects.get().prompt_template == template


@pytest.fixture
def offer(settings):
    """Change what the service offers: `offer("openai:gpt-a")`; simulated is the default."""

    def change(allowed: str = "") -> None:
        settings.STACCATO = {
            **settings.STACCATO, "LLM_ALLOWED": allowed, "OPENAI_API_KEY": "k",
        }  # fmt: skip

    return change


def choices(html: str, name: str) -> list[tuple[str, str]]:
    select = re.search(rf'<select name="{name}".*?</select>', html, re.DOTALL).group(0)
    return re.findall(r'<option value="([^"]*)"[^>]*>([^<]*)</option>', select)


def test_provider_and_model_are_choices_of_what_is_offered(staff, offer):
    offer("openai:gpt-a, openai:gpt-b, simulated:gpt-b")
    html = get(staff, f"{PROFILES}add/").html
    assert choices(html, "provider") == [
        ("", "The service&#x27;s default (simulated)"),
        ("simulated", "simulated"),
        ("openai", "openai"),
    ]
    assert choices(html, "model") == [
        ("", "The provider&#x27;s default"),
        ("simulated", "simulated (simulated)"),
        ("gpt-a", "gpt-a (openai)"),
        ("gpt-b", "gpt-b (openai, simulated)"),
    ]


@pytest.mark.parametrize(
    ("provider", "model", "field"),
    [
        ("antropic", "", "provider"),
        ("anthropic", "", "provider"),  # known and not offered
        ("", "gpt-9", "model"),
        ("simulated", "gpt-a", "model"),
    ],
)
def test_what_is_not_offered_is_refused(staff, user, offer, provider, model, field):
    offer("openai:gpt-a")
    (sentence,) = get_form_errors(staff, user, provider=provider, model=model)[field]
    assert "is not offered here; these are: simulated:simulated, openai:gpt-a" in sentence
    assert not Profile.objects.exists()


@pytest.mark.parametrize(("provider", "model"), [("openai", ""), ("", "gpt-a"), ("", "")])
def test_what_is_offered_is_taken(staff, user, offer, provider, model):
    offer("openai:gpt-a")
    staff.post(f"{PROFILES}add/", profile_form(user=user.pk, provider=provider, model=model))
    assert Profile.objects.get().model == model


def test_a_profile_of_what_is_no_longer_offered_opens_says_so_and_can_be_corrected(
    staff, user, offer
):
    offer("openai:gpt-a")
    values = profile_form(provider="openai", model="gpt-a")
    page = f"{PROFILES}{user.pk}/change/"
    staff.post(f"{PROFILES}add/", {**values, "user": user.pk})
    assert "is not offered" not in get(staff, page).html
    offer("")
    html = get(staff, page).html
    assert "openai:gpt-a is not offered here; these are: simulated:simulated" in html
    assert ("gpt-a", "gpt-a (no longer offered)") in choices(html, "model")
    response = staff.post(page, values)
    assert "is not offered here" in str(response.context["adminform"].form.errors)
    assert staff.post(page, profile_form()).status_code == 302
    assert "is not offered" not in get(staff, page).html


def get_form_errors(client: Client, user, **values) -> dict[str, list[str]]:
    response = client.post(f"{PROFILES}add/", profile_form(user=user.pk, **values))
    assert response.status_code == 200
    return response.context["adminform"].form.errors


@pytest.mark.parametrize("term", ["user1", "1"])
def test_profiles_are_found_by_user(staff, user, term):
    other = User.objects.create(pk=21, username="other")
    for each in (user, other):
        Profile.objects.create(user=each, prompt_template="Hello.")
    with CaptureQueriesContext(connection) as queries:
        assert shown(get(staff, PROFILES, q=term)) == [user.pk]
    assert not [query["sql"] for query in queries if "COUNT(" in query["sql"].upper()]


def test_profiles_can_be_deleted_together(staff, user):
    Profile.objects.create(user=user, prompt_template="Hello.")
    form = {"action": "delete_selected", "_selected_action": str(user.pk), "post": "yes"}
    assert staff.post(PROFILES, form).status_code == 302
    assert not Profile.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "/admin/auth/user/",
        "/admin/auth/user/add/",
        "/admin/auth/user/1/change/",
        "/admin/auth/user/1/password/",
        "/admin/auth/group/",
        "/admin/auth/group/add/",
        f"{PROFILES}add/",
        "/admin/autocomplete/?term=user&app_label=generation&model_name=profile&field_name=user",
    ],
)
def test_pages_of_users_open(staff, url):
    assert staff.get(url).status_code == 200


def test_the_admin_bears_the_product_s_name(committed):
    assert "Staccato" in Client().get("/admin/", follow=True).content.decode()
