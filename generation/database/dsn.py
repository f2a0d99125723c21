"""Django's settings of a database, which are written for libpq, with libpq's meaning."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generation.database import libpq

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CHOICES = {
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow", "require"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": (
        *("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    ),
    "load_balance_hosts": ("disable", "random"),
}
_NUMBERS = (
    *("connect_timeout", "tcp_user_timeout"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
)
# Django's and psycopg's own options, which mean nothing to another driver.
_DJANGO = {
    *("pool", "server_side_binding", "isolation_level", "prepare_threshold", "context"),
    *("cursor_factory", "row_factory", "autocommit"),
}
# What asyncpg has no counterpart for, with the values that ask for nothing.
_BEYOND_ASYNCPG = {
    "channel_binding": {"disable", "prefer"},
    "gssencmode": {"disable", "prefer"},
    "gssdelegation": {"0"},
    "requirepeer": set[str](),
    "require_auth": set[str](),
    "sslcertmode": {"disable", "allow"},
    "sslsni": {"1"},
    "min_protocol_version": {"3.0"},
    "replication": {"false", "off", "no", "0"},
    "scram_client_key": set[str](),
    "scram_server_key": set[str](),
    "oauth_issuer": set[str](),
    "oauth_client_id": set[str](),
    "sslkeylogfile": set[str](),
}
_HARMLESS = {"service", "client_encoding", "max_protocol_version", "sslcompression", "oauth_scope"}
_TRANSLATED = {
    *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "options"),
    *("application_name", "fallback_application_name", "krbsrvname", "gsslib", "assume_role"),
    *("sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslcrldir"),
    *_CHOICES,
    *_NUMBERS,
}


class BadDatabase(ValueError):
    """What is wrong with a database's settings, in one line without a secret."""


@dataclass(frozen=True)
class Target:
    """A database as libpq understands its settings; `parameters` are by libpq's names."""

    parameters: Mapping[str, str]
    server_settings: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.parameters.get(name, "")

    @property
    def address(self) -> str:
        """Which database it is, without the password."""
        hosts = self["host"].split(",")
        ports = self["port"].split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        at = ",".join(
            f"{f'[{host}]' if ':' in host else host}:{port or 5432}"
            for host, port in zip(hosts, ports, strict=True)
        )
        return f"postgresql://{self['user']}@{at}/{self['dbname']}"

    @property
    def connect_timeout_s(self) -> float | None:
        """Returns None for no limit: as libpq, where it is not given, zero or negative."""
        seconds = int(self["connect_timeout"] or 0)
        return seconds if seconds > 0 else None


def from_django(database: Mapping[str, Any]) -> Target:
    """Returns what an entry of Django's DATABASES means to libpq.

    What it leaves open comes from where libpq takes it: PGSSLMODE and its like, PGSERVICE, and
    libpq's own defaults. Raises `BadDatabase`. Logs what asyncpg can't do.
    """
    given = {
        name: str(value)
        for name, value in {
            **database.get("OPTIONS", {}),
            "dbname": database.get("NAME"),
            "user": database.get("USER"),
            "password": database.get("PASSWORD"),
            "host": database.get("HOST"),
            "port": database.get("PORT"),
        }.items()
        if name not in _DJANGO and value is not None and value != ""  # 0 counts
    }
    parameters = {**_defaults(given), **given}
    _judge(parameters)
    _judge_hosts(parameters)
    missed = sorted(
        name
        for name, value in parameters.items()
        if name not in _TRANSLATED | _HARMLESS | _BEYOND_ASYNCPG.keys()
        or value not in _BEYOND_ASYNCPG.get(name, {value})
    )
    if missed == ["channel_binding"] and parameters["sslmode"] == "verify-full":
        missed = []  # the certificate proves already whose channel it is
    if missed:
        logger.warning(
            "the hot path ignores %s: asyncpg has no such option; Django's connections obey it",
            ", ".join(missed),
        )
    name = parameters.get("application_name") or parameters.get("fallback_application_name")
    server = {"application_name": name or "staccato", "timezone": "UTC"}
    if "options" in parameters:
        server["options"] = parameters["options"]
    if "assume_role" in parameters:
        server["role"] = parameters["assume_role"]
    return Target(parameters, server)


def _defaults(given: Mapping[str, str]) -> dict[str, str]:
    """Returns what libpq assumes where nothing is given, from the environment or built in."""
    try:
        found = libpq.defaults()
    except libpq.NoService as error:
        raise BadDatabase(str(error)) from None
    if given.get("sslrootcert") == "system" and found["sslmode"] == "prefer":
        found["sslmode"] = "verify-full"  # as libpq
    return found


def _judge(parameters: Mapping[str, str]) -> None:
    if parameters.get("service", "") != os.environ.get("PGSERVICE", ""):
        raise BadDatabase("its service is not read by asyncpg; set PGSERVICE, which both read")
    for name, choices in _CHOICES.items():
        if parameters.get(name, choices[0]) not in choices:
            hint = "; use require" if parameters[name] == "no-verify" else ""
            raise BadDatabase(f"its {name} must be one of {', '.join(choices)}{hint}")
    for name in _NUMBERS:
        if not parameters.get(name, "0").strip().lstrip("-").isdecimal():
            raise BadDatabase(f"its {name} is not a whole number")
    mode = parameters["sslmode"]
    if parameters.get("sslrootcert") == "system" and mode != "verify-full":
        raise BadDatabase("its sslrootcert=system needs sslmode=verify-full")
    if parameters.get("sslnegotiation") == "direct" and mode in SSL_MODES[:3]:
        raise BadDatabase("its sslnegotiation=direct needs sslmode=require or stricter")


def _judge_hosts(parameters: Mapping[str, str]) -> None:
    hosts = parameters.get("hostaddr") or parameters.get("host", "")
    if "hostaddr" in parameters and "host" in parameters:
        names, addresses = parameters["host"].count(","), parameters["hostaddr"].count(",")
        if names != addresses:
            raise BadDatabase("its host and hostaddr are not equally many")
    ports = parameters["port"].split(",")
    if not all(port == "" or (port.isdecimal() and 0 < int(port) < 1 << 16) for port in ports):
        raise BadDatabase("its port is not a number; use postgresql://user@host:5432/name")
    if len(ports) not in {1, hosts.count(",") + 1}:
        raise BadDatabase(f"it has {len(ports)} ports for {hosts.count(',') + 1} hosts")
    if any(host.startswith("@") for host in hosts.split(",")):
        raise BadDatabase("its host is an abstract socket, which asyncpg can't open; use a folder")
