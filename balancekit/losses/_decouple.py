"""Unimodal losses beside the fused one, and DGL, which lets them alone train the encoders.

A fused loss divides its gradient between the modalities, and the fast one takes it. The first remedy is a head of each
modality's own, and the strongest simple baseline:

    joint + unimodal   CE(f(z_1 … z_M)) + α Σ_m CE(h_m(z_m))

DGL (Wei et al. 2025, arXiv 2507.10213) goes further. Fusion weakens the gradient that reaches an encoder, the
fast one's too, so it is cut off there, and each encoder learns as if it were alone:

    DGL                CE(f(sg z_1 … sg z_M)) + α Σ_m CE(h_m(z_m)),     α = 4 to 5

with sg the stop-gradient. The fused head learns from the first term only, and every encoder from its own second term,
so the modalities cannot compete. The price is that none learns what only shows in combination. The heads h_m must
share no parameter with f.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect_number
from balancekit._typing import Float, Int
from balancekit.losses._arguments import expect_logits, expect_modalities, widest


def decouple(features: Mapping[str, Float[Tensor, "..."]]) -> dict[str, Float[Tensor, "..."]]:
    """The same features, detached: what a fused head reads so that its loss trains the head alone.

    Args:
        features: z_m of any shape.

    Example:
        >>> import torch
        >>> features = {"audio": torch.ones(2, 3, requires_grad=True), "video": torch.ones(2, 1, requires_grad=True)}
        >>> fused = torch.cat([*decouple(features).values()], dim=-1)
        >>> fused.shape, fused.requires_grad
        (torch.Size([2, 4]), False)

    Method:
        Name: DGL
        Paper: Wei et al., ICCV 2025, arXiv 2507.10213
        Equation: decoupled losses
        Hook: features and loss
        Cost: a head a modality
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    expect_modalities("features", features, "of any shape")
    return {name: feature.detach() for name, feature in features.items()}


def unimodal_loss(
    logits: Mapping[str, Float[Tensor, "b c"]], labels: Int[Tensor, "b"], *, weight: float = 1.0
) -> Float[Tensor, ""]:
    """α Σ_m CE(o_m): the cross-entropy of every modality alone, summed.

    Args:
        logits: o_m, of a head of each modality's own.
        labels: class of each sample.
        weight: α. DGL's scripts use 4 and 5.

    Returns:
        A scalar in float32, or wider where an input is.

    Example:
        >>> import torch
        >>> logits = {"audio": torch.zeros(1, 2), "video": torch.zeros(1, 2)}
        >>> round(unimodal_loss(logits, torch.tensor([1])).item(), 6)  # log 2, twice
        1.386294

    Method:
        Name: joint + unimodal losses
        Paper: a baseline
        Equation: in its docstring
        Hook: loss
        Cost: a head a modality
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    expect_logits(logits, labels)
    expect_number("weight", weight, low=0.0)
    wide = widest(logits.values())
    terms = [F.cross_entropy(o.to(wide), labels.long()) for o in logits.values()]
    return weight * sum(terms[1:], terms[0])
