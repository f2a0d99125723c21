"""Reads a client's JSON of another vendor's dialect: what we know is checked, the rest is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from generation.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Where: TypeAlias = tuple[str | int, ...]  # the path of a member
Kind = TypeVar("Kind")

MAX_MESSAGES = 10_000
MAX_PARTS = 1_000  # of one message
MAX_TOOLS = 1_000
_KINDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "an array",
    dict: "an object",
}
_NAME_CHARS = 100  # of a member's name in a fault, since it is the client's own


def fault(where: Where, why: str) -> InvalidRequest:
    path = ".".join(str(part)[:_NAME_CHARS] for part in where)
    return InvalidRequest(f"{path}: {why}", faults=[{"where": path, "why": why}])


def optional(kind: type[Kind], holder: Mapping[str, Any], name: str, where: Where) -> Kind | None:
    """Returns a member; None if it is missing or null. Raises `InvalidRequest` if it is of
    another kind."""
    value = holder.get(name)
    if value is None:
        return None
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return kind(value)  # type: ignore[call-arg]  # it is float
    raise fault((*where, name), f"must be {_KINDS[kind]}")


def required(kind: type[Kind], holder: Mapping[str, Any], name: str, where: Where) -> Kind:
    """Raises `InvalidRequest` if the member is missing, null or of another kind."""
    value = optional(kind, holder, name, where)
    if value is None:
        raise fault((*where, name), "is missing")
    return value


def objects(
    given: list[Any], where: Where, limit: int
) -> Iterator[tuple[dict[str, Any], tuple[str | int, ...]]]:
    """Yields the members of an array, each with its path. Raises `InvalidRequest` if there are
    too many, or one is no object."""
    if len(given) > limit:
        raise fault(where, f"has more than {limit} members")
    for index, each in enumerate(given):
        if not isinstance(each, dict):
            raise fault((*where, index), "must be an object")
        yield each, (*where, index)


def at_least(lowest: float, value: float | None, name: str) -> None:
    """Raises `InvalidRequest` for a number that is too small."""
    if value is not None and value < lowest:
        raise fault((name,), f"must be at least {lowest}")


class Unsaid:
    """Collects the members that a conversation has no place for: a provider of the client's own
    dialect gets them all the same, and one of another dialect refuses them by name."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, *where: str | int) -> None:
        self._names[".".join(str(part)[:_NAME_CHARS] for part in where)] = None

    def add_others(self, holder: Mapping[str, Any], known: frozenset[str], where: Where) -> None:
        """Adds the members of an object that are not known and say something."""
        for name in holder.keys() - known:
            if holder[name] is not None:
                self.add(*where, name)

    def names(self) -> tuple[str, ...]:
        return tuple(self._names)
