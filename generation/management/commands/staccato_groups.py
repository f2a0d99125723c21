"""`manage.py staccato_groups`: the groups for the admin's visitors.

A command, not a migration: a project that takes the app along may have groups of these names, whose
members must not be able to read prompts because of an update.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.core.management.base import BaseCommand
from django.db import router, transaction

# By group, the codenames of the permissions that it gets. It keeps those that it has.
GROUPS = {
    "Reviewers": ("view_generationlog",),
    "Operators": ("view_usagelog",),
}


class Command(BaseCommand):
    help = "Make the groups Reviewers and Operators, or give them the permissions that they lack."

    def handle(self, *_args: Any, **_options: Any) -> None:
        with transaction.atomic(router.db_for_write(Group)):
            for name, codenames in GROUPS.items():
                group, is_new = Group.objects.get_or_create(name=name)
                known = Permission.objects.filter(
                    content_type__app_label="generation", codename__in=codenames
                )
                group.permissions.add(*known)
                verb = "made" if is_new else "has its permissions"
                self.stdout.write(f"{name}: {verb} ({', '.join(codenames)})")
