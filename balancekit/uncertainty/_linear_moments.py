"""Mean and covariance of a linear layer behind dropout: exact, with no sampling.

For y = W · dropout(x) + bias, where each x_d is kept with probability 1 - p and then divided by it, and outputs o, q,

    mean     = W x + bias
    variance = Σ_d W_od² x_d² · p/(1-p)
    cov_oq   = Σ_d W_od W_qd x_d² · p/(1-p)
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from balancekit._checks import expect, expect_choice, expect_device, expect_floating, expect_number, expect_shape
from balancekit._precision import widen
from balancekit._typing import Float


def linear_dropout_moments(
    x: Float[Tensor, "*b d"],
    weight: Float[Tensor, "o d"],
    bias: Float[Tensor, " o"] | None = None,
    p: float = 0.3,
    *,
    covariance: Literal["diag", "full"] = "diag",
) -> tuple[Float[Tensor, "*b o"], Float[Tensor, "*b o"] | Float[Tensor, "*b o o"]]:
    """Exact moments of the outputs of a linear layer whose input went through dropout.

    This is Monte-Carlo dropout of a last layer without the Monte Carlo, and a true predictive variance: the weights
    enter it. The layer may be followed by anything that wants a Gaussian, ``sigmoid(mean / sqrt(1 + pi/8 · variance))``
    for one. Add a small multiple of the identity before a Cholesky factorisation: the covariance may have less than
    full rank.

    Args:
        x: features before the dropout.
        weight: of the layer, as in ``nn.Linear``.
        bias: of the layer.
        p: probability to drop, in [0, 1).
        covariance: "diag" for the variance of each output, "full" for the matrix between outputs.

    Returns:
        mean "... o" and variance "... o" (or covariance "... o o"), in float32 or wider.

    Example:
        >>> mean, variance = linear_dropout_moments(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 1.0]]), p=0.5)
        >>> mean, variance
        (tensor([5.]), tensor([13.]))
    """
    expect_floating("x", x, '"... d"')
    expect(x.ndim >= 1, "x", 'a tensor "... d"', x)
    expect_floating("weight", weight, '"o d"', ndim=2)
    expect_shape("weight", weight, (weight.shape[0], x.shape[-1]))
    expect_device("weight", weight, x)
    if bias is not None:
        expect_floating("bias", bias, '"o"')
        expect_shape("bias", bias, (weight.shape[0],))
        expect_device("bias", bias, x)
    expect_number("p", p, low=0.0, high=1.0, high_open=True)
    expect_choice("covariance", covariance, ("diag", "full"))
    with torch.autocast(device_type=x.device.type, enabled=False):
        dtype = torch.promote_types(widen(x).dtype, weight.dtype)
        dtype = dtype if bias is None else torch.promote_types(dtype, bias.dtype)
        x, weight = x.to(dtype), weight.to(dtype)
        mean = F.linear(x, weight, None if bias is None else bias.to(dtype))
        noise = x * math.sqrt(p / (1 - p))
        if covariance == "diag":
            return mean, F.linear(noise.square(), weight.square())
        root = weight * noise[..., None, :]
        return mean, root @ root.mT
