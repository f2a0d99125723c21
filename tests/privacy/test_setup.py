"""What is set up wrong is said at the start, and no key is quoted."""

from __future__ import annotations

import base64
import io

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from generation import checks, conf
from generation.models import ApiKey, Profile
from tests.support.admin import KEYS, PROFILES, get
from tests.support.keys import command

GOOD = base64.b64encode(b"k" * 32).decode()
SHORT = base64.b64encode(b"canary").decode()


def set_up(settings, **values: str) -> None:
    settings.STACCATO = {**settings.STACCATO, **values}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (GOOD, "entry 1 is not id:key"),
        (f"{GOOD}:a", "entry 1 is not id:key"),
        (f"a:{GOOD},b:", "entry 2 is not id:key"),
        (f"a:{GOOD},a:{GOOD}", "the id a is given twice"),
        ("a:canary!", "the key a is not in base64"),
        (f"a:{SHORT}", "the key a has 6 bytes, not 32; make one with `openssl rand -base64 32`"),
    ],
)
def test_a_bad_key_is_named_and_not_quoted(keys, sentence):
    with pytest.raises(ImproperlyConfigured, match=sentence) as caught:
        conf.parse({"BODY_KEYS": keys})
    assert not any(part in str(caught.value) for part in (GOOD, SHORT, "canary"))


def test_the_first_key_writes_and_all_are_kept_in_order():
    parsed = conf.parse({"BODY_KEYS": f"new:{GOOD}, old:{GOOD},"})
    assert list(parsed.body_key_ring) == ["new", "old"]
    assert GOOD not in repr(parsed)


def test_keys_without_the_library_are_an_error_that_says_what_to_install(settings, monkeypatch):
    set_up(settings, BODY_KEYS=f"a:{GOOD}")
    assert checks.check_encryption() == []
    monkeypatch.setattr(checks, "find_spec", lambda _name: None)
    (found,) = checks.check_encryption()
    assert (found.id, found.hint) == ("staccato.E007", "pip install 'django-staccato[encryption]'")
    set_up(settings, BODY_KEYS="")
    assert checks.check_encryption() == []


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", ""),
        ("generation.privacy.masks:mask", ""),
        ("generation.privacy.masks:nothing", "has no attribute 'nothing'"),
        ("no.such.module:mask", "No module named 'no'"),
        ("generation.privacy.masks:CUT", "is no callable, but str"),
    ],
)
def test_a_redactor_that_cant_be_called_is_an_error(settings, path, fault):
    set_up(settings, REDACTOR=path)
    found = checks.check_redactor()
    assert [each.id for each in found] == ["staccato.E008"] * bool(fault)
    assert all(fault in each.msg for each in found)


def test_a_redactor_is_named_as_module_and_callable():
    with pytest.raises(ImproperlyConfigured, match="use module:callable"):
        conf.parse({"REDACTOR": "mypackage.redact"})


def test_the_commands_take_a_mode_and_explain_it(user):
    profile = ("profile", "set", "user1", "--template", "Say: $input", "--log-content")
    call_command(*profile, "hashed", stdout=io.StringIO())
    shown = io.StringIO()
    call_command("profile", "show", "user1", stdout=shown)
    assert "Kept in the log: hashed: keyed hashes" in shown.getvalue()
    call_command(*profile, "", stdout=io.StringIO())
    assert Profile.objects.get().log_content == ""
    command("create", "x", "--all-users", "--log-content", "metadata")
    assert ApiKey.objects.get().log_content == "metadata"
    with pytest.raises(CommandError, match="invalid choice: 'ful'"):
        call_command(*profile, "ful")


def test_the_forms_say_what_the_service_keeps(staff, settings):
    set_up(settings, LOG_CONTENT="redacted")
    for page in (PROFILES, KEYS):
        html = get(staff, f"{page}add/").html
        assert "The service&#x27;s choice (redacted)" in html
        assert "metadata: no texts" in html
