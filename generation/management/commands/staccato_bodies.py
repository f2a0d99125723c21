"""`manage.py staccato_bodies rekey`: texts of the log under the newest key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from generation import conf
from generation.errors import AnswerUnreadable
from generation.models import GenerationBody
from generation.privacy.encryption import EXCERPT_CHARS, TEXTS, KeyRing

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from uuid import UUID

HELP = """\
Encrypt the texts of the log with the first key of STACCATO_BODY_KEYS: those under another key, and
those that were stored before there was one. Stop it at any time; the next run goes on where it is
needed. Afterwards remove the old key, once it says that nothing is left under it and no journal
waits.
"""


class Command(BaseCommand):
    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        rekey = actions.add_parser("rekey", help="Encrypt all texts with the first key.")
        rekey.add_argument(
            "--batch", type=int, default=200, help="Rows in one transaction. Default: %(default)s."
        )

    def handle(self, *, batch: int, **_options: Any) -> None:
        if batch < 1:
            raise CommandError("--batch: at least 1.")
        settings = conf.load()
        self.ring = KeyRing.of(settings)
        if not self.ring.current:
            raise CommandError("STACCATO_BODY_KEYS is empty: there is no key to encrypt with.")
        self.alias = settings.database
        done, unreadable, after = 0, 0, None
        while True:
            rows, failed, after = self.rekey_some(after, batch)
            if after is None:
                break
            done += rows
            unreadable += failed
            self.stdout.write(f"{done} rows are encrypted with {self.ring.current}, up to {after}")
        self.stdout.write(f"{done} rows were encrypted with the key {self.ring.current}.")
        if unreadable:
            raise CommandError(
                f"{unreadable} rows can't be read, because their keys are not configured or their"
                " texts not intact. They stay as they are."
            )

    def rekey_some(self, after: UUID | None, batch: int) -> tuple[int, int, UUID | None]:
        """Returns how many rows were encrypted, how many can't be read, and the last one's id.

        The rows are locked meanwhile, so that texts which are erased now don't come back.
        """
        found = GenerationBody.objects.using(self.alias).exclude(encryption_key=self.ring.current)
        if after is not None:
            found = found.filter(pk__gt=after)
        last, failed = None, []
        with transaction.atomic(using=self.alias):
            bodies = list(found.order_by("pk").select_for_update()[:batch])
            for body in bodies:
                last = body.pk
                try:
                    self.rekey(body)
                except AnswerUnreadable:
                    failed.append(last)
        return len(bodies) - len(failed), len(failed), last

    def rekey(self, body: GenerationBody) -> None:
        """Raises `AnswerUnreadable`."""
        ring = self.ring
        plain = {
            name: ring.read(body.pk, name, getattr(body, name), body.encryption_key)
            for name in TEXTS
        }
        plain["excerpt"] = plain["prompt"][:EXCERPT_CHARS]
        for name, text in ring.encrypt(body.pk, plain, ring.current).items():
            setattr(body, name, text)
        body.encryption_key = ring.current
        body.save(using=self.alias, update_fields=[*TEXTS, "encryption_key"])
