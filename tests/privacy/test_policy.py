"""What of a row is kept in each mode."""

from __future__ import annotations

import base64
from dataclasses import asdict, replace

import pytest
from django.db.models import TextField
from hypothesis import given
from hypothesis import strategies as st

from generation import conf
from generation.conversation import (
    NO_OPTIONS,
    Message,
    Text,
    ToolUse,
    dump_blocks,
    dump_conversation,
    load_blocks,
)
from generation.models import GenerationBody
from generation.privacy import redactors
from generation.privacy.encryption import TEXTS, KeyRing
from generation.privacy.policy import HASH_PREFIX, MODES, ContentPolicy, HeldResult
from generation.telemetry import metrics
from tests.support.rows import make_row

SECRET = "jane@example.org"
KEY = base64.b64encode(b"k" * 32).decode()
ROW = make_row(
    SECRET,
    prompt=SECRET,
    system=SECRET,
    error=SECRET,
    raw_reply=SECRET,
    metadata={"ticket": SECRET},
    stop_reason=f"because of {SECRET}",
    conversation=dump_conversation([Message("user", (Text(SECRET),))], (), NO_OPTIONS),
    blocks=dump_blocks([Text(SECRET), ToolUse("1", "mail", f'{{"to": "{SECRET}"}}')]),
).row
CHANGED = {*TEXTS, "metadata", "stop_reason", "model"}
MARKS = {"content", "result_held", "encryption_key", "excerpt"}


def policy(**values) -> ContentPolicy:
    return ContentPolicy(conf.parse({"LLM_PROVIDER": "simulated", **values}))


def broken(text: str) -> str:
    raise ValueError(text)


def odd(text: str) -> str:
    return f"{len(text)} characters\0\ud800"


def shout(text: str) -> str:
    return text.upper()


def not_text(_text: str) -> int:
    return 7


def keep(row, content, *, is_keyed=False, **values):
    return policy(**values).apply(row, content, is_keyed=is_keyed)


def test_every_text_of_a_body_is_encrypted():
    fields = GenerationBody._meta.local_concrete_fields
    assert {each.name for each in fields if isinstance(each, TextField)} == set(TEXTS)


def test_full_keeps_the_row_itself():
    assert keep(ROW, "full") is ROW


@pytest.mark.parametrize("content", MODES[1:])
def test_a_stricter_mode_keeps_a_copy_with_the_same_figures(content):
    before = asdict(ROW)
    kept = asdict(keep(ROW, content))
    assert asdict(ROW) == before
    assert kept["content"] == content
    assert SECRET not in repr(kept)
    assert {name for name in kept if kept[name] != before[name]} <= CHANGED | MARKS


def test_each_mode_keeps_what_it_says():
    assert keep(ROW, "redacted").prompt == "[email]"
    assert keep(ROW, "redacted").metadata == {"ticket": "[email]"}
    arguments = '{"to": "[email]"}'
    blocks = (Text("[email]"), ToolUse("1", "mail", arguments))
    assert load_blocks(keep(ROW, "redacted").blocks) == blocks, "it stays JSON"
    assert keep(ROW, "hashed").prompt.startswith(HASH_PREFIX)
    assert keep(ROW, "hashed").prompt == keep(ROW, "hashed").result, "the same text, the same hash"
    assert keep(ROW, "metadata").prompt == ""
    assert keep(ROW, "metadata").error_type == ROW.error_type
    assert keep(replace(ROW, error=""), "hashed").error == "", "that there was none is no secret"


def test_hashes_need_the_pepper():
    hashes = {keep(ROW, "hashed", API_KEY_PEPPER=pepper).prompt for pepper in ("one", "two")}
    assert len(hashes) == 2


@given(*[st.sampled_from(["", *MODES])] * 2, st.sampled_from(MODES))
def test_the_strictest_of_service_profile_and_key_counts(profile, key, service):
    chosen = policy(LOG_CONTENT=service).choose(profile, key)
    assert chosen == max([service, *filter(None, (profile, key))], key=MODES.index)


def test_a_mode_that_this_version_does_not_know_counts_as_the_strictest():
    assert policy().choose("", "from-the-future") == "metadata"


@pytest.mark.parametrize("content", MODES[1:])
def test_a_keyed_row_keeps_its_result_until_it_is_settled(content):
    kept = keep(ROW, content, is_keyed=True)
    assert (kept.result, kept.result_held) == (ROW.result, True)
    assert SECRET not in kept.prompt + kept.error + kept.raw_reply
    (settled,) = policy().settle([HeldResult(kept.id, content, kept.result, kept.blocks, "")])
    reduced = keep(ROW, content)
    assert (settled.result, settled.blocks) == (reduced.result, reduced.blocks)


