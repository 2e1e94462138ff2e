"""Reads every table of a dataset with the common readers, as their users would, and prints what each of them saw.

Usage: read_dataset.py DATASET SCHEMA, where SCHEMA is the output of `sandscope schema --json` in a file.
Output: JSON, {reader: {table: {"rows", "runs", "nulls": {column: count}, "sums": {column: sum}}}}.
"""

import json
import os
import sys

import duckdb
import pandas
import polars


def with_polars(directory):
    """A directory as polars takes it; values as Python lists by column."""
    return polars.read_parquet(directory, hive_partitioning=True).to_dict(as_series=False)


def with_pandas(directory):
    """A directory as pandas (pyarrow) takes it. Missing values of numbers are NaN there."""
    frame = pandas.read_parquet(directory)
    return {name: [None if missing(value) else value for value in frame[name]] for name in frame.columns}


def with_duckdb(directory):
    """A glob as DuckDB takes it."""
    relation = duckdb.sql(f"select * from read_parquet('{directory}/**/*.parquet', hive_partitioning = true)")
    rows = relation.fetchall()
    return {name: [row[index] for row in rows] for index, name in enumerate(relation.columns)}


def missing(value):
    """Whether pandas says that a value is missing; lists never are."""
    return value is None or (not hasattr(value, "__len__") and bool(pandas.isna(value)))


def total(values):
    """The sum of numbers, or of numbers in lists, without what is missing."""
    return sum(int(sum(value)) if hasattr(value, "__len__") else int(value) for value in values if value is not None)


def summary(columns, table):
    """What a table holds, by the columns that the schema says it has."""
    names = [column["name"] for column in table["columns"]]
    if sorted(columns) != sorted([*names, "run"]):
        raise SystemExit(f"{table['name']} has the columns {sorted(columns)}, not {sorted(names)} and run")
    types = {column["name"]: column["type"] for column in table["columns"]}
    numeric = [name for name in names if types[name] != "string" and not types[name].startswith("timestamp")]
    nulls = {name: sum(value is None for value in columns[name]) for name in names}
    return {
        "rows": len(columns["run"]),
        "runs": len(set(columns["run"])),
        "nulls": {name: count for name, count in nulls.items() if count > 0},
        "sums": {name: total(columns[name]) for name in numeric},
    }


def main(dataset, schema):
    """Prints what each reader saw."""
    with open(schema, encoding="utf-8") as file:
        tables = json.load(file)["tables"]
    readers = {"polars": with_polars, "pandas": with_pandas, "duckdb": with_duckdb}
    seen = {
        reader: {table["name"]: summary(read(os.path.join(dataset, table["name"])), table) for table in tables}
        for reader, read in readers.items()
    }
    json.dump(seen, sys.stdout)


main(*sys.argv[1:])
