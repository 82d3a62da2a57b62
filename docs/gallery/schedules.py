"""D&R between two epochs: how far each encoder is sent back, and what that costs at once."""

import copy

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from balancekit.schedules import purity, relearn_strength, soft_reset

from .style import BLACK, MODALITY, panels, plain, say
from .toy import CLASSES, Data, Late, batches, data

CAPTION = (
    "D&R after a joint training on 100 simulated samples: the purity of the picture's clusters falls further from "
    "training to new samples, so its encoder is sent back further (left), which costs next to nothing on new samples, "
    "while a full reset of the sound's would cost much (right; circles: the strengths that D&R asks for)."
)


def clusters(x: Tensor) -> Tensor:
    """K-means, the best of five starts: the cluster of each row."""

    def once() -> tuple[float, Tensor]:
        centres = x[torch.randperm(len(x))[:CLASSES]]
        for _ in range(15):
            nearest = torch.cdist(x, centres).argmin(1)
            members = torch.eye(CLASSES)[nearest]
            centres = (members.T @ x) / members.sum(0).clamp(min=1)[:, None]
        return torch.cdist(x, centres).amin(1).square().sum().item(), nearest

    return min((once() for _ in range(5)), key=lambda found: found[0])[1]


def accuracy(model: Late, data: Data) -> float:
    """Of both modalities together, in per cent."""
    return 100 * (model.fuse(model.encode(data.views)).argmax(1) == data.labels).float().mean().item()


def trained(known: Data) -> tuple[Late, dict[str, Tensor]]:
    """A model after joint training, and its state before."""
    model = Late()
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for views, labels in batches(known, 200):
        optimizer.zero_grad()
        F.cross_entropy(model.fuse(model.encode(views)), labels).backward()
        optimizer.step()
    return model, start


def after_reset(model: Late, start: dict[str, Tensor], m: str, strength: float | Tensor, new: Data) -> float:
    """Accuracy with one encoder moved back."""
    moved, prefix = copy.deepcopy(model), f"encoders.{m}."
    first = {name.removeprefix(prefix): value for name, value in start.items() if name.startswith(prefix)}
    soft_reset(moved.encoders[m], first, strength)
    return accuracy(moved, new)


def draw() -> Figure:
    """Strength at the left, what comes of it at the right."""
    torch.manual_seed(0)
    known, new = data(100, seed=0), data(400, seed=99)
    model, start = trained(known)
    model.requires_grad_(False)
    figure, (left, right) = panels(2)
    gap, strengths = torch.linspace(0, 0.5, 51), torch.linspace(0, 1, 21)
    left.plot(gap, relearn_strength(gap, torch.zeros_like(gap)), color=BLACK, lw=1.5)
    for m, look in MODALITY.items():
        pure = [purity(clusters(model.encode(each.views)[m]), each.labels) for each in (known, new)]
        alpha = relearn_strength(*pure)
        mark = {"marker": "o", "color": look["color"], "mec": BLACK, "ms": 9}
        left.plot((pure[0] - pure[1]).abs(), alpha, **mark)
        say(left, (pure[0] - pure[1]).abs().item() + 0.02, alpha.item(), m, va="top")
        right.plot(strengths, [after_reset(model, start, m, each, new) for each in strengths], lw=2, **look)
        right.plot(alpha, after_reset(model, start, m, alpha, new), **mark)
        say(right, 0.75, after_reset(model, start, m, 0.75, new) + 2, m, ha="left")
    plain(left, "purity of clusters, training less new samples", "strength of the reset")
    plain(right, "strength of the reset of one encoder", "accuracy on new samples, %")
    left.set_ylim(0, 1)
    return figure
