"""The demo's picture: one person's records among records the network never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator

Sureness = tuple[Sequence[float], Sequence[float]]
"""Log-odds of the labels on file, in nats: of the records to forget, and of never-seen ones."""

FORGOTTEN, NEVER_SEEN = "#d55e00", "#0072b2"  # two of Okabe and Ito's colours
GREY = "#555555"
PERCENT = {-6.907: "0.1 %", -4.595: "1 %", -2.197: "10 %", 0.0: "50 %", 2.197: "90 %",
           4.595: "99 %", 6.907: "99.9 %"}  # fmt: skip
EDGE = 9.0
"""Log-odds beyond are drawn here."""


def draw(path: Path, before: Sureness, after: Sureness, *, title: str) -> None:
    """Write the picture as PNG: one dot for each record."""
    figure = Figure(figsize=(9, 6.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.02, ha="left", fontsize=14, fontweight="bold")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, sureness, when in zip(panels, (before, after), ("Before", "After"), strict=True):
        _panel(axes, sureness, when)
    panels[1].set_xlabel(
        "how likely the model finds the label on file (dots are records, lines are medians)"
    )
    unfinished = path.with_suffix(".unfinished")
    figure.savefig(unfinished, format="png")
    unfinished.replace(path)


def _panel(axes: Axes, sureness: Sureness, when: str) -> None:
    mine, unseen = (np.clip(np.asarray(s, dtype=float), -EDGE, EDGE) for s in sureness)
    _row(axes, unseen, 0.0, NEVER_SEEN, size=10, alpha=0.45)
    _row(axes, mine, 1.0, FORGOTTEN, size=34, alpha=0.9)
    axes.set_title(when, loc="left", fontsize=12, color=GREY)
    axes.set_yticks([1.0, 0.0], [f"the {len(mine)} records\nto forget", f"{len(unseen)} records\n"
                                 "it never saw"])  # fmt: skip
    axes.set_ylim(-0.55, 1.5)
    axes.set_xlim(-EDGE - 0.4, EDGE + 0.4)
    axes.xaxis.set_major_locator(FixedLocator(list(PERCENT)))
    axes.xaxis.set_major_formatter(FixedFormatter(list(PERCENT.values())))
    axes.tick_params(length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _row(
    axes: Axes, values: npt.NDArray[Any], height: float, color: str, *, size: float, alpha: float
) -> None:
    """Dots beside each other where they would lie on each other, and their median."""
    axes.scatter(values, height + _spread(values), s=size, color=color, alpha=alpha, linewidths=0)
    median = float(np.median(values))
    axes.plot([median, median], [height - 0.4, height + 0.4], color=color, linewidth=2.5)


def _spread(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N,) heights in [-0.35, 0.35]: records with like values are stacked around the middle."""
    heights = np.zeros(len(values))
    bins = np.round(values / 0.3).astype(int)
    step = min(0.1, 0.7 / max(np.bincount(bins - bins.min()).max(), 1))
    for which in np.unique(bins):
        places = np.flatnonzero(bins == which)
        heights[places] = step * (np.arange(len(places)) - (len(places) - 1) / 2)
    return heights
