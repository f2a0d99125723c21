"""`manage.py seed_demo`: users to generate for, and an account and groups for the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router, transaction

from generation.models import Profile

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

# By user id. The first works with and without an input; the last four need variables.
PROFILES: dict[int, dict[str, Any]] = {
    1: {
        "prompt_template": "Tell a curious beginner, in three sentences, something worth knowing"
        " about the topic that follows; if none follows, about connection pools.",
    },
    2: {
        "prompt_template": "Translate into French. Keep names, numbers and line breaks as they"
        " are, and answer with the translation alone.\n\n$input",
    },
    3: {
        "prompt_template": "Sum up the text in at most five bullet points, the most important"
        " first.\n\n<text>\n$input\n</text>",
    },
    4: {
        "prompt_template": "Review this change. Name what breaks first, then what could be"
        " simpler; say nothing about style.\n\n$input",
        "system": "You are a senior engineer. You point at lines, not at people.",
        "max_tokens": 2048,
    },
    5: {
        "prompt_template": "Is this message positive, negative or neutral? Answer with that one"
        " word.\n\n$input",
        "max_tokens": 16,
    },
    6: {
        "prompt_template": "Explain what this SQL does, which index it needs, and what it would"
        " cost on ten million rows.\n\n$input",
        "system": "You know PostgreSQL well and say so when you are not sure.",
    },
    7: {
        "prompt_template": "Write a reply to $name, who ordered $product and writes:\n\n$input\n\n"
        "Be friendly and brief, promise nothing, and sign as the service desk.",
        "system": "You answer letters for a small mail-order bookshop.",
    },
    8: {
        "prompt_template": "A customer asks whether $$20 a month is a fair price for $product."
        " Give two reasons for and two against, then your verdict in one line.",
    },
    9: {
        "prompt_template": "Suggest a dinner for two from what is in the fridge: $ingredients."
        " Thirty minutes, one pan. List the steps.",
    },
    10: {
        "prompt_template": "Write the release note for version $version of $product from these"
        " commit messages. Leave out what no user would notice.\n\n$input",
        "system": "You write plain English. No exclamation marks.",
        "max_tokens": 512,
    },
}
ADMIN = "admin"


class Command(BaseCommand):
    help = (
        "Create the users 1-10 with their prompt templates, the account admin/admin, and the"
        " groups Reviewers and Operators."
        " Whatever exists already stays as it is. It needs DEBUG on."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError(
                "DEBUG is off, and demo users and a known password have no place in production."
                " Make an account with `manage.py createsuperuser`, and prompts for your own users"
                " with `manage.py profile set USER --template TEXT`. For demo data, set DEBUG=1."
            )
        self.users = get_user_model()
        self.accounts = self.users._base_manager
        alias = router.db_for_write(self.users)
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            quote = connections[alias].ops.quote_name
            table, key = quote(self.users._meta.db_table), self.users._meta.pk.column
            # Two runs at once take turns, and nobody else can take one of the ids meanwhile.
            cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            # Later accounts get later ids. Never set it back: ids of deleted users stay unused.
            cursor.execute(
                "SELECT setval(ids, %(last)s)"
                " FROM CAST(pg_get_serial_sequence(%(table)s, %(key)s) AS regclass) AS ids"
                " WHERE coalesce(pg_sequence_last_value(ids), 0) < %(last)s",
                {"table": table, "key": key, "last": max(PROFILES)},
            )
            self.make_users()
            self.make_profiles()
            self.make_admin()
        call_command("staccato_groups", stdout=self.stdout)

    def make_users(self) -> None:
        existing = self.accounts.in_bulk(PROFILES)
        new = [self.users(pk=n, **self.names(f"user{n}")) for n in PROFILES if n not in existing]
        for user in new:
            user.set_unusable_password()
        # Another id may have the name already.
        self.accounts.bulk_create(new, ignore_conflicts=True)

    def make_profiles(self) -> None:
        users = self.accounts.in_bulk(PROFILES)
        demo = [n for n in PROFILES if n in users and self.is_demo(users[n], n)]
        existing = set(Profile.objects.filter(pk__in=demo).values_list("pk", flat=True))
        Profile.objects.bulk_create(
            [Profile(user_id=n, **PROFILES[n]) for n in demo if n not in existing],
            ignore_conflicts=True,
        )
        self.stdout.write(
            f"Demo users: {len(demo)} of {len(PROFILES)};"
            f" prompt templates created: {len(demo) - len(existing)}, kept: {len(existing)}."
        )
        for n in PROFILES:
            if n not in demo:
                owner = (
                    f"id {n} is {users[n].get_username()!r}"
                    if n in users
                    else f"user{n} has another id"
                )
                self.stdout.write(f"No demo user {n}: {owner}.")

    def make_admin(self) -> None:
        names = self.names(ADMIN)
        username = names[self.users.USERNAME_FIELD]
        account = self.accounts.filter(**{self.users.USERNAME_FIELD: username}).first()
        if account is None:
            account = self.users.objects.create_superuser(**names, password=ADMIN)
        if account.check_password(ADMIN):
            self.stdout.write(f"Admin account: {username}, with the password {ADMIN!r}.")
        else:
            self.stdout.write(f"Admin account: {username}, with another password.")

    def names(self, name: str) -> dict[str, str]:
        """Returns the naming fields of the project's user model."""
        email_field = self.users.get_email_field_name()
        email = f"{name}@example.com"
        fields = {field.name for field in self.users._meta.fields}
        names = {email_field: email} if email_field in fields else {}
        return {self.users.USERNAME_FIELD: name} | names

    def is_demo(self, user: AbstractBaseUser, number: int) -> bool:
        return user.get_username() == self.names(f"user{number}")[self.users.USERNAME_FIELD]
