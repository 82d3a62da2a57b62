"""MLB: slow the modality that is ahead and speed the other up (Kontras et al., BMVC 2024).

    s_m  = mean true-class probability of auxiliary logits
    ρ'_m = (mean over j≠m of s_j) / s_m                       above 1: behind
    k_m  = 1 + tanh(α (ρ'_m − 1))
    mode 2: k_m = 1 + (β − 1) tanh(α (ρ'_m − 1)) where ρ'_m > 1

For regression s is the mean squared error, and ρ' its own over the others'.
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
from balancekit.modulation._scores import squared_error_score, true_class_score


def two_sided_coefficient(
    ratio: Float[Tensor, "*b m"], alpha: float, *, ceiling: float = 2.0, inverse: bool = True
) -> Float[Tensor, "*b m"]:
    """1 + tanh(α (1/ρ − 1)), below 1 for a modality that is ahead, up to `ceiling` for one that is behind.

    Args:
        ratio: ρ.
        alpha: how steeply.
        ceiling: β of mode 2; with 2 there is one formula on both sides.
        inverse: take 1/ρ, as the ratio of scores asks for. False for a ratio of errors.
    """
    expect_table("ratio", ratio)
    expect_number("alpha", alpha, low=0.0)
    expect_number("ceiling", ceiling, low=1.0)
    behind = 1 / ratio if inverse else ratio
    change = torch.tanh(alpha * (behind - 1).clamp(max=torch.finfo(ratio.dtype).max))
    return 1 + torch.where(behind > 1, (ceiling - 1) * change, change)


class MLB(Modulation):
    """Multi-loss balanced learning: (auxiliary logits, labels) → a coefficient in (0, 2) for each modality.

    Its loss is that of the whole plus one a modality, whose heads make the logits.

    Args:
        alpha: 0.8 on CREMA-D.
        ceiling: the largest coefficient (β of mode 2).
        task: "classification", or "regression" with predictions and targets "b d".

    Example:
        >>> logits = {"audio": torch.tensor([[0.0, 3.0]]), "video": torch.zeros(1, 2)}
        >>> MLB()(logits, torch.tensor([1]))
        {'audio': tensor(0.6372), 'video': tensor(1.6195)}

    Method:
        Name: MLB
        Paper: Kontras et al., BMVC 2024
        Equation: coefficient, modes 1 and 2
        Hook: features, gradients or updates
        Cost: a head a modality
        Modalities: any; others' mean
        Test: tests/oracles/test_modulation.py
    """

    def __init__(
        self,
        alpha: float = 0.8,
        *,
        ceiling: float = 2.0,
        task: Literal["classification", "regression"] = "classification",
    ) -> None:
        expect_number("alpha", alpha, low=0.0)
        expect_number("ceiling", ceiling, low=1.0)
        expect_choice("task", task, ("classification", "regression"))
        classes = task == "classification"
        super().__init__(
            true_class_score if classes else squared_error_score,
            discrepancy_ratio,
            partial(two_sided_coefficient, alpha=alpha, ceiling=ceiling, inverse=classes),
        )
