"""HMACs of texts: who has the tables but not the secret can't try guesses on them."""

from __future__ import annotations

import hmac


class KeyedHash:
    """HMAC-SHA256 under a key that is derived from a secret for one purpose.

    Derived, because the secret may be SECRET_KEY, which signs more.
    """

    def __init__(self, secret: str, purpose: str) -> None:
        own = hmac.digest(secret.encode(), purpose.encode(), "sha256")
        self._mac = hmac.new(own, digestmod="sha256")

    def __call__(self, data: bytes) -> str:
        """Returns 64 hex digits."""
        mac = self._mac.copy()
        mac.update(data)
        return mac.hexdigest()
