"""SMP: for a while, the most confident modality does not learn (G²D, ICCV 2025).

    k_m = 0   if its teacher scores higher than every other's,   else 1

in the first epochs (150 or 300 in the released code, where it zeroes convolution weights only).
"""

import torch
from torch import Tensor

from balancekit._typing import Float
from balancekit.modulation._arguments import expect_table
from balancekit.modulation._modulation import Modulation
from balancekit.modulation._ratios import discrepancy_ratio
from balancekit.modulation._scores import Score, true_class_score


def suppress_best_coefficient(ratio: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """0 where a modality is ahead of every other, 1 elsewhere; a tie at the top suppresses nobody."""
    expect_table("ratio", ratio)
    best = ratio.amax(-1, keepdim=True)
    alone = (ratio == best).sum(-1, keepdim=True) == 1
    return torch.where((ratio == best) & alone & (ratio > 1), 0.0, 1.0).masked_fill(best.isnan(), torch.nan)


class SMP(Modulation):
    """Sequential modality prioritisation: (teachers' logits, labels) → 0 for the most confident one, 1 for the rest.

    Stop calling it when its epochs are over. With :func:`freeze` a modality stays exactly as it is; a gradient scaled
    to 0 still lets momentum and weight decay move it.

    Args:
        score: of the teachers' logits.

    Example:
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> SMP()(logits, torch.tensor([1]))
        {'audio': tensor(0.), 'video': tensor(1.)}

    Method:
        Name: SMP of G²D
        Paper: Rakib and Bagavathi, ICCV 2025, arXiv 2506.21514
        Equation: modality prioritisation
        Hook: gradients or freeze
        Cost: M teachers, forward
        Modalities: any
        Test: tests/oracles/test_modulation.py
    """

    def __init__(self, score: Score = true_class_score) -> None:
        super().__init__(score, discrepancy_ratio, suppress_best_coefficient)
