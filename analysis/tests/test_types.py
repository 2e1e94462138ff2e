"""Types of columns: differences are right where they are negative, in every reader, and files with the types of earlier versions
are read as if they had today's."""

import datetime
import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from sandscope_analysis import ForeignFile, Results, schema

#: Columns of versions 1 and 2 that had another type than today's.
FORMER = json.loads((Path(__file__).parent / "types_of_version_2.json").read_text(encoding="utf-8"))
RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SHORT, LONG = 1_500_000, 9_000_000
LAUNCH = 1_700_000_000_123_456_789


def arrow(kind: str) -> pa.DataType:
    """A type as the schema calls it."""
    if kind.startswith("list<"):
        return pa.list_(pa.field("element", arrow(kind[5:-1]), nullable=False))
    if kind.startswith("timestamp"):
        return pa.timestamp("ns", "UTC")
    return {"string": pa.string(), "bool": pa.bool_(), "float64": pa.float64()}.get(kind) or getattr(pa, kind)()


def write(directory: Path, table: str, rows: list[dict], version: int, run: str = RUN) -> Path:
    """A file of a table as a version of the schema wrote it; what rows do not have is null, or nothing of its type."""
    nothing = {"string": "", "bool": False, "float64": 0.0}
    fields, values = [], []
    for column in schema.tables()[table].columns:
        kind = FORMER.get(table, {}).get(column.name, column.type) if version < 3 else column.type
        empty = None if column.nullable else [] if kind.startswith("list<") else nothing.get(kind, 0)
        fields.append(pa.field(column.name, arrow(kind), column.nullable))
        values.append(pa.array([row.get(column.name, empty) for row in rows], arrow(kind)))
    path = directory / table / f"run={run}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    metadata = {"schema_version": str(version), "run_id": run}
    pq.write_table(pa.Table.from_arrays(values, schema=pa.schema(fields, metadata)), path)
    return path


def dataset(directory: Path, version: int, run: str = RUN) -> Path:
    """Two starts, the second of which took longer, and an exit with a histogram."""
    of = {"run_id": run}
    write(directory, "runs", [{**of, "started_at_unix_ns": LAUNCH, "cpus_count": 2, "seed": 2**64 - 1}], version, run)
    starts = [
        {**of, "instance_id": f"{run}-{place}", "ok": True, "position": place, "wall_ns": wall, "lost_events_count": place}
        for place, wall in enumerate([SHORT, LONG])
    ]
    write(directory, "instances", starts, version, run)
    histogram = {"bucket_floor_ns": [100, 5], "bucket_count": [1, 3]}
    write(directory, "exits", [{**of, "instance_id": f"{run}-0", "count": 4, "time_ns": 700, **histogram}], version, run)
    return directory


@pytest.mark.parametrize("column", ["wall_ns", "lost_events_count", "position"])
def test_what_is_subtracted_is_signed_and_what_is_a_name_is_not(column: str) -> None:
    types = {column.name: column.type for column in schema.tables()["instances"].columns}
    assert types[column] == ("uint32" if column == "position" else "int64")


def test_no_quantity_of_any_table_is_unsigned() -> None:
    for table in schema.tables().values():
        for column in table.columns:
            assert column.unit is None or "uint" not in column.type, f"{table.name}.{column.name}"


def test_differences_below_zero_are_right_in_every_reader(tmp_path: Path) -> None:
    files = dataset(tmp_path, 3) / "instances"
    wanted = SHORT - LONG
    polars = pl.read_parquet(files, hive_partitioning=True).sort("position")
    assert (polars["wall_ns"][0] - polars["wall_ns"][1], polars["wall_ns"].diff()[1]) == (wanted, -wanted)
    pandas = pd.read_parquet(files).sort_values("position")["wall_ns"].reset_index(drop=True)
    assert (pandas[:1] - pandas[1:].reset_index(drop=True)).tolist() == [wanted]
    walls = ds.dataset(files).to_table().sort_by("position")["wall_ns"].combine_chunks()
    assert pc.subtract_checked(walls[0], walls[1]).as_py() == wanted
    query = "select min(wall_ns) - max(wall_ns), min(lost_events_count) - max(lost_events_count)"
    found = duckdb.sql(f"{query} from read_parquet('{files}/**/*.parquet')").fetchall()
    assert found == [(wanted, -1)]


