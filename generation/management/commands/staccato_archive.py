"""`manage.py staccato_archive`: the log's oldest partitions as files, before they are dropped."""

from __future__ import annotations

import asyncio
import getpass
import os
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from generation import access, conf
from generation.database.engine import Database
from generation.database.libpq import HAS_PSYCOPG
from generation.errors import StaccatoError
from generation.locks import try_lock
from generation.partitions.archive import Archive, due
from generation.partitions.archive_formats import (
    ArchiveSpoiled,
    Format,
    Ndjson,
    Parquet,
)
from generation.partitions.catalog import look
from generation.partitions.maintenance import kept_tables
from generation.partitions.parquet import FormatMissing

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from datetime import timedelta

    from generation.partitions.catalog import Found

FORMATS: dict[str, type[Format]] = {"ndjson": Ndjson, "parquet": Parquet}


class Command(BaseCommand):
    help = (
        "Write the partitions of the log that are dropped within a week as files. What is complete"
        " is not written again. Each is entered in the record of accesses before it is read. See"
        " also STACCATO_ARCHIVE_FIRST."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIRECTORY", help="where the files go")
        parser.add_argument(
            "--before",
            type=_day,
            metavar="DATE",
            help="write all partitions that lie before this day (UTC), e.g. 2026-01-31",
        )
        parser.add_argument(
            "--format",
            choices=FORMATS,
            default="ndjson",
            help="NDJSON compressed with gzip (the default), or Parquet with the extra [archive]",
        )

    def handle(
        self,
        *_args: Any,
        folder: Path,
        before: datetime | None,
        format: str,  # noqa: A002  # the option's name
        **_options: Any,
    ) -> None:
        if not HAS_PSYCOPG:
            raise CommandError("An archive is copied by psycopg 3; with psycopg2 there is none.")
        if not folder.is_dir():
            raise CommandError(f"{folder} is not a directory; make it first")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if not try_lock(descriptor):
                raise CommandError(f"another run writes to {folder}")
            self._archive(folder, before, FORMATS[format]())
        except FormatMissing as error:
            raise CommandError(str(error)) from error
        except access.NotRecorded as error:
            raise CommandError(f"The record of accesses takes no entry: {error}") from error
        except StaccatoError as error:
            raise CommandError(error.detail) from error
        except (OSError, ArchiveSpoiled, DatabaseError) as error:
            raise CommandError(f"{error}. What was written completely is kept.") from error
        finally:
            os.close(descriptor)

    def _archive(self, folder: Path, before: datetime | None, file_format: Format) -> None:
        settings = conf.load()
        parts = [
            (found, part)
            for found, kept in asyncio.run(_find(settings))
            for part in due(found, kept, before)
        ]
        archive = Archive(
            connections[settings.database],
            folder,
            file_format,
            announce=_record,
            report=self.stdout.write,
        )
        for found, part in parts:
            archive.add(found, part)
        if not parts:
            self.stdout.write("nothing is due")


def _record(rows: int, file: Path) -> None:
    """Enter an export in the record of accesses. Raises `NotRecorded`."""
    access.record(
        access.Action.EXPORT,
        rows=rows,
        selection=f"{file.absolute()}, by staccato_archive of {getpass.getuser()}",
    )


async def _find(settings: conf.Settings) -> list[tuple[Found, timedelta]]:
    at = connections.settings[settings.database]
    async with Database.open(settings, at, strict=False) as database:
        tables = kept_tables(settings)
        return [(await look(database, parent), kept) for parent, kept in tables.items()]


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ArgumentTypeError(f"{text} is not a date like 2026-01-31") from None
