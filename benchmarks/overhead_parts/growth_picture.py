"""The curves of section "growth": one column an axis; points are medians, lines the fitted laws."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from .growth import Curve

# Okabe and Ito's colours, told apart by lightness, marker and dash as well
STYLES = (("#000000", "o", "-"), ("#0072B2", "s", "--"), ("#E69F00", "^", ":"))


def draw(curves: Sequence["Curve"], path: Path) -> None:
    """Time above, peak memory below."""
    axes = list(dict.fromkeys(c.axis for c in curves))
    measures = ("time, ms", "peak, MB")
    variants = list(dict.fromkeys(c.variant for c in curves))
    style = dict(zip(variants, STYLES, strict=True))
    figure, grid = plt.subplots(
        len(measures), len(axes), figsize=(4.2 * len(axes), 6), squeeze=False, layout="constrained", sharex="col"
    )
    for row, measure in zip(grid, measures, strict=True):
        for panel, axis in zip(row, axes, strict=True):
            for c in (c for c in curves if (c.axis, c.measure) == (axis, measure)):
                colour, marker, dash = style[c.variant]
                ends = (min(c.x), max(c.x))
                panel.plot(c.x, c.y, marker, color=colour, label=c.variant)
                panel.plot(ends, [c.a + c.b * x for x in ends], dash, color=colour, linewidth=1)
            panel.set_ylim(bottom=0)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(measure)
    for panel, axis in zip(grid[-1], axes, strict=True):
        panel.set_xlabel(axis)
    grid[0][0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
