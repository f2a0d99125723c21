"""Pages while the database is away or has another version's tables: 503, as the API answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import InterfaceError, OperationalError, ProgrammingError
from django.http import HttpResponse
from django.utils.deprecation import MiddlewareMixin

from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = throttled_logger(__name__)

AWAY = "The database does not answer now. Try again in a few seconds.\n"
OTHER_TABLES = (
    "The database's tables are not those of this version. Run `manage.py migrate`, and restart\n"
    "the processes of the version before.\n"
)
_UNDEFINED = {"42P01", "42703"}  # a table, a column


class DatabaseAwayMiddleware(MiddlewareMixin):
    """Even an error page of the admin's look would ask the database who looks at it."""

    def process_exception(self, _request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, (InterfaceError, OperationalError)):
            sentence = AWAY
        elif isinstance(exception, ProgrammingError) and _state(exception) in _UNDEFINED:
            sentence = OTHER_TABLES
        else:
            return None
        logger.warning("a page needs the database: %s", " ".join(str(exception).split()))
        return HttpResponse(
            sentence,
            status=503,
            content_type="text/plain; charset=utf-8",
            headers={"Retry-After": "5"},
        )


def _state(error: ProgrammingError) -> str:
    return getattr(error.__cause__, "sqlstate", None) or ""
