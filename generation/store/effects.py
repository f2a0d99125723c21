"""The SQL of effects: a project's own rows, written by the statement that inserts their log rows.

Each hangs on the ids that this insertion returns, so it happens once, however often it is tried.
Of forgotten users, none: their words are in columns that we don't know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import connections, router
from sqlalchemy import (
    CTE,
    JSON,
    Column,
    MetaData,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.effects import Shape
    from generation.records import KeyedRow

_ID, _VALUE, _WHERE = "log_id", "value_", "where_"  # so that no column's name is in the way


def document_name(position: int) -> str:
    return f"effects_{position}"


def documents_of(
    rows: Sequence[KeyedRow], shapes: Sequence[Shape]
) -> dict[str, list[dict[str, Any]]]:
    """Returns the documents of a statement for these shapes."""
    documents: dict[Shape, list[dict[str, Any]]] = {shape: [] for shape in shapes}
    for keyed in rows:
        for effect in keyed.effects:
            given = {_VALUE + name: value for name, value in effect.values.items()}
            given |= {_WHERE + name: value for name, value in (effect.where or {}).items()}
            documents[effect.shape].append({_ID: keyed.row.id, **given})
    return {document_name(at): documents[shape] for at, shape in enumerate(shapes)}


class EffectCtes:
    """Parts of one statement. `rows` has the log rows, `logged` the ids of those that are new."""

    def __init__(self, rows: CTE, logged: CTE) -> None:
        self._rows = rows
        self._logged = logged

    def cte(self, shape: Shape, document: str) -> CTE:
        """Raises `LookupError`."""
        table = _table(shape)
        columns = [_VALUE + name for name in shape.columns] + [
            _WHERE + name for name in shape.where
        ]
        types = {name: table.c[name.partition("_")[2]].type for name in columns}
        parameter = cast(bindparam(document, type_=Text()), JSON)
        given = (
            func.json_to_recordset(parameter)
            .table_valued(
                column(_ID, Uuid()),
                *(column(name, kind) for name, kind in types.items()),
                name=f"given_{document}",
            )
            .render_derived(with_types=True)
        )
        new = (
            select(given)
            .join(self._logged, self._logged.c.id == given.c[_ID])
            .join(self._rows, self._rows.c.id == given.c[_ID])
            .where(~self._rows.c.is_forgotten)
        )
        if not shape.where:
            names = list(shape.columns)
            values = new.with_only_columns(*(given.c[_VALUE + name] for name in names))
            return insert(table).from_select(names, values).cte(document)
        # PostgreSQL updates a row once in a statement; the latest generation has the last word.
        keys = [given.c[_WHERE + name] for name in shape.where]
        place = func.row_number().over(partition_by=keys, order_by=given.c[_ID].desc())
        latest = new.add_columns(place.label("place")).subquery()
        return (
            update(table)
            .where(latest.c.place == 1)
            .where(and_(*(table.c[name] == latest.c[_WHERE + name] for name in shape.where)))
            .values({name: latest.c[_VALUE + name] for name in shape.columns})
            .cte(document)
        )


class _DjangosType(UserDefinedType[Any]):
    """A type as Django writes it, e.g. `varchar(20)`."""

    cache_ok = True

    def __init__(self, spec: str) -> None:
        self.spec = spec

    def get_col_spec(self, **_kw: Any) -> str:
        return self.spec


def _table(shape: Shape) -> Table:
    """Raises `LookupError`."""
    model = apps.get_model(shape.model)
    connection = connections[router.db_for_write(model)]  # not opened: it only knows its types
    fields = {field.column: field for field in model._meta.local_concrete_fields}
    columns = []
    for name in {*shape.columns, *shape.where}:
        field = fields.get(name)
        spec = field.db_type(connection) if field else None
        if spec is None:
            raise LookupError(f"{shape.model} has no column {name}")
        columns.append(Column(name, _DjangosType(spec)))
    return Table(model._meta.db_table, MetaData(), *columns)
