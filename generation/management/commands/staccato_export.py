"""`manage.py staccato_export`: the log, or what a filter finds of it, as one file."""

from __future__ import annotations

import getpass
import sys
import time
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, reset_queries
from django.http import QueryDict

from generation import access
from generation.admin.export.file import ExportFile, Progress, Unusable, read_progress
from generation.admin.export.formats import FORMATS
from generation.admin.export.rows import Rows, columns
from generation.admin.export.selection import BadSelection, Walk, now_id, select
from generation.admin.pagination import TooLong
from generation.log_search.selection import FLAGS, ON, PARAMETERS
from generation.partitions.intervals import moment_of
from generation.partitions.parquet import FormatMissing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.db.models import QuerySet

    from generation.admin.export.formats import Format
    from generation.models import GenerationLog

PROGRESS_S = 2.0
# Of the list, beside the dates and the search; not those in texts, by which nothing is exported.
FILTERS = [
    name for name in PARAMETERS if name not in {"q", "words"} and not name.startswith("created_at")
]
HELP = """\
Write the log, or what a filter finds of it, as CSV, JSON lines or Parquet: all columns, the oldest
generation first.

  manage.py staccato_export all.jsonl
  manage.py staccato_export october.csv --from 2026-10-01 --to 2026-10-31 --status failed
  manage.py staccato_export october.parquet --query 'status=failed&model=claude-sonnet-5-5'

It may be stopped at any moment and goes on where it was, in the same file:

  manage.py staccato_export --resume october.csv

Prompts and answers are left out unless --with-texts asks for them. What is read is entered in the
record of accesses before.
"""


