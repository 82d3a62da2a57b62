"""All differences to joint training in one picture: a row a system, a dot a data set and optimizer."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .methods import SYSTEMS
from .tables import Table

COLOURS = {  # Okabe and Ito's
    "digits": "#0072B2",
    "imbalance": "#D55E00",
    "satimage": "#009E73",
    "regions": "#E69F00",
    "watch": "#CC79A7",
}
MARKERS = {"SGD": "o", "Adam": "s"}
PANELS = (  # title, measure, whether both are tuned
    ("accuracy, defaults", "accuracy", False),
    ("accuracy, both tuned", "accuracy", True),
    ("one modality missing, defaults", "one missing", False),
    ("probe of the weak encoder, defaults", "weak probe", False),
)


def draw(tables: list[Table], path: Path) -> Path:
    """A dot is full where the interval excludes 0."""
    systems = list(SYSTEMS)[1:]
    figure = Figure(figsize=(14, 8.5), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (title, measure, tuned) in zip(panels, PANELS, strict=True):
        panel.axvline(0, color="0.3", lw=1)
        for y, system in enumerate(systems):
            panel.axhline(y, color="0.93", lw=1, zorder=0)
            for table in tables:
                d = table.against(system, "joint", measure, tuned=tuned)
                if d is not None:
                    colour = COLOURS[table.data.name]
                    face = colour if d.verdict in ("gain", "loss") else "white"
                    panel.plot(d.mean, y, MARKERS[table.optimizer], color=colour, mfc=face, ms=5, alpha=0.85)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("points above joint training")
        panel.set_xscale("symlog", linthresh=2)
        panel.set_xticks([-20, -5, -2, -1, 0, 1, 2, 5, 20, 50], ["−20", "", "−2", "", "0", "", "2", "5", "20", "50"])
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(systems)), systems)
    panels[0].set_ylim(len(systems) - 0.5, -0.5)
    names = dict.fromkeys((table.data.name, table.optimizer) for table in tables if table.weak() is not None)
    handles = [Line2D([], [], ls="", marker=MARKERS[o], color=COLOURS[n], label=f"{n}, {o}") for n, o in names]
    handles.append(Line2D([], [], ls="", marker="o", color="0.4", mfc="white", label="hollow: no difference shown"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
