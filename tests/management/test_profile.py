"""`manage.py profile set|show|list`."""

from __future__ import annotations

import io
import os

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from generation.models import Profile
from tests.support.forked import run

OFFER = {"LLM_PROVIDER": "simulated", "LLM_ALLOWED": "openai:gpt-a,openai:gpt-b"}


@pytest.fixture
def alice(committed, settings):
    settings.STACCATO = {**settings.STACCATO, **OFFER, "OPENAI_API_KEY": "k"}
    return get_user_model().objects.create(id=7, username="alice")


def profile(*arguments: str) -> str:
    output = io.StringIO()
    call_command("profile", *arguments, stdout=output)
    return output.getvalue()


@pytest.mark.parametrize("user", ["alice", "7"])
def test_a_profile_is_made_and_changed_by_what_is_named(alice, user):
    said = profile("set", user, "--template", "Say: $input", "--system", "Be brief.")
    assert said == "Made the profile of alice (id 7): simulated:simulated (the default).\n"
    said = profile("set", user, "--model", "gpt-b", "--max-tokens", "5")
    assert said == "Changed the profile of alice (id 7): openai:gpt-b.\n"
    found = Profile.objects.get(pk=7)
    assert (found.prompt_template, found.system) == ("Say: $input", "Be brief.")
    assert (found.model, found.max_tokens) == ("gpt-b", 5)
    profile("set", user, "--model", "", "--system", "", "--max-tokens", "")
    found.refresh_from_db()
    assert (found.model, found.system, found.max_tokens) == ("", "", None)


def test_texts_come_from_files(alice, tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("Dear ü,\n\n$input\n", encoding="utf-8")
    profile("set", "alice", "--template-file", str(file), "--system-file", str(file))
    found = Profile.objects.get(pk=7)
    assert found.prompt_template == found.system == "Dear ü,\n\n$input"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set", "nobody", "--template", "x"], "There is no user nobody."),
        (["set", "99999999999999999999", "--template", "x"], "There is no user"),
        (["set", "alice"], "Name what to set"),
        (["set", "alice", "--model", "gpt-a"], "has no profile yet.*--template"),
        (["set", "alice", "--template", "5 $"], "Line 1 has a [$] without a name"),
        (["set", "alice", "--template", ""], "prompt_template: This field cannot be blank"),
        (["set", "alice", "--template", "a\0b"], "PostgreSQL can't store"),
        (["set", "alice", "--template", "a\udc80b"], "PostgreSQL can't store"),
        (
            ["set", "alice", "--template", "x", "--model", "gpt-z"],
            "gpt-z is not offered here; these are: .*openai:gpt-a.*LLM_ALLOWED",
        ),
        (["set", "alice", "--template", "x", "--provider", "antropic"], "antropic is not offered"),
        (["set", "alice", "--template", "x", "--provider", "anthropic"], "is not offered"),
        (["set", "alice", "--template", "x", "--max-tokens", "0"], "max_tokens: .*greater than"),
        (["set", "alice", "--template", "x", "--max-tokens", "many"], "max_tokens: .*integer"),
        (["set", "alice", "--template-file", "/nowhere"], "can't be read: No such file"),
        (["show", "alice"], "alice has no profile.*profile set 7"),
    ],
)
def test_what_can_not_be_is_refused_with_a_sentence(alice, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        profile(*arguments)
    assert not Profile.objects.exists()


def test_a_file_in_another_encoding_is_refused(alice, tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe4")
    with pytest.raises(CommandError, match="is not in UTF-8"):
        profile("set", "alice", "--template-file", str(tmp_path / "latin"))


def test_profiles_are_shown_and_listed(alice):
    assert "There are no profiles" in profile("list")
    profile("set", "alice", "--template", "Say:\n$input", "--provider", "openai")
    shown = profile("show", "alice")
    assert "User: alice (id 7)\nAsks: openai:gpt-a\n" in shown
    assert shown.endswith("Prompt template:\nSay:\n$input\n")
    assert profile("list").split() == ["7", "alice", "openai:gpt-a", "Say:", "$input"]


def test_what_is_no_longer_offered_is_named_and_may_be_corrected(alice):
    Profile.objects.create(user=alice, prompt_template="x", provider="anthropic", model="old")
    for said in (profile("show", "alice"), profile("list")):
        assert "nobody, because anthropic:old is not offered here" in said
    profile("set", "alice", "--provider", "", "--model", "")
    assert "simulated:simulated" in profile("show", "alice")


def test_help_teaches():
    said = run("manage.py", "profile", "--help", env=dict(os.environ)).output
    for word in ("--template 'Translate into French: $input'", "--template-file letter.txt"):
        assert word in said