def test_differences_of_what_the_program_wrote_are_right(directory: Path) -> None:
    walls = Results(directory).table("instances").select("wall_ns").collect()["wall_ns"]
    frame = pl.DataFrame({"low": [walls.min()], "high": [walls.max()]}, schema={"low": walls.dtype, "high": walls.dtype})
    assert frame.select(pl.col("low") - pl.col("high")).item() == walls.min() - walls.max() <= 0
    connection = Results(directory).duckdb()
    assert connection.sql("select min(wall_ns) - max(wall_ns) from instances").fetchall() == [(walls.min() - walls.max(),)]


def test_instants_of_the_real_clock_are_dates_in_every_reader(directory: Path) -> None:
    files = directory / "runs"
    today = datetime.datetime.now(datetime.UTC)
    instants = [
        pl.read_parquet(files)["started_at_unix_ns"][0],
        pd.read_parquet(files)["started_at_unix_ns"][0].to_pydatetime(warn=False),
        duckdb.sql(f"select started_at_unix_ns from read_parquet('{files}/**/*.parquet')").fetchall()[0][0],
    ]
    for instant in instants:
        assert datetime.timedelta(0) < today - instant < datetime.timedelta(hours=1)


@pytest.mark.parametrize("version", [1, 2])
def test_the_types_of_earlier_versions_become_those_of_today(tmp_path: Path, version: int) -> None:
    today, before = Results(dataset(tmp_path / "today", 3)), Results(dataset(tmp_path / "before", version))
    assert pq.read_schema(next(before.directory.glob("instances/*/*.parquet"))).field("wall_ns").type == pa.uint64()
    for table in ("runs", "instances", "exits"):
        assert before.table(table).collect().equals(today.table(table).collect()), table
        assert before.pandas(table).equals(today.pandas(table)), table
        now, then = (results.duckdb().table(table) for results in (today, before))
        assert (now.types, now.fetchall()) == (then.types, then.fetchall()), table


def test_runs_of_both_make_one_table(tmp_path: Path) -> None:
    directory = dataset(dataset(tmp_path, 2), 3, "01BX5ZZKBKACTAV9WEVGEMMVRZ")
    results = Results(directory)
    frame = results.table("instances").collect()
    assert sorted(frame["wall_ns"]) == [SHORT, SHORT, LONG, LONG]
    assert frame["run"].n_unique() == 2 and frame.schema["wall_ns"] == pl.Int64
    connection = results.duckdb()
    # Whatever zone the session is in.
    connection.sql("set timezone = 'Asia/Kolkata'")
    found = connection.sql("select count(*), min(epoch_ns(started_at_unix_ns)), max(epoch_ns(started_at_unix_ns)) from runs")
    assert found.fetchall() == [(2, LAUNCH, LAUNCH)]
    assert connection.sql("select sum(bucket_floor_ns[1]) from exits").fetchall() == [(200,)]


def test_unsigned_times_under_the_number_of_today_are_foreign(tmp_path: Path) -> None:
    dataset(tmp_path, 2)
    shutil.rmtree(tmp_path / "instances")
    part = write(tmp_path, "instances", [{"run_id": RUN, "wall_ns": SHORT}], 2)
    table = pq.read_table(part, partitioning=None)
    pq.write_table(table.replace_schema_metadata({b"schema_version": b"3"}), part)
    with pytest.raises(ForeignFile, match="is uint(64|32), not int64"):
        Results(tmp_path).table("instances")
