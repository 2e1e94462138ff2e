"""Medians with the intervals that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Estimate:
    """A median, and the interval in which the median of many more values would lie with the given confidence.

    With fewer than three values there is no interval: `low` and `high` are NaN.
    """

    median: float
    low: float
    high: float
    count: int


def median(values: Sequence[float], confidence: float = 0.95, resamples: int = 2000, seed: int = 1) -> Estimate:
    """The median with a percentile bootstrap interval (Efron 1979); the same seed gives the same interval."""
    numbers = np.asarray([value for value in values if value is not None], dtype=float)
    if len(numbers) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    if len(numbers) < 3:
        return Estimate(float(np.median(numbers)), np.nan, np.nan, len(numbers))
    generator = np.random.default_rng(seed)
    medians = np.median(generator.choice(numbers, size=(resamples, len(numbers))), axis=1)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(np.median(numbers)), float(low), float(high), len(numbers))


def medians(frame: pl.DataFrame, by: Sequence[str], value: str) -> pl.DataFrame:
    """The median of a column for each group, with the ends of its interval and the number of values."""
    rows = []
    for key, group in frame.group_by(list(by), maintain_order=True):
        estimate = median(group[value].drop_nulls().to_list())
        rows.append({**dict(zip(by, key, strict=True)), **estimate.__dict__})
    types = {name: frame.schema[name] for name in by}
    numbers = {"median": pl.Float64, "low": pl.Float64, "high": pl.Float64, "count": pl.Int64}
    return pl.DataFrame(rows, schema={**types, **numbers})
