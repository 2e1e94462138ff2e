"""The loaders against results that sandscope itself has just written, and against files that are not what they should be."""

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import INSTANCES, sandscope
from sandscope_analysis import (
    DamagedFile,
    ForeignFile,
    MissingColumns,
    NewerSchema,
    NoSuchTable,
    NotADataset,
    Results,
    schema,
)


def test_the_schema_is_that_of_the_program() -> None:
    ours = json.loads((Path(schema.__file__).parent / "schema.json").read_text(encoding="utf-8"))
    assert ours == json.loads(sandscope("schema", "--json")), (
        "stale: run `sandscope schema --json > analysis/sandscope_analysis/schema.json`"
    )


def test_all_libraries_see_the_same(directory: Path) -> None:
    results = Results(directory)
    walls = sorted(results.table("instances").select("wall_ns").collect().to_series())
    assert len(walls) == INSTANCES and all(wall > 0 for wall in walls)
    assert sorted(results.pandas("instances")["wall_ns"]) == walls
    rows = results.duckdb().sql("select wall_ns from instances order by wall_ns").fetchall()
    assert [row[0] for row in rows] == walls


def test_every_table_has_its_documented_columns_and_its_run(directory: Path) -> None:
    results = Results(directory)
    assert {"attribution", "exits", "instances", "markers", "phases", "requests", "runs"} <= set(results.tables())
    runs = results.table("runs").collect()["run_id"]
    connection = results.duckdb()
    for table in results.tables():
        documented = schema.tables()[table].polars
        frame = results.table(table).collect()
        assert frame.schema == pl.Schema({**documented, "run": pl.String()})
        assert set(frame["run"]) <= set(runs)
        view = connection.table(table)
        types = {column.name: column.duckdb for column in schema.tables()[table].columns}
        assert dict(zip(view.columns, map(str, view.types), strict=True)) == {**types, "run": "VARCHAR"}
        assert list(results.pandas(table).columns) == frame.columns
        assert results.columns(table)["column"].to_list() == list(documented)


def test_what_is_missing_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(NotADataset, match="holds no results"):
        Results(tmp_path)
    results = Results(directory)
    with pytest.raises(NoSuchTable, match="no table 'exit', and sandscope knows none of that name; there are .*attribution"):
        results.table("exit")
    with pytest.raises(NoSuchTable, match="no table 'memory_host': `sandscope run memory` writes it"):
        results.table("memory_host")


def rewrite(part: Path, change) -> None:
    """Writes a file anew with a changed Arrow table, under the same metadata."""
    table = change(pq.read_table(part, partitioning=None))
    pq.write_table(table, part)


@pytest.fixture
def copy(directory: Path, tmp_path: Path) -> Path:
    """Results that may be spoilt."""
    return Path(shutil.copytree(directory, tmp_path / "copy"))


def instances_of(directory: Path) -> Path:
    return next((directory / "instances").glob("run=*/part-0.parquet"))


def test_columns_that_an_earlier_version_did_not_write_are_named_and_null(directory: Path, copy: Path) -> None:
    rewrite(instances_of(copy), lambda table: table.drop_columns(["cache", "unattributed_ns"]))
    results = Results(copy)
    with pytest.warns(MissingColumns, match="did not write cache, unattributed_ns"):
        frame = results.table("instances").collect()
    assert frame["cache"].null_count() == frame.height == INSTANCES
    assert frame.columns == Results(directory).table("instances").collect().columns
    with pytest.warns(MissingColumns):
        connection = results.duckdb()
    assert connection.sql("select count(*), count(cache), sum(wall_ns) > 0 from instances").fetchall() == [(INSTANCES, 0, True)]
    # The same beside a run that has them.
    other = copy / "instances" / "run=01ARZ3NDEKTSV4RRFFQ69G5FAV"
    shutil.copytree(instances_of(directory).parent, other)
    with pytest.warns(MissingColumns):
        both = results.table("instances").collect()
    assert (both.height, both["cache"].null_count()) == (2 * INSTANCES, INSTANCES)


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_a_truncated_file_is_said_to_be_so(copy: Path, keep: int) -> None:
    part = instances_of(copy)
    part.write_bytes(part.read_bytes()[:keep])
    with pytest.raises(DamagedFile, match="part-0.parquet is no complete Parquet file"):
        Results(copy).table("instances")


def test_a_foreign_file_is_said_to_be_so(copy: Path) -> None:
    part = instances_of(copy)
    pq.write_table(pa.table({"run_id": ["x"]}), part)
    with pytest.raises(ForeignFile, match="not written by sandscope"):
        Results(copy).table("instances")


def test_a_column_of_another_type_is_said_to_be_so(copy: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        index = table.column_names.index("wall_ns")
        return table.set_column(index, "wall_ns", table.column("wall_ns").cast(pa.string()))

    rewrite(instances_of(copy), change)
    with pytest.raises(ForeignFile, match="its column 'wall_ns' is string, not int64"):
        Results(copy).table("instances")


def test_a_later_schema_is_refused(copy: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.replace_schema_metadata({**table.schema.metadata, b"schema_version": b"999"})

    rewrite(instances_of(copy), change)
    with pytest.raises(NewerSchema, match="version 999 of the schema"):
        Results(copy).table("instances")


def test_a_table_without_rows_is_a_table(copy: Path) -> None:
    rewrite(instances_of(copy), lambda table: table.slice(0, 0))
    frame = Results(copy).table("instances").collect()
    assert frame.height == 0 and frame.schema["wall_ns"] == pl.Int64


def test_the_directory_may_come_from_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SANDSCOPE_RESULTS", str(directory))
    assert Results().directory == directory
