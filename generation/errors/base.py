"""The root of the tree, and what is done with a handled error."""

from __future__ import annotations

import math
import traceback
from typing import Any, ClassVar


class StaccatoError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    retryable: ClassVar[bool] = False
    challenge: ClassVar[str] = ""  # WWW-Authenticate
    is_paced: ClassVar[bool] = False  # a client that repeats at once is answered more slowly

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after  # seconds
        self.members: dict[str, Any] = {}  # further ones of its problem document

    @classmethod
    def from_bug(cls) -> StaccatoError:
        """The error shown to a caller after a fault in our own code: it reveals nothing."""
        return cls("the service failed because of a bug; its log has the details")

    @classmethod
    def problem_type(cls) -> str:
        """The RFC 9457 `type`: a name that never changes, not an address."""
        return f"urn:staccato:problem:{cls.slug}"

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")

    @property
    def retry_after_header(self) -> str | None:
        """Whole seconds, at least one; None if this error sends no Retry-After."""
        if self.status not in {409, 429, 503} and self.retry_after is None:
            return None
        return str(max(1, math.ceil(self.retry_after or 1)))

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that this error asks for."""
        asked = {"Retry-After": self.retry_after_header, "WWW-Authenticate": self.challenge}
        return {name: value for name, value in asked.items() if value}


def release_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of a handled error and its causes, and the variables in their frames.

    They keep the request body alive, often in a reference cycle, and the cycle collector rarely
    runs while we serve (see `runtime/collector.py`). Both have to go: a task keeps a traceback of
    its own, and a frame refers to its callers, which need not be in the traceback.
    """
    seen: set[int] = set()  # causes and contexts can form a ring
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
