"""Medians and intervals against what is known of them."""

import numpy as np
import polars as pl
import pytest
from sandscope_analysis import paper, statistics


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    hits = 0
    for seed in range(200):
        estimate = statistics.median(generator.normal(100, 10, 40), resamples=400, seed=seed)
        hits += estimate.low <= 100 <= estimate.high
    assert 180 <= hits <= 199


def test_few_values_have_no_interval() -> None:
    assert np.isnan(statistics.median([]).median)
    two = statistics.median([1.0, 3.0])
    assert two.median == 2 and np.isnan(two.low) and two.count == 2


def test_medians_are_by_group_and_without_nulls() -> None:
    frame = pl.DataFrame({"name": ["a", "a", "a", "b"], "value": [1.0, None, 3.0, 7.0]})
    found = statistics.medians(frame, ["name"], "value")
    assert found.select("name", "median", "count").rows() == [("a", 2.0, 2), ("b", 7.0, 1)]


def test_the_published_values_are_there_for_every_figure() -> None:
    figures = ["cold_start", "burst", "startup", "startup_kvm", "startup_instructions", "idle_instructions", "idle_memory"]
    for figure in [*figures, "cpu", "alloc", "read", "unzip", "network", "network_file", "warm"]:
        assert paper.reference(figure)["value"].min() > 0
    cold = paper.reference("cold_start").filter((pl.col("workload") == "go") & (pl.col("system") == "nanos"))
    assert cold["value"].to_list() == [109.6]
    with pytest.raises(KeyError, match="no figure 'x'"):
        paper.reference("x")
    assert [paper.system(kind) for kind in ("qemu-linux", "docker-gvisor", "gvisor-ptrace", "runc")] == [
        "linux",
        "docker-gvisor",
        "gvisor",
        "runc",
    ]
