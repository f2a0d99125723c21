"""`manage.py staccato_forget USER`: erases what a user wrote, and what was answered."""

from __future__ import annotations

import contextlib
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from generation import access, conf, user_keys
from generation.forgetting import Forgetting, Left
from generation.management.users import find_user
from generation.models import GenerationLog

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from generation.records import UserKey

PLACES = {
    "texts": "prompts and answers",
    "callers_words": "log rows with a request id, trace id or metadata",
    "idempotency_keys": "idempotency keys",
    "api_keys": "API keys that are the user's alone",
    "waiting_rows": "rows in this host's journals",
    "refused_rows": "rows that PostgreSQL refused, on this host",
}
REMAINS = """\
What remains, and is not reached from here:
- backups, replicas' archives and write-ahead logs of PostgreSQL, until they expire;
- exports and archives of the log, wherever they were saved;
- what the providers keep of the prompts that they were sent;
- lines of the service's own log, if DB_ECHO was on or a provider's refusal was quoted;
- journals and refused rows of other hosts: run this on each. What they store arrives without texts;
- the account, its profile with its prompt template, and service keys that name the user: see the
  admin. They go with the account, if you delete it;
- tokens, cost and times of each generation and the usage log, under the user's key;
- the record of who read, searched, exported or erased texts.
"""


class Command(BaseCommand):
    help = (
        "Erase a user's prompts and answers, and all that callers wrote for them. Tokens and cost"
        " stay. From then on, no text of that user is stored. Run it again if it was cut off."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="By name or id; by id also if the account is deleted.")
        parser.add_argument("--yes", action="store_true", help="Don't ask.")

    def handle(self, *_args: Any, user: str, yes: bool, **_options: Any) -> None:
        settings = conf.load()
        user_id = _id_of(user)
        forgetting = Forgetting(user_id, alias=settings.database, folder=Path(settings.journal_dir))
        try:
            left = self._forget(forgetting, user_id, ask=not yes)
        except access.NotRecorded as error:
            raise CommandError(f"Nothing was erased: the record takes no row: {error}") from error
        except OSError as error:  # a TimeoutError, too
            raise CommandError(f"Not all is erased: {error}. Run this again.") from error
        if left:
            raise CommandError(
                "Not all is erased. Requests of the user may be under way, or a living process"
                " has not stored the rows of its journal yet: run this again."
            )

    def _forget(self, forgetting: Forgetting, user_id: UserKey, *, ask: bool) -> Left:
        """Returns what is left. Raises `NotRecorded`, before anything is erased, or `OSError`."""
        found = forgetting.count()
        self.stdout.write(f"Of user {user_id} there are now:\n{_listed(found)}")
        if ask:
            self._ask(user_id)
        access.record(
            access.Action.ERASE,
            rows=found.texts,
            selection=f"all of user {user_id}, by staccato_forget of {getpass.getuser()}",
        )
        forgetting.mark()
        forgetting.erase()
        left = forgetting.count()
        self.stdout.write(f"Erased. Counted again:\n{_listed(left)}\n\n{REMAINS}")
        return left

    def _ask(self, user_id: UserKey) -> None:
        self.stdout.write("This can't be undone, and no text of the user is stored from now on.")
        try:
            answer = input(f"Type {user_id} to erase it: ")
        except EOFError:
            answer = ""
        if answer.strip() != str(user_id):
            raise CommandError("Nothing was erased. Without a terminal, give --yes.")


def _id_of(user: str) -> UserKey:
    """Returns the key of the user, also of one whose account is deleted. Raises `CommandError`."""
    try:
        key = user_keys.key_of(find_user(user))
    except CommandError:
        with contextlib.suppress(ValueError):
            key = user_keys.parse(user)
            # A key that is any text may be a name with a mistake in it.
            if user_keys.kind() != "text" or GenerationLog.objects.filter(user_id=key).exists():
                return key
        raise
    assert key is not None, "saved users have one"
    return key


def _listed(left: Left) -> str:
    return "\n".join(f"  {getattr(left, name):>8,}  {words}" for name, words in PLACES.items())
