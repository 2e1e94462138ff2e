"""The tables as sandscope documents them: `schema.json` beside this file is the output of `sandscope schema --json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import polars as pl

_POLARS = {
    "bool": pl.Boolean(),
    "uint16": pl.UInt16(),
    "uint32": pl.UInt32(),
    "uint64": pl.UInt64(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "timestamp[ns, tz=UTC]": pl.Datetime("ns", "UTC"),
    "list<int64>": pl.List(pl.Int64()),
    "list<uint64>": pl.List(pl.UInt64()),
}

_DUCKDB = {
    "bool": "BOOLEAN",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "timestamp[ns, tz=UTC]": "TIMESTAMPTZ_NS",
    "list<int64>": "BIGINT[]",
}

#: Types that versions 1 and 2 had where today's has the other: numbers were unsigned, and instants of the real clock were numbers.
_BEFORE_VERSION_3 = {
    "int64": ("uint16", "uint32", "uint64"),
    "timestamp[ns, tz=UTC]": ("int64",),
    "list<int64>": ("list<uint64>",),
}


def former_types(kind: str, version: int) -> tuple[str, ...]:
    """The types that a column of this one may have in files of a version of the schema, besides."""
    return _BEFORE_VERSION_3.get(kind, ()) if version < 3 else ()


def polars_type(kind: str) -> pl.DataType:
    """A type of the schema in polars."""
    return _POLARS[kind]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    type: str
    nullable: bool
    unit: str | None
    documentation: str

    @property
    def polars(self) -> pl.DataType:
        """Its type in polars."""
        return polars_type(self.type)

    @property
    def duckdb(self) -> str:
        """Its type in DuckDB."""
        return _DUCKDB[self.type]


@dataclass(frozen=True)
class Table:
    """A table: its columns in the order of the files."""

    name: str
    documentation: str
    columns: tuple[Column, ...]

    @property
    def polars(self) -> dict[str, pl.DataType]:
        """Names and types for polars."""
        return {column.name: column.polars for column in self.columns}


@cache
def _document() -> dict:
    return json.loads((files(__package__) / "schema.json").read_text(encoding="utf-8"))


def version() -> int:
    """Version of the schema that this package knows."""
    return _document()["schema_version"]


@cache
def tables() -> dict[str, Table]:
    """All tables by name."""
    return {
        table["name"]: Table(
            table["name"], table["documentation"], tuple(Column(**column) for column in table["columns"])
        )
        for table in _document()["tables"]
    }
