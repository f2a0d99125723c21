"""SQLAlchemy Core tables derived from the Django models: one declaration of the schema.

`load()` fails for a field type that is not mapped. Django's Python defaults do not fire through
Core, so the store passes every value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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

from generation.user_keys import key_field, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    "SlugField": lambda field: String(field.max_length),
    "TextField": lambda _: Text(),
    "DateTimeField": lambda _: DateTime(timezone=True),
    "DecimalField": lambda field: Numeric(field.max_digits, field.decimal_places),
    "JSONField": lambda _: JSONB(),
    "UUIDField": lambda _: Uuid(),
}


@dataclass(frozen=True, slots=True)
class Tables:
    """The hot path's tables."""

    profile: Table
    generation_log: Table
    generation_body: Table
    forgotten_user: Table
    usage_log: Table
    idempotency_key: Table
    deployment: Table
    api_key: Table
    api_key_user: Table  # columns: id, apikey_id, user_id
    limit_lease: Table
    user: Table  # its key, as `id`
    user_is_active: Column[Any] | None  # None where the user model has no such field


@cache
def load() -> Tables:
    """Returns the tables, derived once. Django's apps must be ready.

    Raises `ImproperlyConfigured` for a field whose type is not in `TYPES`.
    """
    from generation import models  # needs Django's apps

    metadata = MetaData()
    user = get_user_model()._meta
    key: Any = user.pk
    wanted = {key.column: "id"}
    try:
        active: Any = user.get_field("is_active")
        wanted[active.column] = "is_active"
    except FieldDoesNotExist:
        pass
    user_table = derive(get_user_model(), metadata, only=wanted)
    key_users = models.ApiKey._meta.get_field("users")
    return Tables(
        profile=derive(models.Profile, metadata),
        generation_log=derive(models.GenerationLog, metadata),
        generation_body=derive(models.GenerationBody, metadata),
        forgotten_user=derive(models.ForgottenUser, metadata),
        usage_log=derive(models.UsageLog, metadata),
        idempotency_key=derive(models.IdempotencyKey, metadata),
        deployment=derive(models.Deployment, metadata),
        api_key=derive(models.ApiKey, metadata),
        api_key_user=derive(
            models.ApiKey.users.through,
            metadata,
            only={
                "id": "id",
                key_users.m2m_column_name(): "apikey_id",
                key_users.m2m_reverse_name(): "user_id",
            },
        ),
        limit_lease=derive(models.LimitLease, metadata),
        user=user_table,
        user_is_active=user_table.c.get("is_active"),
    )


def derive(
    model: type[models.Model], metadata: MetaData, only: Mapping[str, str] | None = None
) -> Table:
    """Returns the Core table of a Django model.

    With `only`, the table has just these of the database's columns, under the names given here.
    Raises `ImproperlyConfigured` for a field whose type is not in `TYPES`.
    """
    columns = []
    for field in model._meta.local_concrete_fields:
        name = str(field.column)
        if only is not None and name not in only:
            continue
        kind: Any = field
        while kind.is_relation:
            kind = kind.target_field
        build = TYPES.get(kind.get_internal_type())
        if build is None:
            raise ImproperlyConfigured(
                f"{model.__name__}.{field.name}: no SQLAlchemy type for"
                f" {kind.get_internal_type()}; add it to generation/store/tables.py"
            )
        is_user = kind is key_field(get_user_model())
        columns.append(
            Column(
                name,
                # A user's UUID is text to us, see `user_keys.py`.
                Uuid(as_uuid=False) if is_user and kind_of(kind.model) == "uuid" else build(kind),
                key=only[name] if only else name,
                primary_key=field.primary_key,
                nullable=bool(field.null),
            )
        )
    return Table(model._meta.db_table, metadata, *columns)
