"""API keys as text: how one is made, read, and recognised. Only an HMAC of it is ever kept."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings as django_settings

from generation import conf

PREFIX_CHARS = 12
DIGEST_CHARS = 64
# `stc_` lets scanners of code and logs find a key that leaked; the prefix finds its row.
_KEY = re.compile(r"stc_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NOBODYS = "0" * DIGEST_CHARS

Target = tuple[str, str]  # provider, model; '' is any of that provider


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key when it is made: the only time that its text is known."""

    text: str
    prefix: str
    digest: str

    def __repr__(self) -> str:
        return f"<NewKey {self.prefix}>"


def make() -> NewKey:
    prefix = secrets.token_hex(PREFIX_CHARS // 2)
    text = f"stc_{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(text, prefix, digest(text))


def prefix_of(text: str) -> str | None:
    """The public part of what has the form of a key; None for what has not."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def digest(text: str) -> str:
    """HMAC-SHA256 under the pepper: the table alone is worth nothing to a thief."""
    mac = _keyed().copy()
    mac.update(text.encode())
    return mac.hexdigest()


def matches(text: str, expected: str | None) -> bool:
    """Whether it is the key with that digest; takes as long where there is none."""
    same = hmac.compare_digest(digest(text), expected or _NOBODYS)
    return same and expected is not None


def _keyed() -> hmac.HMAC:
    pepper = conf.load().api_key_pepper.get_secret_value()
    return _key(pepper or django_settings.SECRET_KEY)


@lru_cache(maxsize=4)
def _key(secret: str) -> hmac.HMAC:
    """A key of its own, so that what else is signed with the secret is no digest of ours."""
    own = hmac.digest(secret.encode(), b"staccato.api-keys", "sha256")
    return hmac.new(own, digestmod="sha256")


def parse_targets(text: str) -> tuple[Target, ...]:
    """'anthropic:claude-x, simulated' → (('anthropic', 'claude-x'), ('simulated', '')).

    Raises `ValueError` for a provider that is none.
    """
    targets = []
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        provider, _, model = entry.partition(":")
        if provider not in conf.PROVIDERS:
            raise ValueError(f"{entry!r}: use provider:model or provider, of {conf.PROVIDERS}")
        targets.append((provider, model))
    return tuple(targets)
