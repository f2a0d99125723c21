"""Many rows as one parameter: a JSON document that the statement unpacks.

One statement text serves every batch size, and the driver encodes one value instead of one for
each column of each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import JSON, String, Text, bindparam, cast, column, func, select
from sqlalchemy.dialects.postgresql import insert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnClause, Select, Table
    from sqlalchemy.dialects.postgresql import Insert
    from sqlalchemy.sql.selectable import TableValuedAlias
    from sqlalchemy.types import TypeEngine


def as_document(rows: Sequence[object]) -> str:
    """Returns dataclasses or dicts as one document; the statement ignores what is no column."""
    return orjson.dumps(rows, default=str).decode()


def rows_of(
    document: str, table: Table, names: Sequence[str], **more: TypeEngine[Any]
) -> TableValuedAlias:
    """Returns the rows of the parameter `document`, with these columns of a table and `more`.

    Text comes in whole; a cast to the column's type cuts what is too long.
    """
    types: dict[str, TypeEngine[Any]] = {name: table.c[name].type for name in names} | more
    columns: list[ColumnClause[Any]] = [
        column(name, Text() if isinstance(kind, String) else kind) for name, kind in types.items()
    ]
    parameter = cast(bindparam(document, type_=Text()), JSON)
    rows = func.json_to_recordset(parameter).table_valued(*columns, name=f"given_{document}")
    return rows.render_derived(with_types=True)


def values_of(rows: TableValuedAlias | CTE, table: Table, names: Sequence[str]) -> Select[Any]:
    """Returns a SELECT of these columns of the rows, each cast to its type in a table."""
    return select(*(cast(rows.c[name], table.c[name].type) for name in names))


def insert_from(rows: TableValuedAlias | CTE, table: Table, names: Sequence[str]) -> Insert:
    """Returns an INSERT of these rows, each value cast to its column's type."""
    return insert(table).from_select(list(names), values_of(rows, table, names))
