"""The hot path's tables are the migrated tables."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql

from generation.models import GenerationBody, GenerationLog
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


COLUMNS_OF = """
    SELECT attname, format_type(atttypid, atttypmod), attnotnull,
           pg_get_expr(adbin, adrelid), attcompression, attstorage
    FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1
"""
INDEXES_OF = """
    SELECT indisprimary, indisunique, indisvalid, regexp_replace(
        pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX .* USING ', '')
    FROM pg_index WHERE indrelid = %s::regclass ORDER BY 4
"""


@pytest.mark.parametrize("model", [GenerationLog, GenerationBody])
def test_each_partition_is_what_the_whole_is(committed, model):
    whole = model._meta.db_table
    with connection.cursor() as cursor:

        def found(query: str, table: str) -> list:
            cursor.execute(query, [table])
            return cursor.fetchall()

        partitions = [
            name
            for (name,) in found(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
                whole,
            )
        ]
        assert len(partitions) >= 8
        for query in (COLUMNS_OF, INDEXES_OF):
            of_the_whole = found(query, whole)
            for name in partitions:
                assert found(query, name) == of_the_whole, name
        columns = [field.column for field in model._meta.local_concrete_fields]
        assert [row[0] for row in found(COLUMNS_OF, whole)] == sorted(columns)
        assert len(found(INDEXES_OF, whole)) == len(model._meta.indexes) + 1, "and the key's"


def test_the_store_passes_every_value_of_a_row():
    known = tables.load()
    log, body = (set(each.c.keys()) for each in (known.generation_log, known.generation_body))
    by_the_database = {"stored_at"}
    for_forgetting = {"author_id"}  # it decides whether the texts are stored
    assert set(LogRow.__dataclass_fields__) - for_forgetting == (log | body) - by_the_database
    assert log & body == {"id"}
    assert set(UsageRow.__dataclass_fields__) == set(known.usage_log.c.keys()) - {"id"}


def test_an_unmapped_field_type_fails_at_once():
    class Odd(models.Model):  # noqa: DJ008  # it is never printed
        where = models.GenericIPAddressField()

        class Meta:
            app_label = "tests"

    with pytest.raises(ImproperlyConfigured, match=r"Odd\.where.*GenericIPAddressField"):
        tables.derive(Odd, MetaData())
