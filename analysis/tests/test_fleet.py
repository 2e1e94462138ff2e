"""The jobs of docs/scale.md, on 1,000 runs of 50 hosts: right figures, and no file is read that the question does not need."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import skip

JOBS = Path(__file__).parent.parent / "jobs"
sys.path.insert(0, str(JOBS))
from runs import ulid  # noqa: E402

RUNS, HOSTS, INSTANCES = 1000, 50, 9
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
SANDBOXES = ("gvisor", "runc")


def start_ns(host: int, sandbox: str, instance: int) -> int:
    """Hosts differ by 1 ms, sandboxes by 100 ms, instances about their median (4) by 1 µs."""
    return 1_000_000 * host + 100_000_000 * SANDBOXES.index(sandbox) + 1_000 * instance


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run an hour, of one host after the other."""
    out = tmp_path_factory.mktemp("fleet")
    for number in range(RUNS):
        started = FIRST + timedelta(hours=number)
        run = ulid(int(started.timestamp() * 1000), number)
        host = number % HOSTS
        pairs = [(sandbox, instance) for sandbox in SANDBOXES for instance in range(INSTANCES)]
        # The first half has the types of versions 1 and 2 of the schema.
        times, instants = (pa.int64(), pa.timestamp("ns", "UTC")) if number >= RUNS // 2 else (pa.uint64(), pa.int64())
        tables = {
            "runs": {
                "run_id": [run],
                "host_name": [f"host-{host:02}"],
                "started_at_unix_ns": pa.array([int(started.timestamp() * 1e9)], instants),
            },
            "instances": {
                "run_id": [run] * len(pairs),
                "sandbox": [sandbox for sandbox, _ in pairs],
                "probes": [False] * len(pairs),
                "ok": [True] * len(pairs),
                "wall_ns": pa.array([start_ns(host, *pair) for pair in pairs], times),
            },
        }
        for table, columns in tables.items():
            folder = out / table / f"run={run}"
            folder.mkdir(parents=True)
            pq.write_table(pa.table(columns), folder / "part-0.parquet")
    return out


#: The last 24 runs, which were of the last 24 hosts.
SINCE = (FIRST + timedelta(hours=RUNS - 24)).isoformat()


def duckdb_job(fleet: Path, *since: str) -> dict:
    command = [sys.executable, JOBS / "fleet_duckdb.py", fleet, *since]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    return json.loads(output.stdout)


def judge(recent: dict, all_runs: dict) -> None:
    """Right figures; the files of the question's runs, one of each of the two tables; and the bytes of no others."""
    expected = [
        [f"host-{host:02}", sandbox, start_ns(host, sandbox, INSTANCES // 2)]
        for host in range(HOSTS)
        for sandbox in SANDBOXES
    ]
    assert all_runs["medians"] == expected
    assert recent["medians"] == expected[-24 * len(SANDBOXES) :]
    assert (recent["files_read"], all_runs["files_read"]) == (48, 2000)
    assert recent["bytes_read"] * 20 < all_runs["bytes_read"]
    print({key: (recent[key], all_runs[key]) for key in ("files_read", "bytes_read")})


def test_a_question_about_a_day_reads_the_files_of_that_day(fleet: Path) -> None:
    judge(duckdb_job(fleet, SINCE), duckdb_job(fleet))


def test_so_it_is_by_spark(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("java") is None:
        skip("test_so_it_is_by_spark", "java", "Spark needs Java, and there is no program java")
    import fleet_spark

    # It is over before the better code of the second compiler would pay.
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    spark = fleet_spark.session()
    try:
        judge(fleet_spark.medians(spark, str(fleet), SINCE), fleet_spark.medians(spark, str(fleet), None))
    finally:
        spark.stop()
