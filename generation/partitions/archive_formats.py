"""The formats of an archived partition: how its rows become a file, and are read back."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from generation.partitions import parquet
from generation.partitions.parquet import GROUP_BYTES, GROUP_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import BinaryIO

COMPRESSION = 6  # of gzip
CHUNK = 1024 * 1024


class ArchiveSpoiled(Exception):
    """What was read back is not what PostgreSQL gave, e.g. because of a bad disk."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, uncompressed."""

    rows: int
    digest: bytes  # SHA-256


class Format(Protocol):
    """Both methods return what they wrote or read; the two are compared."""

    suffix: str

    def write(
        self, cursor: Any, table: str, file: BinaryIO, count: Callable[[int], None]
    ) -> Content:
        """Copy a table, whose name is quoted, from a cursor of Django's into a file.

        `count` is called with the number of rows after each.
        """

    def read(self, path: Path) -> Content:
        """Raises `ArchiveSpoiled` if the file is no such file."""


class Ndjson:
    """One JSON object a line, compressed with gzip. Memory holds one row at a time."""

    suffix = "ndjson.gz"

    def write(
        self, cursor: Any, table: str, file: BinaryIO, count: Callable[[int], None]
    ) -> Content:
        rows, digest = 0, hashlib.sha256()
        sql = f"COPY (SELECT row_to_json(part) FROM ONLY {table} AS part) TO STDOUT"  # noqa: S608  # a quoted name
        with (
            gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed,
            cursor.copy(sql) as copy,
        ):
            for (text,) in copy.rows():
                line = f"{text}\n".encode()
                packed.write(line)
                digest.update(line)
                rows += 1
                count(rows)
        return Content(rows, digest.digest())

    def read(self, path: Path) -> Content:
        rows, digest = 0, hashlib.sha256()
        try:
            with gzip.open(path) as file:
                while chunk := file.read(CHUNK):
                    rows += chunk.count(b"\n")
                    digest.update(chunk)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ArchiveSpoiled(f"{path} can't be read as it was written: {error}") from error
        return Content(rows, digest.digest())


class Parquet:
    """A Parquet file, compressed with Zstandard. Memory holds a row group.

    Numbers, decimals, booleans and times keep their types, times in UTC; all else is text, JSON
    and UUIDs included, because not every reader knows those types.
    """

    suffix = "parquet"

    def __init__(self) -> None:
        """Raises `FormatMissing`."""
        self._arrow, self._parquet = parquet.load()

    def write(
        self, cursor: Any, table: str, file: BinaryIO, count: Callable[[int], None]
    ) -> Content:
        cursor.execute(f"SELECT * FROM ONLY {table} LIMIT 0")  # noqa: S608  # a quoted name
        columns = [self._column(description) for description in cursor.description]
        schema = self._arrow.schema([(column.name, column.kind) for column in columns])
        shown = ", ".join(column.sql for column in columns)
        rows, digest = 0, hashlib.sha256()
        group: list[tuple[Any, ...]] = []
        size = 0
        with (
            self._parquet.ParquetWriter(file, schema, compression="zstd") as writer,
            cursor.copy(f"COPY (SELECT {shown} FROM ONLY {table}) TO STDOUT") as copy,  # noqa: S608  # quoted names
        ):
            copy.set_types([column.type_name for column in columns])
            for row in copy.rows():
                digest.update(_encode(row))
                group.append(row)
                size += sum(len(value) for value in row if isinstance(value, str))
                rows += 1
                count(rows)
                if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
                    writer.write_batch(parquet.batch(zip(*group, strict=True), schema))
                    group, size = [], 0
            if group:
                writer.write_batch(parquet.batch(zip(*group, strict=True), schema))
        return Content(rows, digest.digest())

    def read(self, path: Path) -> Content:
        rows, digest = 0, hashlib.sha256()
        try:
            with self._parquet.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    group = file.read_row_group(number)
                    for row in zip(*map(self._values, group.columns), strict=True):
                        digest.update(_encode(row))
                    rows += group.num_rows
        except (self._arrow.ArrowException, ValueError) as error:
            raise ArchiveSpoiled(f"{path} can't be read as it was written: {error}") from error
        return Content(rows, digest.digest())

    def _column(self, description: Any) -> _Column:
        """Returns what becomes of a column of psycopg's description."""
        arrow, given = self._arrow, description.type_display
        name = '"{}"'.format(description.name.replace('"', '""'))
        kinds = {
            "bool": arrow.bool_(),
            "int2": arrow.int16(),
            "int4": arrow.int32(),
            "int8": arrow.int64(),
        }
        if given in kinds:
            return _Column(description.name, name, given, kinds[given])
        if given == "timestamptz":
            # As a number, because psycopg reads a time according to settings of its connection.
            microseconds = f"(extract(epoch FROM {name}) * 1000000)::int8"
            return _Column(description.name, microseconds, "int8", arrow.timestamp("us", "UTC"))
        if given.startswith("numeric("):
            decimal = arrow.decimal128(description.precision, description.scale)
            return _Column(description.name, name, "numeric", decimal)
        return _Column(description.name, f"{name}::text", "text", arrow.string())

    def _values(self, column: Any) -> list[Any]:
        """Returns the values of a column as PostgreSQL gave them."""
        is_time = self._arrow.types.is_timestamp(column.type)
        return list((column.cast(self._arrow.int64()) if is_time else column).to_pylist())


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    sql: str  # what is selected
    type_name: str  # of that, in PostgreSQL
    kind: Any  # in Arrow


def _encode(row: Iterable[Any]) -> bytes:
    """The same for the values that PostgreSQL gave and for those that Arrow gives back."""
    return orjson.dumps(tuple(row), default=str) + b"\n"
