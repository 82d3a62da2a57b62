"""From uncertainty, which grows with doubt, to confidence in (0, 1]."""

import torch
from torch import Tensor

from balancekit._checks import expect_floating, expect_number
from balancekit._precision import widen
from balancekit._typing import Float


def exponential_confidence(uncertainty: Float[Tensor, "*b"], rate: float = 1.0) -> Float[Tensor, "*b"]:
    """Confidence exp(-rate · uncertainty): 1 without doubt, falling towards 0 (and rounding to it, where it is huge).

    Computed and returned in float32 or wider: near 1, neighbouring bfloat16 numbers are 0.004 apart. For a
    `dropout_std` this is the exponential *of* an estimate; :func:`dropout_confidence` gives the expectation of the
    exponential, which is larger.

    Args:
        uncertainty: non-negative, in any unit, for example nats from :func:`mutual_information`.
        rate: per unit of `uncertainty`; at ``1 / rate`` the confidence is 0.37.

    Example:
        >>> exponential_confidence(torch.tensor([0.0, 0.5, 2.0]), rate=2.0)
        tensor([1.0000, 0.3679, 0.0183])
    """
    expect_floating("uncertainty", uncertainty, '"b ..."')
    expect_number("rate", rate, low=0.0, high=float("inf"), low_open=True, high_open=True)
    return positive(torch.exp(-rate * widen(uncertainty)))


def positive(confidence: Tensor) -> Tensor:
    """A confidence is in (0, 1]: what underflowed becomes the smallest normal number."""
    return confidence.clamp(min=torch.finfo(confidence.dtype).tiny)
