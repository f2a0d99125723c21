"""LLM calls without holding a database connection.

What is public is imported from here, and loaded when it is first asked for: to import this package
needs neither Django's settings nor its models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generation.connections.held import Held, aheld_connections, held_connections
    from generation.connections.middleware import HeldConnectionsMiddleware
    from generation.connections.release import released

__version__ = "0.1.0"
__all__ = [
    "Held",
    "HeldConnectionsMiddleware",
    "aheld_connections",
    "held_connections",
    "released",
]

_HOMES = {
    "Held": "connections.held",
    "HeldConnectionsMiddleware": "connections.middleware",
    "aheld_connections": "connections.held",
    "held_connections": "connections.held",
    "released": "connections.release",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
