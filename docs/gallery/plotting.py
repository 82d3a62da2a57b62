"""Three kinds of series of one history, as ``plot`` draws them."""

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from balancekit import Branches, Rebalancer, ReGrad
from balancekit.diagnostics import watch
from balancekit.plotting import plot

from .style import BLACK, MODALITY, panels
from .toy import Late, batches, data

CAPTION = (
    "Three calls of plot on one history, of ReGrad in a network whose features see each other (simulated data): the "
    "losses of the modalities, the cosine of their gradients where both reach a tensor, and the share of tensors in "
    "which they conflict."
)


class Coupled(Late):
    """Each feature also sees the other one, so that gradients of both losses meet in the encoders."""

    def encode(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features, each with a part of the other."""
        sound, picture = super().encode(views).values()
        return {"sound": sound + 0.5 * picture, "picture": picture + 0.5 * sound}


def draw() -> Figure:
    """A panel a kind."""
    torch.manual_seed(0)
    model, known = Coupled(), data(400, seed=0)
    balancer = Rebalancer(Branches(model, {m: f"encoders.{m}" for m in model.encoders}), ReGrad(), weight=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with watch(balancer, optimizer=optimizer, every=4) as history:
        for views, labels in batches(known, 120):
            z = model.encode(views)
            losses = {m: F.cross_entropy(logits, labels) for m, logits in model.alone(z).items()}
            optimizer.zero_grad()
            balancer(F.cross_entropy(model.fuse(z), labels), losses).backward()
            optimizer.step()
    figure, axes = panels(3)
    for panel, kind in zip(axes, ("loss", "cosine", "conflict"), strict=True):
        for line in plot(history, kind, ax=panel).lines:
            line.set(**MODALITY.get(str(line.get_label()), {"color": BLACK}))
        panel.legend(fontsize=9, frameon=False)
    return figure
