"""Classes of a project's own that settings name by their dotted path."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any


def load_class(path: str, protocol: type[Any]) -> type[Any]:
    """Returns the class at the path, which has all that the protocol asks for.

    Raises `ValueError` with the reason.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # a module may raise anything while it is imported
        raise ValueError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, type):
        raise ValueError(f"{path} is no class, but {type(found).__name__}")  # noqa: TRY004  # the setting's value is wrong
    for member, asked in vars(protocol).items():
        if member.startswith("_"):
            continue
        if not hasattr(found, member):
            raise ValueError(
                f"{path} lacks {member}: write it, or inherit from generation.{protocol.__name__}"
            )
        given = getattr(found, member)
        if inspect.iscoroutinefunction(asked) and not inspect.iscoroutinefunction(given):
            raise ValueError(f"{path}.{member}() is no `async def` that returns")
        if inspect.isasyncgenfunction(asked) and inspect.iscoroutinefunction(given):
            raise ValueError(f"{path}.{member}() yields nothing")
    if left := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"{path} inherits {left[0]}() and does not write it")
    try:
        inspect.signature(found).bind()
    except TypeError:
        raise ValueError(f"{path} takes arguments, but it is made without any") from None
    return found
