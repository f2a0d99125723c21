"""What libpq knows and asyncpg does not: the defaults of its environment, and whom to try in turn.

psycopg 3 asks libpq itself. A project on psycopg2 must not get it from us, as Django would take
it for its own connections.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import pwd
import random
import socket
from typing import TYPE_CHECKING

try:
    import psycopg
except ImportError:
    HAS_PSYCOPG = False
else:
    HAS_PSYCOPG = True

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# By parameter, where its environment variable is not PG and its name without `_`.
_VARIABLES = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
}
_READ = (
    *("user", "password", "passfile", "channel_binding", "connect_timeout", "dbname", "host"),
    *("hostaddr", "port", "client_encoding", "options", "application_name", "sslmode"),
    *("sslnegotiation", "sslcert", "sslkey", "sslcertmode", "sslrootcert", "sslcrl", "sslcrldir"),
    *("sslsni", "requirepeer", "require_auth", "ssl_min_protocol_version"),
    *("ssl_max_protocol_version", "gssencmode", "krbsrvname", "gsslib", "gssdelegation"),
    *("target_session_attrs", "load_balance_hosts"),
)
_BUILT_IN = {"port": "5432", "sslmode": "prefer"}


class NoService(Exception):
    """Its text says why the service that PGSERVICE names can't be read."""


def defaults() -> dict[str, str]:
    """Returns libpq's parameters where nothing is given. Raises `NoService`."""
    if not HAS_PSYCOPG:
        return of_environment()
    try:
        found = psycopg.pq.Conninfo.get_defaults()
    except psycopg.OperationalError:
        raise NoService("libpq can't read the service that PGSERVICE names") from None
    return {option.keyword.decode(): option.val.decode() for option in found if option.val}


def of_environment() -> dict[str, str]:
    """The same without libpq. Raises `NoService` where a file of services is to be read."""
    if "PGSERVICE" in os.environ:
        raise NoService("the service that PGSERVICE names is read with psycopg 3 only")
    names = {each: _VARIABLES.get(each, f"PG{each.replace('_', '').upper()}") for each in _READ}
    given = {each: os.environ[name] for each, name in names.items() if os.environ.get(name)}
    return {**_BUILT_IN, "user": pwd.getpwuid(os.geteuid()).pw_name, **given}


async def attempts(where: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns the servers to try, in turn: each address of each host.

    `where` has libpq's parameters host, hostaddr, port, target_session_attrs and
    load_balance_hosts. Raises `OSError` if no name has an address.
    """
    found: list[dict[str, str]] = []
    failure: OSError | None = None
    for each in _split(where):
        try:
            found += [{**each, "hostaddr": address} for address in await _addresses(each)]
        except OSError as error:
            failure = OSError(f"failed to resolve host {each['host']!r}: {error}")
    if failure is not None and not found:
        raise failure
    if where.get("load_balance_hosts") == "random":
        random.shuffle(found)
    wanted = where.get("target_session_attrs", "any")
    in_turn = ("standby", "any") if wanted == "prefer-standby" else (wanted,)
    return [{**each, "target_session_attrs": attrs} for attrs in in_turn for each in found]


def _split(where: Mapping[str, str]) -> Iterable[dict[str, str]]:
    hosts, addresses, ports = (where.get(n, "").split(",") for n in ("host", "hostaddr", "port"))
    for number in range(max(len(hosts), len(addresses))):
        yield {
            "host": hosts[number] if number < len(hosts) else "",
            "hostaddr": addresses[number] if number < len(addresses) else "",
            "port": ports[number] if len(ports) > 1 else ports[0],
        }


async def _addresses(where: Mapping[str, str]) -> list[str]:
    """Returns '' for a folder of sockets, and where libpq's own default is meant."""
    host = where["host"]
    if where["hostaddr"] or not host or host.startswith("/"):
        return [where["hostaddr"]]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        loop = asyncio.get_running_loop()
        named = await loop.getaddrinfo(
            host, where["port"] or "5432", proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM
        )
        return [str(address[0]) for *_, address in named]
    return [host]
