"""How a key is kept: what the database holds, and what a log never shows."""

from __future__ import annotations

import hmac

from generation import conf
from generation.api_keys import tokens
from generation.models import ApiKey
from tests.support.keys import make_key, rows_of

Scope = ApiKey.Scope
GENERATE = "/api/v1/generate/1"


def test_only_an_hmac_under_the_pepper_is_kept(committed, settings):
    key = make_key()
    row = rows_of(key).values().get()
    secret = key.removeprefix(f"stc_{row['prefix']}_")
    assert len(secret) >= 40
    assert all(secret not in str(value) for value in row.values())
    assert tokens.matches(key, conf.load().pepper, row["digest"])
    settings.STACCATO = {**settings.STACCATO, "API_KEY_PEPPER": "another"}
    assert not tokens.matches(key, conf.load().pepper, row["digest"])
    settings.SECRET_KEY = "rotated"
    assert conf.load().pepper == "another", "a pepper of its own outlives SECRET_KEY"


def test_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(
        hmac, "compare_digest", lambda *pair: compared.append(pair) or compare(*pair)
    )
    new = tokens.make("pepper")
    assert tokens.matches(new.text, "pepper", new.digest)
    assert not tokens.matches(new.text, "pepper", None)
    assert len(compared) == 2, "one of them was compared otherwise, or not at all"
    assert {len(part) for pair in compared for part in pair} == {tokens.DIGEST_CHARS}


def test_a_key_has_256_bits_and_shows_them_to_no_log():
    new = tokens.make("pepper")
    assert tokens.parse_prefix(new.text) == new.prefix
    assert len(new.text.removeprefix(f"stc_{new.prefix}_")) >= 40
    assert new.text not in repr(new)
    assert len({tokens.make("pepper").text for _ in range(100)}) == 100
