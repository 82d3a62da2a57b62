"""A fused loss leaves the slow modality behind; what other losses make of the same data and network."""

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from balancekit.diagnostics import probe_accuracy
from balancekit.losses import decouple, tcmax_loss, unimodal_loss
from balancekit.modulation import slice_logits

from .style import BLACK, BLUE, panels, plain
from .toy import Late, batches, data

CAPTION = (
    "Simulated data made for imbalance, three seeds (circles) and their mean (bar): cross-entropy of the fused head "
    "alone leaves the picture's encoder half way, losses that ask for each modality do not, and two models that never "
    "met and are averaged do as well."
)
APART = "never met,\naveraged"
SYSTEMS = ("untrained", "joint", "joint + unimodal", "DGL", "TCMax", APART)
SEEDS, STEPS = range(3), 150


def loss(system: str, model: Late, z: dict[str, Tensor], labels: Tensor) -> Tensor:
    """The objective of one system."""
    if system == "joint":
        return F.cross_entropy(model.fuse(z), labels)
    if system == "joint + unimodal":
        return F.cross_entropy(model.fuse(z), labels) + unimodal_loss(model.alone(z), labels)
    if system == "DGL":
        return F.cross_entropy(model.fuse(decouple(z)), labels) + unimodal_loss(model.alone(z), labels, weight=4.0)
    if system == "TCMax":
        return tcmax_loss(slice_logits(model.head, z), labels)
    return unimodal_loss(model.alone(z), labels)


def train(system: str, seed: int) -> tuple[float, float]:
    """Accuracy in per cent of a probe of the picture's features, and of the whole."""
    torch.manual_seed(seed)
    model, known, new = Late(), data(400, seed), data(800, 100 + seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for views, labels in batches(known, 0 if system == "untrained" else STEPS):
        optimizer.zero_grad()
        loss(system, model, model.encode(views), labels).backward()
        optimizer.step()
    with torch.no_grad():
        z, unseen = model.encode(known.views), model.encode(new.views)
        logits = model.alone(unseen).values() if system == APART else [model.fuse(unseen)]
        whole = (sum(each.softmax(1) for each in logits).argmax(1) == new.labels).float().mean().item()
    return 100 * probe_accuracy(z["picture"], known.labels, unseen["picture"], new.labels), 100 * whole


def draw() -> Figure:
    """A row a system, a circle a seed."""
    found = torch.tensor([[train(system, seed) for seed in SEEDS] for system in SYSTEMS])
    figure, axes = panels(2, sharey=True)
    for panel, values, colour in zip(axes, found.unbind(-1), (BLUE, BLACK), strict=True):
        for y, row in enumerate(values):
            panel.plot(row, torch.full_like(row, y), "o", color=colour, mfc="none", ms=6)
            panel.plot([row.mean()] * 2, [y - 0.3, y + 0.3], color=colour, lw=3)
        panel.set(xlim=(15, 102), ylim=(len(SYSTEMS) - 0.5, -0.5))
    plain(axes[0], "probe of the picture's encoder, %", "objective")
    plain(axes[1], "accuracy of the whole, %", "")
    axes[0].set_yticks(range(len(SYSTEMS)), SYSTEMS)
    return figure
