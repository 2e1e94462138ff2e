"""Computes with SciPy what `sandscope compare --json` (standard input) says about the starts in two directories."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats


def starts(directory: str) -> dict[str, np.ndarray]:
    parts = sorted(Path(directory).glob("instances/run=*/part-*.parquet"))
    frame = pl.read_parquet(parts).filter(pl.col("ok") & ~pl.col("probes"))
    return {name: group["wall_ns"].to_numpy().astype(float) for (name,), group in frame.group_by("sandbox")}


def close(ours: float, theirs: float, what: str, tolerance: float = 1e-6) -> None:
    assert abs(ours - theirs) <= tolerance * max(1.0, abs(theirs)), f"{what}: {ours} is not {theirs}"


comparison = json.load(sys.stdin)
a, b = starts(sys.argv[1]), starts(sys.argv[2])
rows = [row for row in comparison["rows"] if row["group"] == "start" and row["primary"]]
for row in rows:
    before, after = a[row["sandbox"]], b[row["sandbox"]]
    assert (row["a_count"], row["b_count"]) == (len(before), len(after))
    close(row["a_center"], np.median(before), "median of A")
    close(row["b_center"], np.median(after), "median of B")
    close(row["difference_ratio"], np.median(after) / np.median(before) - 1, "difference")
    test = stats.mannwhitneyu(after, before)
    close(row["p_value"], test.pvalue, f"p-value, {row['sandbox']}")
    close(row["cliffs_delta"], 2 * test.statistic / (len(after) * len(before)) - 1, "Cliff's delta")
    # Ends of intervals by resampling agree as far as two seeds do.
    interval = stats.bootstrap(
        (after, before),
        lambda after, before, axis: np.median(after, axis=axis) / np.median(before, axis=axis) - 1,
        method="percentile",
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    width = interval.high - interval.low
    close(row["low_ratio"], interval.low, "lower end", 0.1 * width)
    close(row["high_ratio"], interval.high, "upper end", 0.1 * width)

# All primary metrics are one family; the shares of failed instances (all zero) have p = 1, where SciPy has no value.
family = [row for row in comparison["rows"] if row["primary"]]
adjusted = stats.false_discovery_control([row["p_value"] for row in family])
for row, theirs in zip(family, adjusted, strict=True):
    close(row["adjusted_p_value"], theirs, "adjusted p-value")
print(f"{len(rows)} starts agree")
