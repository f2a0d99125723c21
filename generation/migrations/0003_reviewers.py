"""A group that may look at the logs, and at nothing else."""

from typing import Any

from django.db import migrations


def make_group(apps: Any, schema_editor: Any) -> None:
    alias = schema_editor.connection.alias
    content_type, _ = (
        apps.get_model("contenttypes", "ContentType")
        .objects.using(alias)
        .get_or_create(app_label="generation", model="generationlog")
    )
    # Django makes permissions after all migrations, and finds this one then.
    permission, _ = (
        apps.get_model("auth", "Permission")
        .objects.using(alias)
        .get_or_create(
            content_type=content_type,
            codename="view_generationlog",
            defaults={"name": "Can view generation log"},
        )
    )
    group, _ = apps.get_model("auth", "Group").objects.using(alias).get_or_create(name="Reviewers")
    group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0002_api_keys"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(make_group, migrations.RunPython.noop)]