class Command(BaseCommand):
    help = HELP

    def create_parser(self, *args: Any, **kwargs: Any) -> Any:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file",
            nargs="?",
            type=Path,
            metavar="FILE",
            help="where to write; - is the standard output",
        )
        parser.add_argument(
            "--resume", type=Path, metavar="FILE", help="go on with an export that was cut off"
        )
        parser.add_argument(
            "--format", choices=FORMATS, help="unless the file's name ends in it; jsonl for -"
        )
        parser.add_argument("--with-texts", action="store_true", help="also prompts and answers")
        parser.add_argument(
            "--after",
            type=_id,
            metavar="ID",
            help="only what follows this id, e.g. the last one of an earlier export",
        )
        filters = parser.add_argument_group("filters", "those of the list of generations")
        filters.add_argument(
            "--from",
            dest="since",
            type=_moment,
            metavar="DATE",
            help="arrived since, e.g. 2026-01-31 or 2026-01-31T14:05",
        )
        filters.add_argument(
            "--to",
            type=_moment,
            metavar="DATE",
            help="arrived until the end of that day, or before that time",
        )
        filters.add_argument("--q", metavar="TERM", help="what the search box takes")
        for name in FILTERS:
            option = f"--{name.replace('_', '-')}"
            if name in FLAGS:
                filters.add_argument(option, dest=name, action="store_const", const=ON)
            else:
                filters.add_argument(option, dest=name, metavar="VALUE")
        filters.add_argument(
            "--query", default="", help="what follows the ? in the address of the list"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        path: Path | None = options["resume"] or options["file"]
        if path is None:
            raise CommandError("Name the file to write, or - for the output. See --help.")
        out: ExportFile | Output | None = None
        try:
            progress = read_progress(path) if options["resume"] else _progress_of(options, path)
            selected = select(progress.query)
            rows = Rows(selected.db, with_texts=progress.with_texts)
            if str(path) == "-":
                out = Output(progress, FORMATS[progress.format](rows.columns))
                self._export(out, selected, rows)
                return
            opened = ExportFile.resume if options["resume"] else ExportFile.begin
            with opened(path, progress, rows.columns) as out:
                self._export(out, selected, rows)
        except (Unusable, BadSelection, FormatMissing) as error:
            raise CommandError(str(error)) from error
        except (access.NotRecorded, TooLong, OSError, DatabaseError, KeyboardInterrupt) as error:
            raise CommandError(f"{_why(error)} {_how_to_go_on(out, path)}") from error

    def _export(
        self, out: ExportFile | Output, selected: QuerySet[GenerationLog], rows: Rows
    ) -> None:
        walk = Walk(selected, after=out.progress.after, until=out.progress.until)
        name = "the output" if isinstance(out, Output) else str(out.path.absolute())
        began, before, said = time.monotonic(), out.progress.rows, 0.0
        while (portion := walk.portion()) is not None:
            if portion:
                access.record(
                    access.Action.EXPORT,
                    rows=len(portion),
                    selection=f"{out.progress.query} to {name}, by {getpass.getuser()}".strip(),
                )
            for batch in rows.batches(portion):
                found = rows.read(batch)
                if found:
                    out.add(out.content.encode(found), len(found))
            out.save(walk.position)
            reset_queries()  # which Django keeps with DEBUG on
            now = time.monotonic()
            if now > said + PROGRESS_S:
                said = now
                rate = (out.progress.rows - before) / (now - began)
                self.stderr.write(
                    f"{out.progress.rows:,} rows, {out.progress.bytes / 1e6:,.1f} MB, up to"
                    f" {moment_of(walk.position):%Y-%m-%d %H:%M} UTC, {rate:,.0f} rows/s"
                )
        out.complete()
        self.stderr.write(f"{out.progress.rows:,} rows in {name}, which is complete")


class Output:
    """Standard output in place of a file. It can't be gone on with, only followed by another."""

    def __init__(self, progress: Progress, content: Format) -> None:
        self.progress = progress
        self.content = content
        self.add(content.begin())

    def add(self, content: bytes, rows: int = 0) -> None:
        sys.stdout.buffer.write(content)
        done = self.progress
        self.progress = replace(done, rows=done.rows + rows, bytes=done.bytes + len(content))

    def save(self, after: UUID | None) -> None:
        sys.stdout.buffer.flush()
        self.progress = replace(self.progress, after=after)

    def complete(self) -> None:
        self.add(self.content.end())
        sys.stdout.buffer.flush()


def _progress_of(options: dict[str, Any], path: Path) -> Progress:
    """Raises `CommandError`."""
    query = QueryDict(options["query"].removeprefix("?"), mutable=True)
    for side, moment in (("from", options["since"]), ("to", options["to"])):
        if moment is not None:
            day, clock = moment
            query[f"created_at_{side}_0"] = day
            query[f"created_at_{side}_1"] = clock
    for name in ("q", *FILTERS):
        if options[name] is not None:
            query[name] = options[name]
    kind = options["format"] or path.suffix.removeprefix(".")
    if str(path) == "-":
        kind = kind or "jsonl"
    if kind not in FORMATS:
        raise CommandError(f"Say --format {', '.join(FORMATS)}, or end the file's name in one.")
    shown = columns(with_texts=options["with_texts"])
    return Progress(
        query.urlencode(),
        kind,
        with_texts=options["with_texts"],
        until=now_id(),
        columns=[each.attname for each in shown],
        after=options["after"],
    )


def _how_to_go_on(out: ExportFile | Output | None, path: Path) -> str:
    if isinstance(out, ExportFile):
        return f"Go on with: manage.py staccato_export --resume {path}"
    if out is not None and out.progress.after is not None:
        return f"Go on with --after {out.progress.after}: what precedes it has left completely."
    return "Nothing was written."


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Stopped."
    return " ".join(str(error).split()).rstrip(".") + "."


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text} is not an id like those of the log") from None


def _moment(text: str) -> tuple[str, str]:
    """Returns the day and the time as the list's filter takes them."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None:
        raise ArgumentTypeError(f"{text} is not like 2026-01-31 or 2026-01-31T14:05")
    day, _, clock = moment.isoformat().partition("T")
    return day, clock if "T" in text or " " in text else ""
