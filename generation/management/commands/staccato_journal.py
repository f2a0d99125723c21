"""`manage.py staccato_journal list|show|replay|discard|adopt`: rows that PostgreSQL refused, and
journals that no process takes up by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from generation import conf
from generation.database.batching import running
from generation.database.engine import Database
from generation.journal import lines
from generation.journal.dead_letters import SUFFIX, DeadLetter, DeadLetters
from generation.journal.file import JournalFile
from generation.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation.records import KeyedRow


class Command(BaseCommand):
    help = (
        "Rows that PostgreSQL refused are set aside in STACCATO_JOURNAL_DIR with the reason."
        " Fix what makes it refuse them (e.g. a constraint or a trigger), then replay them; or"
        " discard them. Rows that only wait for the database are not listed: the service stores"
        " them by itself."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="print one line for each refused row")
        for name, text in (
            ("show", "print whole rows as JSON"),
            ("replay", "try to store rows again"),
            ("discard", "delete rows for good"),
        ):
            action = actions.add_parser(name, help=text)
            action.add_argument("ids", nargs="*", type=UUID, metavar="ID", help="the id of a row")
            action.add_argument("--all", action="store_true", help="all refused rows")
        adopt = actions.add_parser(
            "adopt", help="store the rows of a journal whose database had another name, in this one"
        )
        adopt.add_argument("path", type=Path, metavar="FILE")

    def handle(self, *_args: Any, action: str, **options: Any) -> None:
        if action == "adopt":
            self._adopt(options["path"])
            return
        files = self._files()
        found = [(file, entry) for file in files for entry in file.read()]
        if action == "list":
            self._list([entry for _file, entry in found])
            return
        chosen = self._choose(found, options["ids"], every=options["all"])
        if action == "show":
            for _file, entry in chosen:
                self.stdout.write(_as_json(entry))
            return
        done = 0
        for file in files:
            mine = [entry for owner, entry in chosen if owner is file]
            if action == "replay":
                stored = asyncio.run(self._store([entry.keyed for entry in mine]))
                mine = [entry for entry in mine if entry.keyed in stored]
            if mine:
                # Answers wait for this lock when the service adds to the file, so don't hold it
                # while the database stores the rows.
                with file.locked():
                    file.remove({entry.keyed.row.id for entry in mine})
            done += len(mine)
        self.stdout.write(f"{done} {'replayed' if action == 'replay' else 'discarded'}")
        if action == "replay" and done < len(chosen):
            raise CommandError(f"{len(chosen) - done} are still refused")

    def _files(self) -> list[DeadLetters]:
        folder = Path(conf.load().journal_dir)
        return [
            DeadLetters(folder, path.name.removesuffix(SUFFIX))
            for path in sorted(folder.glob(f"*{SUFFIX}"))
        ]

    def _list(self, entries: Sequence[DeadLetter]) -> None:
        for entry in entries:
            row = entry.keyed.row
            self.stdout.write(f"{row.id}  {entry.at[:19]}  user {row.user_id}  {entry.error}")
        if not entries:
            self.stdout.write("no row was refused")

    def _choose(
        self, found: list[tuple[DeadLetters, DeadLetter]], ids: list[UUID], *, every: bool
    ) -> list[tuple[DeadLetters, DeadLetter]]:
        if every:
            return found
        if not ids:
            raise CommandError("give the ids of rows, or --all")
        missing = set(ids) - {entry.keyed.row.id for _file, entry in found}
        if missing:
            raise CommandError(f"not among the refused rows: {', '.join(map(str, missing))}")
        return [(file, entry) for file, entry in found if entry.keyed.row.id in ids]

    def _adopt(self, path: Path) -> None:
        try:
            file = JournalFile.adopt(path)
        except OSError as error:
            raise CommandError(f"{path} can't be read: {error.strerror}") from None
        if file is None:
            raise CommandError(f"{path} does not exist, or its process lives")
        if not file.database:  # it would be removed below
            file.close()
            raise CommandError(f"{path} is not a journal")
        found = [lines.to_row(line.record) for line in file.read() if line.record]
        rows = [keyed for keyed in found if keyed is not None]
        stored = asyncio.run(self._store(rows))
        if len(stored) < len(found):
            file.close()
            raise CommandError(f"{len(found) - len(stored)} are not stored, and {path} stays")
        file.remove()
        self.stdout.write(f"{len(stored)} stored")

    async def _store(self, rows: list[KeyedRow]) -> list[KeyedRow]:
        """Store rows as the service does, with all that follows from one. Returns those stored."""
        settings = conf.load()
        django_database = connections.settings[settings.database]
        async with Database.open(settings, django_database, strict=False) as database:
            store = Store(database, settings)
            async with running(store.batchers):
                outcomes = await asyncio.gather(
                    *(store.logs.insert(keyed) for keyed in rows), return_exceptions=True
                )
        for keyed, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                self.stderr.write(f"{keyed.row.id}: {outcome}")
        return [keyed for keyed, outcome in zip(rows, outcomes, strict=True) if outcome is None]


def _as_json(entry: DeadLetter) -> str:
    return orjson.dumps(
        {"at": entry.at, "error": entry.error, "row": entry.keyed.row, "claim": entry.keyed.claim},
        default=str,
        option=orjson.OPT_INDENT_2,
    ).decode()
