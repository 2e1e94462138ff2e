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
    "list<uint64>": "UBIGINT[]",
}


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
        return _POLARS[self.type]

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
