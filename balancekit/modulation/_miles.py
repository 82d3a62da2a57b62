"""MILES: a smaller learning rate for a modality that is used much more than another.

Guerra-Manzanares and Shamout, IJCNN 2025, arXiv 2510.17394:

    u_m = (A − A_without m) / A                          how much of the accuracy goes with m
    k_m = μ   if u_m − (mean over j≠m of u_j) > τ,   else 1

once an epoch, as a factor of the branch's learning rate (:func:`scale_updates`), which Adam does not cancel.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from balancekit._checks import expect_floating, expect_number
from balancekit._typing import Float
from balancekit.modulation._arguments import expect_scalars, side_by_side


def utilisation(accuracy: Tensor | float, without: Mapping[str, Tensor | float]) -> dict[str, Float[Tensor, ""]]:
    """(A − A_without m) / A, the conditional utilisation rate of each modality.

    Args:
        accuracy: A, with all modalities; above 0.
        without: accuracy without the named modality. For two modalities this is the accuracy of the other one alone.

    Example:
        >>> utilisation(0.8, {"audio": 0.4, "video": 0.8})
        {'audio': tensor(0.5000), 'video': tensor(0.)}
    """
    if isinstance(accuracy, Tensor):
        expect_floating("accuracy", accuracy, "of shape ()", ndim=0)
    else:
        expect_number("accuracy", accuracy, low=0.0, low_open=True)
    expect_scalars("without", without)
    whole = torch.as_tensor(accuracy)
    return {m: (whole - torch.as_tensor(a)) / whole for m, a in without.items()}


def miles_coefficient(
    used: Mapping[str, Tensor | float], *, threshold: float = 0.2, factor: float = 0.5
) -> dict[str, Float[Tensor, ""]]:
    """`factor` for a modality whose utilisation is more than `threshold` above the others' mean, 1 for the rest.

    Args:
        used: :func:`utilisation`.
        threshold: τ.
        factor: μ.

    Example:
        >>> miles_coefficient({"audio": 0.5, "video": 0.0})
        {'audio': tensor(0.5000), 'video': tensor(1.)}

    Method:
        Name: MILES
        Paper: Guerra-Manzanares and Shamout, IJCNN 2025, arXiv 2510.17394
        Equation: utilisation and the switch
        Hook: updates, once an epoch
        Cost: M evaluations an epoch
        Modalities: any; others' mean
        Test: tests/oracles/test_modulation.py
    """
    expect_number("threshold", threshold, low=0.0)
    expect_number("factor", factor, low=0.0)
    u = side_by_side("used", used)
    others = (u.sum() - u) / max(len(u) - 1, 1)
    gap = u - others if len(u) > 1 else 0 * u
    k = torch.where(gap > threshold, factor, 1.0).masked_fill(gap.isnan(), torch.nan)
    return dict(zip(used, k.unbind(), strict=True))
