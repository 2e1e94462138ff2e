"""How the notebooks draw: one look, colours that people with any colour vision can tell apart, and intervals where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

#: Okabe and Ito, "Color Universal Design" (2008): eight colours that stay apart for all common kinds of colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

#: Each category of time has the same colour and hatch in every notebook; hatches keep apart what shares a colour.
CATEGORIES = {
    "guest": (PALETTE[2], ""),
    "exit": (PALETTE[5], ""),
    "kvm_run": (PALETTE[2], "//"),
    "user": (PALETTE[0], ""),
    "fault": (PALETTE[0], "//"),
    "interrupt": (PALETTE[0], "xx"),
    "kernel": (PALETTE[4], ""),
    "runnable": (PALETTE[6], ""),
    "throttled": (PALETTE[6], "//"),
    "block_io": (PALETTE[3], ""),
    "rcu": (PALETTE[1], ""),
    "lock": (PALETTE[1], "xx"),
    "workqueue": (PALETTE[4], "xx"),
    "journal": (PALETTE[3], "xx"),
    "timer": (PALETTE[3], "//"),
    "network": (PALETTE[1], "//"),
    "device": (PALETTE[5], "//"),
    "outside": (PALETTE[4], "//"),
    "unattributed": (PALETTE[7], ""),
}


def use_style() -> None:
    """Sets what all figures have in common."""
    plt.rcParams.update(
        {
            "figure.figsize": (9, 4),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "legend.frameon": False,
            "hatch.linewidth": 0.6,
        }
    )


def medians(axes: Axes, labels: Sequence[str], frame: pl.DataFrame, label: str, offset: float = 0.0, **look) -> None:
    """Medians as points with their intervals, one row per label; `frame` is that of `statistics.medians`, in the same order."""
    place = np.arange(len(labels)) + offset
    middle = frame["median"].to_numpy()
    # A point without an interval gets no whisker.
    errors = np.nan_to_num(np.vstack([middle - frame["low"].to_numpy(), frame["high"].to_numpy() - middle]))
    axes.errorbar(middle, place, xerr=np.maximum(errors, 0), fmt="o", capsize=3, label=label, **look)
    axes.set_yticks(np.arange(len(labels)), labels)
    # The first on top, also when this is called again for another series.
    axes.yaxis.set_inverted(True)


def stacked(axes: Axes, labels: Sequence[str], parts: dict[str, Sequence[float]]) -> None:
    """One bar per label, made of parts; categories of time get their own colours."""
    left = np.zeros(len(labels))
    for index, (name, sizes) in enumerate(parts.items()):
        colour, hatch = CATEGORIES.get(name, (PALETTE[index % len(PALETTE)], "//" * (index // len(PALETTE))))
        sizes = np.asarray(sizes, dtype=float)
        axes.barh(labels, sizes, left=left, label=name, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        left += sizes
    axes.yaxis.set_inverted(True)
    axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))


def timeline(axes: Axes, rows: Iterable[tuple[str, str, float, float]]) -> None:
    """Stretches of time on named lanes: (lane, category, start, length), in the unit of the axis."""
    lanes: dict[str, int] = {}
    stretches: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for lane, category, start, length in rows:
        place = lanes.setdefault(lane, len(lanes))
        stretches.setdefault(category, {}).setdefault(place, []).append((start, length))
    for index, (category, places) in enumerate(stretches.items()):
        colour, hatch = CATEGORIES.get(category, (PALETTE[index % len(PALETTE)], ""))
        label: str | None = category
        for place, bars in places.items():
            # No edges: most stretches are narrower than a line.
            axes.broken_barh(bars, (place - 0.4, 0.8), facecolors=colour, hatch=hatch, linewidth=0, label=label)
            label = None
    axes.set_yticks(range(len(lanes)), list(lanes))
    axes.yaxis.set_inverted(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
