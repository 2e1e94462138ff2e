"""Medians published with "Are Unikernels Ready for Serverless on the Edge?" (Moebius, Pfandzelter, Bermbach; arXiv 2403.00515).

`paper.csv` holds medians computed from the data files that the authors published (github.com/OpenFogStack/unikernel-edge-faas,
commit 5ee53e9). They are **reference points**: another machine, another kernel, Firecracker 2023, one instance type, and often
another end of the measurement. Beside our own figures they tell whether orders and ratios are the same, nothing more.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from .plots import PALETTE

#: How the drawings call the points.
LABEL = "paper 2024 (other machine; reference point)"


@cache
def _all() -> pl.DataFrame:
    text = (files(__package__) / "paper.csv").read_bytes()
    return pl.read_csv(text, schema_overrides={"variant": pl.String, "value": pl.Float64}).with_columns(
        pl.col("variant").fill_null("")
    )


def reference(figure: str) -> pl.DataFrame:
    """The medians of a figure: workload, system, variant, value, unit."""
    found = _all().filter(pl.col("figure") == figure).drop("figure")
    if found.is_empty():
        raise KeyError(f"no figure {figure!r}; there are {', '.join(_all()['figure'].unique().sort())}")
    return found


def system(sandbox: str) -> str:
    """The paper's counterpart of a kind of sandbox: `linux`, `nanos` and `osv` are guests, whatever the VMM."""
    for guest in ("linux", "nanos", "osv"):
        if sandbox.endswith(f"-{guest}"):
            return guest
    if sandbox.startswith(("docker-gvisor", "docker-runsc")):
        return "docker-gvisor"
    return "gvisor" if sandbox.startswith("gvisor") else sandbox


def beside(axes: Axes, ours: pl.DataFrame, published: pl.DataFrame, quantity: str) -> None:
    """Draws our medians (`name`, `system`, `median`, `low`, `high`) and, beside those of the same system, the published ones.

    Published values of systems that were not measured here get a row of their own.
    """
    names = ours["name"].to_list()
    absent = [system for system in published["system"].unique(maintain_order=True) if system not in ours["system"].to_list()]
    rows = names + [f"({system}: not measured here)" for system in absent]
    place = np.arange(len(names)) - 0.12
    middle = ours["median"].to_numpy()
    errors = np.nan_to_num(np.vstack([middle - ours["low"].to_numpy(), ours["high"].to_numpy() - middle]))
    axes.errorbar(middle, place, xerr=np.maximum(errors, 0), fmt="o", capsize=3, color=PALETTE[0], label="this run (median, 95 % interval)")
    points = [
        (value, index + 0.12)
        for index, row_system in enumerate([*ours["system"].to_list(), *absent])
        for value in published.filter(pl.col("system") == row_system)["value"]
    ]
    if points:
        axes.plot(*zip(*points, strict=True), "D", markerfacecolor="none", color=PALETTE[5], linestyle="none", label=LABEL)
    axes.set_yticks(np.arange(len(rows)), rows)
    axes.yaxis.set_inverted(True)
    axes.set(xscale="log", xlabel=quantity)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.25))
