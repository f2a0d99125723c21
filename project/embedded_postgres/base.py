"""Django's PostgreSQL backend; the first connection starts the embedded server."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from django.conf import settings
from django.db.backends.postgresql import base
from django.utils.asyncio import async_unsafe

from project import embedded_postgres

logger = logging.getLogger(__name__)


class DatabaseWrapper(base.DatabaseWrapper):
    @async_unsafe
    def get_new_connection(self, conn_params: Any) -> Any:
        if not settings.DEBUG:
            _warn()
        try:
            embedded_postgres.hold(**self.settings_dict["SERVER"])
        except embedded_postgres.EmbeddedPostgresError as error:
            raise self.Database.OperationalError(str(error)) from error
        return super().get_new_connection(conn_params)


@cache
def _warn() -> None:
    """Once. In production, a missing DATABASE_URL would otherwise look like missing rows."""
    logger.warning("DATABASE_URL is not set: this is the embedded PostgreSQL, for development")
