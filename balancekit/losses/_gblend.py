"""G-Blending: weigh each loss by how much it generalises over how much it overfits.

Wang et al. 2020 (arXiv 1905.12681). Of two moments of a training, with L the losses at each:

    G_k = L_k^val(before) − L_k^val(after)                                    what validation gained
    O_k = gap_k(after) − gap_k(before),     gap = L^val − L^train             what overfitting grew by
    w_k = (|G_k| / O_k²) / Σ_j (|G_j| / O_j²)                                 O_k at least 1e-4
    w_k ∝  |G_k| / (O_k² + 1e-6)                                              on-line
"""

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_shape
from balancekit._typing import Float
from balancekit.losses._arguments import stacked

LEAST_OVERFITTING = 1e-4


def gblend_weights(
    train_before: Float[Tensor, "m"],
    train_after: Float[Tensor, "m"],
    val_before: Float[Tensor, "m"],
    val_after: Float[Tensor, "m"],
    *,
    online: bool = False,
) -> Float[Tensor, "m"]:
    """Weights of M losses, or of M unimodal losses and the fused one, that sum to 1.

    In the paper, *before* and *after* are the ends of a short training of each modality alone from the present state,
    once in some epochs. The on-line form takes two moments of the training itself, whose losses are logged anyway, and
    trains nothing again; as such a gap may be tiny by chance, it has the larger floor.

    A loss that overfits less than before counts as one that hardly overfits. Where no validation loss has moved the
    weights are equal. |G| is printed so: a validation loss that **rose** weighs as much as one that fell.

    Args:
        train_before: training losses at the first moment.
        train_after: training losses at the second.
        val_before: validation losses at the first moment.
        val_after: validation losses at the second.
        online: add 1e-6 to O².

    Returns:
        Detached weights, in float32 or wider; a NaN among the losses makes NaN of every weight.

    Example:
        >>> before = torch.tensor([1.0, 1.0])
        >>> train, val = torch.tensor([0.4, 0.8]), torch.tensor([0.8, 0.9])
        >>> w = gblend_weights(before, train, before, val)  # 0.2 / 0.4² against 0.1 / 0.1²
        >>> w.round(decimals=4)
        tensor([0.1111, 0.8889])

    Method:
        Name: G-Blending, on-line too
        Paper: Wang et al., CVPR 2020, arXiv 1905.12681
        Equation: overfitting-to-generalisation ratio
        Hook: loss weights
        Cost: validation losses
        Modalities: any
        Test: tests/oracles/test_losses.py
    """
    expect_floating("train_before", train_before, "of shape (m,)", ndim=1)
    expect(train_before.numel() > 0, "train_before", "at least one loss", train_before)
    for argument, value in (("train_after", train_after), ("val_before", val_before), ("val_after", val_after)):
        expect_floating(argument, value, "of shape (m,)", ndim=1)
        expect_shape(argument, value, tuple(train_before.shape))
        expect_device(argument, value, train_before)
    losses = stacked((train_before, train_after, val_before, val_after)).detach()
    train_0, train_1, val_0, val_1 = losses.double()  # in float32 the square of a large loss overflows
    gain = (val_0 - val_1).abs()
    overfitting = ((val_1 - train_1) - (val_0 - train_0)).clamp(min=LEAST_OVERFITTING)
    worth = gain / (overfitting.square() + (1e-6 if online else 0.0))
    total = worth.sum()
    weights = torch.where(total == 0, 1 / len(worth), worth / total)
    return weights.to(losses.dtype) + (0 * losses).sum()  # NaN where a loss is not finite: of inf a weight may be 0
