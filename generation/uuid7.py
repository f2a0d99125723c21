"""UUIDs of version 7, which sort by the time at which they were made."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    import random
    import time
    from uuid import UUID

    _NS_PER_MS = 1_000_000

    def uuid7() -> UUID:
        """Returns one with the millisecond, its fraction in 12 bits, and 62 random bits."""
        ms, rest_ns = divmod(time.time_ns(), _NS_PER_MS)
        fraction = (rest_ns << 12) // _NS_PER_MS
        # Unique is enough, and the system's randomness takes as long as all else here.
        chance = random.getrandbits(62)
        return UUID(int=ms << 80 | 7 << 76 | fraction << 64 | 2 << 62 | chance)


__all__ = ["uuid7"]
