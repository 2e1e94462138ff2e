"""The files of a table: which there are, and whether they are what they should be."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from . import schema
from .errors import DamagedFile, ForeignFile, NewerSchema


def parts_of(directory: Path, table: str) -> list[Path]:
    """The files of a table, of all runs."""
    return sorted((directory / table).glob("run=*/part-*.parquet"))


def check(part: Path, table: schema.Table) -> set[str]:
    """Makes sure that a file is one of this table; returns the columns that it lacks."""
    columns = _columns(part, part.stat().st_mtime_ns)
    for column in table.columns:
        if column.name in columns and not _is(columns[column.name], column.type):
            raise ForeignFile(
                f"{part} is no part of the table {table.name!r}: its column {column.name!r} is "
                f"{columns[column.name]}, not {column.type}; remove the file"
            )
    return {column.name for column in table.columns} - columns.keys()


@lru_cache(maxsize=100_000)
def _columns(part: Path, _modified: int) -> dict[str, pa.DataType]:
    try:
        footer = pq.read_metadata(part)
    except (pa.ArrowException, OSError) as reason:
        raise DamagedFile(
            f"{part} is no complete Parquet file ({reason}); copy it again from where it came, or remove it to read the rest"
        ) from reason
    version = (footer.metadata or {}).get(b"schema_version")
    if version is None:
        raise ForeignFile(f"{part} was not written by sandscope: its metadata has no schema_version; remove the file")
    if int(version) > schema.version():
        raise NewerSchema(
            f"{part} has version {int(version)} of the schema, and this package knows version {schema.version()}; "
            "install the package of the sandscope that wrote it"
        )
    arrow = footer.schema.to_arrow_schema()
    return {field.name: field.type for field in arrow}


def _is(found: pa.DataType, wanted: str) -> bool:
    names = {"string": ("string", "large_string"), "float64": ("double",), "list<uint64>": ()}.get(wanted, (wanted,))
    if wanted == "list<uint64>":
        return pa.types.is_list(found) and pa.types.is_uint64(found.value_type)
    return str(found) in names
