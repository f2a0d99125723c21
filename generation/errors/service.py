"""The service's own fault."""

from __future__ import annotations

from generation.errors.base import StaccatoError


class Unavailable(StaccatoError):
    """Something that the service needs is not available at the moment."""

    status = 503
    retryable = True


class DatabaseUnavailable(Unavailable):
    """The database is not available."""

    slug = "database-unavailable"


class PartitionMissing(DatabaseUnavailable):
    """The log has no partition for a row yet. The row is without fault, so it waits."""


class RowRefused(StaccatoError):
    """The database refuses the data of a row."""

    slug = "row-refused"


class JournalUnavailable(Unavailable):
    """The service has no safe place to store a new answer."""

    slug = "journal-unavailable"


class AnswerUnreadable(Unavailable):
    """The stored answer can't be decrypted."""

    slug = "answer-unreadable"


class TooManyInFlight(Unavailable):
    """The service has reached its limit of requests in flight."""

    slug = "too-many-in-flight"
    is_paced = True


class Draining(Unavailable):
    """The service is shutting down."""

    slug = "draining"


class RuntimeNotOpen(StaccatoError):
    """The service was started without its lifespan."""

    slug = "runtime-not-open"


class ConnectionHeld(StaccatoError):
    """A database connection was held when the LLM was called."""

    slug = "connection-held"


class HeldInTransaction(ConnectionHeld):
    """A database transaction was open when the LLM was called."""

    slug = "held-in-transaction"


class WrongThread(StaccatoError):
    """Synchronous code was called in an event loop's thread."""

    slug = "wrong-thread"
