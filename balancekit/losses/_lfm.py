"""LFM: fit the labels, and let the modalities agree.

Yang et al. 2024 (NeurIPS). With p_m = softmax(o_m) and α_0 + α_1 = 1, of two modalities:

    L = 2 (α_0 CE(½ o_a + ½ o_v) + α_1 JS(p_a, p_v))

For any number M the logits are averaged over all, and JS is the generalised Jensen-Shannon divergence with equal
weights, with H the entropy:

    L = 2 (α_0 CE((1/M) Σ_m o_m) + α_1 JS),     JS = H((1/M) Σ_m p_m) − (1/M) Σ_m H(p_m),   from 0 to log M

The method promises a learned α. In the released code what should be its gradient is the mean of one tensor, and another
preset is a fitted polynomial. Neither is built here: α is a number that the caller chooses, and
:func:`lfm_schedule` is the plainest choice.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect_number
from balancekit._typing import Float, Int
from balancekit.losses._arguments import expect_logits, stacked


def lfm_loss(logits: Mapping[str, Float[Tensor, "b c"]], labels: Int[Tensor, "b"], alpha: float) -> Float[Tensor, ""]:
    """2 (α CE(mean of the logits) + (1 − α) JS(softmax of each)), averaged over the samples.

    One modality alone has JS = 0. Labels are not needed for JS, so with α = 0 they change nothing.

    Args:
        logits: o_m of each modality.
        labels: class of each sample.
        alpha: α_0, the weight of the labels, from 0 to 1.

    Returns:
        A scalar in float32, or wider where an input is.

    Example:
        >>> logits = {"audio": torch.tensor([[50.0, 0.0]]), "video": torch.tensor([[0.0, 50.0]])}
        >>> loss = lfm_loss(logits, torch.tensor([0]), alpha=0.5)
        >>> round(loss.item(), 6)  # the mean is undecided, and they disagree entirely: log 2 each
        1.386294

    Method:
        Name: LFM, fixed schedule
        Paper: Yang et al., NeurIPS 2024
        Equation: label fitting and matching
        Hook: loss
        Cost: none
        Modalities: any; generalised Jensen-Shannon
        Test: tests/oracles/test_losses.py
    """
    expect_logits(logits, labels)
    expect_number("alpha", alpha, low=0.0, high=1.0)
    joint = stacked(logits.values())
    cross_entropy = F.cross_entropy(joint.mean(0), labels.long())
    return 2 * (alpha * cross_entropy + (1 - alpha) * _disagreement(joint))


def lfm_schedule(step: int | float, total: int | float, *, start: float = 0.95, end: float = 0.05) -> float:
    """α_0 on a straight line from `start` to `end`: first the labels, then agreement.

    The bounds are those between which the released code keeps α. The line and its direction are choices made here:
    the released polynomial is of degree 5, and its coefficients are not reproduced.

    Args:
        step: steps or epochs done so far.
        total: steps after which α_0 stays at `end`.
        start: α_0 at the beginning; swap it with `end` for the other direction.
        end: α_0 from `total` on.

    Example:
        >>> [round(lfm_schedule(step, 100), 4) for step in (0, 50, 100, 200)]
        [0.95, 0.5, 0.05, 0.05]
    """
    expect_number("step", step, low=0.0)
    expect_number("total", total, low=0.0, low_open=True)
    expect_number("start", start, low=0.05, high=0.95)
    expect_number("end", end, low=0.05, high=0.95)
    done = min(step / total, 1.0)
    return (1 - done) * start + done * end


def _disagreement(joint: Float[Tensor, "m b c"]) -> Tensor:
    """Generalised Jensen-Shannon divergence, as the mean of KL(p_m ‖ mean of p): no difference of large entropies."""
    log_p = joint.log_softmax(-1)
    log_mean = torch.logsumexp(log_p, 0) - math.log(joint.shape[0])
    return (log_p.exp() * (log_p - log_mean)).sum(-1).mean()
