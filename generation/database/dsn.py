"""Where the database is: Django's settings, written for psycopg, as asyncpg takes them."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from sqlalchemy import URL

logger = logging.getLogger(__name__)

# Django's and psycopg's own, of no meaning to another driver.
_NOT_OURS = {"pool", "assume_role", "server_side_binding", "isolation_level", "client_encoding"}
_TLS = {"sslmode", "sslrootcert", "sslcert", "sslkey"}
_KNOWN = {"application_name", "connect_timeout", "options", "target_session_attrs"}


def of(django: dict[str, Any]) -> tuple[URL, dict[str, Any]]:
    """SQLAlchemy's URL and asyncpg's arguments for an entry of `DATABASES`.

    Options that asyncpg has no counterpart for are named in the log and left out.
    """
    options = {key: value for key, value in django.get("OPTIONS", {}).items() if value is not None}
    if unknown := options.keys() - _NOT_OURS - _TLS - _KNOWN:
        logger.warning("asyncpg knows no %s: the hot path does without", ", ".join(sorted(unknown)))
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
        username=django["USER"] or None,
        password=django["PASSWORD"] or None,
        host=django["HOST"] or None,
        port=int(django["PORT"]) if django["PORT"] else None,
        database=django["NAME"],
    )
    return url, arguments


def _tls(options: dict[str, Any]) -> ssl.SSLContext | str:
    """asyncpg takes libpq's modes by name, but certificates only as a context."""
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
