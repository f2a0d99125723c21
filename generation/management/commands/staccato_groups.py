"""`manage.py staccato_groups`: the groups for the admin's visitors.

A command, not a migration: a project that takes the app along may have groups of these names, whose
members must not be able to read prompts because of an update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import Group, Permission
from django.core.management.base import BaseCommand, CommandError
from django.db import router, transaction

if TYPE_CHECKING:
    from argparse import ArgumentParser

# By group, the codenames of the permissions that it gets.
GROUPS = {
    "Reviewers": ("view_generationlog", "read_content"),
    "Operators": ("view_generationlog", "view_usagelog", "view_maintenance"),
}


class Command(BaseCommand):
    help = (
        "Make the groups Reviewers, who may read prompts and answers, and Operators, who see"
        " figures alone. Neither gets a member. A group of such a name that is there already is"
        " left as it is, unless you adopt it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--adopt",
            action="store_true",
            help="give groups that are there already the permissions that they lack",
        )

    def handle(self, *_args: Any, adopt: bool, **_options: Any) -> None:
        with transaction.atomic(router.db_for_write(Group)):
            for name, codenames in GROUPS.items():
                self.make(name, codenames, adopt=adopt)

    def make(self, name: str, codenames: tuple[str, ...], *, adopt: bool) -> None:
        wanted = Permission.objects.filter(
            content_type__app_label="generation", codename__in=codenames
        )
        if wanted.count() < len(codenames):
            raise CommandError("Permissions are missing: run `manage.py migrate` first.")
        group, is_new = Group.objects.get_or_create(name=name)
        lacking = wanted.exclude(group=group)
        names = ", ".join(lacking.order_by("codename").values_list("codename", flat=True))
        if not names:
            self.stdout.write(f"{name}: is there and has its permissions.")
        elif is_new or adopt:
            group.permissions.add(*lacking)
            self.stdout.write(f"{name}: {'made' if is_new else 'adopted'}, with {names}.")
        else:
            self.stdout.write(
                f"{name}: is there and lacks {names}. It stays as it is, since its members may be"
                " people who must not see this. If they may, run this again with --adopt."
            )
