"""What an uncertainty is worth: the loss that remains when the most uncertain inputs are refused.

Geifman and El-Yaniv 2017 (arXiv 1705.08500), Sec. 2; 2019 (arXiv 1805.08206), Sec. 3. With the b inputs in order of
rising uncertainty,

    coverage_k = k / b,    risk_k = (losses_1 + … + losses_k) / k,    area = mean_k risk_k

Inputs of equal uncertainty have no order. Each gets the mean loss of its tie, which gives the expectation of risk_k
over all their orders.
"""

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_shape
from balancekit._precision import widen
from balancekit._typing import Float


def risk_coverage(
    uncertainty: Float[Tensor, "b"], losses: Float[Tensor, "b"]
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """Mean loss of the k inputs of least uncertainty, for k from 1 to b.

    The order inside a tie does not matter: a constant uncertainty has the mean loss at every coverage. A NaN
    uncertainty comes last and makes the risk NaN from there on; so does a NaN loss from its place on.

    Args:
        uncertainty: any number that grows with doubt; only its order counts.
        losses: of each input, for example ``(predicted != labels).float()`` for the error, or a :func:`brier_score`.

    Returns:
        coverage, the share of inputs that are answered, rising to 1, and risk. In float32 or wider, summed in float64.

    Example:
        >>> coverage, risk = risk_coverage(torch.tensor([0.1, 0.4, 0.2, 0.4]), torch.tensor([0.0, 1.0, 0.0, 0.0]))
        >>> coverage, risk
        (tensor([0.2500, 0.5000, 0.7500, 1.0000]), tensor([0.0000, 0.0000, 0.1667, 0.2500]))
    """
    expect_floating("uncertainty", uncertainty, '"b"', ndim=1)
    expect_floating("losses", losses, '"b"', ndim=1)
    expect(uncertainty.shape[0] > 0, "uncertainty", "at least one input", uncertainty)
    expect_shape("losses", losses, tuple(uncertainty.shape))
    expect_device("losses", losses, uncertainty)
    ranked, order = uncertainty.sort()
    ordered = losses[order].double().masked_fill(ranked.isnan(), float("nan"))
    tie = torch.cat([torch.zeros_like(order[:1]), (ranked[1:] != ranked[:-1]).cumsum(0)])
    sums = torch.zeros_like(ordered).index_add(0, tie, ordered)
    sizes = torch.zeros_like(ordered).index_add(0, tie, torch.ones_like(ordered))
    answered = torch.arange(1, len(losses) + 1, device=losses.device, dtype=ordered.dtype)
    risk = (sums / sizes)[tie].cumsum(0) / answered
    dtype = widen(losses[:0]).dtype
    return (answered / len(losses)).to(dtype), risk.to(dtype)


def area_under_risk_coverage(uncertainty: Float[Tensor, "b"], losses: Float[Tensor, "b"]) -> Float[Tensor, ""]:
    """Mean risk over all coverages (AURC): low is good; without any information it is the mean loss.

    It also grows with the losses themselves. To compare models, subtract the best that an order could do,
    ``area_under_risk_coverage(losses, losses)`` (excess AURC).

    Example:
        >>> losses = torch.tensor([0.0, 0.0, 1.0])
        >>> area_under_risk_coverage(torch.tensor([0.1, 0.2, 0.3]), losses), area_under_risk_coverage(-losses, losses)
        (tensor(0.1111), tensor(0.6111))
    """
    return risk_coverage(uncertainty, losses)[1].mean()
