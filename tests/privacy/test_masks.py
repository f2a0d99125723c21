"""Masks find what they are for, leave the rest alone, and take linear time."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.privacy.masks import CUT, MASKED_CHARS, mask

PRIVATE = {
    "email": [
        "jane.doe+x@example.co.uk",
        "jürgen@bücher.example",
        "o'neil@mail.example.org",
    ],
    "phone": ["+49 170 1234567", "+1 (555) 123-4567", "030/12345678", "(555) 123-4567"],
    "iban": ["DE89 3704 0044 0532 0130 00", "DE89370400440532013000", "GB82WEST12345698765432"],
    "card": ["4111 1111 1111 1111", "4111111111111111", "3782-822463-10005"],
    "ip": ["192.168.1.17", "2001:db8::1", "fe80::1ff:fe23:4567:890a", "::ffff:192.0.2.1"],
    "secret": [
        "sk-ant-api03-abcdefgh",
        "sk_live_0123456789abcdef",
        "stc_0123456789ab_0123456789abcdefghij",
        "ghp_0123456789abcdefghij",
        "xoxb-0123456789-abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdef",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ],
}
EXAMPLES = [(kind, text) for kind, texts in PRIVATE.items() for text in texts]
HARMLESS = [
    "On 2026-11-27 at 18:06:10, on 01.02.2026 and on 1/2/2026.",
    "Pi is 3.14159265, a small number 0.123456789, a large one 1700000000000.",
    "std::vector<int> a::b; risk-averse task-force; 00:1a:2b:3c:4d:5e",
    "order 4111 1111 1111 1112 fails Luhn's sum",
    "DE88370400440532013000 has a wrong check digit",
    "a @ b, user@localhost, version 1.2.3, section 4.5.6.7.8",
    "01a21e3e-c81a-728b-98da-001122334455",
]
WORDS = st.lists(st.sampled_from(["the", "sky", "is", "blue", "and", "wide"]), max_size=6)


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
@pytest.mark.parametrize("around", ["{}", "It is {}.", "<{}>", "a\n{}\nb", '"{}",'])
def test_what_is_private_is_masked(kind, text, around):
    assert mask(around.format(text)) == around.format(f"[{kind}]")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_resembles_it_is_left_alone(text):
    assert mask(text) == text


def test_credentials_are_masked_after_the_word_that_announces_them():
    assert mask("Authorization: Bearer abcdefghij0123456789") == "Authorization: Bearer [secret]"


@settings(max_examples=60)
@given(st.lists(st.tuples(WORDS, st.sampled_from(EXAMPLES)), max_size=8))
def test_nothing_private_survives_beside_its_neighbours(parts):
    text = " ".join(" ".join([*words, private, "."]) for words, (_kind, private) in parts)
    shown = mask(text)
    for words, (_kind, private) in parts:
        assert private not in shown
        assert all(word in shown for word in words)


@given(st.text(alphabet="aA1 .:@-+()\n/49s_k", max_size=200))
def test_masking_again_finds_nothing_that_was_left(text):
    assert mask(mask(text)) == mask(text)


@settings(max_examples=60)
@given(st.integers(-40, 40), st.sampled_from(EXAMPLES))
def test_what_lies_across_the_cut_is_masked_or_cut_as_a_whole(shift, example):
    _kind, private = example
    text = "x" * (MASKED_CHARS - 1 + shift - len(private)) + " " + private + " y" * 50
    shown = mask(text)
    assert shown.endswith(CUT)
    assert len(shown) <= MASKED_CHARS + len(CUT) + len("[secret]")
    left = shown.removesuffix(CUT).strip("xy ")
    assert left in {"", f"[{_kind}]"}, "a part of it is left"


HOSTILE = [
    *("1", "1 ", "1234 ", "4111 ", "+1", "(0", "1.1.1.", "1:", ":", "@", "a@", "a@a.b "),
    *("A", "AB12", "AB12 ABCD ", "sk-", "eyJa.", "-----BEGIN ", "Bearer ", "gho_aaaaaaaaaaaaaaaa "),
]


@pytest.mark.parametrize("part", HOSTILE)
def test_the_time_is_linear_in_a_hostile_texts_length(part):
    def seconds(chars: int) -> float:
        text = (part * chars)[:chars]
        best = 9e9
        for _ in range(3):
            begun = process_time()
            mask(text)
            best = min(best, process_time() - begun)
        return best

    short, long = seconds(MASKED_CHARS // 8), seconds(MASKED_CHARS)
    assert long < 8 * short * 4 + 0.01, "eight times the text may take eight times the time"
    assert seconds(MASKED_CHARS * 64) < 4 * long + 0.01, "what is beyond the cut costs nothing"
