"""A rule that follows the scale of the losses beside one that does not, and what ``check_rule`` says."""

from textwrap import wrap

import torch
from matplotlib.figure import Figure
from torch import Tensor

from balancekit.surgery import Step
from balancekit.testing import check_rule

from .style import BLUE, VERMILION, panels, plain, say

CAPTION = (
    "Two rules that differ by one division, on the same gradients: the cosine's weight stays as the losses are scaled, "
    "the inner product's follows them, and check_rule reports it with the law that it breaks and the case."
)


class Product:
    """Each modality by its inner product with the total, where that is positive."""

    uses_total = True

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        """Return the weights."""
        weights = gram[:, 0, 1:].clamp(min=0) * step.present
        return torch.cat([torch.ones_like(weights[:, :1]), weights], dim=-1)

    def __repr__(self) -> str:
        return "Product()"


class Cosine(Product):
    """The same over both lengths."""

    def __call__(self, gram: Tensor, step: Step) -> Tensor:
        """Return the weights."""
        length = gram.diagonal(dim1=-2, dim2=-1).sqrt()
        scale = length[:, :, None] * length[:, None, :]
        return super().__call__(gram / torch.where(scale > 0, scale, 1), step)

    def __repr__(self) -> str:
        return "Cosine()"


RULES = {Cosine(): {"color": BLUE, "linestyle": "-"}, Product(): {"color": VERMILION, "linestyle": "--"}}


def weight(rule: Product, scale: float) -> float:
    """What one modality gets where both gradients, and its loss, are so many times as large."""
    rows = scale * torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    loss = torch.tensor([scale])
    step = Step(loss, torch.ones(1), -loss, torch.tensor([True]), torch.tensor([0]), torch.ones(1))
    return rule((rows @ rows.T)[None], step)[0, 1].item()


def report(rule: Product) -> list[str]:
    """What ``check_rule`` has to say, without how far the numbers are apart."""
    try:
        check_rule(rule)
    except AssertionError as error:
        return [line for line in str(error).splitlines() if line.startswith(("law", "rule", "gradients", " ", "step"))]
    return []


def draw() -> Figure:
    """The weights at the left, the reports at the right."""
    scales = torch.logspace(-1, 1, 41).tolist()
    figure, (left, right) = panels(2, width_ratios=(2, 3))
    for rule, look in RULES.items():
        left.plot(scales, [weight(rule, c) for c in scales], lw=2, **look)
    say(left, 0.1, 0.75, "Cosine")
    say(left, 1.6, 3.0, "Product", ha="right")
    plain(left, "scale of both losses", "weight of the modality")
    left.set(xscale="log", yscale="log")
    right.set_axis_off()
    lines = [line for rule in RULES for line in [f">>> check_rule({rule!r})", *report(rule)]]
    wrapped = [short for line in lines for short in wrap(line, 46, subsequent_indent="    ")]
    right.text(0, 1, "\n".join(wrapped), family="monospace", fontsize=9, va="top")
    return figure
