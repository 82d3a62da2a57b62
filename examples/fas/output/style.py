"""How every figure looks: readable without colour vision and in grey print.

matplotlib's objects only: no global backend, no global state.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, dark to light in grey as well, each with a dash of its own
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: object
) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches and its axes "rows columns"."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, path: Path | str) -> Path:
    """Write the figure; the folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def plain(axes: Axes, x: str, y: str) -> None:
    """Two labelled axes and a faint grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def style(number: int) -> dict:
    """Colour and dash of the line with this number; each pair comes once before any comes again."""
    again, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": DASHES[(place + 3 * again) % len(DASHES)]}
