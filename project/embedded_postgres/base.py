"""Django's PostgreSQL backend, on a server that is started with the first connection."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base
from django.utils.asyncio import async_unsafe

from project import embedded_postgres


class DatabaseWrapper(base.DatabaseWrapper):
    @async_unsafe
    def get_new_connection(self, conn_params: Any) -> Any:
        try:
            embedded_postgres.hold(**self.settings_dict["SERVER"])
        except embedded_postgres.EmbeddedPostgresError as error:
            raise self.Database.OperationalError(str(error)) from error
        return super().get_new_connection(conn_params)
