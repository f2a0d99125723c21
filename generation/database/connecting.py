"""Opening a connection as libpq does: each host in turn, with TLS and without as sslmode says."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import asyncpg

from generation.database import libpq, passfile, tls

if TYPE_CHECKING:
    import ssl

    from generation.database.dsn import Target

_WHERE = ("host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts")
_KEEPALIVES = {
    "keepalives_idle": (socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
    "keepalives_interval": (socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
    "keepalives_count": (socket.IPPROTO_TCP, "TCP_KEEPCNT"),
    "tcp_user_timeout": (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
}


async def connect(target: Target, *, limit_s: float, **arguments: Any) -> asyncpg.Connection:
    """Returns a connection to the first server that takes it.

    Each gets connect_timeout, or an equal part of `limit_s`. Raises the last server's error.
    """
    attempts = await libpq.attempts({name: target[name] for name in _WHERE if target[name]})
    timeout = target.connect_timeout_s or limit_s / len(attempts)
    failure: Exception | None = None
    for attempt in attempts:
        try:
            return await _connect_to(target, attempt, timeout=timeout, **arguments)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failure = error
    assert failure is not None
    raise failure


async def _connect_to(target: Target, where: dict[str, str], **arguments: Any) -> Any:
    """Connect to one server. Raises its answer, if it gave one, or what kept it from answering."""
    host = where.get("host", "")
    failure: Exception | None = None
    for encrypted in _ways(target["sslmode"], host):
        try:
            return await _open(
                target, where, tls.context(target, host) if encrypted else None, **arguments
            )
        except (TimeoutError, asyncpg.ConnectionDoesNotExistError):
            raise  # once TLS stands, libpq takes nothing but an answer for a reason to go without
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if not isinstance(failure, asyncpg.PostgresError):
                failure = error
    assert failure is not None
    raise failure


def _ways(mode: str, host: str) -> tuple[bool, ...]:
    """Returns whether to encrypt, at the first try and at the second one."""
    if host.startswith("/") or mode == "disable":
        return (False,)
    return {"allow": (False, True), "prefer": (True, False)}.get(mode, (True,))


async def _open(
    target: Target, where: dict[str, str], context: ssl.SSLContext | None, **arguments: Any
) -> Any:
    host, port = where.get("host", ""), int(where.get("port") or 5432)
    wanted = where.get("target_session_attrs", "any")
    try:
        connection = await asyncpg.connect(
            host=where.get("hostaddr") or host or None,
            port=port,
            user=target["user"],
            password=target["password"] or passfile.password(target, host, port) or "",
            database=target["dbname"],
            ssl=context or False,
            direct_tls=context is not None and target["sslnegotiation"] == "direct",
            server_settings=dict(target.server_settings),
            target_session_attrs=wanted,
            krbsrvname=target["krbsrvname"] or None,
            **arguments,
        )
    except asyncpg.TargetServerAttributeNotMatched:
        raise OSError(f"{host}:{port} is not {wanted}") from None
    if not host.startswith("/"):
        _keep_alive(connection, target)
    return connection


def _keep_alive(connection: asyncpg.Connection, target: Target) -> None:
    if target["keepalives"] == "0":
        return
    link = connection._transport.get_extra_info("socket")  # noqa: SLF001  # asyncpg shows no other
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, (level, option) in _KEEPALIVES.items():
        if int(target[name] or 0) > 0 and hasattr(socket, option):
            link.setsockopt(level, getattr(socket, option), int(target[name]))
