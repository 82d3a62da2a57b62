"""OGM: slow the modality that is ahead (Peng et al., CVPR 2022, arXiv 2203.15332).

    s_m = Σ_i softmax(o_m)_i[y_i]                       Eq. 8
    ρ_m = s_m / s_other                                 Eq. 9
    k_m = 1 − tanh(α ρ_m)   if ρ_m > 1,    else 1       Eq. 10

k jumps at ρ = 1, from 1 to 1 − tanh α (0.34 at α = 0.8): two modalities that are equal but for noise are treated as
unequal. ``continuous`` starts at 1 instead: 1 − tanh(α (ρ − 1)).
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import expect_choice, expect_number
from balancekit._typing import Float
from balancekit.modulation._arguments import expect_table
from balancekit.modulation._modulation import Modulation
from balancekit.modulation._ratios import discrepancy_ratio
from balancekit.modulation._scores import true_class_score


def ogm_coefficient(ratio: Float[Tensor, "*b m"], alpha: float, *, continuous: bool = False) -> Float[Tensor, "*b m"]:
    """1 − tanh(α ρ) for the modalities that are ahead, 1 for the others."""
    expect_table("ratio", ratio)
    expect_number("alpha", alpha, low=0.0)
    start = 1.0 if continuous else 0.0
    ahead = (ratio - start).relu().clamp(max=torch.finfo(ratio.dtype).max)  # 0 · inf is no number
    return torch.where(ratio <= 1, 1, 1 - torch.tanh(alpha * ahead))


class OGM(Modulation):
    """On-the-fly gradient modulation: (logits, labels) → a coefficient in [0, 1] for each modality.

    With ``scale_gradients(…, noise=True)`` it is OGM-GE, with :func:`modulate` OGM at the features, and with
    :func:`scale_updates` it works under Adam.

    Args:
        alpha: the authors use 0.8 on CREMA-D and 0.1 on VGGSound, with SGD; there is no default.
        reference: what a score is compared with where there are more than two modalities. "pairwise", the mean of the
            ratios, is the authors' advice.
        continuous: without the jump at ρ = 1.

    Example:
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> OGM(alpha=0.8)(logits, torch.tensor([1]))
        {'audio': tensor(0.0906), 'video': tensor(1.)}

    Method:
        Name: OGM, OGM-GE
        Paper: Peng et al., CVPR 2022, arXiv 2203.15332
        Equation: 8 to 10
        Hook: features, gradients or updates
        Cost: none
        Modalities: any; pairs averaged
        Test: tests/oracles/test_modulation.py
    """

    def __init__(
        self, alpha: float, *, reference: Literal["others", "pairwise", "min"] = "pairwise", continuous: bool = False
    ) -> None:
        expect_number("alpha", alpha, low=0.0)
        expect_choice("reference", reference, ("others", "pairwise", "min"))
        super().__init__(
            true_class_score,
            partial(discrepancy_ratio, reference=reference),
            partial(ogm_coefficient, alpha=alpha, continuous=continuous),
        )
