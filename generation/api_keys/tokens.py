"""API keys as text: make one, parse one, and compare one with its digest. The text is never stored.

The pepper is the secret of the HMAC that is stored in its place: `Settings.pepper`.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

from generation.privacy.hashing import KeyedHash

PREFIX_CHARS = 12
DIGEST_CHARS = 64
# `stc_` lets scanners of code and logs find a key that leaked; the prefix finds its row.
_KEY = re.compile(r"stc_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_DUMMY_DIGEST = "0" * DIGEST_CHARS


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is made: the only time that its text is known."""

    text: str
    prefix: str
    digest: str

    def __repr__(self) -> str:
        return f"<NewKey {self.prefix}>"


def make(pepper: str) -> NewKey:
    """Returns a new key with 256 random bits."""
    prefix = secrets.token_hex(PREFIX_CHARS // 2)
    text = f"stc_{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(text, prefix, digest(text, pepper))


def is_ours(text: str) -> bool:
    """Whether a text means to be a key of ours, be it a good one or not."""
    return text.startswith("stc_")


def parse_prefix(text: str) -> str | None:
    """Returns the public part of a key; None for a text that does not have the form of one."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def digest(text: str, pepper: str) -> str:
    """Returns the HMAC-SHA256 under the pepper: the table alone is worth nothing to a thief."""
    return _hash(pepper)(text.encode())


def matches(text: str, pepper: str, expected: str | None) -> bool:
    """Whether this is the key with that digest; takes as long where there is no digest."""
    same = hmac.compare_digest(digest(text, pepper), expected or _DUMMY_DIGEST)
    return same and expected is not None


@lru_cache(maxsize=4)
def _hash(pepper: str) -> KeyedHash:
    return KeyedHash(pepper, "staccato.api-keys")
