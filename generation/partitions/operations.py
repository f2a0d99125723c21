"""A migration's operation that makes a partitioned table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.migrations.operations import CreateModel
from django.db.models import TextField

from generation.partitions import ddl
from generation.partitions.ddl import AHEAD, Parent
from generation.partitions.intervals import intervals

if TYPE_CHECKING:
    from datetime import timedelta

    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.migrations.state import ProjectState


class CreatePartitionedModel(CreateModel):
    """CreateModel with PARTITION BY RANGE on the key, and its first partitions.

    Django writes the columns, so that they suit whatever key the user model has.
    """

    def __init__(self, *args: Any, every: timedelta, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.every = every

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,  # noqa: ARG002  # Django's signature
        to_state: ProjectState,
    ) -> None:
        model = to_state.apps.get_model(app_label, self.name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        sql, params = schema_editor.table_sql(model)
        schema_editor.execute(f"{sql} PARTITION BY RANGE (id)", params or None)
        table = model._meta.db_table
        texts = [
            str(field.column)
            for field in model._meta.local_concrete_fields
            if isinstance(field, TextField)
        ]
        if texts:
            schema_editor.execute(ddl.compress(table, texts), params=None)
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")
            now = cursor.fetchone()[0]
        parent = Parent(table, self.every)
        for interval in intervals(now - self.every, now + AHEAD, self.every):
            for statement in ddl.make(parent, interval):
                schema_editor.execute(statement, params=None)
        # After the partitions: an index made on the whole is made on each.
        schema_editor.deferred_sql.extend(
            schema_editor._model_indexes_sql(model)  # type: ignore[attr-defined]  # noqa: SLF001  # as create_model() does
        )
