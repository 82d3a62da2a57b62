"""Classification by distance to prototypes, and what its loss says of two branches in a training."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional as F

from balancekit.prototypes import PrototypeBank, prototypical_cross_entropy

from .style import BLUE, GREEN, MODALITY, VERMILION, panels, plain, say
from .toy import CLASSES, WIDTH, Late, batches, data

CAPTION = (
    "Left: the prototype of a class (star) is the mean of its features, and nearness to the prototypes gives "
    "probabilities, drawn as lines where the likeliest class has 60 and 90 %; right: the loss that this gives for "
    "each branch shows which one learns faster, in a joint training that does not train on it (simulated data)."
)
STEPS = 150


def draw() -> Figure:
    """The field at the left, the losses at the right."""
    torch.manual_seed(0)
    figure, (left, right) = panels(2)
    field(left)
    losses(right)
    return figure


def field(panel: Axes) -> None:
    """Features of three classes in two dimensions."""
    centres = torch.tensor([[-2.2, -1.0], [2.4, -1.2], [0.2, 2.2]])
    labels = torch.arange(90) % 3
    features = centres[labels] + 0.9 * torch.randn(90, 2)
    bank = PrototypeBank(3, 2, decay=0.0)
    bank.update(features, labels)

    x, y = torch.linspace(-5.5, 5.5, 200), torch.linspace(-4, 5.5, 200)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    sure, winner = bank(grid.flatten(0, 1)).softmax(-1).max(-1)
    sure, winner = sure.view(200, 200), winner.view(200, 200)
    looks = ((VERMILION, "^"), (BLUE, "o"), (GREEN, "s"))
    for c, (colour, marker) in enumerate(looks):
        panel.contourf(x, y, winner == c, levels=[0.5, 1.5], colors=[colour], alpha=0.12)
        panel.plot(*features[labels == c].T, marker, color=colour, ms=3.5, mfc="none")
        panel.plot(*bank.prototypes[c], "*", color=colour, mec="black", ms=16)
    lines = panel.contour(x, y, sure, levels=[0.6, 0.9], colors="0.25", linewidths=1)
    panel.clabel(lines, fmt=lambda p: f"{100 * p:.0f} %", fontsize=9)
    plain(panel, "first feature", "second feature")
    panel.set_ylim(-4, 5.5)
    panel.grid(visible=False)


def losses(panel: Axes) -> None:
    """Cross-entropy of the fused head trains; the banks look on."""
    model, known = Late(), data(400, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    banks = {m: PrototypeBank(CLASSES, WIDTH, decay=0.9) for m in model.encoders}
    seen: dict[str, list[float]] = {m: [] for m in banks}
    for views, labels in batches(known, STEPS):
        z = model.encode(views)
        for m, bank in banks.items():
            bank.update(z[m].detach(), labels)
            seen[m].append(prototypical_cross_entropy(z[m], labels, bank.prototypes, seen=bank.seen).item())
        optimizer.zero_grad()
        F.cross_entropy(model.fuse(z), labels).backward()
        optimizer.step()
    for m, values in seen.items():
        panel.plot(values, lw=2, **MODALITY[m])
        say(panel, 0.5 * STEPS, values[STEPS // 2] + 0.06, m, color=MODALITY[m]["color"], va="bottom")
    plain(panel, "step", "prototypical loss, nats")
    panel.set_ylim(bottom=0)
