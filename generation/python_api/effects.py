"""`Insert` and `Update`: how a project's code says what is written with its log row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.models import NOT_PROVIDED, Model
from django.utils.timezone import now

from generation import conf
from generation.effects import Effect, FromGeneration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.db.models import Field

MAX_EFFECTS = 50  # of one generation


class InvalidEffect(ValueError):
    """An effect that PostgreSQL could not take, or that could not wait in a journal."""


def Insert(  # noqa: N802  # it reads like the statement
    model: type[Model], values: Mapping[str, Any], *, only_if_succeeded: bool = False
) -> Effect:
    """A row to insert in the commit of the log row.

    `values` is by field; a `FromGeneration` stands for what is known later. Fields that are left
    out get their defaults now. Signals and `save()` don't run. Raises `InvalidEffect`.
    """
    given = _columns(model, values)
    for field in model._meta.local_concrete_fields:
        if field.column not in given:
            default = _default(model, field)
            if default is not NOT_PROVIDED:
                given[str(field.column)] = _plain(field, default)
    return _checked(Effect(_label(model), given, None, only_if_succeeded))


def Update(  # noqa: N802  # it reads like the statement
    model: type[Model],
    where: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    only_if_succeeded: bool = False,
) -> Effect:
    """Rows to update in the commit of the log row: those whose fields all equal `where`.

    It sees no row that the same generation inserts. Where many generations update one row at once,
    the latest has the last word. Raises `InvalidEffect`.
    """
    keys = _columns(model, where)
    if not keys or not values:
        raise InvalidEffect("an Update needs fields to find the rows by, and fields to set")
    if None in keys.values():
        raise InvalidEffect("an Update finds no rows by None")
    return _checked(Effect(_label(model), _columns(model, values), keys, only_if_succeeded))


def check_effects(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """Returns the effects of one generation. Raises `InvalidEffect`."""
    listed = tuple(effects)
    if len(listed) > MAX_EFFECTS:
        raise InvalidEffect(f"a generation has at most {MAX_EFFECTS} effects")
    updates = {effect.shape for effect in listed if effect.where is not None}
    if len({shape.model for shape in updates}) < len(updates):
        raise InvalidEffect(
            "a statement updates a row once: give all Updates of a model the same fields"
        )
    return listed


def _label(model: type[Model]) -> str:
    if model._meta.parents:
        raise InvalidEffect(f"{model.__name__} has parts in several tables")
    home = conf.load().database
    if router.db_for_write(model) != home:
        raise InvalidEffect(f"{model.__name__} is not in the database {home!r}, as the log is")
    return model._meta.label


def _columns(model: type[Model], values: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        try:
            field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
        except FieldDoesNotExist:
            raise InvalidEffect(f"{model.__name__} has no field {name!r}") from None
        if not getattr(field, "concrete", False) or field.many_to_many:
            raise InvalidEffect(f"{model.__name__}.{name} is no column")
        found[str(field.column)] = _plain(field, value)
    return found


def _plain(field: Any, value: Any) -> Any:
    """Returns what the column takes, as JSON has it."""
    if isinstance(value, FromGeneration) or value is None:
        return value
    if isinstance(value, Model):
        value = value.pk
    prepared = field.get_prep_value(value)
    try:
        return orjson.loads(orjson.dumps(prepared, default=str))
    except TypeError as error:
        raise InvalidEffect(f"{field.name} is not JSON: {error}") from None


def _default(model: type[Model], field: Field[Any, Any]) -> Any:
    if field.db_default is not NOT_PROVIDED or field.generated:
        return NOT_PROVIDED
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        moment = now()
        return moment if field.get_internal_type() == "DateTimeField" else moment.date()
    if field.primary_key and not field.has_default():
        return NOT_PROVIDED  # PostgreSQL counts
    default = field.get_default()
    if default is None and not field.null:
        raise InvalidEffect(f"{model.__name__}.{field.name} needs a value")
    return default


def _checked(effect: Effect) -> Effect:
    texts = (*effect.values.values(), *(effect.where or {}).values())
    if any(isinstance(value, str) and "\0" in value for value in texts):
        raise InvalidEffect("a text holds a NUL character, which PostgreSQL can't store")
    return effect