def test_a_keyed_row_that_failed_has_nothing_to_repeat():
    assert not keep(replace(ROW, status="failed"), "metadata", is_keyed=True).result_held


@pytest.mark.parametrize("redactor", [broken, not_text])
def test_a_redactor_that_fails_costs_neither_the_row_nor_a_secret(redactor, caplog):
    failures = metrics.REDACTOR_FAILURES._value.get()
    kept = keep(ROW, "redacted", REDACTOR=f"{__name__}:{redactor.__name__}")
    assert kept.content == "hashed"
    assert kept.prompt.startswith(HASH_PREFIX)
    assert kept.metadata["ticket"].startswith(HASH_PREFIX)
    assert metrics.REDACTOR_FAILURES._value.get() > failures
    assert "the redactor failed" in caplog.text
    assert SECRET not in caplog.text


def test_a_redactor_that_holds_the_process_up_is_measured_and_named(monkeypatch, caplog):
    total = metrics.REDACTOR_TIME._sum
    before = total.get()
    monkeypatch.setattr(redactors, "perf_counter", iter([0.0, 0.01, 1.0, 1.5]).__next__)
    redact = redactors.load(f"{__name__}:shout")
    redact("a text")
    assert not caplog.records
    redact("another")
    assert "STACCATO_REDACTOR takes more than 20 ms" in caplog.text
    assert total.get() == pytest.approx(before + 0.51)


def test_a_redactor_of_ones_own_gets_a_bounded_text_and_its_result_can_be_stored():
    kept = keep(replace(ROW, prompt="x" * 10**6), "redacted", REDACTOR=f"{__name__}:odd")
    assert kept.prompt == "16384 characters\ufffd?… [the rest is not kept]"


def test_a_bug_of_ours_costs_neither_the_row_nor_a_secret(monkeypatch, caplog):
    broken_policy = policy(BODY_KEYS=f"a:{KEY}")
    monkeypatch.setattr(broken_policy, "_ring", None)
    kept = broken_policy.apply(ROW, "hashed", is_keyed=True)
    assert (kept.id, kept.prompt, kept.result, kept.content) == (ROW.id, "", "", "metadata")
    assert SECRET not in repr(kept) + caplog.text


def test_encrypted_texts_come_back_and_only_in_their_own_place():
    kept = keep(ROW, "full", BODY_KEYS=f"a:{KEY}")
    assert kept.encryption_key == "a"
    assert SECRET not in repr([getattr(kept, name) for name in TEXTS])
    ring = KeyRing({"b": b"b" * 32, "a": b"k" * 32})
    assert ring.read(kept.id, "prompt", kept.prompt, "a") == SECRET
    assert ring.read(kept.id, "excerpt", kept.excerpt, "a") == SECRET
    assert (
        ring.show(kept.id, "result", kept.prompt, "a") == "[encrypted with key a, and not intact]"
    )
    other = make_row().row.id
    assert "not intact" in ring.show(other, "prompt", kept.prompt, "a")
    assert "not intact" in ring.show(kept.id, "prompt", "what is this?", "a")


def test_a_text_under_a_key_that_is_gone_says_so():
    kept = keep(ROW, "full", BODY_KEYS=f"a:{KEY}")
    shown = KeyRing({}).show(kept.id, "prompt", kept.prompt, kept.encryption_key)
    assert shown == "[encrypted with key a, which is not configured]"


def test_a_callers_own_words_are_never_taken_for_an_encrypted_text():
    assert KeyRing({"a": b"k" * 32}).show(ROW.id, "prompt", "[encrypted with key a", "") == (
        "[encrypted with key a"
    )


def test_settling_keeps_the_key_of_the_row_and_drops_what_it_cant_read():
    row = keep(ROW, "redacted", is_keyed=True, BODY_KEYS=f"a:{KEY}")
    held = HeldResult(row.id, row.content, row.result, row.blocks, row.encryption_key)
    other = base64.b64encode(b"b" * 32).decode()
    (settled,) = policy(BODY_KEYS=f"b:{other},a:{KEY}").settle([held])
    assert KeyRing({"a": b"k" * 32}).read(row.id, "result", settled.result, "a") == "[email]"
    (dropped,) = policy().settle([held])
    assert dropped.result == dropped.blocks == ""
