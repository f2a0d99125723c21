"""CSV, JSON lines, Parquet: rows become bytes, a batch at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from generation.partitions import parquet

if TYPE_CHECKING:
    from django.db.models import Field

    Columns = Sequence[Field[Any, Any]]
    Row = tuple[Any, ...]

# What a spreadsheet takes for a formula, also after blanks (OWASP, CSV injection). The wide ones
# are those of East Asian keyboards.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_CONTROL = ("\t", "\r", "\n")


class Format(Protocol):
    """Of one file. What the methods return, in order, is its content."""

    def begin(self) -> bytes: ...

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Of one row or more; b"" while they are gathered."""

    def end(self) -> bytes: ...


class Csv:
    """A text that begins like a formula gets an apostrophe, so that a spreadsheet shows it and does
    not run it. The other formats have the texts as they are."""

    content_type = "text/csv; charset=utf-8"

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def begin(self) -> bytes:
        return _as_csv([tuple(each.attname for each in self._columns)])

    def encode(self, rows: Sequence[Row]) -> bytes:
        return _as_csv(zip(*_converted(rows, self._columns, _CELLS), strict=True))

    def end(self) -> bytes:
        return b""


class Jsonl:
    """One JSON object a line. A decimal number is a text with all its digits."""

    content_type = "application/x-ndjson"

    def __init__(self, columns: Columns) -> None:
        self._names = [each.attname for each in columns]

    def begin(self) -> bytes:
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        lines = (dict(zip(self._names, row, strict=True)) for row in rows)
        return b"".join(orjson.dumps(line, default=str) + b"\n" for line in lines)

    def end(self) -> bytes:
        return b""


class Parquet:
    """The types of an archived partition. Can be read only when it is complete."""

    content_type = "application/vnd.apache.parquet"

    def __init__(self, columns: Columns) -> None:
        """Raises `FormatMissing`."""
        self._columns = columns
        self._schema = _schema(columns)
        self._written = _Outbox()
        self._groups = parquet.Groups(self._written, self._schema)

    def begin(self) -> bytes:
        return self._written.take()

    def encode(self, rows: Sequence[Row]) -> bytes:
        self._groups.add(_batch(rows, self._columns, self._schema))
        return self._written.take()

    def end(self) -> bytes:
        self._groups.close()
        return self._written.take()


class ParquetDraft:
    """A Parquet file to be, to which can be added after it was cut off: Arrow's IPC stream, which
    `finish_parquet` turns into the file."""

    def __init__(self, columns: Columns) -> None:
        """Raises `FormatMissing`."""
        self._columns = columns
        self._schema = _schema(columns)

    def begin(self) -> bytes:
        content: bytes = self._schema.serialize().to_pybytes()
        return content

    def encode(self, rows: Sequence[Row]) -> bytes:
        content: bytes = _batch(rows, self._columns, self._schema).serialize().to_pybytes()
        return content

    def end(self) -> bytes:
        return b""


def finish_parquet(draft: Any, file: Any) -> None:
    """From one open file to another. Memory holds a row group."""
    pa, _ = parquet.load()
    stream = pa.ipc.open_stream(draft)
    groups = parquet.Groups(file, stream.schema)
    for batch in stream:
        groups.add(batch)
    groups.close()


FORMATS: dict[str, type[Csv | Jsonl | Parquet]] = {"csv": Csv, "jsonl": Jsonl, "parquet": Parquet}


def _plain(value: Any) -> str:
    """Returns a text as a spreadsheet shows it."""
    text = str(value)
    risky = text.lstrip()[:1] in _FORMULA or text[:1] in _CONTROL
    return f"'{text}" if risky else text


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


# How a column's values are written, by the kind of its field; those of other kinds as they are.
_CELLS: dict[str, Callable[[Any], str]] = {
    "CharField": _plain,
    "TextField": _plain,
    "JSONField": _json,
    "BooleanField": lambda value: "true" if value else "false",
    "DateTimeField": lambda value: value.isoformat(),
    "DecimalField": lambda value: f"{value:f}",
}
_ARROW: dict[str, Callable[[Any], str]] = {"JSONField": _json, "UUIDField": str}


def _converted(
    rows: Sequence[Row], columns: Columns, kinds: Mapping[str, Callable[[Any], str]]
) -> Iterator[Sequence[Any]]:
    """Yields the columns of rows."""
    for field, values in zip(columns, zip(*rows, strict=True), strict=True):
        convert = kinds.get(_kind_of(field))
        if convert is None:
            yield values
        else:
            yield [None if value is None else convert(value) for value in values]


def _kind_of(field: Any) -> str:
    kind: str = (field.target_field if field.is_relation else field).get_internal_type()
    return kind


def _as_csv(rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _schema(columns: Columns) -> Any:
    pa, _ = parquet.load()
    return pa.schema([(each.attname, _kind(pa, each)) for each in columns])


def _kind(pa: Any, field: Any) -> Any:
    if field.is_relation:
        field = field.target_field
    kind = field.get_internal_type()
    if kind == "DecimalField":
        return pa.decimal128(field.max_digits, field.decimal_places)
    kinds = {
        "BooleanField": pa.bool_(),
        "DateTimeField": pa.timestamp("us", "UTC"),
        "IntegerField": pa.int32(),
        "AutoField": pa.int64(),
        "BigAutoField": pa.int64(),
        "BigIntegerField": pa.int64(),
    }
    return kinds.get(kind, pa.string())


def _batch(rows: Sequence[Row], columns: Columns, schema: Any) -> Any:
    """All that is no number, truth or time is text, JSON and UUIDs included."""
    return parquet.batch(_converted(rows, columns, _ARROW), schema)


class _Outbox(io.RawIOBase):
    """What Arrow writes, until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._position += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
