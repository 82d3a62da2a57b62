"""PDMP: let the modality that is best alone lead (Wei et al. 2026, arXiv 2604.05773).

    k_m = γ_p   for the modality whose model, trained alone, does best
    k_m = γ_r   for the rest,                                            γ_p > γ_r

The direction is the opposite of OGM's: on some data holding the strong modality back hurts. The ranking is known before
the training, so the coefficients do not change in it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from balancekit._checks import expect_number
from balancekit._typing import Float
from balancekit.modulation._arguments import side_by_side


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
    expect_number("dominant", dominant, low=0.0)
    expect_number("rest", rest, low=0.0)
    table = side_by_side("performance", performance)
    best = table.max()
    k = torch.where(table == best, dominant, rest).masked_fill(best.isnan(), torch.nan)
    return dict(zip(performance, k.unbind(), strict=True))
