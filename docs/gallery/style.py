"""How every picture looks: readable in grey, without colour vision, on a telephone, and on a dark page.

Colours are Okabe and Ito's. None stands alone: what it says is also said by a dash, a marker, a hatch or a word.
"""

from pathlib import Path
from typing import Any

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLACK, GREY = "#000000", "#666666"
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"

# the two modalities of the toy, the same in every picture: one learns fast, one slowly
MODALITY: dict[str, dict[str, Any]] = {
    "sound": {"color": VERMILION, "linestyle": "--"},
    "picture": {"color": BLUE, "linestyle": "-"},
}


def panels(columns: int = 1, rows: int = 1, *, height: float = 3.2, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure 7 inches wide, and its axes row by row."""
    figure = Figure(figsize=(7, height), dpi=160, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def plain(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Two labelled axes and a faint grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def say(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Words inside a picture, on a white halo."""
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    axes.text(x, y, text, **{"fontsize": 9.5, "path_effects": halo, **options})


def save(figure: Figure, path: Path) -> Path:
    """Write the figure; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path
