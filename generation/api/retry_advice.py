"""What an error says to the vendors' SDKs about a retry: they make two on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation.errors import (
    DatabaseUnavailable,
    Draining,
    IdempotencyKeyInUse,
    JournalUnavailable,
    LimitReached,
    LLMBusy,
    LLMCircuitOpen,
    LLMError,
    LLMRateLimited,
    TooManyInFlight,
)

if TYPE_CHECKING:
    from generation.errors import StaccatoError

MAX_WAIT_S = 60  # some clients wait as long as they are asked to
# Nothing was paid for, and a moment later there may be room.
_WORTH_IT = (
    DatabaseUnavailable,
    Draining,
    IdempotencyKeyInUse,
    JournalUnavailable,
    LLMBusy,
    LLMCircuitOpen,
    LLMRateLimited,
    TooManyInFlight,
)


def headers(error: StaccatoError) -> dict[str, str]:
    """Returns the error's headers, with a Retry-After that SDKs obey, and `x-should-retry`."""
    asked = dict(error.headers)
    if isinstance(error, LimitReached):  # it says itself what helps, and when
        return asked
    if "Retry-After" in asked:
        asked["Retry-After"] = str(min(int(asked["Retry-After"]), MAX_WAIT_S))
    if isinstance(error, _WORTH_IT):
        asked["x-should-retry"] = "true"
    elif isinstance(error, LLMError) or error.status >= 500:  # it may have been paid for
        asked["x-should-retry"] = "false"
        asked.pop("Retry-After", None)
    return asked
