"""SQLAlchemy Core tables derived from the Django models: one declaration of the schema.

An unmapped field type fails here, at import. Django's Python defaults do not fire through
Core, so the store passes every value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from generation.models import (
    ApiKey,
    Deployment,
    GenerationLog,
    IdempotencyKey,
    Profile,
    UsageLog,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from django.db import models
    from sqlalchemy.types import TypeEngine

TYPES: dict[str, Callable[[Any], TypeEngine[Any]]] = {
    "AutoField": lambda _: Integer(),
    "BigAutoField": lambda _: BigInteger(),
    "SmallAutoField": lambda _: SmallInteger(),
    "IntegerField": lambda _: Integer(),
    "BigIntegerField": lambda _: BigInteger(),
    "SmallIntegerField": lambda _: SmallInteger(),
    "PositiveIntegerField": lambda _: Integer(),
    "PositiveBigIntegerField": lambda _: BigInteger(),
    "PositiveSmallIntegerField": lambda _: SmallInteger(),
    "BooleanField": lambda _: Boolean(),
    "CharField": lambda field: String(field.max_length),
    "TextField": lambda _: Text(),
    "DateTimeField": lambda _: DateTime(timezone=True),
    "DecimalField": lambda field: Numeric(field.max_digits, field.decimal_places),
    "JSONField": lambda _: JSONB(),
    "UUIDField": lambda _: Uuid(),
}

metadata = MetaData()


def derive(model: type[models.Model], names: Collection[str] | None = None) -> Table:
    """The Core table of a Django model, or of some of its fields.

    Raises `ImproperlyConfigured` for a field whose type is not in `TYPES`.
    """
    columns = []
    for field in model._meta.local_concrete_fields:  # noqa: SLF001  # Django's documented API
        if names is not None and field.name not in names:
            continue
        kind: Any = field
        while kind.is_relation:
            kind = kind.target_field
        build = TYPES.get(kind.get_internal_type())
        if build is None:
            raise ImproperlyConfigured(
                f"{model.__name__}.{field.name}: no SQLAlchemy type for"
                f" {kind.get_internal_type()}; add it to generation/tables.py"
            )
        columns.append(
            Column(
                field.column, build(kind), primary_key=field.primary_key, nullable=bool(field.null)
            )
        )
    return Table(model._meta.db_table, metadata, *columns)  # noqa: SLF001


def _derive_user() -> tuple[Table, Column[Any], Column[Any] | None]:
    """The user table as far as phase 1 needs it: its key, and is_active where it is a field."""
    options = get_user_model()._meta  # noqa: SLF001
    key: Any = options.pk
    table = derive(get_user_model(), {key.name, "is_active"})
    try:
        active = table.c[str(options.get_field("is_active").column)]
    except FieldDoesNotExist:
        active = None
    return table, table.c[key.column], active


profile = derive(Profile)
generation_log = derive(GenerationLog)
usage_log = derive(UsageLog)
idempotency_key = derive(IdempotencyKey)
deployment = derive(Deployment)
api_key = derive(ApiKey)
api_key_user = derive(ApiKey.users.through)
user, user_key, user_active = _derive_user()
