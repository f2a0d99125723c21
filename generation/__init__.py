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
    from generation.effects import FromGeneration
    from generation.llm.providers.base import Answer
    from generation.llm.providers.own import Provider
    from generation.python_api.calls import Stream, generate, generate_sync, stream
    from generation.python_api.effects import Insert, Update
    from generation.python_api.own_call import OwnGeneration, generation
    from generation.records import Generation, Prompt, Usage
    from generation.runtime.announcing import generation_stored
    from generation.store.prompt_source import PromptRequest, PromptSource, PromptTemplate

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "FromGeneration",
    "Generation",
    "Held",
    "HeldConnectionsMiddleware",
    "Insert",
    "OwnGeneration",
    "Prompt",
    "PromptRequest",
    "PromptSource",
    "PromptTemplate",
    "Provider",
    "Stream",
    "Update",
    "Usage",
    "aheld_connections",
    "generate",
    "generate_sync",
    "generation",
    "generation_stored",
    "held_connections",
    "released",
    "stream",
]

_HOMES = {
    "Answer": "llm.providers.base",
    "FromGeneration": "effects",
    "Insert": "python_api.effects",
    "Update": "python_api.effects",
    "Generation": "records",
    "Held": "connections.held",
    "HeldConnectionsMiddleware": "connections.middleware",
    "OwnGeneration": "python_api.own_call",
    "Prompt": "records",
    "PromptRequest": "store.prompt_source",
    "PromptSource": "store.prompt_source",
    "PromptTemplate": "store.prompt_source",
    "Provider": "llm.providers.own",
    "Stream": "python_api.calls",
    "Usage": "records",
    "aheld_connections": "connections.held",
    "generate": "python_api.calls",
    "generate_sync": "python_api.calls",
    "generation": "python_api.own_call",
    "generation_stored": "runtime.announcing",
    "held_connections": "connections.held",
    "released": "connections.release",
    "stream": "python_api.calls",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
