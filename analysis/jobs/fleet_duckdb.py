"""Median time of a start per host and sandbox, over the runs since an instant, by DuckDB.

usage: fleet_duckdb.py DIRECTORY [SINCE]      such as fleet_duckdb.py s3://bucket/results 2026-02-01

Prints JSON: `medians` (host, sandbox, median in nanoseconds), and what was read for it.
"""

from __future__ import annotations

import json
import sys

import duckdb
from runs import first_run

QUERY = """
select host_name, sandbox, median(wall_ns) as median_ns
from read_parquet($directory || '/instances/run=*/*.parquet', hive_partitioning = true, hive_types_autocast = false) as instances
join read_parquet($directory || '/runs/run=*/*.parquet', hive_partitioning = true, hive_types_autocast = false) as runs using (run)
where run >= $first and ok and not probes
group by all
order by all
"""


def scans(node: dict) -> list[dict]:
    """The operators of a plan that read files."""
    found = [node] if "Total Files Read" in node.get("extra_info", {}) else []
    return found + [scan for child in node.get("children", []) for scan in scans(child)]


def medians(directory: str, since: str | None) -> dict:
    connection = duckdb.connect()
    values = {"directory": directory, "first": first_run(since)}
    rows = connection.execute(QUERY, values).fetchall()
    ((_, plan),) = connection.execute("explain (analyze, format json) " + QUERY, values).fetchall()
    plan = json.loads(plan)
    files = sum(int(scan["extra_info"]["Total Files Read"]) for operator in plan["operator"] for scan in scans(operator))
    return {
        "medians": [list(row) for row in rows],
        "files_read": files,
        "bytes_read": plan["io"]["total_bytes_read"],
    }


if __name__ == "__main__":
    print(json.dumps(medians(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else None)))
