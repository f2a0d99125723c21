"""Pages while the database is away: 503, as the API answers, and no traceback for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse
from django.utils.deprecation import MiddlewareMixin

from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = throttled_logger(__name__)


class DatabaseAwayMiddleware(MiddlewareMixin):
    """Even an error page of the admin's look would ask the database who looks at it."""

    def process_exception(self, _request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, (InterfaceError, OperationalError)):
            return None
        logger.warning("a page needs the database: %s", " ".join(str(exception).split()))
        return HttpResponse(
            "The database does not answer now. Try again in a few seconds.\n",
            status=503,
            content_type="text/plain; charset=utf-8",
            headers={"Retry-After": "5"},
        )
