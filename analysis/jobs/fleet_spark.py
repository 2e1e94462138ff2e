"""Median time of a start per host and sandbox, over the runs since an instant, by Spark.

usage: fleet_spark.py DIRECTORY [SINCE]      such as fleet_spark.py s3a://bucket/results 2026-02-01

Prints JSON: `medians` (host, sandbox, median in nanoseconds), and what was read for it. Spark needs Java (17) and the package
`pyspark`; for s3a:// also Hadoop's `hadoop-aws` of the version that Spark has.
"""

from __future__ import annotations

import json
import sys

from pyspark.sql import DataFrame, SparkSession
from runs import first_run

QUERY = """
select host_name, sandbox, median(wall_ns) as median_ns
from instances join runs using (run)
where run >= '{first}' and ok and not probes
group by host_name, sandbox
order by host_name, sandbox
"""

#: The columns that the question needs. Spark would take all of them, and from one of the files; but it knows no timestamps in
#: nanoseconds, and files of the first two versions of the schema have unsigned times.
COLUMNS = {
    "instances": "sandbox string, probes boolean, ok boolean, wall_ns bigint, run string",
    "runs": "host_name string, run string",
}

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "localhost",
    # The identifier of a run is a text, whatever it looks like.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # A plan that is fixed before it is run says which files it reads.
    "spark.sql.adaptive.enabled": "false",
    # Both tables are filtered by the run already.
    "spark.sql.optimizer.dynamicPartitionPruning.enabled": "false",
    # The vectorised reader takes no unsigned number for a signed one.
    "spark.sql.parquet.enableVectorizedReader": "false",
    # The tables of a fleet are small; the defaults are made for terabytes.
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
}


def session() -> SparkSession:
    """Spark on this machine, unless `spark-submit` says where."""
    builder = SparkSession.builder.appName("sandscope fleet").master("local[*]")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def bytes_read(spark: SparkSession) -> int:
    """What this process has read from all file systems so far. On a cluster, the executors' part is not in it."""
    statistics = spark.sparkContext._jvm.org.apache.hadoop.fs.FileSystem.getAllStatistics()
    return sum(of_file_system.getBytesRead() for of_file_system in statistics)


def files_read(frame: DataFrame) -> int:
    """Files that the scans of a plan that was run have chosen."""
    leaves = frame._jdf.queryExecution().executedPlan().collectLeaves()
    scans = (leaves.apply(place).metrics().get("numFiles") for place in range(leaves.size()))
    return sum(files.get().value() for files in scans if files.isDefined())


def medians(spark: SparkSession, directory: str, since: str | None) -> dict:
    for table, columns in COLUMNS.items():
        spark.read.schema(columns).parquet(f"{directory}/{table}").createOrReplaceTempView(table)
    before = bytes_read(spark)
    frame = spark.sql(QUERY.format(first=first_run(since)))
    rows = frame.collect()
    return {
        "medians": [list(row) for row in rows],
        "files_read": files_read(frame),
        "bytes_read": bytes_read(spark) - before,
    }


if __name__ == "__main__":
    spark = session()
    print(json.dumps(medians(spark, sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else None)))
    spark.stop()
