"""The files of a table: which there are, and whether they are what they should be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from . import schema
from .errors import DamagedFile, ForeignFile, NewerSchema


def parts_of(directory: Path, table: str) -> list[Path]:
    """The files of a table, of all runs."""
    return sorted((directory / table).glob("run=*/part-*.parquet"))


@dataclass(frozen=True)
class Part:
    """A file of a table, and how it differs from what today's sandscope writes."""

    path: Path
    #: Columns that it lacks.
    missing: frozenset[str]
    #: Columns that have a type of an earlier version, and that type, as Arrow calls it.
    former: tuple[tuple[str, str], ...]


def check(path: Path, table: schema.Table) -> Part:
    """Makes sure that a file is one of this table."""
    version, columns = _footer(path, path.stat().st_mtime_ns)
    former = {}
    for column in table.columns:
        if column.name not in columns or _is(columns[column.name], column.type):
            continue
        found = next((kind for kind in schema.former_types(column.type, version) if _is(columns[column.name], kind)), None)
        if found is None:
            raise ForeignFile(
                f"{path} is no part of the table {table.name!r}: its column {column.name!r} is "
                f"{columns[column.name]}, not {column.type}; remove the file"
            )
        former[column.name] = found
    missing = {column.name for column in table.columns} - columns.keys()
    return Part(path, frozenset(missing), tuple(former.items()))


@lru_cache(maxsize=100_000)
def _footer(part: Path, _modified: int) -> tuple[int, dict[str, pa.DataType]]:
    """The version of the schema, and the columns."""
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
    return int(version), {field.name: field.type for field in arrow}


def _is(found: pa.DataType, wanted: str) -> bool:
    if wanted.startswith("list<"):
        return pa.types.is_list(found) and f"list<{found.value_type}>" == wanted
    return str(found) in {"string": ("string", "large_string"), "float64": ("double",)}.get(wanted, (wanted,))
