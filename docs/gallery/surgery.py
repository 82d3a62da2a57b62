"""ReGrad in the plane: whose tensor it is, and whether the two gradients agree."""

from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from balancekit.surgery import ReGrad, Step

from .style import BLACK, BLUE, VERMILION, panels, say

CAPTION = (
    "ReGrad on one tensor, two modalities: the slow one's gradient is kept whole, and of the fast one's only that "
    "part is added which lies along it where the two agree, and across it where they conflict (confidence 1; the "
    "gradient of the total loss passes untouched and is not drawn)."
)
LENGTHS, ANGLES = {"slow": 1.0, "fast": 1.3}, {"agree": 50.0, "conflict": 125.0}
KEPT = {"agree": "along", "conflict": "across"}
RESULT = {"color": "0.78", "width": 0.13, "head_width": 0.3, "head_length": 0.24, "length_includes_head": True}


class Case(NamedTuple):
    """The gradients of the slow and of the fast modality on one tensor, and what ReGrad makes of them."""

    branch: str  # whose tensor it is
    relation: str
    slow: Tensor
    fast: Tensor
    result: Tensor


def cases() -> list[Case]:
    """The four of MMDG's Eq. 5; the tensor's own gradient points right, and the confidence is 1."""
    return [case(branch, relation) for branch in ("slow", "fast") for relation in ("agree", "conflict")]


def case(branch: str, relation: str) -> Case:
    """One of them. Row 0 of the Gram matrix is the total's, which ReGrad leaves alone."""
    angles = {m: torch.tensor(0.0 if m == branch else ANGLES[relation]).deg2rad() for m in LENGTHS}
    slow, fast = (LENGTHS[m] * torch.stack([angles[m].cos(), angles[m].sin()]) for m in LENGTHS)
    rows = torch.stack([torch.zeros(2), slow, fast])
    losses, there = torch.tensor([0.9, 0.2]), torch.tensor([True, True])
    owner = torch.tensor([["slow", "fast"].index(branch)])
    step = Step(losses, torch.ones(2), -losses, there, owner, units=torch.ones(1))
    return Case(branch, relation, slow, fast, ReGrad()((rows @ rows.T)[None], step)[0] @ rows)


def draw() -> Figure:
    """A row for each branch, a column for agreement and one for conflict."""
    figure, axes = panels(2, 2, height=3.7, sharex=True, sharey=True)
    for panel, each in zip(axes, cases(), strict=True):
        show(panel, each)
    for panel in axes[::2]:
        panel.set_ylabel("across own gradient")
    for panel in axes[2:]:
        panel.set_xlabel("along own gradient")
    return figure


def show(panel: Axes, case: Case) -> None:
    """The result as a broad arrow, and on it the slow gradient with the part of the fast one that is kept."""
    own, other = ("slow", "fast") if case.branch == "slow" else ("fast", "slow")
    panel.arrow(0, 0, *case.result.tolist(), **RESULT)
    arrow(panel, torch.zeros(2), case.fast, VERMILION, "--")
    arrow(panel, torch.zeros(2), case.slow, BLUE, "-")
    arrow(panel, case.slow, case.result, VERMILION, "-")
    panel.plot(0, 0, "o", color=BLACK, ms=4)
    x, y = getattr(case, other).tolist()
    say(panel, 0.6 * x - 0.15, 0.6 * y, other, ha="right")
    say(panel, getattr(case, own)[0].item() / 2, -0.12, own, ha="center", va="top")
    say(panel, 2.1, 0.65, f"grey: the result =\nall of slow\n+ fast {KEPT[case.relation]} slow", va="center")
    panel.set_title(f"in the {own} branch, gradients {case.relation}", fontsize=10)
    panel.set(xlim=(-1.2, 4.4), ylim=(-0.5, 1.75), aspect="equal", xticks=[], yticks=[])


def arrow(panel: Axes, start: Tensor, end: Tensor, colour: str, dash: str) -> None:
    """From one point to another."""
    look = {"arrowstyle": "-|>", "color": colour, "linestyle": dash, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", end.tolist(), start.tolist(), arrowprops=look)
