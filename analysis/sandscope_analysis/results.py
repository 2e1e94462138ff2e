"""A directory of results, one table at a time, for whichever library a notebook uses.

The layout is `<directory>/<table>/run=<ulid>/part-<n>.parquet` (`docs/schema.md` describes the columns), so every reader of
hive-partitioned Parquet understands it; this module gives the columns their documented types, spares its users the globs,
and says clearly what is missing.
"""

from __future__ import annotations

import os
import warnings
from functools import reduce
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl

from . import schema
from .errors import MissingColumns, NoSuchTable, NotADataset
from .parts import Part, check, parts_of

#: What writes the tables that not every run has.
_WRITTEN_BY = {
    "`sandscope run … --timeline first` (or all)": (
        "attribution_slices",
        "console_lines",
        "counters",
        "exit_events",
        "thread_slices",
        "vcpu_slices",
        "wakeup_flows",
    ),
    "`sandscope run idle`": (
        "windows",
        "threads",
        "preemptions",
        "guest_addresses",
        "perf_counters",
        "idle_states",
    ),
    "`sandscope run memory`": ("memory", "memory_host", "guest_memory", "kernel_memory"),
    "`sandscope run memory --pages`": ("pages", "page_scans"),
    "`sandscope run network`": ("latency", "answers"),
    "`sandscope run` with an experiment of steps, such as cpu or network,": ("steps", "activity", "outliers", "cells"),
}


class Results:
    """What one or many runs have written into a directory.

    Without a directory: that of the environment variable `SANDSCOPE_RESULTS`, else `results`.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = Path(directory or os.environ.get("SANDSCOPE_RESULTS") or "results")
        # The table `runs` has a row from the first moment of every run.
        if not parts_of(self.directory, "runs"):
            raise NotADataset(
                f"{self.directory} holds no results of sandscope: there is no runs/run=*/part-*.parquet in it; "
                "`sandscope run` writes results into the directory given by --out"
            )

    def tables(self) -> list[str]:
        """Names of the tables that there are, in alphabetical order."""
        # Directories that begin with a dot hold what unfinished runs were writing.
        folders = (path.name for path in self.directory.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(name for name in folders if parts_of(self.directory, name))

    def has(self, table: str) -> bool:
        """Whether a run in the directory observed this table."""
        return bool(parts_of(self.directory, table))

    def why_absent(self, table: str) -> str:
        """What to do to get a table that is not there."""
        words = f"these results have no table {table!r}"
        for command, tables in _WRITTEN_BY.items():
            if table in tables:
                return f"{words}: {command} writes it"
        if table in schema.tables():
            return f"{words}: no run in {self.directory} observed it"
        return f"{words}, and sandscope knows none of that name; there are {', '.join(self.tables())}"

    def columns(self, table: str) -> pl.DataFrame:
        """What the columns of a table mean: name, type, unit, meaning."""
        return pl.DataFrame(
            [
                {"column": column.name, "type": column.type, "unit": column.unit, "meaning": column.documentation}
                for column in self._known(table).columns
            ],
            schema={"column": pl.String, "type": pl.String, "unit": pl.String, "meaning": pl.String},
        )

    def _known(self, table: str) -> schema.Table:
        known = schema.tables().get(table)
        if known is None:
            raise NoSuchTable(self.why_absent(table))
        return known

    def _checked(self, table: str) -> tuple[list[list[Part]], schema.Table]:
        """The files, together where they are of the same types, and the table's schema."""
        known, paths = self._known(table), parts_of(self.directory, table)
        if not paths:
            raise NoSuchTable(self.why_absent(table))
        parts = [check(path, known) for path in paths]
        missing = set().union(*(part.missing for part in parts))
        if missing:
            names = ", ".join(column.name for column in known.columns if column.name in missing)
            text = f"{self.directory / table}: an earlier sandscope did not write {names}; null for its runs"
            warnings.warn(text, MissingColumns, stacklevel=4)
        groups: dict[tuple, list[Part]] = {}
        for part in parts:
            groups.setdefault(part.former, []).append(part)
        return list(groups.values()), known

    def table(self, table: str) -> pl.LazyFrame:
        """A table of all runs, with the documented columns and types, and `run` from the layout.

        Only the footers of the files are read before it is collected.
        """
        groups, known = self._checked(table)

        def scan(parts: list[Part]) -> pl.LazyFrame:
            former = {name: schema.polars_type(kind) for name, kind in parts[0].former}
            frame = pl.scan_parquet(
                [part.path for part in parts],
                schema={**known.polars, **former},
                hive_schema={"run": pl.String()},
                missing_columns="insert",
                extra_columns="ignore",
            )
            return frame.cast({name: known.polars[name] for name in former})

        return pl.concat([scan(parts) for parts in groups])

    def pandas(self, table: str) -> pd.DataFrame:
        """The same in memory, for pandas. Missing values of numbers are NaN there."""
        return self.table(table).collect().to_pandas()

    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """A connection in which every table is a view of that name. Only footers are read before a query."""
        connection = duckdb.connect()
        for table in self.tables():
            if table not in schema.tables():
                continue
            groups, known = self._checked(table)
            views = [self._duckdb_relation(connection, parts, known) for parts in groups]
            reduce(duckdb.DuckDBPyRelation.union, views).create_view(table)
        return connection

    @staticmethod
    def _duckdb_relation(
        connection: duckdb.DuckDBPyConnection, parts: list[Part], known: schema.Table
    ) -> duckdb.DuckDBPyRelation:
        """Files of the same types."""
        files = connection.read_parquet([str(part.path) for part in parts], hive_partitioning=True, union_by_name=True)
        there, former = set(files.columns), dict(parts[0].former)

        def value(column: schema.Column) -> str:
            name = f'"{column.name}"'
            if column.name not in there:
                return f"NULL::{column.duckdb} AS {name}"
            if column.name not in former:
                return name
            # A timestamp without a zone would be taken for one of the session's.
            instant = f"make_timestamp_ns({name}) AT TIME ZONE 'UTC'"
            return f"CAST({instant if former[column.name] == 'int64' else name} AS {column.duckdb}) AS {name}"

        columns = [value(column) for column in known.columns]
        return files.project(", ".join([*columns, 'CAST("run" AS VARCHAR) AS "run"']))
