"""What writes Parquet: an archive's partitions, and exports. Needs the extra `[archive]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Of a row group, which is in memory as a whole: whichever is reached first.
GROUP_ROWS = 10_000
GROUP_BYTES = 32 * 1024 * 1024
PARQUET_MISSING = (
    "Parquet needs the package pyarrow: pip install 'django-staccato[archive]', or choose another"
    " --format"
)


class FormatMissing(Exception):  # a state, not a fault
    """A package that the format needs is not installed."""


def load() -> tuple[Any, Any]:
    """Returns pyarrow and its `parquet`, which take 0.3 s to import. Raises `FormatMissing`."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise FormatMissing(PARQUET_MISSING) from error
    return pa, parquet


def batch(columns: Iterable[Sequence[Any]], schema: Any) -> Any:
    """Returns columns of at least one row as a record batch."""
    pa, _ = load()
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


class Groups:
    """Gathers record batches to row groups of a file, compressed with Zstandard."""

    def __init__(self, file: Any, schema: Any) -> None:
        self._pa, parquet = load()
        self._writer = parquet.ParquetWriter(file, schema, compression="zstd")
        self._batches: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, part: Any) -> None:
        self._batches.append(part)
        self._rows += part.num_rows
        self._bytes += part.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def close(self) -> None:
        """The file can be read once this has returned."""
        if self._batches:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        self._writer.write_table(self._pa.Table.from_batches(self._batches))
        self._batches, self._rows, self._bytes = [], 0, 0
