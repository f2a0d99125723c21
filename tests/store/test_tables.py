"""The hot path's tables are the migrated tables."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql

from generation.records import LogRow, UsageRow
from generation.store import tables

COLUMNS = """
    SELECT column_name, is_nullable = 'YES', udt_name, character_maximum_length,
           numeric_precision, numeric_scale
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s
"""
UDT = {
    "INTEGER": "int4",
    "BIGINT": "int8",
    "SMALLINT": "int2",
    "BOOLEAN": "bool",
    "TEXT": "text",
    "UUID": "uuid",
    "JSONB": "jsonb",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}


DERIVED = (
    "profile",
    "generation_log",
    "generation_body",
    "usage_log",
    "idempotency_key",
    "deployment",
    "api_key",
    "api_key_user",
)


@pytest.mark.parametrize("name", DERIVED)
def test_derived_tables_are_what_the_migrations_made(committed, name):
    table = getattr(tables.load(), name)
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS, [table.name])
        found = {row[0]: row[1:] for row in cursor.fetchall()}
    assert found.keys() == set(table.c.keys())
    for column in table.c:
        nullable, udt, length, precision, scale = found[column.name]
        assert column.nullable == nullable, column
        kind = column.type.compile(postgresql.dialect())
        if udt == "varchar":
            assert kind == f"VARCHAR({length})", column
        elif udt == "numeric":
            assert kind == f"NUMERIC({precision}, {scale})", column
        else:
            assert UDT[kind] == udt, column


def test_the_store_passes_every_value_of_a_row():
    known = tables.load()
    log, body = (set(each.c.keys()) for each in (known.generation_log, known.generation_body))
    by_the_database = {"stored_at", "excerpt"}
    assert set(LogRow.__dataclass_fields__) == (log | body) - by_the_database
    assert log & body == {"id"}
    assert set(UsageRow.__dataclass_fields__) == set(known.usage_log.c.keys()) - {"id"}


def test_an_unmapped_field_type_fails_at_once():
    class Odd(models.Model):  # noqa: DJ008  # it is never printed
        where = models.GenericIPAddressField()

        class Meta:
            app_label = "tests"

    with pytest.raises(ImproperlyConfigured, match=r"Odd\.where.*GenericIPAddressField"):
        tables.derive(Odd, MetaData())
