"""PDMP: let the modality that is best alone lead (Wei et al. 2026, arXiv 2604.05773).

    k_m = γ_p   for the modality whose model, trained alone, does best
    k_m = γ_r   for the rest,                                            γ_p > γ_r

The direction is the opposite of OGM's: on some data holding the strong modality back hurts. The ranking is known before
the training, so the coefficients do not change in it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from balancekit._checks import expect, expect_number
from balancekit._typing import Float


def pdmp_coefficient(
    performance: Mapping[str, Tensor | float], *, dominant: float, rest: float
) -> dict[str, Float[Tensor, ""]]:
    """`dominant` for the modality of the best performance, `rest` for the others; several that tie all lead.

    Args:
        performance: of a model of each modality alone, higher is better.
        dominant: γ_p. The paper tunes both for each data set, and there is no default.
        rest: γ_r.

    Example:
        >>> pdmp_coefficient({"audio": 0.61, "video": 0.48}, dominant=1.5, rest=0.5)
        {'audio': tensor(1.5000), 'video': tensor(0.5000)}

    Method:
        Name: PDMP
        Paper: Wei et al., arXiv 2604.05773
        Equation: the two coefficients
        Hook: features, gradients or updates
        Cost: M models trained alone, once
        Modalities: any
        Test: tests/oracles/test_modulation.py
    """
    expect(len(performance) > 0, "performance", "at least one modality", {})
    expect_number("dominant", dominant, low=0.0)
    expect_number("rest", rest, low=0.0)
    table = torch.stack([torch.as_tensor(each, dtype=torch.float32) for each in performance.values()])
    return dict(zip(performance, torch.where(table == table.max(), dominant, rest).unbind(), strict=True))
