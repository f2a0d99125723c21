"""Django's settings of a database, which are written for psycopg, translated for asyncpg."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

# Django's and psycopg's own options, which mean nothing to another driver.
_IGNORED = {"pool", "assume_role", "server_side_binding", "isolation_level", "client_encoding"}
_TLS = {"sslmode", "sslrootcert", "sslcert", "sslkey"}
_KNOWN = {"application_name", "connect_timeout", "options", "target_session_attrs"}


def from_django(database: Mapping[str, Any]) -> tuple[URL, dict[str, Any]]:
    """Returns SQLAlchemy's URL and asyncpg's arguments for an entry of Django's DATABASES.

    Logs the names of options that asyncpg has no counterpart for, and leaves them out.
    """
    options = {
        key: value for key, value in database.get("OPTIONS", {}).items() if value is not None
    }
    if unknown := options.keys() - _IGNORED - _TLS - _KNOWN:
        logger.warning(
            "the hot path ignores %s: asyncpg has no such option", ", ".join(sorted(unknown))
        )
    server = {"application_name": options.get("application_name", "staccato"), "timezone": "UTC"}
    if "options" in options:
        server["options"] = options["options"]
    arguments: dict[str, Any] = {"server_settings": server}
    if "sslmode" in options:
        arguments["ssl"] = _tls(options)
    if "connect_timeout" in options:
        arguments["timeout"] = float(options["connect_timeout"])
    if "target_session_attrs" in options:
        arguments["target_session_attrs"] = options["target_session_attrs"]
    url = URL.create(
        "postgresql+asyncpg",
        username=database["USER"] or None,
        password=database["PASSWORD"] or None,
        host=database["HOST"] or None,
        port=int(database["PORT"]) if database["PORT"] else None,
        database=database["NAME"],
    )
    return url, arguments


def _tls(options: dict[str, Any]) -> ssl.SSLContext | str:
    """asyncpg takes libpq's modes by name, but certificates only in a context."""
    mode = str(options["sslmode"])
    root, certificate = options.get("sslrootcert"), options.get("sslcert")
    if not (root or certificate):
        return mode
    context = ssl.create_default_context(cafile=root if root != "system" else None)
    context.check_hostname = mode == "verify-full"
    if mode not in {"verify-ca", "verify-full"}:
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, options.get("sslkey"))
    return context
