"""A panel a measure, a line a training: means over seeds, in the range of all of them."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from .trainings import MEASURES, Measured

TITLES = {
    "class": "class labels: explained",
    "domain": "domain labels: explained",
    "modality": "modality labels: explained",
    "gap": "distance of modalities / spread",
}
STYLES = (("#000000", "-"), ("#56B4E9", "--"), ("#0072B2", "-"), ("#E69F00", "--"), ("#D55E00", "-"))


def draw(found: dict[str, list[Measured]], path: Path) -> Path:
    figure = Figure(figsize=(13, 3.4), layout="constrained", dpi=130)
    for panel, m in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for (name, runs), (colour, dash) in zip(found.items(), STYLES, strict=True):
            curves = torch.tensor([run.curves[m] for run in runs])
            panel.plot(runs[0].steps, curves.mean(0), dash, color=colour, label=name)
            panel.fill_between(runs[0].steps, curves.amin(0), curves.amax(0), color=colour, alpha=0.12, lw=0)
        panel.set_title(TITLES[m], fontsize=10)
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.92")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
